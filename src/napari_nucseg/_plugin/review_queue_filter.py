"""Which nuclei a review goes through: by class, state, score and region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari.layers import Image
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QDoubleSpinBox, QFormLayout, QHBoxLayout, QLabel, QWidget

from napari_nucseg._plugin.parts import column, combo, enable, hint, say
from napari_nucseg._plugin.region_field import SHAPES, VIEW, RegionField
from napari_nucseg._plugin.regions import Area
from napari_nucseg._plugin.review_fields import UNCLASSIFIED_NAME, Fold, button
from napari_nucseg.core.nuclei import UNCLASSIFIED, NucleusClass, State
from napari_nucseg.errors import NucSegError
from napari_nucseg.review_queue import Filter

REVIEWED = frozenset({State.ACCEPTED, State.EDITED, State.DRAWN, State.REJECTED})
STATES: tuple[tuple[str, frozenset[State] | None], ...] = (
    ("To be reviewed", None),
    ("Accepted", frozenset({State.ACCEPTED})),
    ("Edited", frozenset({State.EDITED})),
    ("Drawn", frozenset({State.DRAWN})),
    ("Rejected", frozenset({State.REJECTED})),
    ("All reviewed", REVIEWED),
    ("All", REVIEWED | {State.PREDICTED}),
)
EVERY_CLASS = "All classes"


class FilterField(QWidget):
    """Chooses a `Filter`; folded away, with what is chosen in its heading.

    Parameters
    ----------
    viewer : napari.Viewer
        For regions: its view and its shapes.
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._classes: tuple[NucleusClass, ...] = ()
        self._area, self._told = Area(), ""
        self._make_fields(viewer)
        self.fold = Fold("Filter", "Which nuclei N and P go through.", self._lay_out())
        column(self).addWidget(self.fold)
        self.kind.currentIndexChanged.connect(self._tell)
        self.state.currentIndexChanged.connect(self._tell)
        self.low.valueChanged.connect(self._tell)
        self.high.valueChanged.connect(self._tell)
        self.region.box.activated.connect(lambda _: self._take_area(True))
        self.region.changed.connect(self._take_area)
        self._tell()

    def _make_fields(self, viewer: Any) -> None:
        self.kind = combo("Nuclei of this class.")
        self.kind.addItem(EVERY_CLASS)
        self.state = combo(
            "Nuclei in this state; choose 'Rejected' to look at rejected ones and restore them."
        )
        self.state.addItems([name for name, _ in STATES])
        self.low, self.high = _score(0.0, "Lowest centre score."), _score(1.0, "Highest centre score.")
        self.region = RegionField(viewer)
        self.region.box.setToolTip("Nuclei whose centre lies in this part of the image.")
        for box in (self.kind, self.state, self.region.box):  # else N would choose "neoplastic" here
            box.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._problem = hint()
        self.reset_button = button("Show all again")
        self.reset_button.clicked.connect(self.reset)

    def _lay_out(self) -> QWidget:
        scores = QHBoxLayout()
        scores.addWidget(self.low, 1)
        scores.addWidget(QLabel("to"))
        scores.addWidget(self.high, 1)
        body = QWidget()
        form = QFormLayout(body)
        form.setContentsMargins(4, 2, 0, 2)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.addRow("Class", self.kind)
        form.addRow("State", self.state)
        form.addRow("Score", scores)
        form.addRow("Region", self.region)
        form.addRow(self._problem)
        form.addRow(self.reset_button)
        return body

    @property
    def filter(self) -> Filter:
        """What is chosen."""
        kind = self.kind.currentIndex() - 1
        last = self.kind.count() - 2
        scores = (round(self.low.value(), 2), round(self.high.value(), 2))
        return Filter(
            kinds=None if kind < 0 else frozenset({UNCLASSIFIED if kind == last else kind}),
            states=STATES[self.state.currentIndex()][1],
            scores=None if scores == (0.0, 1.0) else scores,
            box=self._area.box,
            polygons=self._area.polygons,
        )

    @property
    def is_on(self) -> bool:
        """Whether anything is left out."""
        return bool(self._words())

    def set_classes(self, classes: Sequence[NucleusClass]) -> None:
        """Offer these classes; the chosen one is kept if it is among them."""
        if tuple(classes) == self._classes:
            return
        self._classes = tuple(classes)
        kept = self.kind.currentText()
        self.kind.blockSignals(True)
        self.kind.clear()
        self.kind.addItems([EVERY_CLASS, *(one.name for one in classes), UNCLASSIFIED_NAME])
        self.kind.setCurrentIndex(max(0, self.kind.findText(kept)))
        self.kind.blockSignals(False)
        self._tell()

    def set_image(self, image: Image | None) -> None:
        """Say of which image the regions are."""
        self.region.set_image(image)

    def reset(self, _checked: Any = None) -> None:
        """Go back to all that is to be reviewed."""
        for box in (self.kind, self.state, self.region.box):
            box.setCurrentIndex(0)
        self.low.setValue(0.0)
        self.high.setValue(1.0)
        self._take_area()

    def _take_area(self, choosing: bool = False) -> None:
        """Take over the region. The view is that of the moment in which it is chosen: N moves it."""
        index = self.region.box.currentIndex()
        if index == VIEW and not choosing:
            return
        try:
            self._area = self.region.area()
            say(self._problem, "")
        except NucSegError as error:
            self._area = Area()
            say(self._problem, "" if index == SHAPES else str(error))  # the field says it of shapes itself
        if index == VIEW and self._area.box is not None:
            say(self._problem, "The view of when you chose it; choose it again for the present one.")
        self._tell()

    def _tell(self, _value: Any = None) -> None:
        """Tell of what is chosen, if it is something else than before."""
        words = self._words()
        self.fold.set_title("Filter: " + ", ".join(words) if words else "Filter")
        same = None if words else "Nothing is filtered out."
        enable(self.reset_button, same, "Go through all that is to be reviewed.")
        told = repr((self.filter, [polygon.tolist() for polygon in self._area.polygons]))
        if told != self._told:
            self._told = told
            self.changed.emit()

    def _words(self) -> list[str]:
        words = [box.currentText().lower() for box in (self.kind, self.state) if box.currentIndex() > 0]
        if self.low.value() > 0 or self.high.value() < 1:
            words.append(f"score {self.low.value():.2f}–{self.high.value():.2f}")
        if self._area.box is not None or self._area.polygons:
            words.append(self._area.title)
        return words

    def release(self) -> None:
        """Let go of the viewer."""
        self.region.release()


def _score(value: float, tooltip: str) -> QDoubleSpinBox:
    spin = QDoubleSpinBox()
    spin.setRange(0.0, 1.0)
    spin.setSingleStep(0.05)
    spin.setDecimals(2)
    spin.setValue(value)
    spin.setToolTip(tooltip)
    spin.setKeyboardTracking(False)
    spin.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)  # two with buttons do not fit side by side
    spin.setStyleSheet("min-width: 45px;")  # less than napari's own
    return spin
