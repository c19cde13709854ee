"""Moving of centres under the mouse: many small edits, one step of the history."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.nuclei import Change
from napari_nucseg.errors import NucSegError
from napari_nucseg.session.centres import Centres
from napari_nucseg.session.store import Step, Store


class Drag:
    """Centres that are being moved together: live, but one step of the history.

    Parameters
    ----------
    store : Store
    centres : Centres
    rows : int64 (n,)
    tell : callable (Change)
        Told of every step on the way.
    ended : callable (Step)
        Told once of all of it; an empty step where nothing has moved.
    """

    def __init__(
        self,
        store: Store,
        centres: Centres,
        rows: NDArray[np.int64],
        tell: Callable[[Change], object],
        ended: Callable[[Step], object],
    ) -> None:
        self._store, self._centres, self._rows, self._tell, self._ended = store, centres, rows, tell, ended
        records = store.records[rows]
        self._start = np.stack([records["y"], records["x"]], 1).astype(float)
        self._whole = store.logged("Move")
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
            Everything stays where it was before this call; so too where another edit has ended the drag.
        """
        if not self._open:
            raise NucSegError("The drag has ended; take the centre again.")
        with self._store.logged("Move") as made:
            if self._last is not None:
                self._store.revert(self._last)
            with self._store.logged("Move") as moved:
                self._centres.move(self._rows, self._start + np.array([dy, dx]))
        self._last = moved[0]
        if not made[0].is_empty:
            self._tell(self._store.change(made[0]))

    def end(self) -> None:
        """Make what was moved one step of the history."""
        if not self._open:
            return
        self._open = False
        self._whole.__exit__(None, None, None)
        self._ended(self._made[0])

    def cancel(self) -> None:
        """Put the centres back."""
        if not self._open:
            return
        with self._store.logged("Cancel move") as made:
            if self._last is not None:
                self._store.revert(self._last)
        self.end()
        if not made[0].is_empty:
            self._tell(self._store.change(made[0]))
