"""Segment an image: a generator of tile results, and the whole result stitched from them.

Data flows one way: read and resample -> network -> fields -> decode -> table. Windows are read and predicted in as
many threads as the runtime has lanes, so that it never waits for pixels, and decoded in another (nothing of it
holds the GIL). Nothing here knows of a GUI.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.decode import DecodeConfig, Fields, compress, decode, warm_up
from napari_nucseg.core.field_cache import FieldCache
from napari_nucseg.core.measure import measure
from napari_nucseg.core.tiling import BLOCK, CELL, STRIDE, Box, Grid, Index, Sweep, up, window_around
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.resample import Resampled
from napari_nucseg.io.slide import Mpp, SlideImage, as_source
from napari_nucseg.models.card import Card
from napari_nucseg.models.registry import Model, find_model
from napari_nucseg.models.runtime import FieldRuntime, Runtime

if TYPE_CHECKING:
    import pandas as pd

    from napari_nucseg.core.tissue import TissueMask

log = logging.getLogger(__name__)

SMALLEST_TILE = 64
FEW = 3
"""For more windows of one shape than this it pays to lay the network out for it."""

NEAR = 1024
"""Side of the windows, without halo, in which maps around an edit are computed."""


def check_tile(tile: int | None) -> None:
    """Raise `NucSegError` if the side of the tiles is too small to be worth the halo."""
    if tile is not None and tile < SMALLEST_TILE:
        raise NucSegError(f"A tile of {tile} pixels is too small; give {SMALLEST_TILE} or more.")


@dataclass(frozen=True)
class Region:
    """Part of an image to segment, in level-0 pixels.

    Parameters
    ----------
    box : Box
        Nuclei whose centre lies in it are kept.
    polygons : tuple of (n, 2) float64 arrays
        Rows and columns of the corners; where given, the centre must also lie in one of them.
    """

    box: Box
    polygons: tuple[NDArray[np.float64], ...] = ()

    @classmethod
    def from_polygons(cls, polygons: list[NDArray[np.float64]], shape: tuple[int, int]) -> Region:
        """Return the region covered by polygons, cut to an image of `shape`.

        Raises
        ------
        NucSegError
            None of them touches the image.
        """
        points = np.concatenate(polygons)
        low, high = np.floor(points.min(0)).astype(int), np.ceil(points.max(0)).astype(int) + 1
        box = Box(int(low[0]), int(high[0]), int(low[1]), int(high[1]))
        return cls(box, tuple(polygons)).cut(shape)

    def cut(self, shape: tuple[int, int]) -> Region:
        """Return the region cut to an image of `shape`; `NucSegError` if nothing is left."""
        box = self.box.cut(Box(0, shape[0], 0, shape[1]))
        if box is None:
            raise NucSegError(
                f"The region {self.box} lies outside the image of {shape[0]} x {shape[1]} pixels; "
                "move it onto the image."
            )
        return replace(self, box=box)

    def holds(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which of the (n, 2) points lie in the region."""
        b = self.box
        inside = (points >= (b.y0 - 0.5, b.x0 - 0.5)).all(1) & (points < (b.y1 - 0.5, b.x1 - 0.5)).all(1)
        if self.polygons and inside.any():
            from skimage.measure import points_in_poly

            inside &= np.any([points_in_poly(points, p) for p in self.polygons], axis=0)
        return np.asarray(inside)


@dataclass(frozen=True)
class TileResult:
    """What one tile adds to the result.

    Attributes
    ----------
    box : Box
        Where `labels` lies in the image, level-0 pixels.
    labels : uint32 (rows, columns)
        Ids of this tile's nuclei, 0 elsewhere: set the pixels that are not 0, leave the others.
    nuclei : DataFrame
        One row per nucleus, see `Result.nuclei`.
    done, total : int
        Tiles finished, this one included, and all tiles.
    """

    box: Box
    labels: NDArray[np.uint32]
    nuclei: pd.DataFrame
    done: int
    total: int

    def paint(self, canvas: NDArray[np.uint32]) -> None:
        """Write this tile's nuclei into the labels of the whole image."""
        part = canvas[self.box.slices]
        np.copyto(part, self.labels, where=self.labels > 0)


