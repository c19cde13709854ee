"""Segment an image: a generator of tile results, and the whole result stitched from them.

Data flows one way: read and resample -> network -> fields -> decode -> table. The network runs in the calling
thread, reading ahead and decoding in two others (the kernels hold no GIL). Nothing here knows of a GUI.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.decode import DecodeConfig, Decoded, Fields, compress, decode, warm_up
from napari_nucseg.core.field_cache import FieldCache
from napari_nucseg.core.measure import measure
from napari_nucseg.core.tiling import Box, Grid, Index
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.resample import Resampled
from napari_nucseg.io.slide import Mpp, SlideImage, as_source
from napari_nucseg.models.card import Card
from napari_nucseg.models.registry import Model, find_model

if TYPE_CHECKING:
    import pandas as pd

    from napari_nucseg.models.runtime import Runtime

log = logging.getLogger(__name__)

NEAR = 1024
"""Side of the windows, without halo, in which maps around an edit are computed."""


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
        Its cells.
    cells : tuple
        Cells to decode.
    windows : tuple
        Cells whose maps these need, in the order of computation.
    """

    image: Resampled
    card: Card
    runtime: Runtime
    decode: DecodeConfig
    region: Region | None
    grid: Grid
    cells: tuple[Index, ...]
    windows: tuple[Index, ...]


