"""Moving of centres under the mouse: many small edits, one step of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_nucseg.session.session import Session
    from napari_nucseg.session.store import Step


class Drag:
    """Centres that are being moved together: live, but one step of the history.

    Parameters
    ----------
    session : Session
    rows : int64 (n,)
    """

    def __init__(self, session: Session, rows: NDArray[np.int64]) -> None:
        self._session, self._rows = session, rows
        self._start = session.records[rows].copy()
        self._whole = session._store.logged("Move")
        self._made = self._whole.__enter__()
        self._open = True
        self._last: Step | None = None

    @property
    def is_open(self) -> bool:
        """Whether `end` or `cancel` is still to come."""
        return self._open

    def to(self, dy: float, dx: float) -> None:
        """Put the centres at this offset, in level-0 pixels, from where they were at the start.

        Raises
        ------
        NucSegError, MapsMissing
            Everything stays where it was before this call.
        """
        self._session._check_alone()
        store = self._session._store
        with store.logged("Move") as made:
            if self._last is not None:
                store.revert(self._last)
            with store.logged("Move") as moved:
                for row, start in zip(self._rows, self._start, strict=True):
                    self._session._move(int(row), float(start["y"] + dy), float(start["x"] + dx))
        self._last = moved[0]
        if not made[0].is_empty:
            self._session._tell(store.change(made[0]))

    def end(self) -> None:
        """Make what was moved one step of the history."""
        if self._open:
            self._close()
            self._session._remember(self._made[0])

    def cancel(self) -> None:
        """Put the centres back."""
        if not self._open:
            return
        store = self._session._store
        with store.logged("Cancel move") as made:
            if self._last is not None:
                store.revert(self._last)
        self._close()
        if not made[0].is_empty:
            self._session._tell(store.change(made[0]))

    def _close(self) -> None:
        self._open = False
        self._session._drag = None
        self._whole.__exit__(None, None, None)
