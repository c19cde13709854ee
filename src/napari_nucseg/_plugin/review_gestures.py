"""napari's own gestures on the points, as edits of the session: add, drag, delete, for one point or many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers.base._base_constants import ActionType
from numpy.typing import NDArray

from napari_nucseg._plugin.review_points import Overlay, PointsView
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg._plugin.review_edits import EditQueue
    from napari_nucseg.session import Session


@dataclass
class _Dragging:
    """One drag of one or more points, between the press and the release."""

    ids: list[int]
    places: list[int]
    start: NDArray[np.float64]
    drag: Any
    """The session's; None while its maps are missing."""
    refused: str = ""

    def offset(self, data: NDArray[np.float64]) -> tuple[float, float]:
        """Return how far napari has moved the points."""
        dy, dx = data[self.places[0]] - self.start[0]
        return float(dy), float(dx)


class PointGestures:
    """Hears what napari's tools did to the points and asks the session to do it.

    napari has moved, added or removed the points when it tells of it. So after every edit the view is compared with
    the session: a gesture that was refused is undone by that.

    Parameters
    ----------
    view : PointsView
    session : Session
    edits : EditQueue
    added : callable (id)
        Called for every nucleus that was added.
    """

    def __init__(
        self, view: PointsView, session: Session, edits: EditQueue, added: Callable[[int], None]
    ) -> None:
        self._view, self._session, self._edits, self._added = view, session, edits, added
        self._dragging: _Dragging | None = None
        view.points.events.data.connect(self._on_data)
        view.points.events.set_data.connect(self._on_moved)

    @property
    def dragging(self) -> bool:
        """Whether points are being dragged: napari moves them, and the view must not."""
        return self._dragging is not None

    def stop(self) -> None:
        """End a drag where it is: another layer is active now, and napari tells that one of the release."""
        if self._dragging is not None:
            self._end()
            self._view.points._drag_start = None

    def release(self) -> None:
        """Hear nothing any more."""
        self._view.points.events.data.disconnect(self._on_data)
        self._view.points.events.set_data.disconnect(self._on_moved)
        if self._dragging is not None and self._dragging.drag is not None:
            self._dragging.drag.end()
        self._dragging = None

    def _on_data(self, event: Any) -> None:
        if self._view.writing:
            return
        places = [int(k) for k in event.data_indices]
        if event.action == ActionType.CHANGING:
            if self._view.points._drag_start is not None:  # by hand, and not assigned by a script
                self._begin(places)
        elif event.action == ActionType.CHANGED:
            self._end()
        elif event.action == ActionType.ADDED:
            self._add(len(self._view.points.data) - self._view.count)
        elif event.action == ActionType.REMOVED:
            self._remove(places)

    def _add(self, count: int) -> None:
        new = np.array(self._view.points.data[len(self._view.points.data) - count :], float)
        for y, x in new.tolist():
            self._edits.do(partial(self._session.add, y, x), Overlay(added=[(y, x)]), self._added)
        self._view.sync()

    def _remove(self, places: Sequence[int]) -> None:
        ids = self._view.ids(places)
        nuclei = [id_ for id_ in ids if id_]
        self._edits.drop([k - self._view.nuclei for k, id_ in zip(places, ids, strict=True) if not id_])
        if nuclei:
            self._edits.do(lambda: self._session.reject(nuclei), Overlay(hidden=set(nuclei)))
        self._view.sync()

    def _begin(self, places: list[int]) -> None:
        ids = self._view.ids(places)
        if not places or not all(ids):  # a point that is no nucleus yet: it goes back at the end
            return
        start = np.array(self._view.points.data[places], float)
        if self._edits.refuses():
            self._dragging = _Dragging(ids, places, start, None)
            return
        waits = self._edits.waiting > 0 or bool(self._session.missing_maps_of(ids))
        try:
            drag = None if waits else self._session.drag(ids if len(ids) > 1 else ids[0])
        except NucSegError as error:
            self._dragging = _Dragging(ids, places, start, None, str(error))
            return
        self._dragging = _Dragging(ids, places, start, drag)

    def _on_moved(self, _event: Any = None) -> None:
        """Follow the drag: napari refreshes the points at every move of the mouse."""
        now = self._dragging
        if now is None or now.drag is None or self._view.writing:
            return
        dy, dx = now.offset(self._view.points.data)
        self._to(now, dy, dx)

    def _to(self, now: _Dragging, dy: float, dx: float) -> None:
        from napari_nucseg.session import MapsMissing

        if not now.drag.is_open:  # another edit, by a key, has ended it: the points go back at the release
            return
        try:
            now.drag.to(dy, dx)
            now.refused = ""
        except MapsMissing:  # the rest of the way is made once they are there
            now.drag.cancel()
            now.drag = None
        except NucSegError as error:  # it stays where it was last allowed to be
            now.refused = str(error)

    def _end(self) -> None:
        now = self._dragging
        if now is None:
            self._assigned()
            return
        dy, dx = now.offset(self._view.points.data)
        if now.drag is not None:
            self._to(now, dy, dx)
        self._dragging = None
        if now.drag is not None:
            now.drag.end()
            if now.refused:
                self._edits.refuse(now.refused)
        elif now.refused:
            self._edits.refuse(now.refused)
        elif dy or dx:
            self._move_later(now, dy, dx)
        self._view.sync()

    def _move_later(self, now: _Dragging, dy: float, dx: float) -> None:
        moved = {id_: (y + dy, x + dx) for id_, (y, x) in zip(now.ids, now.start.tolist(), strict=True)}
        self._edits.do(lambda: self._move(now.ids, dy, dx), Overlay(moved=moved))

    def _move(self, ids: list[int], dy: float, dx: float) -> None:
        drag = self._session.drag(ids if len(ids) > 1 else ids[0])
        try:
            drag.to(dy, dx)
        except NucSegError:
            drag.cancel()
            raise
        drag.end()

    def _assigned(self) -> None:
        """Take in data that a script has assigned: points that moved, as long as their number is the same."""
        data, ids = np.array(self._view.points.data, float), self._view.ids(range(self._view.count))
        if len(data) != len(ids):
            self._edits.refuse(
                f"{len(data)} points were assigned to a layer of {len(ids)} nuclei; add and remove them one by one."
            )
        else:
            for place, id_ in enumerate(ids):
                y, x = data[place].tolist()
                if id_ and (y, x) != self._view.centre(place):
                    self._edits.do(partial(self._session.move, id_, y, x))
        self._view.sync()
