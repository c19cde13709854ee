"""Maps of a part of an image that no run has computed yet, computed in a worker thread when an edit wants them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_nucseg._plugin import work
from napari_nucseg._plugin.compute import Cancelled, Loader, Request, Ticker, WatchedRuntime
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg.core.field_cache import FieldCache
    from napari_nucseg.core.tiling import Box

Done = Callable[[Exception | None], None]


def fill(request: Request, load: Loader, cache: FieldCache, box: Box, ticker: Ticker) -> None:
    """Compute the maps of a box at the model's resolution into the cache."""
    from napari_nucseg.inference import compute_fields
    from napari_nucseg.io.resample import Resampled
    from napari_nucseg.io.slide import as_source

    card = request.model.card
    image = Resampled(as_source(request.image, request.mpp, request.axes), card.mpp)
    if image.shape != cache.shape:
        raise NucSegError(
            f"The image has {image.shape} pixels at the model's resolution, but its nuclei were found at "
            f"{cache.shape}; run the model again."
        )
    runtime = WatchedRuntime(load(request.model, request.device), ticker)
    compute_fields(image, runtime, card, cache, box)


class MapsLoader:
    """Computes maps, one box at a time, and never in the thread of the window.

    Parameters
    ----------
    request : Request
        Image and model; its region is left alone.
    cache : FieldCache
        Takes the maps.
    load : callable (model, device) -> Runtime
        Called in the worker thread.
    """

    def __init__(self, request: Request, cache: FieldCache, load: Loader) -> None:
        self._request, self._cache, self._load = request, cache, load
        self._number = 0
        self._worker: Any = None
        self._ticker = Ticker()

    @property
    def request(self) -> Request:
        """Image and model."""
        return self._request

    @property
    def busy(self) -> bool:
        """Whether maps are being computed."""
        return self._worker is not None

    def start(self, box: Box, done: Done) -> None:
        """Compute the maps of a box; `done` is told of the end in the GUI thread, with the error if there was one."""
        self.cancel()
        self._ticker = Ticker()
        task = partial(fill, self._request, self._load, self._cache, box, self._ticker)
        self._worker = work.start(task, partial(self._on_done, self._number, done))

    def cancel(self) -> None:
        """Stop after the window of the network that is being computed, and tell nobody."""
        self._number += 1
        self._ticker.stop()
        self._worker = None

    def _on_done(self, number: int, done: Done, outcome: work.Outcome) -> None:
        if number == self._number:
            self._worker = None
            done(None if isinstance(outcome.error, Cancelled) else outcome.error)