@dataclass(frozen=True)
class Plan:
    """A run made ready: image, model and runtime, before any pixel is computed.

    Attributes
    ----------
    image : Resampled
        The image at the model's resolution.
    grid : Grid
        Its tiles.
    blocks : tuple of tuples of Index
        Tiles to do, in the order of the schedule. A block needs nothing of another one.
    tissue : TissueMask or None
        Nuclei are sought here only; everywhere if None.
    """

    image: Resampled
    card: Card
    runtime: Runtime
    decode: DecodeConfig
    region: Region | None
    grid: Grid
    blocks: tuple[tuple[Index, ...], ...]
    tissue: TissueMask | None = None

    @property
    def tiles(self) -> tuple[Index, ...]:
        """All tiles to do, in the order of the schedule."""
        return tuple(itertools.chain.from_iterable(self.blocks))

    @property
    def window_count(self) -> int:
        """How often the network is asked."""
        return sum(len(self.sweep(block).windows) for block in self.blocks)

    def sweep(self, tiles: Sequence[Index]) -> Sweep:
        """Return how tiles of one block are done."""
        return Sweep(self.grid, {tile: self.part(tile) for tile in tiles})

    def part(self, tile: Index) -> Box:
        """Return the part of a tile that is asked for, at the model's resolution."""
        owned = self.grid.owned(tile)
        part = None if self.region is None else owned.cut(self.image.scale.to_model(self.region.box))
        return part or owned


def make_plan(
    image: Any,
    runtime: Runtime,
    card: Card,
    *,
    mpp: float | Mpp | None = None,
    region: Region | None = None,
    config: DecodeConfig | None = None,
    tissue: TissueMask | None = None,
    tile: int | None = None,
) -> Plan:
    """Check the input and lay out the work.

    Parameters
    ----------
    image : array, pyramid, path or ImageSource
    runtime, card : of the model
    mpp : float, optional
        Micrometres per pixel of level 0; overrides what the image says.
    region : Region, optional
        The whole image if None.
    config : DecodeConfig, optional
        The card's by default.
    tissue : TissueMask, optional
        Tiles without tissue are left out, and nuclei whose centre lies outside.
    tile : int, optional
        Largest side of a tile in pixels of the model's resolution. The nuclei are the same with any.

    Raises
    ------
    NucSegError
        The image cannot be used, the tile is too small, or its mpp is neither in the file nor given.
    """
    source = as_source(image, mpp)
    if source.mpp.value is None:
        raise NucSegError(
            f"The resolution of the image is {source.mpp}; state it in micrometres per pixel "
            "(mpp=0.25 for a 40x scan, 0.5 for 20x; --mpp on the command line)."
        )
    if region is not None:
        region = region.cut(source.shape)
    check_tile(tile)
    resampled = Resampled(source, card.mpp)
    config = config or card.decode
    grid = Grid(resampled.shape, tile or CELL, card.halo, config.margin, BLOCK)
    whole = Box(0, resampled.shape[0], 0, resampled.shape[1])
    wanted = set(grid.cells(whole if region is None else resampled.scale.to_model(region.box)))
    if tissue is not None:
        # a pixel more, since the centre of a nucleus at an edge may be nearer to the next tile's pixels of level 0
        areas = {t: resampled.scale.covered(grid.owned(t))[0].grown(1, source.shape) for t in wanted}
        wanted = {t for t, area in areas.items() if tissue.touches(area)}
    blocks = (tuple(t for t in block if t in wanted) for block in grid.blocks())
    return Plan(
        image=resampled,
        card=card,
        runtime=runtime,
        decode=config,
        region=region,
        grid=grid,
        blocks=tuple(block for block in blocks if block),
        tissue=tissue,
    )


