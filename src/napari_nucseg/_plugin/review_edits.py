"""Edits in the order in which they were made, those that wait for the network included."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from napari_nucseg._plugin.review_busy import once_free
from napari_nucseg._plugin.review_points import Overlay
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg._plugin.compute import Request
    from napari_nucseg._plugin.review_maps import Done
    from napari_nucseg.core.tiling import Box

WAITING = "Computing the maps here… Ctrl+Z or Esc cancels."
STEPS = 8
"""Times that one edit may find maps missing: each time it has seen further."""


@dataclass(eq=False)
class Edit:
    """An edit, and how the points look until it is made.

    Attributes
    ----------
    apply : callable
        Calls the session; may raise `MapsMissing`, and is then called again.
    overlay : Overlay
    made : callable (object)
        Called with what `apply` returned.
    tries : int
        How often maps were missing.
    result : object
        What `apply` returned.
    """

    apply: Callable[[], Any]
    overlay: Overlay = field(default_factory=Overlay)
    made: Callable[[Any], None] = lambda _result: None
    tries: int = 0
    result: Any = None


class Maps(Protocol):
    """Computes what an edit lacks, see `MapsLoader`."""

    @property
    def request(self) -> Request | None:
        """Image and model; None as long as the model is not there."""

    def start(self, boxes: Sequence[Box], done: Done) -> int:
        """Compute the maps of boxes, then call `done`; return a number to cancel it by."""

    def cancel(self, number: int) -> None:
        """Give a request up; its `done` is told so."""


class EditQueue:
    """Makes edits at once, or one after the other as the maps that they need come in.

    Parameters
    ----------
    maps : Maps or None
        None where nothing can be computed: the model is not known.
    say : callable (text, alarm)
        Tells the user; no text where all has gone well.
    settled : callable ()
        Called after every edit, made or refused: the views are to agree with the session again.
    busy : callable () -> str or None
        Why no edit can be begun now. Those that wait have begun.
    held : callable () -> bool
        Whether the session must not be edited at this moment: edits wait, without a word.
    """

    def __init__(
        self,
        maps: Maps | None,
        say: Callable[[str, bool], None],
        settled: Callable[[], None],
        busy: Callable[[], str | None] = lambda: None,
        held: Callable[[], bool] = lambda: False,
    ) -> None:
        self._maps, self._say, self._settled = maps, say, settled
        self._busy, self._held = busy, held
        self._waiting: deque[Edit] = deque()
        self._computing: int | None = None
        self._making, self._put_off = False, False

    @property
    def waiting(self) -> int:
        """Edits that wait for maps, or for a moment at which the session can be edited."""
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

    def do(
        self,
        apply: Callable[[], Any],
        overlay: Overlay | None = None,
        made: Callable[[Any], None] = lambda _result: None,
    ) -> Any:
        """Make an edit, or queue it.

        Parameters
        ----------
        apply, overlay, made
            See `Edit`.

        Returns
        -------
        object
            What `apply` returned; None if the edit was refused, or waits.
        """
        if self.refuses():
            self._settled()
            return None
        edit = Edit(apply, overlay or Overlay(), made)
        self._waiting.append(edit)
        self._go_on()
        return edit.result

    def when_free(self, call: Callable[[], None]) -> None:
        """Call what edits the session by itself, such as undo, as soon as that can be; not if the review is busy."""
        if not self.refuses():
            once_free(self._held, call)

    def refuses(self) -> bool:
        """Return whether no edit can be begun now, after telling why."""
        busy = self._busy()
        if busy is not None:
            self.refuse(busy)
        return busy is not None

    def refuse(self, text: str) -> None:
        """Tell the user why an edit was not made."""
        self._say(text, True)

    def cancel(self, all_of_them: bool = True) -> bool:
        """Forget the edits that wait, or the last of them; return whether there were any."""
        gone = list(self._waiting) if all_of_them else list(self._waiting)[-1:]
        self._forget(gone)
        return bool(gone)

    def drop(self, places: Collection[int]) -> None:
        """Forget the edits that would add certain points.

        Parameters
        ----------
        places : collection of int
            Indices into the added points of `overlay`.
        """
        gone, end = [], 0
        for edit in self._waiting:
            start, end = end, end + len(edit.overlay.added)
            if any(start <= place < end for place in places):
                gone.append(edit)
        self._forget(gone)

    def _forget(self, gone: Collection[Edit]) -> None:
        if not gone:
            return
        computed = self._waiting[0]
        self._waiting = deque(edit for edit in self._waiting if edit not in gone)
        if computed in gone:
            self._give_up()
        self._say(WAITING if self._waiting else "Cancelled.", False)
        self._go_on()

    def _give_up(self) -> None:
        number, self._computing = self._computing, None
        if number is not None and self._maps is not None:
            self._maps.cancel(number)

    def _go_on(self) -> None:
        """Make the edits that wait, up to one that must wait further."""
        made = []
        while self._waiting and not self._making and self._computing is None:
            if self._held():
                self._await()
                break
            made.append(self._make(self._waiting[0]))
        if made and all(made) and not self._waiting:
            self._say("", False)
        self._settled()

    def _make(self, edit: Edit) -> bool:
        """Make the first edit, or have computed what it lacks; return whether it was made.

        An error of any kind is told, and is the end of this edit alone.
        """
        from napari_nucseg._plugin.flow import report_error
        from napari_nucseg.session import MapsMissing

        problem, self._making = None, True
        try:
            edit.result = edit.apply()
        except MapsMissing as lack:
            edit.tries += 1
            if self._maps is not None and edit.tries <= STEPS:
                self._say(WAITING, False)
                self._computing = self._maps.start(lack.boxes, self._on_maps)
                return False
            problem = str(lack)
        except NucSegError as error:
            problem = str(error)
        except Exception as error:
            problem = report_error(error)
        finally:
            self._making = False
        if self._waiting and self._waiting[0] is edit:  # else the review was closed by it
            self._waiting.popleft()
        if problem is not None:
            self.refuse(problem)
        else:
            edit.made(edit.result)
        return problem is None

    def _await(self) -> None:
        if not self._put_off:
            self._put_off = True
            once_free(self._held, self._on_free)

    def _on_free(self) -> None:
        self._put_off = False
        self._go_on()

    def _on_maps(self, error: Exception | None) -> None:
        from napari_nucseg._plugin.compute import Cancelled
        from napari_nucseg._plugin.flow import report_error

        if isinstance(error, Cancelled):  # by this queue itself
            return
        self._computing = None
        if error is not None:
            self._waiting.clear()
            self.refuse(report_error(error))
        self._go_on()
