"""The work of a plan stage by stage in one thread, each with its clock; the pipeline itself overlaps them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.timing import Stages
from napari_nucseg.core.decode import Fields, compress, decode, unpack
from napari_nucseg.core.measure import measure
from napari_nucseg.core.tiling import STRIDE, Box
from napari_nucseg.models.runtime import FieldRuntime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_nucseg.core.tiling import Index, Sweep
    from napari_nucseg.inference import Plan, Tile

COMPUTING = ("read", "network", "unpack", "decode", "measure")
WRITING = ("labels", "tables", "geojson")


@dataclass
class Work:
    """How much was done.

    Attributes
    ----------
    seen : int
        Pixels that the network saw, halos included.
    answered : int
        Pixels of its answers that were unpacked.
    decoded : int
        Pixels that the decoder saw.
    owned : int
        Pixels of the tiles.
    written : dict
        Bytes of the outputs by stage.
    """

    seen: int = 0
    answered: int = 0
    decoded: int = 0
    owned: int = 0
    written: dict[str, int] = field(default_factory=dict)


def run_stages(plan: Plan, stages: Stages, work: Work | None = None) -> Fields:
    """Do the work of a plan stage by stage, without writing; return the fields of the whole image.

    Parameters
    ----------
    plan : Plan
        Of an image small enough to be held whole.
    stages : Stages
        Gets the seconds of `COMPUTING`.
    work : Work, optional
        Gets the pixels.
    """
    work = work or Work()
    whole = Fields.empty(plan.grid.shape, len(plan.card.classes))
    for block in plan.blocks:
        sweep = plan.sweep(block)
        if isinstance(plan.runtime, FieldRuntime):
            plan.runtime.expect(plan.grid.window_shape)
        for window in sweep.windows:
            answer = sweep.answer(window)
            whole.paste(_predict(plan, sweep.seen(window), answer, stages, work), *answer.slices)
        for tile in block:
            _decode(plan, sweep, tile, whole, stages, work)
    return whole


def _predict(plan: Plan, seen: Box, answer: Box, stages: Stages, work: Work) -> Fields:
    with stages.clock("read"):
        rgb = plan.image.read(seen)
        rgb = np.pad(rgb, ((0, -rgb.shape[0] % STRIDE), (0, -rgb.shape[1] % STRIDE), (0, 0)), mode="reflect")
    work.seen += rgb.shape[0] * rgb.shape[1]
    work.answered += answer.shape[0] * answer.shape[1]
    part = answer.relative(seen)
    if not hasattr(plan.runtime, "_answer"):  # one that gives maps
        with stages.clock("network"):
            maps = plan.runtime(rgb)
        with stages.clock("unpack"):
            return compress(maps, plan.card.layout).crop(*part.slices)
    with answer_of(plan.runtime, rgb, stages) as raw, stages.clock("unpack"):
        return unpack(raw, plan.card.layout, part)


@contextmanager
def answer_of(runtime: Any, rgb: NDArray[np.uint8], stages: Stages) -> Iterator[NDArray[Any]]:
    """Lend the network's raw answer, its time taken."""
    with stages.clock("network"):
        answer = runtime._answer(rgb)
        if not hasattr(answer, "__enter__"):
            answer = answer[0].contiguous().cpu().numpy()
            lent = None
        else:
            lent, answer = answer, answer.__enter__()
    try:
        yield answer
    finally:
        if lent is not None:
            lent.__exit__(None, None, None)


def _decode(plan: Plan, sweep: Sweep, tile: Index, whole: Fields, stages: Stages, work: Work) -> None:
    box, owned = sweep.read(tile), plan.part(tile)
    part = Fields.empty(box.shape, len(plan.card.classes))
    part.paste(whole.crop(*box.slices), *(slice(0, n) for n in box.shape))
    work.decoded += box.shape[0] * box.shape[1]
    work.owned += owned.shape[0] * owned.shape[1]
    with stages.clock("decode"):
        found = decode(part, plan.decode, owned.relative(box))
    own = owned.relative(box)
    labels = np.ascontiguousarray(found.owner[own.slices]).astype(np.uint32)
    rgb = plan.image.read(owned)
    with stages.clock("measure"):
        measure(labels, rgb, plan.image.mpp)


def write_stages(plan: Plan, tiles: list[Tile], stages: Stages, work: Work) -> None:
    """Write the outputs of some tiles one format after the other, into a folder that goes again.

    Parameters
    ----------
    plan, tiles
        In the order of the schedule.
    stages : Stages
        Gets the seconds of `WRITING`.
    work : Work
        Gets the bytes on disk.
    """
    from napari_nucseg.io.geojson import GeoJsonWriter
    from napari_nucseg.io.omezarr import LabelPyramid
    from napari_nucseg.io.tables import TableWriter

    first, numbered = 1, []
    for tile in tiles:
        numbered.append(tile.numbered(first))
        first += len(tile.nuclei)
    with tempfile.TemporaryDirectory(prefix="nucseg-stages-") as scratch:
        folder = Path(scratch)
        with (
            stages.clock("labels"),
            LabelPyramid(folder / "labels.zarr", plan.image.source.shape, plan.image.mpp) as pyramid,
        ):
            pyramid.expect({k: tile.box for k, tile in enumerate(tiles)})
            for k, (tile, (labels, _)) in enumerate(zip(tiles, numbered, strict=True)):
                pyramid.paint(k, tile.box, labels)
        with stages.clock("tables"), TableWriter(folder, "nuclei", ("parquet", "csv")) as tables:
            for _, nuclei in numbered:
                tables.add(nuclei)
        with (
            stages.clock("geojson"),
            GeoJsonWriter(folder / "nuclei.geojson", dict(plan.card.colours), "benchmark") as geojson,
        ):
            for tile, (labels, nuclei) in zip(tiles, numbered, strict=True):
                geojson.add(labels, (tile.box.y0, tile.box.x0), nuclei)
        for stage, pattern in (
            ("labels", "labels.zarr/**/*"),
            ("tables", "nuclei*.[cp]*"),
            ("geojson", "*.geojson"),
        ):
            work.written[stage] = sum(p.stat().st_size for p in folder.glob(pattern) if p.is_file())
