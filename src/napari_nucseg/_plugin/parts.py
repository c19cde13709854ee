"""Small pieces of the panel's looks, shared by its fields."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QComboBox, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

AMBER = "#c97208"
"""For what needs the user's attention; legible on napari's dark and light themes."""


STEADY = "steady"
LINE = 15
"""Height of a line of a hint in pixels."""


def hint(text: str = "", colour: str | None = None) -> QLabel:
    """Return a small label that wraps; hidden while it is empty."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    # A policy of Ignored lets the panel be narrower than the text is long.
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    label.setStyleSheet("font-size: 11px;" + (f" color: {colour};" if colour else ""))
    label.setVisible(bool(text))
    return label


def say(label: QLabel, text: str) -> None:
    """Set the text of a hint."""
    label.setText(text)
    label.setVisible(bool(text) or bool(label.property(STEADY)))


def steady(label: QLabel, lines: int) -> None:
    """Reserve the height of some lines, so that what is below stays where it is as the text changes."""
    label.setProperty(STEADY, True)
    label.setMinimumHeight(lines * LINE)
    label.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
    label.setVisible(True)


def combo(tooltip: str) -> QComboBox:
    """Return a combo box that may be narrower than its longest item."""
    box = QComboBox()
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(10)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    box.setToolTip(tooltip)
    return box


def column(widget: QWidget) -> QVBoxLayout:
    """Give a widget a column without margins."""
    layout = QVBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(2)
    return layout


def side_button(text: str, tooltip: str) -> QPushButton:
    """Return a button to stand beside a field."""
    button = QPushButton(text)
    button.setToolTip(tooltip)
    button.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
    return button


def set_item(box: QComboBox, index: int, text: str, reason: str | None, tooltip: str = "") -> None:
    """Set an item's text; a reason disables it and becomes its tooltip."""
    box.setItemText(index, text)
    item = box.model().item(index)
    item.setEnabled(reason is None)
    item.setToolTip(reason or tooltip)


def choose(box: QComboBox, index: int) -> None:
    """Set the current item without a signal."""
    blocker = QSignalBlocker(box)
    box.setCurrentIndex(index)
    blocker.unblock()


def enable(widget: QWidget, reason: str | None, tooltip: str) -> None:
    """Enable a widget, or disable it and say why in its tooltip."""
    widget.setEnabled(reason is None)
    widget.setToolTip(reason or tooltip)


def connect_all(emitters: list[Any], slot: Any) -> None:
    """Connect a bound method to napari events; they hold it weakly."""
    for emitter in emitters:
        emitter.connect(slot)


def disconnect_all(emitters: list[Any], slot: Any) -> None:
    """Undo `connect_all`, as far as it still stands."""
    for emitter in emitters:
        try:
            emitter.disconnect(slot)
        except (ValueError, RuntimeError, KeyError):
            continue
