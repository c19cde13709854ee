"""The review's part of the panel: what keys do, as buttons, and how far the review has come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_nucseg._plugin.parts import AMBER, column, enable, hint, say
from napari_nucseg._plugin.questions import ask_retype
from napari_nucseg._plugin.review_fields import (
    ClassRows,
    CurrentField,
    Fold,
    ProgressField,
    RetypeField,
    SavedField,
    button,
    class_name,
    describe,
    describe_many,
)
from napari_nucseg._plugin.review_queue_filter import FilterField
from napari_nucseg._plugin.shortcuts_help import key_of
from napari_nucseg.core.nuclei import is_live

if TYPE_CHECKING:
    from napari_nucseg.review_queue import ReviewQueue
    from napari_nucseg.session import Session

REFRESH_MS = 30
"""Edits within this time are shown together, so that a drag does not wait for the panel."""

NO_REVIEW = "There is no review yet; press Run, or 'Click to segment' and click on a nucleus."
NO_SELECTION = f"Select a nucleus first: click on a centre, or press {key_of('next')}."
NOTHING_SELECTED = f"{key_of('next')} goes to the most doubtful one."

BUTTONS = {
    "previous": ("◂ Previous", "Back to the nucleus before."),
    "next": ("Next ▸", "Go to the next doubtful nucleus; an unreviewed one is skipped for this round."),
    "accept": ("Accept", "Accept the selected nuclei and go on; rejected ones are restored."),
    "reject": ("Reject", "Reject the selected nuclei and go on."),
    "merge": ("Merge", "Make one nucleus of the selected ones."),
    "unlock": ("Unlock", "Segment the selected nuclei again from their centres."),
    "undo": ("↶ Undo", "Take back: {}."),
    "redo": ("↷ Redo", "Do again: {}."),
}
"""Text and tooltip, in the order of the rows."""

KEY_IN_TOOLTIP = ("undo", "redo")
"""Their keys are too long for a narrow panel."""


class Actions(Protocol):
    """What the buttons call; see `ReviewActions`."""

    def next(self) -> None: ...
    def previous(self) -> None: ...
    def accept(self) -> None: ...
    def reject(self) -> None: ...
    def retype(self, kind: int) -> None: ...
    def retype_class(self, old: int, new: int) -> None: ...
    def merge(self) -> None: ...
    def unlock(self) -> None: ...
    def undo(self) -> None: ...
    def redo(self) -> None: ...
    def help(self) -> None: ...


class ReviewPanel(QWidget):
    """Buttons, progress and filter of a review.

    Parameters
    ----------
    viewer : napari.Viewer
        For the regions of the filter.
    ask : callable (parent, count, old name, new name) -> bool
        Asks before many nuclei are retyped.

    Attributes
    ----------
    click_toggled : Signal(bool)
        The user begins or ends clicking to segment.
    import_clicked, folder_clicked : Signal()
        The user wants to import from QuPath, or to save in another folder.
    filter_changed : Signal()
        The queue has another filter.
    """

    click_toggled = Signal(bool)
    import_clicked = Signal()
    folder_clicked = Signal()
    filter_changed = Signal()

    def __init__(self, viewer: Any, ask: Callable[[Any, int, str, str], bool] = ask_retype) -> None:
        super().__init__()
        self._ask = ask
        self._session: Session | None = None
        self._queue: ReviewQueue | None = None
        self._actions: Actions | None = None
        self._ids: tuple[int, ...] = ()
        self._busy: str | None = None
        self._make_fields(viewer)
        self._lay_out()
        self._connect()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self.refresh)
        self.set_click_reason(None)
        self.refresh()

    def _make_fields(self, viewer: Any) -> None:
        self.click = button(f"Click to segment ({key_of('click_to_segment')})", checkable=True)
        self.buttons: dict[str, QPushButton] = {}
        for name, (text, _) in BUTTONS.items():
            self.buttons[name] = button(text if name in KEY_IN_TOOLTIP else f"{text} ({key_of(name)})")
        self.current, self.classes, self.progress = CurrentField(), ClassRows(), ProgressField()
        self.filter, self.retype = FilterField(viewer), RetypeField()
        self.retype_fold = Fold(
            "Retype a whole class", "Give all nuclei of a class another one.", self.retype
        )
        self.import_button, self.help_button = button("Import from QuPath…"), button("Shortcuts (?)")
        self.help_button.setToolTip("Show all the keys of a review.")
        self.saved, self._problem = SavedField(), hint("", AMBER)

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setSpacing(4)
        for k, made in enumerate(self.buttons.values()):
            grid.addWidget(made, k // 2, k % 2)
        self.body = QWidget()
        inner = column(self.body)
        inner.setSpacing(6)
        inner.addLayout(grid)
        for field in (
            self.current,
            self.classes,
            self.progress,
            self.filter,
            self.retype_fold,
            self._problem,
        ):
            inner.addWidget(field)
        foot = QHBoxLayout()
        foot.setSpacing(4)
        foot.addWidget(self.import_button, 3)
        foot.addWidget(self.help_button, 2)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(6)
        outer.addWidget(self.click)
        outer.addWidget(self.body)
        outer.addLayout(foot)
        outer.addWidget(self.saved)

    def _connect(self) -> None:
        self.click.clicked.connect(lambda on: self.click_toggled.emit(on))
        for name, made in self.buttons.items():
            made.clicked.connect(lambda _, name=name: self._call(name))
        self.help_button.clicked.connect(lambda _: self._call("help"))
        self.import_button.clicked.connect(lambda: self.import_clicked.emit())
        self.saved.folder_clicked.connect(lambda: self.folder_clicked.emit())
        self.classes.chosen.connect(lambda kind: self._call("retype", kind))
        self.retype.wanted.connect(self._on_retype)
        self.filter.changed.connect(self._on_filter)

    # ---- what the rest of the plugin says -------------------------------------------------------------

    def set_review(
        self, session: Session | None, queue: ReviewQueue | None = None, actions: Actions | None = None
    ) -> None:
        """Show a review; None: there is none."""
        if session is self._session and queue is self._queue and actions is self._actions:
            return
        self._let_go()
        self._session, self._queue, self._actions, self._ids = session, queue, actions, ()
        if session is not None:
            session.changed.connect(self._on_changed)
            session.classes_changed.connect(self._on_changed)
            self.filter.set_classes(session.classes)
            self._on_filter()
        self.refresh()

    def set_image(self, image: Image | None) -> None:
        """Say of which image the regions of the filter are."""
        self.filter.set_image(image)

    def set_selected(self, ids: Sequence[int]) -> None:
        """Say which nuclei are selected."""
        if tuple(ids) != self._ids:
            self._ids = tuple(ids)
            self._timer.start()

    def set_clicking(self, on: bool) -> None:
        """Say whether clicks segment."""
        self.click.setChecked(on)

    def set_click_reason(self, reason: str | None) -> None:
        """Say why one cannot click to segment, None if one can."""
        enable(self.click, reason, "Every click on the image adds a nucleus, or splits the one it lies in.")
        enable(self.import_button, reason, "Take in detections, cells, annotations or points from GeoJSON.")

    def set_busy(self, reason: str | None) -> None:
        """Say why nothing can be edited for now, such as a run under way."""
        self._busy = reason
        self.refresh()

    # ---- what is shown ----------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show what holds now."""
        self._timer.stop()
        session, queue = self._session, self._queue
        self.body.setVisible(session is not None)
        self.saved.setVisible(session is not None)
        blocked = self._busy or (NO_REVIEW if self._actions is None else None)
        enable(
            self.help_button, NO_REVIEW if self._actions is None else None, "Show all the keys of a review."
        )
        if session is None or queue is None:
            return
        self.classes.set_classes(session.classes)
        self.filter.set_classes(session.classes)
        self.retype.set_classes(session.classes)
        self.retype.allow(blocked)
        progress = queue.progress()
        self.progress.show_progress(progress, queue.remaining)
        self.classes.set_progress(progress.classes)
        records = self._selected(session)
        self._show_current(session, queue, records)
        self._allow(session, records, blocked)

    def _selected(self, session: Session) -> NDArray[Any]:
        rows = session.rows_of(list(self._ids)) if self._ids else np.zeros(0, np.int64)
        return session.records[rows[rows >= 0]]

    def _show_current(self, session: Session, queue: ReviewQueue, records: NDArray[Any]) -> None:
        if not len(records):
            done = "Nothing left in this filter" if self.filter.is_on else "All is reviewed"
            left = f"{queue.remaining:,} left to review; {NOTHING_SELECTED}"
            self.current.show_lines("No nucleus is selected", left if queue.remaining else f"{done}.")
        elif len(records) == 1:
            id_ = int(records["id"][0])
            about = describe(records[0], session.classes, queue.doubt_of(id_), queue.reasons_of(id_))
            self.current.show_lines(*about)
        else:
            self.current.show_lines(*describe_many(records, session.classes))

    def _allow(self, session: Session, records: NDArray[Any], blocked: str | None) -> None:
        """Enable the buttons that can do something, and say of the others why they cannot."""
        none = None if len(records) else NO_SELECTION
        dead = None if is_live(records).any() or none else "It is rejected; accept it to restore it."
        few = None if len(records) > 1 else "Select two or more nuclei to merge them."
        free = None if records["locked"].any() else "None of the selected nuclei is locked."
        names = {"undo": session.can_undo, "redo": session.can_redo}
        reasons = {
            "previous": None,
            "next": None,
            "accept": none,
            "reject": none or dead,
            "merge": none or few,
            "unlock": none or free,
            "undo": None if names["undo"] else "There is nothing to undo.",
            "redo": None if names["redo"] else "There is nothing to do again.",
        }
        for name, made in self.buttons.items():
            tip = BUTTONS[name][1].format(names.get(name))
            enable(made, blocked or reasons[name], f"{tip} Key: {key_of(name)}")
        self.classes.allow(blocked or none or dead)

    # ---- what the user does -----------------------------------------------------------------------------

    def _call(self, name: str, *arguments: int) -> None:
        if self._actions is not None:
            getattr(self._actions, name)(*arguments)

    def _on_changed(self, _change: Any = None) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _on_filter(self) -> None:
        if self._queue is not None:
            self._queue.filter = self.filter.filter
            self.filter_changed.emit()
            self.refresh()

    def _on_retype(self, old: int, new: int) -> None:
        session = self._session
        if session is None:
            return
        count = int((is_live(session.records) & (session.records["kind"] == old)).sum())
        names = class_name(old, session.classes), class_name(new, session.classes)
        if not count:
            say(self._problem, f"There is no nucleus of the class '{names[0]}'; choose another class.")
            return
        say(self._problem, "")
        if self._ask(self, count, *names):
            self._call("retype_class", old, new)

    def _let_go(self) -> None:
        if self._session is not None:
            self._session.changed.disconnect(self._on_changed)
            self._session.classes_changed.disconnect(self._on_changed)

    def release(self) -> None:
        """Let go of the viewer and the review."""
        self._timer.stop()
        self._let_go()
        self._session = self._queue = self._actions = None
        self.filter.release()
