"""One run at a time, in a worker thread; what it yields reaches the listener in the GUI thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from napari.qt.threading import GeneratorWorker, create_worker

from napari_nucseg._plugin import work
from napari_nucseg._plugin.compute import Failed, Loader, Request, Started, Ticker, compute

if TYPE_CHECKING:
    from napari_nucseg.inference import TileResult


class RunListener(Protocol):
    """What the controller tells; always in the GUI thread, and never of a run that was cancelled."""

    def on_started(self, started: Started) -> None:
        """Prepare for the first tile, about to be computed."""

    def on_tile(self, tile: TileResult) -> None:
        """Take in a tile."""

    def on_finished(self) -> None:
        """Conclude: all tiles are done."""

    def on_cancelled(self) -> None:
        """Conclude: the run was cancelled."""

    def on_failed(self, error: Exception) -> None:
        """Conclude: the run ended in an error."""


class _ClosingWorker(GeneratorWorker):
    """Closes the generator of an aborted run in its own thread; napari would leave that to the collector."""

    def work(self) -> Any:
        try:
            return super().work()
        finally:
            self._gen.close()


class RunController:
    """Starts and cancels runs.

    Every run has a number. Answers of a run whose number is past, because it was cancelled, are dropped: they may
    be in the event queue already.

    Parameters
    ----------
    listener : RunListener
    load : callable (model, device) -> Runtime
        Called in the worker thread.
    """

    def __init__(self, listener: RunListener, load: Loader) -> None:
        self._listener, self.load = listener, load
        self._number = 0
        self._worker: Any = None
        self._inbox: deque[tuple[int, Callable[[Any], None], Any]] = deque()
        self._handling = False
        self.ticker = Ticker()

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._worker is not None

    def start(self, request: Request, title: str) -> None:
        """Start a run; `title` stands in napari's activity dock."""
        self.cancel()
        self._number += 1
        number, self.ticker = self._number, Ticker()
        work.make_room()
        worker = create_worker(
            compute,
            request,
            self.load,
            self.ticker,
            _progress={"desc": title},
            _worker_class=_ClosingWorker,
            _start_thread=False,
        )
        worker.yielded.connect(partial(self._post, number, self._on_yielded))
        worker.returned.connect(partial(self._post, number, self._on_returned))
        worker.aborted.connect(partial(self._post, number, self._on_aborted))
        worker.errored.connect(partial(self._post, number, self._on_errored))
        self._worker = worker
        worker.start()

    def cancel(self) -> None:
        """Stop the run, if there is one, after the window that is being computed."""
        worker = self._forget()
        if worker is not None:
            worker.quit()
            self._listener.on_cancelled()

    def shut_down(self) -> None:
        """Stop the run and tell nobody."""
        worker = self._forget()
        if worker is not None:
            worker.quit()

    def _forget(self) -> Any:
        self._number += 1
        self.ticker.stop()
        worker, self._worker = self._worker, None
        return worker

    def _post(self, number: int, handler: Callable[[Any], None], value: Any = None) -> None:
        """Handle what the worker sends strictly one after the other.

        napari's activity dock runs the event loop at every change of a progress bar, and so the next message may
        arrive while this one is being handled.
        """
        self._inbox.append((number, handler, value))
        if self._handling:
            return
        self._handling = True
        try:
            while self._inbox:
                sent_by, handle, what = self._inbox.popleft()
                if sent_by == self._number:
                    handle(what)
        finally:
            self._handling = False

    def _on_yielded(self, step: Started | TileResult | Failed) -> None:
        progress = self._worker.pbar
        if isinstance(step, Failed):
            self._on_errored(step.error)
        elif isinstance(step, Started):
            self._listener.on_started(step)
            progress.reset(step.tiles)
            progress.total = step.tiles  # an event for the activity dock
        else:
            self._listener.on_tile(step)
            progress.update(1)

    def _on_returned(self, _result: Any) -> None:
        self._forget()
        self._listener.on_finished()

    def _on_aborted(self, _nothing: Any) -> None:
        """Someone else quit the worker: napari, at closing, or the list of its tasks."""
        self._forget()
        self._listener.on_cancelled()

    def _on_errored(self, error: Exception) -> None:
        self._forget()
        self._listener.on_failed(error)
