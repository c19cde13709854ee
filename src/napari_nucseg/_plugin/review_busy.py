"""Times at which a review cannot be edited, and waiting for their end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_nucseg._plugin import work
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg._plugin.review import Review

LOOK_MS = 50
"""Time between two looks whether the wait is over."""


class Busy:
    """Why a review cannot be edited: each who works on it gives a reason, and takes it back at the end.

    Attributes
    ----------
    changed : Signal(object)
        The reason is another one, a sentence or None.
    """

    changed = Signal(object)

    def __init__(self) -> None:
        self._reasons: dict[object, str] = {}

    @property
    def why(self) -> str | None:
        """The latest reason; None where the review can be edited."""
        return next(reversed(self._reasons.values()), None)

    def hold(self, why: str) -> Callable[[], None]:
        """Let nobody begin an edit, until the function that is returned is called."""
        mark = object()
        self._reasons[mark] = why
        self.changed.emit(self.why)
        return partial(self._let_go, mark)

    def _let_go(self, mark: object) -> None:
        if self._reasons.pop(mark, None) is not None:
            self.changed.emit(self.why)


def once_free(held: Callable[[], bool], call: Callable[[], None]) -> None:
    """Call as soon as nothing holds it up: at once, or later from the event loop.

    Parameters
    ----------
    held : callable () -> bool
        Whether it must wait. It is asked again and again: napari tells nobody of a stroke that came to nothing.
    call : callable ()
    """
    if held():
        QTimer.singleShot(LOOK_MS, lambda: once_free(held, call))
    else:
        call()


def work_apart(
    review: Review, why: str, task: Callable[[], Any], done: Callable[[work.Outcome], None]
) -> Any:
    """Do a long edit of a review's session in another thread, while nobody else edits.

    Parameters
    ----------
    review : Review
    why : str
        Told to who wants to edit meanwhile.
    task : callable ()
        Calls one method of the session.
    done : callable (Outcome)
        Called in the thread of the window, when the views show what was done.

    Returns
    -------
    napari worker
        To be held until `done` is called.

    Raises
    ------
    NucSegError
        Another such edit is under way.
    """
    free = review.hold(why)

    def on_end(outcome: work.Outcome) -> None:
        review.session.rejoin()
        free()
        done(outcome)

    try:
        review.session.claim()
    except NucSegError:
        free()
        raise
    return work.start(partial(review.session.apart, task), on_end)
