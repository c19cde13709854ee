"""Edits in the order in which they were made, those that wait for the network included."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from napari_nucseg._plugin.review_points import Overlay
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg._plugin.compute import Request
    from napari_nucseg._plugin.review_maps import Done
    from napari_nucseg.core.tiling import Box

WAITING = "Computing the maps here… Ctrl+Z or Esc cancels."
STEPS = 8
"""Times that one edit may find maps missing: each time it has seen further."""


@dataclass(frozen=True)
class Edit:
    """An edit, and how the points look until it is made.

    Attributes
    ----------
    apply : callable
        Calls the session; may raise `MapsMissing`, and is then called again.
    overlay : Overlay
    """

    apply: Callable[[], Any]
    overlay: Overlay = field(default_factory=Overlay)


class Maps(Protocol):
    """Computes what an edit lacks, see `MapsLoader`."""

    @property
    def request(self) -> Request:
        """Image and model."""

    def start(self, box: Box, done: Done) -> None:
        """Compute the maps of a box, then call `done`."""

    def cancel(self) -> None:
        """Stop, and call nobody."""


class EditQueue:
    """Makes edits at once, or one after the other as the maps that they need come in.

    Parameters
    ----------
    maps : Maps or None
        None where nothing can be computed: the model is not known.
    say : callable (text, alarm)
        Tells the user.
    settled : callable ()
        Called after every edit, made or refused: the views are to agree with the session again.
    """

    def __init__(
        self, maps: Maps | None, say: Callable[[str, bool], None], settled: Callable[[], None]
    ) -> None:
        self._maps, self._say, self._settled = maps, say, settled
        self._waiting: deque[Edit] = deque()
        self._tries, self._refused = 0, False

    @property
    def waiting(self) -> int:
        """Edits that wait for maps."""
        return len(self._waiting)

    @property
    def overlay(self) -> Overlay:
        """How the waiting edits let the points differ from the session."""
        whole = Overlay()
        for edit in self._waiting:
            whole.added.extend(edit.overlay.added)
            whole.moved.update(edit.overlay.moved)
            whole.hidden.update(edit.overlay.hidden)
        return whole

    def do(self, apply: Callable[[], Any], overlay: Overlay | None = None) -> Any:
        """Make an edit, or queue it.

        Returns
        -------
        object
            What `apply` returned; None if the edit was refused, or waits.
        """
        edit = Edit(apply, overlay or Overlay())
        if self._waiting:
            self._waiting.append(edit)
            self._settled()
            return None
        self._waiting.append(edit)
        self._tries = 0
        return self._try()

    def refuse(self, text: str) -> None:
        """Tell the user why an edit was not made."""
        self._say(text, True)

    def cancel(self, all_of_them: bool = True) -> bool:
        """Forget the edits that wait, or the last of them; return whether there were any."""
        if not self._waiting:
            return False
        self._waiting.pop()
        if all_of_them:
            self._waiting.clear()
        if not self._waiting and self._maps is not None:
            self._maps.cancel()
        self._say("Cancelled." if not self._waiting else WAITING, False)
        self._settled()
        return True

    def _try(self) -> Any:
        """Make the first edit in the queue, or have computed what it lacks."""
        from napari_nucseg.session import MapsMissing

        edit, result = self._waiting[0], None
        self._refused = True
        try:
            result = edit.apply()
            self._refused = False
        except MapsMissing as lack:
            self._tries += 1
            if self._maps is not None and self._tries <= STEPS:
                self._say(WAITING, False)
                self._maps.start(lack.box, self._on_maps)
                self._settled()
                return None
            self._say(str(lack), True)
        except NucSegError as error:
            self._say(str(error), True)
        self._waiting.popleft()
        self._settled()
        return result

    def _on_maps(self, error: Exception | None) -> None:
        if error is not None:
            from napari_nucseg._plugin.flow import report_error

            self._waiting.clear()
            self._say(report_error(error), True)
            self._settled()
            return
        while self._waiting:
            before = len(self._waiting)
            self._try()
            if len(self._waiting) == before:  # it waits for more maps
                return
            self._tries = 0
        if not self._refused:
            self._say("", False)
