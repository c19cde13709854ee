"""The classes of the results: their colours, how many nuclei there are, and which are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_nucseg._plugin.colouring import BY_CLASS, BY_INSTANCE, Look
from napari_nucseg._plugin.parts import combo


class Legend(QWidget):
    """Class legend with counts, show/hide, and the way of colouring."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._classes: tuple[str, ...] = ()
        self._checks: dict[str, QCheckBox] = {}
        self._counts: dict[str, QLabel] = {}
        self._by = combo("Colour the labels by class, or every nucleus in a colour of its own.")
        self._by.addItems(["By class", "By instance"])
        self._by.currentIndexChanged.connect(lambda _: self.changed.emit())
        self._outlines = QCheckBox("Outlines")
        self._outlines.setToolTip("Outlines of the nuclei in place of filled labels.")
        self._outlines.setChecked(Look().outlines)
        self._outlines.toggled.connect(lambda _: self.changed.emit())
        row = QHBoxLayout()
        row.addWidget(QLabel("Colour"))
        row.addWidget(self._by, 1)
        row.addWidget(self._outlines)
        self._grid = QGridLayout()
        self._grid.setColumnStretch(1, 1)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addLayout(self._grid)

    @property
    def look(self) -> Look:
        """How the results are to be shown."""
        hidden = frozenset(name for name, check in self._checks.items() if not check.isChecked())
        by = BY_INSTANCE if self._by.currentIndex() else BY_CLASS
        return Look(by, hidden, self._outlines.isChecked())

    def set_by(self, by: str) -> None:
        """Colour by "class" or by "instance"."""
        self._by.setCurrentIndex(int(by == BY_INSTANCE))

    def set_outlines(self, outlines: bool) -> None:
        """Show outlines, or filled labels."""
        self._outlines.setChecked(outlines)

    def set_shown(self, name: str, shown: bool) -> None:
        """Show or hide a class."""
        self._checks[name].setChecked(shown)

    def set_classes(self, colours: Mapping[str, Sequence[int]], names: Sequence[str]) -> None:
        """List these classes; all are shown, unless they are those listed already."""
        if tuple(names) == self._classes:
            return
        self._classes = tuple(names)
        while self._grid.count():
            self._grid.takeAt(0).widget().deleteLater()
        self._checks.clear()
        self._counts.clear()
        for k, name in enumerate(names):
            swatch, check, count = _swatch(colours[name]), self._check(name), QLabel("0")
            count.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            for column, widget in enumerate((swatch, check, count)):
                self._grid.addWidget(widget, k, column)
            self._checks[name], self._counts[name] = check, count

    def _check(self, name: str) -> QCheckBox:
        check = QCheckBox(name)
        check.setToolTip(f"Show the nuclei of the class '{name}', labels and centres.")
        blocker = QSignalBlocker(check)
        check.setChecked(True)
        blocker.unblock()
        check.toggled.connect(lambda _: self.changed.emit())
        return check

    def set_counts(self, counts: Mapping[str, int], in_view: Mapping[str, int] | None = None) -> None:
        """Show how many nuclei of every class there are, and how many of them are in view."""
        total = sum(counts.values())
        for name, label in self._counts.items():
            n = counts.get(name, 0)
            if in_view:
                label.setText(f"{in_view.get(name, 0):,} / {n:,}")
                label.setToolTip("In view / in the whole slide.")
            else:
                label.setText(f"{n:,}" + (f"  ({100 * n / total:.0f}%)" if total else ""))

    def count_text(self, name: str) -> str:
        """Return what stands beside a class."""
        return str(self._counts[name].text())


def _swatch(rgb: Sequence[int]) -> Any:
    label = QLabel()
    label.setFixedSize(14, 14)
    red, green, blue = rgb
    label.setStyleSheet(f"background-color: rgb({red}, {green}, {blue}); border-radius: 3px;")
    return label