def make_plan(
    image: Any,
    runtime: Runtime,
    card: Card,
    *,
    mpp: float | Mpp | None = None,
    region: Region | None = None,
    config: DecodeConfig | None = None,
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

    Raises
    ------
    NucSegError
        The image cannot be used, or its mpp is neither in the file nor given.
    """
    source = as_source(image, mpp)
    if source.mpp.value is None:
        raise NucSegError(
            f"The resolution of the image is {source.mpp}; state it in micrometres per pixel "
            "(mpp=0.25 for a 40x scan, 0.5 for 20x; --mpp on the command line)."
        )
    if region is not None:
        region = region.cut(source.shape)
    resampled = Resampled(source, card.mpp)
    config = config or card.decode
    grid = Grid(resampled.shape)
    whole = Box(0, resampled.shape[0], 0, resampled.shape[1])
    wanted = whole if region is None else resampled.scale.to_model(region.box)
    return Plan(
        image=resampled,
        card=card,
        runtime=runtime,
        decode=config,
        region=region,
        grid=grid,
        cells=tuple(grid.cells(wanted)),
        windows=tuple(grid.cells(wanted.grown(config.margin, resampled.shape))),
    )


def predict_window(image: NDArray[np.uint8], runtime: Runtime, card: Card) -> Fields:
    """Run the network on one window, mirrored at the lower and right edge up to its stride.

    Parameters
    ----------
    image : (H, W, 3) uint8 at the model's resolution
    runtime : Runtime
    card : Card

    Returns
    -------
    Fields of shape (H, W)
    """
    height, width = image.shape[:2]
    pad = ((0, -height % 16), (0, -width % 16), (0, 0))
    maps = runtime(np.pad(image, pad, mode="symmetric" if min(height, width) < 16 else "reflect"))
    return compress(maps, card.layout).crop(slice(0, height), slice(0, width))


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
            window = part.grown(Grid.halo, image.shape)
            fields = predict_window(image.read(window), runtime, card)
            cache.put(part, fields.crop(*part.relative(window).slices))


class _FieldStore:
    """Fields of the cells computed so far, each dropped when no cell still to decode needs it."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._fields = plan, dict[Index, Fields]()
        available = set(plan.windows)
        self.needs: dict[Index, list[Index]] = {}
        for cell in plan.cells:
            around = plan.grid.owned(cell).grown(plan.decode.margin, plan.grid.shape)
            self.needs[cell] = [c for c in plan.grid.cells(around) if c in available]
        self._users: dict[Index, int] = {}
        for needed in self.needs.values():
            for cell in needed:
                self._users[cell] = self._users.get(cell, 0) + 1

    def put(self, cell: Index, window: Fields) -> None:
        grid = self._plan.grid
        self._fields[cell] = window.crop(*grid.owned(cell).relative(grid.window(cell)).slices)

    def ready(self, cell: Index) -> bool:
        return all(c in self._fields for c in self.needs[cell])

    def gather(self, cell: Index) -> tuple[Box, Fields]:
        """Return the read region of a cell and its fields, and forget what nobody needs any more."""
        grid = self._plan.grid
        box = grid.owned(cell).grown(self._plan.decode.margin, grid.shape)
        out = Fields.empty(box.shape, len(self._plan.card.classes))
        for other in self.needs[cell]:
            shared = grid.owned(other).cut(box)
            if shared is not None:
                part = self._fields[other].crop(*shared.relative(grid.owned(other)).slices)
                out.paste(part, *shared.relative(box).slices)
            self._users[other] -= 1
            if not self._users[other]:
                del self._fields[other]
        return box, out


def _owned_nuclei(found: Decoded, box: Box, owned: Box) -> NDArray[np.bool_]:
    rows, cols = found.centres[:, 0] + box.y0, found.centres[:, 1] + box.x0
    result: NDArray[np.bool_] = (
        (owned.y0 <= rows) & (rows < owned.y1) & (owned.x0 <= cols) & (cols < owned.x1)
    )
    return result


@dataclass(frozen=True)
class _Tile:
    """A decoded tile before its ids are assigned: `labels` holds 1..n in the order of the table."""

    box: Box
    labels: NDArray[np.uint32]
    nuclei: pd.DataFrame


def _finish_cell(plan: Plan, cell: Index, box: Box, fields: Fields) -> _Tile:
    """Decode one cell, bring its nuclei to level 0 and measure them."""
    import pandas as pd

    found = decode(fields, plan.decode)
    keep = _owned_nuclei(found, box, plan.grid.owned(cell))
    points = plan.image.scale.to_level0(found.centres + np.array([box.y0, box.x0]))
    if plan.region is not None:
        keep &= plan.region.holds(points)
    numbers = np.zeros(len(keep) + 1, np.uint32)
    numbers[1:][keep] = np.arange(1, keep.sum() + 1)
    area, labels = plan.image.scale.labels_to_level0(box, numbers[found.owner])
    rgb = plan.image.source.read(area.y0, area.y1, area.x0, area.x1)
    # where level 0 is coarser than the model a tiny nucleus may vanish
    ids = np.flatnonzero(np.bincount(labels.ravel(), minlength=1)[1:]).astype(np.uint32) + np.uint32(1)
    keep[keep] = np.isin(numbers[1:][keep], ids)
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
    return _Tile(area, labels, pd.DataFrame(table))


def _numbered(tile: _Tile, first_id: int) -> tuple[NDArray[np.uint32], pd.DataFrame]:
    """Give a tile's nuclei the ids first_id, first_id + 1, ..."""
    ids = tile.nuclei["id"].to_numpy()
    lookup = np.zeros(int(tile.labels.max(initial=0)) + 1, np.uint32)
    lookup[ids] = np.arange(first_id, first_id + len(ids), dtype=np.uint32)
    return lookup[tile.labels], tile.nuclei.assign(id=lookup[ids])


Keep = Callable[[Box, Fields], None]
"""Takes the fields of a box of the model's resolution, such as `FieldCache.put`."""


def run(plan: Plan, keep: Keep | None = None) -> Generator[TileResult, None, None]:
    """Compute a plan tile by tile.

    Parameters
    ----------
    plan : Plan
    keep : callable (box, fields), optional
        Gets the network's answer for every cell, in the thread that steps this generator.

    Yields
    ------
    TileResult
        In raster order of the cells, ids counting up from 1. Closing the generator cancels the run after the
        current tile.
    """
    store = _FieldStore(plan)
    pending, jobs = deque(plan.cells), deque[Future[_Tile]]()
    done, total, next_id = 0, len(plan.cells), 1
    ahead = ThreadPoolExecutor(1, "nucseg-read")
    decoding = ThreadPoolExecutor(1, "nucseg-decode")
    try:
        decoding.submit(warm_up)
        for cell, image in _windows(plan, ahead):
            window = predict_window(image, plan.runtime, plan.card)
            store.put(cell, window)
            if keep is not None:
                owned = plan.grid.owned(cell)
                keep(owned, window.crop(*owned.relative(plan.grid.window(cell)).slices))
            while pending and store.ready(pending[0]):
                ready = pending.popleft()
                jobs.append(decoding.submit(_finish_cell, plan, ready, *store.gather(ready)))
            while jobs and (jobs[0].done() or len(jobs) > 2):
                done += 1
                result = _result(jobs.popleft().result(), next_id, done, total)
                next_id += len(result.nuclei)
                yield result
        for job in jobs:
            done += 1
            result = _result(job.result(), next_id, done, total)
            next_id += len(result.nuclei)
            yield result
    finally:
        ahead.shutdown(wait=True, cancel_futures=True)
        decoding.shutdown(wait=True, cancel_futures=True)


def _result(tile: _Tile, first_id: int, done: int, total: int) -> TileResult:
    labels, nuclei = _numbered(tile, first_id)
    return TileResult(tile.box, labels, nuclei.reset_index(drop=True), done, total)


def _windows(plan: Plan, pool: ThreadPoolExecutor) -> Iterator[tuple[Index, NDArray[np.uint8]]]:
    """Yield the pixels of every window, the next one being read meanwhile."""
    todo = iter(plan.windows)
    waiting: deque[tuple[Index, Future[NDArray[np.uint8]]]] = deque()

    def order() -> None:
        cell = next(todo, None)
        if cell is not None:
            waiting.append((cell, pool.submit(plan.image.read, plan.grid.window(cell))))

    order()
    while waiting:
        order()
        cell, pixels = waiting.popleft()
        yield cell, pixels.result()


@dataclass(frozen=True, repr=False)
class Result:
    """A segmented image.

    Attributes
    ----------
    labels : uint32 (H, W)
        0 background, else the id of a nucleus.
    nuclei : DataFrame
        id, centre_y, centre_x (level-0 pixels), class, score (0..1), prob_<class> for every class, area_um2,
        perimeter_um, eccentricity, solidity, mean_haematoxylin (optical density).
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
    return Result(labels, join_tables(tables), source.mpp, plan.card, plan.runtime.name, name)


def join_tables(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Join the tables of tiles; empty ones keep the columns."""
    import pandas as pd

    filled = [t for t in tables if len(t)]
    return pd.concat(filled or tables[:1], ignore_index=True)


def adjusted(card: Card, **changes: Any) -> DecodeConfig:
    """Return the card's decoder settings with some of them changed, such as ``foreground=0.4``."""
    return replace(card.decode, **changes)