def predict_window(image: NDArray[np.uint8], runtime: Runtime, card: Card, part: Box | None = None) -> Fields:
    """Run the network on one window, mirrored at the lower and right edge up to its stride.

    Parameters
    ----------
    image : (H, W, 3) uint8 at the model's resolution
    runtime : Runtime
    card : Card
    part : Box, optional
        The part of the window that is asked for; all of it by default.

    Returns
    -------
    Fields of the part's shape
    """
    height, width = image.shape[:2]
    part = part or Box(0, height, 0, width)
    if height % STRIDE or width % STRIDE:
        pad = ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0))
        image = np.pad(image, pad, mode="symmetric" if min(height, width) < STRIDE else "reflect")
    if isinstance(runtime, FieldRuntime):
        return runtime.fields(image, part)
    return compress(runtime(image), card.layout).crop(*part.slices)


def compute_fields(image: Resampled, runtime: Runtime, card: Card, cache: FieldCache, box: Box) -> None:
    """Compute the maps of a part of an image, such as around a click, without segmenting it.

    Parameters
    ----------
    image : Resampled
    runtime, card : of the model
    cache : FieldCache
        Gets the maps.
    box : Box
        At the model's resolution. It is computed in windows of a moderate size; closing down in between is the
        runtime's business (it may raise).
    """
    for y in range(box.y0, box.y1, NEAR):
        for x in range(box.x0, box.x1, NEAR):
            part = Box(y, min(y + NEAR, box.y1), x, min(x + NEAR, box.x1))
            window = window_around(part, card.halo, image.shape)
            cache.put(part, predict_window(image.read(window), runtime, card, part.relative(window)))


class _FieldStore:
    """The fields computed so far, of each window no more than what tiles still to decode need."""

    def __init__(self, plan: Plan, sweep: Sweep) -> None:
        self._sweep, self._n_classes = sweep, len(plan.card.classes)
        self._held: dict[Index, tuple[Box, Fields]] = {}

    def put(self, window: Index, fields: Fields) -> None:
        self._held[window] = self._sweep.answer(window), fields

    def take(self, tile: Index) -> tuple[Box, Fields]:
        """Return the read region of the next tile and its fields, and forget what later ones do not need."""
        box = self._sweep.read(tile)
        out = Fields.empty(box.shape, self._n_classes)
        for window in self._sweep.needs[tile]:
            known, fields = self._held[window]
            shared = known.cut(box)
            if shared is not None:
                out.paste(fields.crop(*shared.relative(known).slices), *shared.relative(box).slices)
        for window in [w for w in list(self._held) if w <= tile]:  # others come in from another thread
            known, fields = self._held[window]
            left = self._sweep.needed_after(window, tile)
            if left is None:
                del self._held[window]
            elif math.prod(left.shape) < math.prod(known.shape) / 2:
                self._held[window] = left, fields.crop(*left.relative(known).slices).copy()
        return box, out


@dataclass(frozen=True)
class Tile:
    """A decoded tile with numbers of its own.

    Attributes
    ----------
    index : Index
        Place in the grid.
    box : Box
        Where `labels` lies in the image, level-0 pixels; empty where there is no nucleus.
    labels : uint32 (rows, columns)
        1..n in the order of the table; every nucleus is whole, also where it sticks out of the tile.
    nuclei : DataFrame
        One row per nucleus, see `Result.nuclei`.
    """

    index: Index
    box: Box
    labels: NDArray[np.uint32]
    nuclei: pd.DataFrame

    def numbered(self, first_id: int) -> tuple[NDArray[np.uint32], pd.DataFrame]:
        """Return labels and table with the ids first_id, first_id + 1, ..."""
        n = len(self.nuclei)
        ids = np.zeros(n + 1, np.uint32)
        ids[1:] = np.arange(first_id, first_id + n, dtype=np.uint32)
        return ids[self.labels], self.nuclei.assign(id=ids[1:])


