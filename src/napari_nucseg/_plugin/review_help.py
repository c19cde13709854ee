"""What napari's status bar says of the keys while the centres of a review are active."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_nucseg._plugin.parts import connect_all, disconnect_all
from napari_nucseg._plugin.shortcuts_help import HELP_KEY, key_of

if TYPE_CHECKING:
    from napari.layers import Points

WORDS = (
    ("click_to_segment", "click to segment"),
    ("next", "next"),
    ("previous", "back"),
    ("accept", "accept"),
    ("reject", "reject"),
    ("retype", "class"),
)


def help_line() -> str:
    """Return the most used keys in one line."""
    keys = [f"<{key_of(action)}> {word}" for action, word in WORDS]
    return ", ".join([*keys, f"<{HELP_KEY}> all keys"])


class HelpLine:
    """Puts our line in place of napari's, which tells of keys that do something else in a review.

    napari's line of the labels stays: the keys of its tools work there.

    Parameters
    ----------
    points : Points
    """

    def __init__(self, points: Points) -> None:
        self._points, self._line, self._before = points, help_line(), ""
        connect_all([points.events.help], self._on_help)
        self._on_help()

    def release(self) -> None:
        """Give the line back to napari."""
        disconnect_all([self._points.events.help], self._on_help)
        self._points.help = self._before

    def _on_help(self, _event: Any = None) -> None:
        """Keep what napari says, which it does with every change of the tool, for later."""
        if self._points.help != self._line:
            self._before = self._points.help
            self._points.help = self._line
