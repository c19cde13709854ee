"""Saving in the background: edits go to the journal at once, and into labels and table when there is time.

One thread owns the folder; the thread of the window only puts changes into a queue. Whatever goes wrong on the disk is
told once and tried again; until then everything stays in memory, so that nothing is lost while the window is open.
"""

from __future__ import annotations

import logging
import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg.io.session_writer import Move, Pace, Problems, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_nucseg.core.nuclei import Change, NucleusClass
    from napari_nucseg.io.session_format import Snapshot
    from napari_nucseg.io.session_store import SessionStore
    from napari_nucseg.io.session_writer import Part

__all__ = ["Autosave", "Pace"]

_log = logging.getLogger(__name__)


class Autosave:
    """Saves a session in the background until `close`.

    Parameters
    ----------
    target : Path or SessionStore
        New folder to make (another name is taken if it is occupied), or the store of an opened session.
    snapshot : Snapshot
        The session as it is now. Its labels are read whenever they have to be written in full (a new folder, a move),
        so they must be the array that the edits change in place; records are copied.
    on_problem : callable
        Takes a sentence when saving begins to fail, and None when everything is saved again. Called in the background.
    between_edits : callable, optional
        Takes a function of a few milliseconds and has it called, in whatever thread, when no edit is under way: when
        every change made to the labels so far has been given to `append`, and none is being made or taken back. Used
        for every part of a full copy of the labels. Without it, they must not be edited before `is_ready`, nor while
        the folder is moved.
    pace : Pace
        Times, for tests.
    """

    def __init__(
        self,
        target: Path | SessionStore,
        snapshot: Snapshot,
        on_problem: Callable[[str | None], None],
        *,
        between_edits: Callable[[Callable[[], None]], None] | None = None,
        pace: Pace | None = None,
    ) -> None:
        pace = pace or Pace()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._between_edits = between_edits
        self._closing = self._stopping = self._saved = False
        self._asked: list[threading.Event] = []
        self._problems = Problems(on_problem, pace.retry)
        self._writer = Writer(target, snapshot, self._problems, pace, self._quietly, lambda: self._take(0))
        self._thread = threading.Thread(target=self._run, name="nucseg-autosave", daemon=True)
        self._thread.start()

    def append(self, change: Change) -> None:
        """Save a change soon; takes microseconds and never fails. Its arrays must not be written to any more."""
        self._queue.put(change)

    def set_classes(self, classes: Sequence[NucleusClass]) -> None:
        """Save the classes after one was added; call it before `append` of a change that uses the new class."""
        self._queue.put(tuple(classes))

    def move_to(self, folder: Path, keep_old: bool = False) -> None:
        """Go on in another folder. The old one is used until the new one is complete, and then removed.

        Parameters
        ----------
        folder
            New folder of the session; another name is taken if it is occupied.
        keep_old
            Leave a closed copy in the old folder.
        """
        self._queue.put(Move(Path(folder).absolute(), keep_old))

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until every change given so far is on the disk; return whether it is."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout)

    def close(self, timeout: float = 30.0) -> bool:
        """Save everything, give the folder back and end.

        Parameters
        ----------
        timeout
            Seconds after which to leave the work to the background; it ends with the process.

        Returns
        -------
        bool
            Whether everything is saved. If not, `problem` says why, or it takes longer.
        """
        self._closing = True
        self._queue.put(None)
        self._thread.join(timeout)
        return self._saved

    @property
    def folder(self) -> Path:
        """The session's folder; that moved to once it is complete."""
        return self._writer.folder

    @property
    def problem(self) -> str | None:
        """Why saving fails at present."""
        return self._problems.sentence

    @property
    def is_ready(self) -> bool:
        """Whether the folder is complete, so that the session would survive a crash."""
        return self._writer.is_ready

    def _run(self) -> None:
        while not self._stopping:  # which a step may set too, see `Writer`
            self._take(self._writer.timeout())
            if not self._stopping:
                self._writer.step()
            if self._writer.is_done:
                while self._asked:
                    self._asked.pop().set()
        self._saved = self._writer.finish()

    def _take(self, timeout: float | None) -> None:
        """Take everything from the queue, after waiting so long for something to come."""
        try:
            item = self._queue.get_nowait() if timeout == 0 else self._queue.get(timeout=timeout)
            while True:
                self._handle(item)
                item = self._queue.get_nowait()
        except queue.Empty:
            return

    def _handle(self, item: Any) -> None:
        if item is None:
            self._stopping = True
        elif isinstance(item, threading.Event):
            self._asked.append(item)
        else:
            try:
                self._writer.note(item)
            except Exception:
                _log.exception("A change can't be saved")

    def _quietly(self, copy: Callable[[], Part]) -> Part:
        """Call a function between two edits, and return what it does."""
        if self._between_edits is not None and not self._closing:
            copies: list[Part] = []
            done = threading.Event()

            def call() -> None:
                copies.append(copy())
                done.set()

            self._between_edits(call)
            while not (
                done.wait(0.05) or self._closing
            ):  # who closes is in no edit, but may wait for this thread
                pass
            if copies:
                return copies[0]
        return copy()
