"""The keys of a review: one table for the key bindings, the panel, the help and the docs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from napari.qt import get_current_stylesheet
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QGridLayout, QLabel, QVBoxLayout, QWidget

CENTRES, LABELS = "centres", "labels"
"""Our Points layer and our Labels layer."""

HELP_KEY = "?"


@dataclass(frozen=True)
class Shortcut:
    """One key, or a row of them.

    Parameters
    ----------
    keys : tuple of str
        As napari's `bind_key` takes them; several do the same, except for a row of digits, whose action is told
        the place of the key in the row.
    text : str
        What it does, for the user.
    action : str or None
        Method of the review's actions; None where the key is napari's own and stays so.
    layers : tuple of str
        On which of `CENTRES` and `LABELS` it works while that layer is active.
    shown : str
        The keys for the user; by default those of `keys`.
    row : bool
        Whether the keys are a row.
    """

    keys: tuple[str, ...]
    text: str
    action: str | None
    layers: tuple[str, ...] = (CENTRES,)
    shown: str = ""
    row: bool = False

    @property
    def label(self) -> str:
        """The keys as shown to the user."""
        return self.shown or " or ".join(self.keys)


BOTH = (CENTRES, LABELS)

SHORTCUTS: tuple[Shortcut, ...] = (
    Shortcut(("C",), "Click to segment: every click adds a nucleus, or splits one", "click_to_segment", BOTH),
    Shortcut(("N",), "Next doubtful nucleus (an unreviewed one is skipped for this round)", "next", BOTH),
    Shortcut(("P",), "Back to the nucleus before", "previous"),
    Shortcut(("A",), "Accept the selected nuclei and go on; a rejected one is restored", "accept", BOTH),
    Shortcut(("X",), "Reject the selected nuclei and go on", "reject"),
    Shortcut(
        tuple("123456789"),
        "Set the class of the selected nuclei and go on",
        "retype",
        shown="1 … 9",
        row=True,
    ),
    Shortcut(("M",), "Merge the selected nuclei into one", "merge"),
    Shortcut(("U",), "Unlock a drawn shape: segment it again from its centre", "unlock", BOTH),
    Shortcut(("Control-Z",), "Undo", "undo", BOTH, shown="Ctrl+Z"),
    Shortcut(("Control-Shift-Z",), "Redo", "redo", BOTH, shown="Ctrl+Shift+Z"),
    Shortcut(
        ("Escape",), "Stop clicking to segment; forget edits that wait for the network", "cancel", shown="Esc"
    ),
    Shortcut(("S",), "Select and drag centres", None),
    Shortcut(("Z",), "Move and zoom the view", None),
    Shortcut(("Delete", "Backspace"), "Delete the selected nuclei", None, shown="Del, Backspace"),
    Shortcut(("2", "P"), "Paint the selected nucleus", None, (LABELS,), shown="P"),
    Shortcut(("1", "E"), "Erase", None, (LABELS,), shown="E"),
    Shortcut(("4", "F"), "Fill", None, (LABELS,), shown="F"),
    Shortcut(("5", "L"), "Pick the nucleus under the cursor", None, (LABELS,), shown="L"),
    Shortcut(("M",), "A new nucleus for the brush", None, (LABELS,)),
    Shortcut(("[", "]"), "Smaller or larger brush", None, (LABELS,), shown="[ ]"),
    Shortcut((HELP_KEY,), "Show this list", "help", BOTH),
)
"""napari cannot bind '?', see `HelpKey`."""


TITLES = {
    BOTH: "While the centres or the labels of a review are active",
    (CENTRES,): "While its centres (Points layer) are active",
    (LABELS,): "While its labels (Labels layer) are active",
}


class Binding(NamedTuple):
    """A key and the call that it makes."""

    key: str
    action: str
    arguments: tuple[int, ...]


def bindings(layer: str) -> list[Binding]:
    """Return what to bind on one of our layers, `CENTRES` or `LABELS`; the help key apart, see `HelpKey`."""
    return [
        Binding(key, shortcut.action, (place,) if shortcut.row else ())
        for shortcut in SHORTCUTS
        if shortcut.action is not None and layer in shortcut.layers
        for place, key in enumerate(shortcut.keys)
        if key != HELP_KEY
    ]


def key_of(action: str) -> str:
    """Return the key of an action as shown to the user."""
    return next(shortcut.label for shortcut in SHORTCUTS if shortcut.action == action)


def markdown() -> str:
    """Return the table for the docs."""
    parts = []
    for layers, title in TITLES.items():
        rows = [f"| `{s.label}` | {s.text} |" for s in SHORTCUTS if s.layers == layers]
        parts.append("\n".join([f"**{title}**", "", "| key | |", "|---|---|", *rows, ""]))
    return "\n".join(parts)


class HelpKey:
    """Makes '?' show the help.

    napari's key bindings know no '?': it becomes the unknown key, which '!' is too. So Qt is asked, which leaves
    the key to whatever text field has the focus.

    Parameters
    ----------
    window : QWidget
        In which the key works, such as the viewer's main window.
    show : callable
        Called when the key is pressed.
    """

    def __init__(self, window: QWidget, show: Callable[[], object]) -> None:
        self._shortcut = QShortcut(QKeySequence(HELP_KEY), window)
        self._shortcut.setContext(Qt.ShortcutContext.WindowShortcut)
        self._shortcut.activated.connect(show)

    def set_enabled(self, enabled: bool) -> None:
        """Let the key work, or leave it to others, such as while none of our layers is active."""
        self._shortcut.setEnabled(enabled)

    def release(self) -> None:
        """Give the key back."""
        self._shortcut.setEnabled(False)
        self._shortcut.deleteLater()


class ShortcutsDialog(QDialog):
    """The table of keys, in a window that may stay open beside the work."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("NucSeg: keys of a review")
        self.setModal(False)
        layout = QVBoxLayout(self)
        for layers, title in TITLES.items():
            heading = QLabel(title)
            heading.setStyleSheet("font-weight: bold;")
            layout.addWidget(heading)
            layout.addLayout(_table([s for s in SHORTCUTS if s.layers == layers]))
        layout.addStretch()
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.close)
        layout.addWidget(buttons)

    def show_up(self) -> None:
        """Show the window, or bring it to the front."""
        self.setStyleSheet(get_current_stylesheet())  # napari's theme reaches its own windows only
        self.show()
        self.raise_()
        self.activateWindow()


def _table(shortcuts: list[Shortcut]) -> Any:
    grid = QGridLayout()
    grid.setColumnMinimumWidth(0, 130)
    grid.setColumnStretch(1, 1)
    grid.setHorizontalSpacing(12)
    grid.setContentsMargins(0, 0, 0, 8)
    for row, shortcut in enumerate(shortcuts):
        key = QLabel(shortcut.label)
        key.setStyleSheet("font-family: monospace; font-weight: bold;")
        grid.addWidget(key, row, 0)
        grid.addWidget(QLabel(shortcut.text), row, 1)
    return grid
