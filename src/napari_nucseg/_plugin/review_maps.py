"""Maps of a part of an image that no run has computed yet, computed in a worker thread when an edit wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_nucseg._plugin import work
from napari_nucseg._plugin.compute import Cancelled, Loader, Request, Ticker, source_of, watched
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg.core.field_cache import FieldCache
    from napari_nucseg.core.tiling import Box

Done = Callable[[Exception | None], None]


def fill(request: Request, load: Loader, cache: FieldCache, boxes: Sequence[Box], ticker: Ticker) -> None:
    """Compute the maps of boxes at the model's resolution into the cache."""
    from napari_nucseg.inference import compute_fields
    from napari_nucseg.io.resample import Resampled

    card = request.model.card
    image = Resampled(source_of(request), card.mpp)
    if image.shape != cache.shape:
        raise NucSegError(
            f"The image has {image.shape} pixels at the model's resolution, but its nuclei were found at "
            f"{cache.shape}; run the model again."
        )
    runtime = watched(load(request.model, request.device), ticker)
    for box in boxes:
        gap = cache.missing(box)  # which the boxes before may have filled
        if gap is not None:
            compute_fields(image, runtime, card, cache, gap)


class MapsLoader:
    """Computes maps, one request at a time, and never in the thread of the window.

    Parameters
    ----------
    request : Request or None
        Image and model; its region is left alone. None: the model is not there yet, and every request is refused.
    cache : FieldCache
        Takes the maps.
    load : callable (model, device) -> Runtime
        Called in the worker thread.
    model : str
        Name of the model, for the user who lacks it.

    Attributes
    ----------
    request : Request or None
        Set as soon as the model is there.
    """

    def __init__(self, request: Request | None, cache: FieldCache, load: Loader, model: str = "") -> None:
        self.request, self._cache, self._load, self._model = request, cache, load, model
        self._count = 0
        self._wanted: dict[int, tuple[Sequence[Box], Done]] = {}
        self._current: int | None = None
        self._worker: Any = None
        self._ticker = Ticker()

    @property
    def busy(self) -> bool:
        """Whether maps are being computed."""
        return bool(self._wanted)

    def start(self, boxes: Sequence[Box], done: Done) -> int:
        """Compute the maps of boxes, after those that were wanted before.

        Parameters
        ----------
        boxes : sequence of Box
            At the model's resolution.
        done : callable (error or None)
            Called once, in the thread of the window: at the end, or with `Cancelled`.

        Returns
        -------
        int
            The number of the request, for `cancel`.
        """
        self._count += 1
        self._wanted[self._count] = boxes, done
        number = self._count
        if self._current is None:
            self._next()
        return number

    def cancel(self, number: int) -> None:
        """Give a request up, after the window of the network that is being computed; `done` is told at once."""
        wanted = self._wanted.pop(number, None)
        if wanted is None:
            return
        if number == self._current:
            self._ticker.stop()
            self._next()
        wanted[1](Cancelled())

    def _next(self) -> None:
        self._current = next(iter(self._wanted), None)
        self._worker = None
        if self._current is not None:
            self._ticker = Ticker()
            boxes, _ = self._wanted[self._current]
            self._worker = work.start(
                partial(self._fill, self.request, boxes, self._ticker), partial(self._on_done, self._current)
            )

    def _on_done(self, number: int, outcome: work.Outcome) -> None:
        wanted = self._wanted.pop(number, None)
        if wanted is None:  # given up meanwhile
            return
        self._next()
        wanted[1](outcome.error)

    def _fill(self, request: Request | None, boxes: Sequence[Box], ticker: Ticker) -> None:
        if request is None:
            raise NucSegError(
                f"The model '{self._model}' of this review is not installed, so that the network's maps are missing "
                "here; add it from a folder (under Model)."
            )
        fill(request, self._load, self._cache, boxes, ticker)
