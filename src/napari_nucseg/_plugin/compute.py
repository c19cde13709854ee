"""The work of a run, as a generator that knows nothing of Qt and is stepped in another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg._plugin.place import MOST, Crop
from napari_nucseg._plugin.regions import Area
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp
from napari_nucseg.models.registry import Model

if TYPE_CHECKING:
    from napari_nucseg.core.decode import DecodeConfig, Fields
    from napari_nucseg.core.field_cache import FieldCache
    from napari_nucseg.core.scale import Scale
    from napari_nucseg.core.tiling import Box
    from napari_nucseg.inference import Region, TileResult
    from napari_nucseg.io.slide import ImageSource
    from napari_nucseg.models.runtime import FieldRuntime, Runtime

Loader = Callable[[Model, str], "Runtime"]


@dataclass(frozen=True)
class Request:
    """All that a run needs.

    Attributes
    ----------
    image : array or list of arrays
        Pixels as the layer holds them.
    axes : str or None
        See `napari_nucseg.io.slide.as_source`.
    mpp : Mpp
        Of level 0.
    settings : dict
        Decoder settings which differ from the card's, such as ``{"foreground": 0.4}``.
    """

    image: Any
    axes: str | None
    mpp: Mpp
    model: Model
    device: str = "auto"
    area: Area = field(default_factory=Area)
    settings: dict[str, float] = field(default_factory=dict)
    fields: FieldCache | None = None
    """Takes the maps, if they are to go where those of an earlier run are."""
    place: Box | None = None
    """The part of a large image that the results are of; None: all of it."""

    @property
    def local_area(self) -> Area:
        """The part to segment in pixels of the place."""
        return self.area.within(self.place)


@dataclass(frozen=True)
class Basis:
    """What a session needs besides nuclei: the two grids of the image, the decoder, and the network's maps.

    Attributes
    ----------
    scale : Scale
    config : DecodeConfig
    fields : FieldCache
        Filled by a run, or by the edits that need it.
    """

    scale: Scale
    config: DecodeConfig
    fields: FieldCache


@dataclass(frozen=True)
class Started:
    """The model is loaded and the work is laid out."""

    shape: tuple[int, int]
    runtime: str
    tiles: int
    basis: Basis | None = None


@dataclass(frozen=True)
class Failed:
    """The run ended in an error, which is handed over as a value: superqt's workers swallow RuntimeErrors."""

    error: Exception


class Cancelled(Exception):
    """Raised in the working thread to leave a run between two windows of the network."""


class Ticker:
    """Shared by the two threads: how far the network is, and whether to stop.

    Parameters
    ----------
    doing : str
        What goes on as long as nothing can be counted.
    unit : str
        What is counted.
    on_stop : str
        What happens on a stop, for the user.
    """

    def __init__(
        self,
        doing: str = "Loading the model",
        unit: str = "tiles",
        on_stop: str = "Stop after the current tile and keep what was found.",
    ) -> None:
        self.start(doing, unit)
        self.on_stop = on_stop
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def start(self, doing: str, unit: str) -> None:
        """Begin to count anew."""
        self.doing, self.unit, self.done, self.total = doing, unit, 0, 0
        self.note = ""

    def stop(self) -> None:
        """Ask the run to leave before the next window."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether the run was asked to leave."""
        return self._stop.is_set()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count what is done in the block, in any thread; `Cancelled` if the run was asked to leave before."""
        if self.stopped:
            raise Cancelled
        yield
        with self._lock:
            self.done += 1


class WatchedRuntime:
    """A runtime that counts its windows, and refuses to go on once the ticker is stopped."""

    def __init__(self, runtime: Runtime, ticker: Ticker) -> None:
        self.name = runtime.name
        self._runtime, self._ticker = runtime, ticker

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Runtime`."""
        with self._ticker.step():
            return self._runtime(rgb)


class WatchedFieldRuntime(WatchedRuntime):
    """The same around a `FieldRuntime`, so that what comes out is what a run without a window gives, as fast."""

    def __init__(self, runtime: FieldRuntime, ticker: Ticker) -> None:
        super().__init__(runtime, ticker)
        self.lanes, self.expect, self._fields = runtime.lanes, runtime.expect, runtime.fields

    def fields(self, rgb: NDArray[np.uint8], part: Box) -> Fields:
        """See `FieldRuntime`."""
        with self._ticker.step():
            return self._fields(rgb, part)


def watched(runtime: Runtime, ticker: Ticker) -> Runtime:
    """Return a runtime that counts its windows with a ticker, and stops with it."""
    from napari_nucseg.models.runtime import FieldRuntime

    if isinstance(runtime, FieldRuntime):
        return WatchedFieldRuntime(runtime, ticker)
    return WatchedRuntime(runtime, ticker)


def compute(
    request: Request, load: Loader, ticker: Ticker
) -> Generator[Started | TileResult | Failed, None, None]:
    """Load the model, lay out the work, and yield tile by tile.

    Yields
    ------
    Started, then TileResult ..., or Failed
    """
    try:
        yield from _steps(request, load, ticker)
    except Cancelled:
        return
    except Exception as error:
        yield Failed(error)


def make_basis(request: Request) -> Basis:
    """Return what a session on an image needs, before any model is loaded.

    Raises
    ------
    NucSegError
        The image is too large for one layer, or cannot be read.
    """
    from napari_nucseg.core.field_cache import FieldCache
    from napari_nucseg.inference import adjusted
    from napari_nucseg.io.resample import Resampled

    card = request.model.card
    image = Resampled(source_of(request), card.mpp)
    fields = request.fields or FieldCache(image.shape, len(card.classes))
    return Basis(image.scale, adjusted(card, **request.settings), fields)


def source_of(request: Request) -> ImageSource:
    """Return the pixels that a request is about: the image, or its part in the request's place.

    Raises
    ------
    NucSegError
        The image is too large for one layer, or cannot be read.
    """
    from napari_nucseg.io.slide import as_source

    source = as_source(request.image, request.mpp, request.axes)
    if request.place is not None:
        return Crop(source, request.place)
    if source.shape[0] * source.shape[1] > MOST:
        raise NucSegError(
            f"The image has {source.shape[0] * source.shape[1] / 1e6:,.0f} megapixels, but a layer takes results of up "
            f"to {MOST / 1e6:,.0f}; choose a region of it."
        )
    return source


def _steps(request: Request, load: Loader, ticker: Ticker) -> Generator[Started | TileResult, None, None]:
    from napari_nucseg.inference import make_plan, run

    source = source_of(request)
    region = region_of(request.local_area, source.shape)
    runtime = watched(load(request.model, request.device), ticker)
    basis = make_basis(request)
    plan = make_plan(source, runtime, request.model.card, region=region, config=basis.config)
    ticker.total = plan.window_count
    yield Started(source.shape, runtime.name, len(plan.tiles), basis)
    with closing(run(plan, keep=basis.fields.put)) as tiles:
        yield from tiles


def region_of(area: Area, shape: tuple[int, int]) -> Region | None:
    """Return a part of an image as the pipeline takes it; None for all of it."""
    from napari_nucseg.inference import Region

    if area.polygons:
        return Region.from_polygons(list(area.polygons), shape)
    return None if area.box is None else Region(area.box)
