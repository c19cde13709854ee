"""The keys of a review on its two layers; napari asks a layer's own keys before those of its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari_nucseg._plugin.shortcuts_help import CENTRES, LABELS, bindings

ESCAPE, PASTE = "Escape", "Control-V"
NO_PASTE = "Centres can't be pasted; press C and click to add nuclei."


def bind_keys(
    actions: Any, labels: Any, points: Any, new_label: Callable[[], None], say: Callable[[str], None]
) -> None:
    """Bind the keys of a review.

    Parameters
    ----------
    actions : ReviewActions
    labels : Labels
    points : Points or None
    new_label : callable
        Chooses a label for the brush that no nucleus has had.
    say : callable (text)
    """
    for layer, name in ((labels, LABELS), (points, CENTRES)):
        if layer is None:
            continue
        for key, action, arguments in bindings(name):
            layer.bind_key(key, _call(getattr(actions, action), *arguments), overwrite=True)
    labels.bind_key("M", _call(new_label), overwrite=True)
    if points is not None:
        points.bind_key(ESCAPE, _call(actions.cancel), overwrite=True)
        points.bind_key(PASTE, _call(say, NO_PASTE), overwrite=True)


def unbind_keys(layer: Any) -> None:
    """Give the keys of a layer back to napari."""
    layer.keymap = {}


def _call(function: Callable[..., None], *arguments: Any) -> Callable[[Any], None]:
    def on_key(_layer: Any) -> None:
        function(*arguments)

    return on_key
