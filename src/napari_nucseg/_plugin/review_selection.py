"""Which nuclei are selected: in the points, by the selected label, or by the queue; all three are kept together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari_nucseg._plugin.parts import connect_all, disconnect_all
from napari_nucseg.core.nuclei import is_live

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_nucseg._plugin.review_points import PointsView
    from napari_nucseg.session import Session


class Selection:
    """Selects in one layer what is selected in the other.

    Parameters
    ----------
    viewer : napari.Viewer
    labels : Labels
    session : Session
    tell : callable ()
        Called whenever the selection, or which layer decides it, may be another.
    """

    def __init__(self, viewer: Any, labels: Labels, session: Session, tell: Callable[[], None]) -> None:
        self._viewer, self._labels, self._session, self._tell = viewer, labels, session, tell
        self._view: PointsView | None = None
        self._linking, self._label, self._late = False, -1, 0
        connect_all([labels.events.selected_label], self._on_label)
        connect_all([viewer.layers.selection.events.active], self._on_active)

    def release(self) -> None:
        """Hear nothing any more."""
        self.follow(None)
        disconnect_all([self._labels.events.selected_label], self._on_label)
        disconnect_all([self._viewer.layers.selection.events.active], self._on_active)

    def follow(self, view: PointsView | None) -> None:
        """Take these points in place of those before; None: there are none."""
        if self._view is not None:
            disconnect_all([self._view.points.selected_data.events.items_changed], self._on_points)
        self._view = view
        if view is not None:
            connect_all([view.points.selected_data.events.items_changed], self._on_points)

    @property
    def ids(self) -> list[int]:
        """Ids of the selected nuclei: of the points, or of the label where the labels are active."""
        if self._viewer.layers.selection.active == self._labels or self._view is None:
            id_ = int(self._labels.selected_label)
            return [id_] if self.is_live(id_) else []
        return self._view.selected

    def set(self, ids: Sequence[int]) -> None:
        """Select nuclei in both layers."""
        self._linking = True
        try:
            if self._view is not None:
                self._view.select(ids)
            if len(ids) == 1 and self.is_live(ids[0]):
                self._labels.selected_label = ids[0]
        finally:
            self._linking = False
        self._tell()

    def add_late(self, id_: int) -> None:
        """Select a new nucleus, unless another one has been selected since the click that made it."""
        if self._view is not None and set(self._view.selected) <= {self._late}:
            self._late = id_
            self.set([id_])

    def is_live(self, id_: int) -> bool:
        """Return whether an id is that of a nucleus with pixels."""
        row = int(self._session.rows_of([id_])[0])
        return row >= 0 and bool(is_live(self._session.records[row : row + 1])[0])

    def _on_points(self, _event: Any = None) -> None:
        """Let the brush correct the nucleus whose centre is selected."""
        if self._linking or self._view is None or self._view.writing:
            return
        ids = self._view.selected
        if len(ids) == 1:
            self.set(ids)
        else:
            self._tell()

    def _on_label(self, _event: Any = None) -> None:
        id_ = int(self._labels.selected_label)
        before, self._label = self._label, id_
        if self._linking or id_ == before:  # napari tells of it whenever colours change, too
            return
        if self.is_live(id_):
            self.set([id_])
        else:
            self._tell()

    def _on_active(self, _event: Any = None) -> None:
        self._tell()
