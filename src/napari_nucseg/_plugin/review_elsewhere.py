"""Keys of a review that are pressed while a layer is active that does not know them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_nucseg._plugin.parts import connect_all, disconnect_all
from napari_nucseg._plugin.shortcuts_help import CENTRES, bindings

if TYPE_CHECKING:
    from napari.layers import Labels

ELSEWHERE = "Select the centres or the labels layer to use the keys of the review."


class KeysElsewhere:
    """Says where the keys work, once for every time that an image is active, or no layer at all.

    The keys are napari's there, which has other uses for some of them; so they are looked at and not taken.

    Parameters
    ----------
    viewer : napari.Viewer
    labels : Labels
        Of the review; silent while they are hidden.
    say : callable (text, alarm)
    """

    def __init__(self, viewer: Any, labels: Labels, say: Callable[[str, bool], None]) -> None:
        self._viewer, self._labels, self._say = viewer, labels, say
        self._said = False
        self._keys = {binding.key for binding in bindings(CENTRES)} - {"Escape"}
        window = getattr(viewer, "__wrapped__", viewer).window  # napari hands panels proxies
        self._pressed = [window._qt_viewer.canvas._scene_canvas.events.key_press]
        self._active = [viewer.layers.selection.events.active]
        connect_all(self._pressed, self._on_key)
        connect_all(self._active, self._on_active)

    def release(self) -> None:
        """Hear nothing any more."""
        disconnect_all(self._pressed, self._on_key)
        disconnect_all(self._active, self._on_active)

    def _on_active(self, _event: Any = None) -> None:
        self._said = False

    def _on_key(self, event: Any) -> None:
        active = self._viewer.layers.selection.active
        if self._said or event.key is None or not self._labels.visible:
            return
        held = [name for name in ("Control", "Shift", "Alt", "Meta") if name in event.modifiers]
        if (active is None or isinstance(active, Image)) and "-".join([*held, event.key.name]) in self._keys:
            self._said = True
            self._say(ELSEWHERE, True)