def _finish_tile(plan: Plan, tile: Index, box: Box, fields: Fields) -> Tile:
    """Decode one tile, bring its nuclei to level 0 and measure them."""
    import pandas as pd

    owned = plan.part(tile).relative(box)
    found = decode(fields, plan.decode, owned)
    keep = owned.holds(found.centres)
    points = plan.image.scale.to_level0(found.centres + np.array([box.y0, box.x0]))
    for limit in (plan.region, plan.tissue):
        if limit is not None:
            keep &= limit.holds(points)
    numbers = np.zeros(len(keep) + 1, np.uint32)
    numbers[1:][keep] = np.arange(1, keep.sum() + 1)
    area, labels = plan.image.scale.labels_to_level0(box, numbers[found.owner])
    if plan.image.scale.zoom.max() > 1:  # level 0 is coarser than the model: a tiny nucleus may vanish
        there = np.bincount(labels.ravel(), minlength=int(keep.sum()) + 1)[1:] > 0
        keep[keep] = there
        labels = np.concatenate([[0], np.cumsum(there) * there]).astype(np.uint32)[labels]
    ids = np.arange(1, keep.sum() + 1, dtype=np.uint32)
    rgb = plan.image.source.read(area.y0, area.y1, area.x0, area.x1)
    shape = measure(labels, rgb, plan.image.mpp, ids=ids)
    classes = np.array(plan.card.classes, dtype=object)
    probabilities = found.probabilities[keep]
    table = {
        "id": ids,
        "centre_y": points[keep, 0],
        "centre_x": points[keep, 1],
        "class": classes[probabilities.argmax(1)] if keep.any() else classes[:0],
        "score": found.scores[keep],
        **{f"prob_{name}": probabilities[:, k] for k, name in enumerate(plan.card.classes)},
        "area_um2": shape.area_um2,
        "perimeter_um": shape.perimeter_um,
        "eccentricity": shape.eccentricity,
        "solidity": shape.solidity,
        "mean_haematoxylin": shape.mean_haematoxylin,
    }
    return Tile(tile, area, labels, pd.DataFrame(table))


Keep = Callable[[Box, Fields], None]
"""Takes the fields of a box of the model's resolution, such as `FieldCache.put`."""


def run(plan: Plan, keep: Keep | None = None) -> Generator[TileResult, None, None]:
    """Compute a plan tile by tile.

    Parameters
    ----------
    plan : Plan
    keep : callable (box, fields), optional
        Gets the network's answer for every window, in the thread that steps this generator.

    Yields
    ------
    TileResult
        In the order of the schedule, ids counting up from 1. Closing the generator cancels the run after the
        windows in work.
    """
    done, total, next_id = 0, len(plan.tiles), 1
    for block in plan.blocks:
        with closing(run_tiles(plan, block, keep)) as tiles:
            for tile in tiles:
                labels, nuclei = tile.numbered(next_id)
                done, next_id = done + 1, next_id + len(nuclei)
                yield TileResult(tile.box, labels, nuclei, done, total)


