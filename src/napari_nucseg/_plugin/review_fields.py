"""Parts of the review panel: the nucleus at hand, its class, how far the review is, where it is saved."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QProgressBar, QPushButton, QWidget
from superqt import QCollapsible

from napari_nucseg._plugin.parts import column, combo, enable, hint, say, steady
from napari_nucseg.core.nuclei import UNCLASSIFIED, NucleusClass, State
from napari_nucseg.review_queue import Progress, Tally

RED = "#e5484d"
"""For what may be lost; legible on napari's dark and light themes."""

UNCLASSIFIED_NAME = "unclassified"
DIGITS = 9
NARROW = 34
"""Characters of small type that fit beside a button in a narrow panel."""

TITLE = 36
"""Characters that fit in a line of it."""


def button(text: str, checkable: bool = False) -> QPushButton:
    """Return a button that leaves the keyboard to the canvas when it is clicked."""
    made = QPushButton(text)
    made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    made.setCheckable(checkable)
    made.setMinimumWidth(40)
    return made


class Fold(QCollapsible):
    """A part of the panel that is folded away at first."""

    def __init__(self, title: str, tooltip: str, body: QWidget) -> None:
        super().__init__("", expandedIcon=QIcon(), collapsedIcon=QIcon())
        self._title, self._tooltip = title, tooltip
        self.toggled.connect(lambda _: self.set_title(self._title))
        self.setDuration(0)
        head = self.toggleButton()
        head.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        head.setStyleSheet("text-align: left; border: none; padding: 4px; background: transparent;")
        head.setMinimumWidth(40)
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.layout().setSpacing(0)
        self.addWidget(body)
        self.set_title(title)

    def set_title(self, title: str) -> None:
        """Set what stands in the line that is always shown."""
        self._title = title
        short = shorten(title, TITLE, placeholder=" …")
        self.setText(f"{'▾' if self.isExpanded() else '▸'} {short}")
        self.toggleButton().setToolTip(self._tooltip if short == title else f"{title}. {self._tooltip}")


def swatch(colour: Sequence[int]) -> QIcon:
    """Return a rounded square of a class' colour."""
    pixmap = QPixmap(28, 28)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(QColor(*colour))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.drawRoundedRect(0, 0, 28, 28, 6, 6)
    painter.end()
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Disabled)  # a class has its colour while nothing is selected too
    return icon


def class_name(kind: int, classes: Sequence[NucleusClass]) -> str:
    """Return the name of a class as shown to the user."""
    return classes[kind].name if 0 <= kind < len(classes) else UNCLASSIFIED_NAME


def describe(
    record: Any, classes: Sequence[NucleusClass], doubt: float, reasons: Sequence[str]
) -> tuple[str, str]:
    """Return two lines about a nucleus: what it is, and how sure that is."""
    kind = int(record["kind"])
    name = class_name(kind, classes)
    share = ""
    if 0 <= kind < len(record["prob"]) and not record["typed"] and not np.isnan(record["prob"][kind]):
        share = f" {100 * record['prob'][kind]:.0f}%"
    state = State(record["state"]).word + (", locked" if record["locked"] else "")
    parts = [state]
    if not np.isnan(record["score"]):
        parts.append(f"score {record['score']:.2f}")
    if record["state"] == State.PREDICTED and not np.isnan(doubt):
        parts.append(f"doubt {doubt:.2f}" + (f": {', '.join(reasons)}" if reasons else ""))
    return f"Nucleus {record['id']}: {name}{share}", " · ".join(parts)


