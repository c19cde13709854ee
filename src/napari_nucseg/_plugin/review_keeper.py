"""Saving of reviews: from its first edit on, a review is on the disk a moment after every edit."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtCore import Signal as QtSignal
from qtpy.QtWidgets import QWidget

from napari_nucseg._plugin.review_busy import once_free
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg._plugin.review import Review
    from napari_nucseg.core.nuclei import Change
    from napari_nucseg.io.session_autosave import Autosave
    from napari_nucseg.io.session_format import Snapshot
    from napari_nucseg.io.session_store import SessionStore

_log = logging.getLogger(__name__)

LOOK_MS = 500
"""Time after an edit at which the panel is told that it is saved; the disk has had it before."""

LAST_WAIT = 15.0
"""Seconds that the end of the program waits for labels and table; the journal has all edits before that."""

_open: weakref.WeakSet[Keeper] = weakref.WeakSet()
_closing: set[Keeper] = set()


class _Courier(QObject):
    """Has functions called in the thread of the window."""

    post = QtSignal(object)

    def __init__(self) -> None:
        super().__init__()
        self.post.connect(self._call, Qt.ConnectionType.QueuedConnection)

    def _call(self, function: Callable[[], None]) -> None:
        function()


class Keeper:
    """Saves one review.

    Parameters
    ----------
    review : Review
    about : dict
        See `io.session_format.Snapshot`.
    folder : callable () -> Path
        Where to, asked when there is something to save.
    opened : (SessionStore, Snapshot), optional
        Of a review that was restored; saving goes on there.

    Attributes
    ----------
    changed : Signal()
        The folder, the time of saving or the problem is another one.
    closed : Signal()
        The folder was given back; told in the thread of the window.
    saved_at : datetime or None
    problem : str or None
        Why saving fails at present; nothing is lost as long as the window is open.
    """

    changed = Signal()
    closed = Signal()

    def __init__(
        self,
        review: Review,
        about: dict[str, Any],
        folder: Callable[[], Path],
        opened: tuple[SessionStore, Snapshot] | None = None,
    ) -> None:
        self._review, self.session = review, review.session
        self._about, self._folder = about, folder
        self.saved_at: datetime | None = None
        self.problem: str | None = None
        self._autosave: Autosave | None = None
        self._courier, self._timer = _Courier(), QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self._look)
        if opened is not None:
            self._start(*opened)
            self.saved_at = datetime.now()
        self.session.changed.connect(self._on_change)
        self.session.classes_changed.connect(self._on_classes)
        _open.add(self)

    def end_with(self, window: QWidget) -> None:
        """Close when a window is closed: who does so in a running interpreter may open the review again there."""
        window.destroyed.connect(self.close)

    @property
    def folder(self) -> Path | None:
        """Where the review is saved; None as long as there is nothing to save."""
        return None if self._autosave is None else self._autosave.folder

    def save_now(self) -> None:
        """Begin to save, even if nothing was edited yet."""
        if self._autosave is None:
            self._begin()

    def move_to(self, folder: Path) -> None:
        """Save in another folder from now on."""
        if self._autosave is None:
            self._folder = lambda: folder
            self._begin()
        else:
            self._autosave.move_to(folder)
        self._timer.start()

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all is saved; return whether it is."""
        return self._autosave is None or self._autosave.flush(timeout)

    def session_began(self, review: Review) -> None:
        """See `SessionListener`."""

    def session_ended(self, review: Review) -> None:
        """See `SessionListener`."""
        self.close()

    def close(self, *_: Any) -> None:
        """Save what is left, in the background, and give the folder back."""
        autosave = self._let_go()
        if autosave is not None:
            _closing.add(self)
            threading.Thread(
                target=self._give_back, args=(autosave,), name="nucseg-close", daemon=False
            ).start()

    def _give_back(self, autosave: Autosave) -> None:
        try:
            autosave.close()
        finally:
            _closing.discard(self)
            with suppress(RuntimeError):  # the window is gone
                self._courier.post.emit(self.closed.emit)

    def close_and_wait(self, timeout: float = LAST_WAIT) -> None:
        """Save what is left and give the folder back."""
        autosave = self._let_go()
        if autosave is not None:
            autosave.close(timeout)

    def _let_go(self) -> Autosave | None:
        if self not in _open:
            return None
        _open.discard(self)
        self.session.changed.disconnect(self._on_change)
        self.session.classes_changed.disconnect(self._on_classes)
        return self._autosave

    def _begin(self) -> None:
        from napari_nucseg.io.session_format import Snapshot

        session = self.session
        snapshot = Snapshot(
            session.labels, session.records.copy(), session.classes, session.next_id, self._about
        )
        self._start(self._folder(), snapshot)
        if self.problem is not None:  # it could not begin before
            self._on_problem(None)

    def _start(self, target: Path | SessionStore, snapshot: Snapshot) -> None:
        from napari_nucseg.io.session_autosave import Autosave

        self._autosave = Autosave(
            target,
            snapshot,
            lambda problem: self._courier.post.emit(lambda: self._on_problem(problem)),
            between_edits=lambda call: self._courier.post.emit(lambda: self._between_edits(call)),
        )

    def _between_edits(self, call: Callable[[], None]) -> None:
        """Call when the labels hold nothing that is not told yet: no import, and no stroke of the brush under way."""
        once_free(lambda: self._review.held, call)

    def _on_change(self, change: Change) -> None:
        """Save an edit; whatever goes wrong is a problem of saving, and none of the edit."""
        try:
            self._keep(change)
        except Exception as error:
            text = str(error) if isinstance(error, NucSegError) else f"Saving fails at present: {error}"
            if text != self.problem:
                _log.exception("An edit can't be saved")
                self._on_problem(text)

    def _keep(self, change: Change) -> None:
        if self._autosave is None:
            self._begin()
        else:
            self._autosave.append(change)
        if not self._timer.isActive():
            self._timer.start()

    def _on_classes(self) -> None:
        if self._autosave is not None:
            self._autosave.set_classes(self.session.classes)

    def _on_problem(self, problem: str | None) -> None:
        self.problem = problem
        if problem is None:
            self._timer.start()
        self.changed.emit()

    def _look(self) -> None:
        autosave = self._autosave
        if autosave is None or autosave.problem is not None:
            return
        if not autosave.is_ready:
            self._timer.start()
            return
        self.saved_at = datetime.now()
        self.changed.emit()


def keeper_of(review: Review | None) -> Keeper | None:
    """Return what saves a review."""
    listeners = [] if review is None else review.listeners
    return next((listener for listener in listeners if isinstance(listener, Keeper)), None)


def kept_folders() -> set[Path]:
    """Return the folders of the reviews that are open in this program."""
    return {keeper.folder for keeper in [*_open, *_closing] if keeper.folder is not None}


def close_all() -> None:
    """Save all reviews and give their folders back; called at the end of the program."""
    for keeper in list(_open):
        try:
            keeper.close_and_wait()
        except NucSegError:  # told before, as a problem
            continue


atexit.register(close_all)
