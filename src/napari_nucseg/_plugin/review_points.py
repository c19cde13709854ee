"""The Points layer as a view of a session: one point per nucleus, in the order of their ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Points
from numpy.typing import NDArray

from napari_nucseg._plugin.colouring import NO_CLASS, UNKNOWN, Look
from napari_nucseg.core.nuclei import State

if TYPE_CHECKING:
    from napari_nucseg.core.tiling import Box
    from napari_nucseg.session import Session

MOST = 10_000
"""Points shown at once. napari draws 10,000 anew in some 15 ms, 100,000 in 70 to 130 ms, at every edit; so of more
nuclei only those in the view are shown, once it holds no more than these."""

TO_DO, DONE, HOLLOW = (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0), (1.0, 1.0, 1.0, 0.0)
"""Rims of nuclei that nobody has seen yet and of those reviewed; the face of one that is being computed."""

COLUMNS = ("id", "class", "score", "state", "area_um2")


@dataclass
class Overlay:
    """How the points differ from the session while edits wait for the network.

    Attributes
    ----------
    added : list of (row, column)
        New centres, shown hollow and behind the others.
    moved : dict of id -> (row, column)
    hidden : set of int
        Ids of nuclei that are about to go.
    """

    added: list[tuple[float, float]] = field(default_factory=list)
    moved: dict[int, tuple[float, float]] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _Shown:
    """What the layer shows. The last points, of id 0, are those of the overlay, and a cross on a rejected nucleus."""

    ids: NDArray[np.uint32]
    centres: NDArray[np.float64]
    looks: NDArray[Any]
    """Of each point all that its colours and features follow from."""


_LOOK = np.dtype(
    [("kind", "i2"), ("state", "u1"), ("locked", "?"), ("score", "f4"), ("area", "u4"), ("wait", "?")]
)


class PointsView:
    """Keeps a Points layer equal to the live nuclei of a session, and changes no more of it than differs.

    Parameters
    ----------
    points : Points
    session : Session
    mpp : float
        Micrometres per pixel.
    """

    def __init__(self, points: Points, session: Session, mpp: float) -> None:
        self.points, self._session, self._mpp = points, session, mpp
        self._shown = _Shown(np.zeros(0, np.uint32), np.zeros((0, 2)), np.zeros(0, _LOOK))
        self._look = Look()
        self.overlay = Overlay()
        self.window: Box | None = None
        self.place = 0
        """The nucleus that the queue has led to, or 0: shown even where there are too many for all, and where it is
        rejected as a cross."""
        self.crowded = False
        self.writing = False

    def ids(self, places: Sequence[int]) -> list[int]:
        """Return the ids of points; 0 where one is none of a nucleus yet."""
        return [int(self._shown.ids[k]) if k < len(self._shown.ids) else 0 for k in places]

    @property
    def selected(self) -> list[int]:
        """Ids of the selected nuclei."""
        return [id_ for id_ in self.ids(sorted(self.points.selected_data)) if id_]

    @property
    def count(self) -> int:
        """Points that the layer should have."""
        return len(self._shown.ids)

    @property
    def nuclei(self) -> int:
        """Points that are of nuclei; those of the overlay come behind them, and then the cross."""
        return int(np.count_nonzero(self._shown.ids))

    def centre(self, place: int) -> tuple[float, float]:
        """Return where a point was when it was last in agreement with the session."""
        y, x = self._shown.centres[place]
        return float(y), float(x)

    def select(self, ids: Sequence[int]) -> None:
        """Select the points of nuclei, as far as they are shown."""
        wanted = np.flatnonzero(np.isin(self._shown.ids, [id_ for id_ in ids if id_]))
        if set(self.points.selected_data) != set(wanted.tolist()):
            self.points.selected_data = set(wanted.tolist())

    def set_look(self, look: Look) -> None:
        """Show in another look."""
        self._look = look
        self.sync(force=True)

    def sync(self, force: bool = False) -> None:
        """Make the layer equal to the session.

        Parameters
        ----------
        force : bool
            Write all of it, even where it should be so already.
        """
        new, old = self._wanted(), self._shown
        data = self.points.data
        same = not force and len(data) == len(new.ids) and np.array_equal(new.ids, old.ids)
        if same and np.array_equal(new.looks, old.looks) and np.array_equal(data, new.centres):
            self._shown = new
            return
        selected = self.selected
        with self._quiet():
            self._shown = new
            if same:
                data[:] = new.centres
            else:
                self.points.selected_data = set()
                self.points.data = new.centres.copy()  # the layer moves its points in place
            if not same or not np.array_equal(new.looks, old.looks):
                self._paint(new)
        self.points.refresh()
        if not same:
            self.points._set_highlight(force=True)
            self.select(selected)

    def _wanted(self) -> _Shown:
        session, overlay = self._session, self.overlay
        records = session.records
        live = session.live
        if overlay.hidden:
            live = live & ~np.isin(records["id"], list(overlay.hidden))
        rows = self._in_view(records, np.flatnonzero(live))
        part = records[rows]
        centres = np.stack([part["y"], part["x"]], axis=1) if len(part) else np.zeros((0, 2))
        for id_, centre in overlay.moved.items():
            centres[part["id"] == id_] = centre
        gone = records[(records["id"] == self.place) & (records["state"] == State.REJECTED)]
        others = [*overlay.added, *zip(gone["y"].tolist(), gone["x"].tolist(), strict=True)]
        looks = np.zeros(len(part) + len(others), _LOOK)
        for name in ("kind", "state", "locked", "score", "area"):
            looks[name][: len(part)] = part[name]
        looks["wait"][: len(part)] = np.isin(part["id"], list(overlay.moved)) if overlay.moved else False
        looks["kind"][len(part) :], looks["wait"][len(part) :] = -1, True
        if len(gone):
            looks["kind"][-1], looks["state"][-1], looks["wait"][-1] = gone["kind"][0], State.REJECTED, False
        looks["score"] = np.nan_to_num(looks["score"], nan=-1)  # so that equal ones compare equal
        ids = np.concatenate([part["id"], np.zeros(len(others), np.uint32)])
        return _Shown(ids, np.concatenate([centres, np.array(others, float).reshape(-1, 2)]), looks)

    def _in_view(self, records: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[np.intp]:
        self.crowded = False
        if len(rows) <= MOST or self.window is None:
            return rows
        box, y, x = self.window, records["y"][rows], records["x"][rows]
        inside = rows[(box.y0 <= y) & (y < box.y1) & (box.x0 <= x) & (x < box.x1)]
        self.crowded = len(inside) > MOST
        return rows[records["id"][rows] == self.place] if self.crowded else inside

    def _paint(self, new: _Shown) -> None:
        """Set colours and features of all the points."""
        points, looks, classes = self.points, new.looks, self._session.classes
        names = np.array([*(c.name for c in classes), NO_CLASS], object)  # the index -1 is the last
        colours = np.array([*((*(v / 255 for v in c.colour), 1.0) for c in classes), UNKNOWN], float)
        words = np.array([state.word for state in State], object)
        waits, done = looks["wait"], looks["state"] >= State.ACCEPTED
        gone = looks["state"] == State.REJECTED
        score = np.where(looks["score"] < 0, np.nan, looks["score"].astype(float))
        area = looks["area"] * self._mpp**2
        values = (new.ids, names[looks["kind"]], score.round(3), words[looks["state"]], area.round(2))
        points.features = pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))
        if len(new.ids):
            points.face_color = np.where(waits[:, None], HOLLOW, colours[looks["kind"]])
            points.border_color = np.where((done & ~waits)[:, None], DONE, TO_DO)
            points.symbol = np.select([gone, looks["locked"]], ["x", "square"], "disc")
        points.shown = ~np.isin(names[looks["kind"]], list(self._look.hidden)) | waits | gone

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Let the layer tell nobody of the single steps of a change."""
        points = self.points
        before, self.writing = self.writing, True
        try:
            with ExitStack() as stack:
                for events in (points.events, points._face.events, points._border.events):
                    stack.enter_context(events.blocker_all())
                yield
        finally:
            self.writing = before