def describe_many(records: NDArray[Any], classes: Sequence[NucleusClass]) -> tuple[str, str]:
    """Return two lines about several nuclei."""
    kinds, counts = np.unique(records["kind"], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    named = [f"{counts[k]:,} {class_name(int(kinds[k]), classes)}" for k in order]
    return f"{len(records):,} nuclei selected", ", ".join(named)


class CurrentField(QWidget):
    """Says what is selected."""

    def __init__(self) -> None:
        super().__init__()
        self._head, self._rest = hint(), hint()
        steady(self._head, 1)
        steady(self._rest, 2)
        self._head.setStyleSheet("font-weight: bold;")
        layout = column(self)
        layout.addWidget(self._head)
        layout.addWidget(self._rest)

    def show_lines(self, head: str, rest: str) -> None:
        """Show two lines; the first one is the heading."""
        say(self._head, head)
        say(self._rest, rest)

    @property
    def text(self) -> str:
        """What is shown."""
        return f"{self._head.text()}\n{self._rest.text()}"


class ClassRows(QWidget):
    """A button for every class, to set it, with how much of the class was reviewed."""

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._classes: tuple[NucleusClass, ...] = ()
        self.buttons: list[QPushButton] = []
        self._counts: list[QLabel] = []
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setColumnStretch(0, 1)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(2)

    def set_classes(self, classes: Sequence[NucleusClass]) -> None:
        """List these classes."""
        if tuple(classes) == self._classes:
            return
        self._classes = tuple(classes)
        while self._grid.count():
            self._grid.takeAt(0).widget().deleteLater()
        self.buttons, self._counts = [], []
        for kind, one in enumerate(classes):
            key = f"{kind + 1}  " if kind < DIGITS else ""
            made, count = button(f"{key}{one.name}"), QLabel()
            made.setIcon(swatch(one.colour))
            made.setIconSize(QSize(14, 14))
            made.setStyleSheet("text-align: left; padding: 3px 6px;")
            made.clicked.connect(lambda _, kind=kind: self.chosen.emit(kind))
            count.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            count.setStyleSheet("font-size: 11px;")
            count.setToolTip(f"Reviewed nuclei of the class '{one.name}'.")
            self._grid.addWidget(made, kind, 0)
            self._grid.addWidget(count, kind, 1)
            self.buttons.append(made)
            self._counts.append(count)

    def set_progress(self, tallies: Sequence[Tally]) -> None:
        """Show how much of each class was reviewed."""
        for label, tally in zip(self._counts, tallies, strict=False):
            label.setText(f"{tally.reviewed:,} of {tally.total:,}")

    def count_text(self, kind: int) -> str:
        """Return what stands beside a class."""
        return str(self._counts[kind].text())

    def allow(self, reason: str | None) -> None:
        """Enable the buttons; a reason is why no class can be set now."""
        for kind, (made, one) in enumerate(zip(self.buttons, self._classes, strict=True)):
            key = f" (key {kind + 1})" if kind < DIGITS else ""
            enable(made, reason, f"Set the class of the selected nuclei to '{one.name}' and go on{key}.")


class ProgressField(QProgressBar):
    """How much of the review is done."""

    def __init__(self) -> None:
        super().__init__()
        self.setTextVisible(True)

    def show_progress(self, progress: Progress, remaining: int) -> None:
        """Show it; `remaining` is how many nuclei of the filter there are to go through."""
        done = progress.all
        self.setRange(0, max(done.total, 1))
        self.setValue(done.reviewed)
        self.setFormat(f"{done.reviewed:,} of {done.total:,} reviewed")
        some = f"; {progress.unclassified.total:,} are unclassified" if progress.unclassified.total else ""
        self.setToolTip(
            f"Reviewed: accepted, changed or rejected{some}. The filter holds {remaining:,} to go through."
        )


class RetypeField(QWidget):
    """Gives all nuclei of one class another one."""

    wanted = Signal(int, int)

    def __init__(self) -> None:
        super().__init__()
        self.old, self.new = combo("The class to be replaced."), combo("The class that takes its place.")
        self.apply = button("Retype all…")
        self.apply.clicked.connect(lambda: self.wanted.emit(self.old_kind, self.new_kind))
        self._reason: str | None = None
        grid = QGridLayout(self)
        grid.setContentsMargins(4, 2, 0, 2)
        grid.setColumnStretch(1, 1)
        for row, (text, box) in enumerate((("All of", self.old), ("become", self.new))):
            grid.addWidget(QLabel(text), row, 0)
            grid.addWidget(box, row, 1)
            box.currentIndexChanged.connect(lambda _: self.allow(self._reason))
        grid.addWidget(self.apply, 2, 1)

    @property
    def old_kind(self) -> int:
        """Class index to be replaced; the last item is for those without a class."""
        index = int(self.old.currentIndex())
        return index if index < self.old.count() - 1 else UNCLASSIFIED

    @property
    def new_kind(self) -> int:
        """Class index that takes its place."""
        return int(self.new.currentIndex())

    def set_classes(self, classes: Sequence[NucleusClass]) -> None:
        """Offer these classes."""
        names = [one.name for one in classes]
        for box, items in ((self.old, [*names, UNCLASSIFIED_NAME]), (self.new, names)):
            if [box.itemText(k) for k in range(box.count())] != items:
                kept = box.currentText()
                box.clear()
                box.addItems(items)
                box.setCurrentIndex(max(0, box.findText(kept)))

    def allow(self, reason: str | None) -> None:
        """Enable the button; a reason is why nothing can be edited now."""
        self._reason = reason
        same = "Choose two different classes." if self.old_kind == self.new_kind else None
        enable(self.apply, reason or same, "Change the class of every nucleus of the first class.")


class SavedField(QWidget):
    """Says where the review is saved."""

    folder_clicked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._line = hint()
        self.folder = button("Folder…")
        self.folder.setToolTip("Save the review in another folder.")
        self.folder.clicked.connect(lambda: self.folder_clicked.emit())
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._line, 1)
        row.addWidget(self.folder, 0, Qt.AlignmentFlag.AlignTop)
        self.show_text("Not saved yet.")

    def show_saved(self, when: datetime, path: Path) -> None:
        """Say that all is saved."""
        self.show_text(f"Saved {when:%H:%M} in {elided(path)}", str(path))

    def show_text(self, text: str, tooltip: str = "", alarm: bool = False) -> None:
        """Show one sentence, in red where something may be lost."""
        self._line.setStyleSheet("font-size: 11px;" + (f" color: {RED}; font-weight: bold;" if alarm else ""))
        self._line.setToolTip(tooltip)
        say(self._line, text)

    @property
    def text(self) -> str:
        """The sentence shown."""
        return str(self._line.text())


def elided(path: Path) -> str:
    """Return the end of a path, cut to a narrow line."""
    text = str(path)
    if len(text) <= NARROW:
        return text
    name = path.name
    return f"…/{name}" if len(name) <= NARROW - 2 else f"…{name[-(NARROW - 1) :]}"