def run_tiles(plan: Plan, tiles: Sequence[Index], keep: Keep | None = None) -> Generator[Tile, None, None]:
    """Compute some tiles of one block of a plan, whatever was done before or is done elsewhere.

    Parameters
    ----------
    plan : Plan
    tiles : sequence of Index
        In raster order.
    keep : callable (box, fields), optional
        See `run`.

    Yields
    ------
    Tile
        As soon as it is done, in order. Closing the generator cancels what is left.
    """
    if not tiles:
        return
    sweep = plan.sweep(tiles)
    if isinstance(plan.runtime, FieldRuntime):
        shapes = [sweep.seen(window).shape for window in sweep.windows]
        shape = plan.grid.window_shape
        alike = sum((up(height), up(width)) == shape for height, width in shapes)  # as they are mirrored
        plan.runtime.expect(shape if alike > FEW else None)
    store, jobs = _FieldStore(plan, sweep), deque[Future[Tile]]()
    lanes = plan.runtime.lanes if isinstance(plan.runtime, FieldRuntime) else 1
    predicting, decoding = ThreadPoolExecutor(lanes, "nucseg-predict"), ThreadPoolExecutor(1, "nucseg-decode")

    def finish(tile: Index) -> Tile:
        return _finish_tile(plan, tile, *store.take(tile))

    pending = deque(tiles)
    try:
        decoding.submit(warm_up)
        for window, fields in _predicted(plan, sweep, predicting, lanes + 1):
            store.put(window, fields)
            if keep is not None:
                keep(sweep.answer(window), fields)
            while pending and sweep.needs[pending[0]][-1] <= window:
                jobs.append(decoding.submit(finish, pending.popleft()))
            while jobs and (jobs[0].done() or len(jobs) > 2):
                yield jobs.popleft().result()
        while jobs:
            yield jobs.popleft().result()
    finally:
        predicting.shutdown(wait=True, cancel_futures=True)
        decoding.shutdown(wait=True, cancel_futures=True)


def _predicted(
    plan: Plan, sweep: Sweep, pool: ThreadPoolExecutor, ahead: int
) -> Iterator[tuple[Index, Fields]]:
    """Yield the fields of every window, some more being computed meanwhile."""

    def predict(window: Index) -> Fields:
        answer, seen = sweep.answer(window), sweep.seen(window)
        return predict_window(plan.image.read(seen), plan.runtime, plan.card, answer.relative(seen))

    waiting: deque[tuple[Index, Future[Fields]]] = deque()
    for window in sweep.windows:
        waiting.append((window, pool.submit(predict, window)))
        if len(waiting) == ahead:
            first, fields = waiting.popleft()
            yield first, fields.result()
    for first, fields in waiting:
        yield first, fields.result()


