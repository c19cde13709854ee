"""Strokes with napari's own brush, eraser, bucket and polygon, as corrections of nuclei."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg._plugin.drawing import draw
from napari_nucseg.core.tiling import Box

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_nucseg._plugin.review_edits import EditQueue
    from napari_nucseg.session import Session

Atom = tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint32]]
"""Flat indices of pixels, and their labels before and after."""


class Brush:
    """Hands every stroke to the session, which alone writes into the labels.

    napari has written the pixels itself. They are put back, and the session writes what comes of the stroke. napari's
    history of the layer is kept empty: the session has its own, which knows of centres and classes as well.

    Parameters
    ----------
    labels : Labels
        Its data are the session's labels.
    session : Session
    edits : EditQueue
    select : callable (id)
        Told of the nucleus that was painted anew, which the next stroke goes on with.
    """

    def __init__(
        self, labels: Labels, session: Session, edits: EditQueue, select: Callable[[int], None]
    ) -> None:
        self._labels, self._session, self._edits, self._select = labels, session, edits, select
        self._stroke: Sequence[Any] = ()
        self._taking, self._new = False, 0
        labels._reset_history()
        labels.events.paint.connect(self._on_paint)
        labels.events.labels_update.connect(self._on_drawn)

    def release(self) -> None:
        """Hear nothing any more."""
        self._labels.events.paint.disconnect(self._on_paint)
        self._labels.events.labels_update.disconnect(self._on_drawn)

    @property
    def is_open(self) -> bool:
        """Whether the labels hold part of a stroke that the session knows nothing of."""
        return self._labels._block_history and bool(self._labels._staged_history) and not self._taking

    def finish(self) -> None:
        """End a stroke that is under way: what was painted so far is all of it."""
        self._labels._commit_staged_history()

    def new_label(self) -> None:
        """Let the brush paint a nucleus of its own."""
        self._new = int(self._session.next_id)
        self._labels.selected_label = self._new

    def renew_label(self) -> None:
        """See that a label chosen for a nucleus to come is not that of another, which has come in between."""
        if self._new and self._labels.selected_label == self._new != self._session.next_id:
            self.new_label()

    def _on_paint(self, event: Any) -> None:
        self._stroke = list(event.value)
        self._labels._undo_history.clear()
        self._labels._redo_history.clear()
        flat, _, after = self._atom(self._stroke[-1])
        # Where a stroke is a single step, such as a polygon, napari tells of it before it writes.
        if np.array_equal(self._labels.data.ravel()[flat], after):
            self._take_in()

    def _on_drawn(self, _event: Any = None) -> None:
        if self._stroke:
            self._take_in()

    def _take_in(self) -> None:
        self._taking = True
        try:
            self._hand_over()
        finally:
            self._taking = False

    def _hand_over(self) -> None:
        atoms, self._stroke = [self._atom(step) for step in self._stroke], ()
        data = self._labels.data
        flat = np.unique(np.concatenate([atom[0] for atom in atoms]))
        pixels = np.unravel_index(flat, data.shape)
        values = data[pixels]
        for indices, before, _ in reversed(atoms):
            data[np.unravel_index(indices, data.shape)] = before
        changed = data[pixels] != values
        self._edits.do(partial(self._paint, flat[changed], values[changed], int(self._session.next_id)))
        rows, cols = pixels
        draw(self._labels, Box(int(rows.min()), int(rows.max()) + 1, int(cols.min()), int(cols.max()) + 1))

    def _paint(self, flat: NDArray[np.int64], values: NDArray[np.uint32], next_id: int) -> None:
        """Have the session make the stroke; its labels from `next_id` on stood for nuclei to come."""
        taken = int(self._session.next_id) - next_id  # by edits that were made before this one
        values = np.where(values >= next_id, values + np.uint32(taken), values)
        begun, first = self._new in values, int((values == self._new).argmax())
        self._session.paint(flat, values)
        if begun:
            self._new = 0  # from now on the label is that of a nucleus
            self._select(int(self._session.labels.ravel()[flat[first]]))

    def _atom(self, step: Any) -> Atom:
        """Return a step of napari's history as plain arrays; it comes as an index, or as a box with a mask."""
        shape = self._labels.data.shape
        if hasattr(step, "slice_key"):
            rows, cols = step.slice_key
            mask = (
                np.ones((rows.stop - rows.start, cols.stop - cols.start), bool)
                if step.mask is None
                else step.mask
            )
            y, x = np.nonzero(mask)
            index, before, after = (y + rows.start, x + cols.start), step.old_values, step.new_value
        else:
            index, before, after = step
        flat = np.ravel_multi_index(tuple(np.asarray(axis) for axis in index), shape)
        both = (np.broadcast_to(np.asarray(part, np.uint32).ravel(), flat.shape) for part in (before, after))
        old, new = both
        return np.asarray(flat, np.int64), old, new