@dataclass(frozen=True, repr=False)
class Result:
    """A segmented image.

    Attributes
    ----------
    labels : uint32 (H, W)
        0 background, else the id of a nucleus.
    nuclei : DataFrame
        id, centre_y, centre_x (level-0 pixels), class, score (0..1), prob_<class> for every class, area_um2,
        perimeter_um, eccentricity, solidity, mean_haematoxylin (optical density). The score is the activation of the
        centre map, or where the model's card calibrates it (`score_slope`, `score_shift`) how often a nucleus of that
        score was right on validation images; the probabilities likewise (`type_temperature`).
    mpp : Mpp
        Resolution that was used, and where it came from.
    card : Card
        Of the model.
    runtime : str
        What ran the network.
    name : str
        Stem for files.
    """

    labels: NDArray[np.uint32]
    nuclei: pd.DataFrame
    mpp: Mpp
    card: Card
    runtime: str
    name: str = "image"

    def __repr__(self) -> str:
        height, width = self.labels.shape
        return f"Result({self.name!r}, {width} x {height} px, {len(self.nuclei)} nuclei, {self.mpp}, {self.card.name})"

    def save(
        self,
        folder: str | Path,
        formats: tuple[str, ...] = ("tif", "csv", "geojson"),
        *,
        name: str | None = None,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write ``<name>_instances.tif``, ``<name>_nuclei.csv`` and ``<name>_nuclei.geojson``.

        Parameters
        ----------
        folder : path, made if missing
        formats : tuple of str
            Which of the three.
        name : str, optional
            Stem of the files; by default that of the image file, or "image" for an array.
        overwrite : bool
            Replace files that exist.

        Returns
        -------
        list of Path

        Raises
        ------
        NucSegError
            A file exists and `overwrite` is False, or one cannot be written.
        """
        from napari_nucseg.io.export import FORMATS, save_results

        stem = name or self.name
        if not overwrite:
            for path in (Path(folder) / f"{stem}_{FORMATS[key]}" for key in formats if key in FORMATS):
                if path.is_file():
                    raise NucSegError(
                        f"'{path}' exists already; give another name or folder, or overwrite=True."
                    )
        value = self.mpp.value
        if value is None:
            raise NucSegError("The result has no mpp; state it before saving.")
        return save_results(
            Path(folder), stem, self.labels, self.nuclei, value, self.card.colours, formats=formats
        )


def segment(
    image: Any,
    mpp: float | Mpp | None = None,
    model: str | Path | Model = "default",
    device: str = "auto",
    *,
    region: Region | None = None,
    config: DecodeConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    runtime: Runtime | None = None,
) -> Result:
    """Segment and classify every nucleus of an H&E image.

    Parameters
    ----------
    image : array (H, W, 3), dask array, pyramid, path or ImageSource
        RGBA, grey, 16-bit, float and channel-first arrays are taken where that is unambiguous.
    mpp : float, optional
        Micrometres per pixel. Read from the file by default; required where the image does not say.
    model : str, path or Model
        A name from `napari-nucseg models`, or the path of a model.
    device : {"auto", "cuda", "cpu", "cpu-torch"}
    region : Region, optional
        Part of the image; the whole by default.
    config : DecodeConfig, optional
        Thresholds other than the model's own.
    progress : callable (done, total), optional
    runtime : Runtime, optional
        The model already loaded (`napari_nucseg.models.runtime.load_runtime`), to save time over many images.

    Returns
    -------
    Result

    Raises
    ------
    NucSegError
        The image, the mpp, the model or the device cannot be used; the message says what to do.
    """
    from napari_nucseg.models.runtime import load_runtime

    model = model if isinstance(model, Model) else find_model(model)
    source = as_source(image, mpp)
    try:
        loaded = runtime or load_runtime(model, device)
        plan = make_plan(source, loaded, model.card, region=region, config=config)
        return collect(run(plan), plan, getattr(source, "name", "image"), progress)
    finally:
        if isinstance(image, str | Path) and isinstance(source, SlideImage):
            source.close()


def collect(
    tiles: Iterable[TileResult],
    plan: Plan,
    name: str = "image",
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Stitch the tiles of a plan into one result, in memory.

    Parameters
    ----------
    tiles : iterable of TileResult
        `run(plan)`, or something around it that shows progress.
    plan : Plan
    name : str
        Stem for files.
    progress : callable (done, total), optional
    """
    began = time.perf_counter()
    source = plan.image.source
    labels = np.zeros(source.shape, np.uint32)
    tables = []
    for tile in tiles:
        tile.paint(labels)
        tables.append(tile.nuclei)
        if progress is not None:
            progress(tile.done, tile.total)
    seconds = time.perf_counter() - began
    log.info("%.1f MP in %.1f s with %s", math.prod(source.shape) / 1e6, seconds, plan.runtime.name)
    return Result(
        labels, join_tables(tables, plan.card.classes), source.mpp, plan.card, plan.runtime.name, name
    )


def join_tables(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> pd.DataFrame:
    """Join the tables of tiles; if none holds a nucleus, the columns are there all the same."""
    import pandas as pd

    filled = [t for t in tables if len(t)]
    return pd.concat(filled, ignore_index=True) if filled else no_nuclei(classes)


def no_nuclei(classes: Sequence[str]) -> pd.DataFrame:
    """Return the table of an image without nuclei; its columns are those of `Result.nuclei`."""
    import pandas as pd

    kinds = dict.fromkeys(("centre_y", "centre_x"), "f8") | {"class": "O", "score": "f4"}
    kinds |= dict.fromkeys((f"prob_{name}" for name in classes), "f4")
    kinds |= dict.fromkeys(
        ("area_um2", "perimeter_um", "eccentricity", "solidity", "mean_haematoxylin"), "f8"
    )
    return pd.DataFrame({name: np.zeros(0, kind) for name, kind in ({"id": "u4"} | kinds).items()})


def adjusted(card: Card, **changes: Any) -> DecodeConfig:
    """Return the card's decoder settings with some of them changed, such as ``foreground=0.4``."""
    return replace(card.decode, **changes)
