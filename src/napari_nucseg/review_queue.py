"""The order in which a person goes through the nuclei of a session: the doubtful ones first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.doubt import (
    DoubtWeights,
    contact_shares,
    contact_shares_near,
    doubt_of,
    doubt_parts,
    reasons,
)
from napari_nucseg.core.nuclei import Change, State
from napari_nucseg.core.tiling import Box

if TYPE_CHECKING:
    from napari_nucseg.session import Session

Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Filter:
    """Which nuclei to go through; None sets no condition.

    Attributes
    ----------
    kinds : frozenset of int or None
        Class indices, `UNCLASSIFIED` among them.
    states : frozenset of State or None
        None stands for those nobody has reviewed yet. With others, such as `REJECTED`, one walks through what was
        reviewed.
    scores, doubts : (float, float) or None
        Lowest and highest, both included. A nucleus without a score is in no range of scores.
    box : Box or None
        Its centre lies in it, level-0 pixels.
    polygons : tuple of (n, 2) float arrays
        Rows and columns of the vertices; if there are any, its centre lies in one of them.
    """

    kinds: frozenset[int] | None = None
    states: frozenset[State] | None = None
    scores: Range | None = None
    doubts: Range | None = None
    box: Box | None = None
    polygons: tuple[NDArray[np.float64], ...] = ()

    def holds(self, records: NDArray[Any], doubts: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which records, given with their doubts, are to be gone through."""
        wanted = {State.PREDICTED} if self.states is None else self.states - {State.ABSENT}
        held = np.isin(records["state"], [int(state) for state in wanted])
        if self.kinds is not None:
            held &= np.isin(records["kind"], list(self.kinds))
        if self.scores is not None:
            held &= _within(records["score"], self.scores)
        if self.doubts is not None:
            held &= _within(doubts, self.doubts)
        return self._in_region(records, held)

    def _in_region(self, records: NDArray[Any], held: NDArray[np.bool_]) -> NDArray[np.bool_]:
        centres = np.stack([records["y"], records["x"]], axis=-1)
        if self.box is not None:
            low, high = (self.box.y0 - 0.5, self.box.x0 - 0.5), (self.box.y1 - 0.5, self.box.x1 - 0.5)
            held &= (centres >= low).all(1) & (centres < high).all(1)
        if self.polygons and held.any():
            from skimage.measure import points_in_poly

            held[held] = np.any([points_in_poly(centres[held], polygon) for polygon in self.polygons], axis=0)
        return held


def _within(values: NDArray[np.floating], bounds: Range) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = (values >= bounds[0]) & (values <= bounds[1])
    return result


@dataclass(frozen=True)
class Tally:
    """How many nuclei were reviewed, of how many; rejected ones are among both."""

    reviewed: int = 0
    total: int = 0


@dataclass(frozen=True)
class Progress:
    """How far a review has come.

    Attributes
    ----------
    all : Tally
    classes : tuple of Tally
        In the order of the session's classes.
    unclassified : Tally
    """

    all: Tally
    classes: tuple[Tally, ...]
    unclassified: Tally


class ReviewQueue:
    """Walks a session from doubt to doubt, and stays current as the session is edited.

    A nucleus that one goes on from is passed: it does not come again in this round unless its state or class changes.
    Once all are passed, those still to be reviewed come again.

    Parameters
    ----------
    session : Session
    weights : DoubtWeights, optional
    """

    def __init__(self, session: Session, weights: DoubtWeights | None = None) -> None:
        self._session, self._weights = session, weights
        records = session.records
        self._ids = records["id"].copy()
        self._states, self._kinds = records["state"].copy(), records["kind"].copy()
        self._contact = contact_shares(session.labels, self._ids)
        self._doubt = doubt_of(self._parts(records, self._contact), weights)
        self._filter = Filter()
        self._held = self._filter.holds(records, self._doubt)
        self._passed = np.zeros(len(records), np.bool_)
        self._visited: list[int] = []
        self._here = -1
        session.changed.connect(self._on_changed)

    def close(self) -> None:
        """Stop listening to the session."""
        self._session.changed.disconnect(self._on_changed)

    @property
    def filter(self) -> Filter:
        """Which nuclei are gone through; setting it begins a new round."""
        return self._filter

    @filter.setter  # noqa: A003
    def filter(self, chosen: Filter) -> None:
        self._filter = chosen
        self._held = chosen.holds(self._session.records, self._doubt)
        self._passed[:] = False

    @property
    def remaining(self) -> int:
        """How many nuclei of the filter there are to go through, those passed in this round included."""
        return int(np.count_nonzero(self._held))

    def next(self, after: int | None = None) -> int | None:
        """Return the id of the most doubtful nucleus to look at now, None where there is none.

        Parameters
        ----------
        after : int or None
            The nucleus one goes on from, which is passed.
        """
        row = self._row(after)
        if row is not None:
            self._passed[row] = True
        candidates = self._held & ~self._passed
        if not candidates.any():
            self._passed[:] = False
            candidates = self._held.copy()
            if row is not None and self.remaining > 1:  # not at once the one that was just skipped
                candidates[row] = False
        if not candidates.any():
            return None
        chosen = int(self._ids[np.argmax(np.where(candidates, self._doubt, -1))])
        if chosen in self._visited:
            self._visited.remove(chosen)
        self._visited.append(chosen)
        self._here = len(self._visited) - 1
        return chosen

    def previous(self, before: int | None = None) -> int | None:
        """Return the id of the nucleus looked at before, None at the beginning.

        Parameters
        ----------
        before : int or None
            The nucleus one goes back from; from one that the queue has not led to, one comes back to the last it has.

        Returns
        -------
        int or None
            It may have been rejected since; then it has no pixels, and accepting it restores it.
        """
        while self._visited and self._here >= 0:
            here = self._visited[self._here]
            if before is not None and here != before and self._exists(here):
                return here
            if self._here == 0:
                return None
            self._here -= 1
            if self._exists(self._visited[self._here]):
                return self._visited[self._here]
        return None

    def doubt_of(self, wanted: int) -> float:
        """Return the doubt about a nucleus, 0..1; NaN for an unknown id."""
        row = self._row(wanted)
        return float("nan") if row is None else float(self._doubt[row])

    def reasons_of(self, wanted: int) -> tuple[str, ...]:
        """Return what speaks against a nucleus, for the user."""
        row = self._row(wanted)
        if row is None:
            return ()
        one = slice(row, row + 1)
        return reasons(self._parts(self._session.records[one], self._contact[one])[0])

    def progress(self) -> Progress:
        """Return how much of the session, whatever the filter, was reviewed."""
        there = self._states != State.ABSENT
        kinds = self._kinds[there].astype(np.int64)
        size = max(len(self._session.classes), int(kinds.max(initial=-1)) + 1)
        total = np.bincount(kinds + 1, minlength=size + 1)
        reviewed = np.bincount(kinds[self._states[there] >= State.ACCEPTED] + 1, minlength=size + 1)
        unclassified, *classes = [Tally(int(r), int(t)) for r, t in zip(reviewed, total, strict=True)]
        return Progress(Tally(int(reviewed.sum()), int(total.sum())), tuple(classes), unclassified)

    def _parts(self, records: NDArray[Any], contact: NDArray[np.float32]) -> NDArray[np.float32]:
        return doubt_parts(records, contact, self._session.ground.config)

    def _row(self, wanted: int | None) -> int | None:
        if wanted is None:
            return None
        row = int(np.searchsorted(self._ids, wanted))
        return row if row < self._ids.size and self._ids[row] == wanted else None

    def _exists(self, wanted: int) -> bool:
        row = self._row(wanted)
        return row is not None and self._states[row] != State.ABSENT

    def _on_changed(self, change: Change) -> None:
        records = self._session.records
        self._grow(len(records) - self._ids.size)
        rows = change.rows
        self._ids[rows] = records["id"][rows]
        if change.box is not None:
            rows = np.union1d(rows, self._touch(change.box))
        now = records[rows]
        dealt_with = (self._states[rows] != now["state"]) | (self._kinds[rows] != now["kind"])
        self._passed[rows[dealt_with]] = False
        self._states[rows], self._kinds[rows] = now["state"], now["kind"]
        self._doubt[rows] = doubt_of(self._parts(now, self._contact[rows]), self._weights)
        self._held[rows] = self._filter.holds(now, self._doubt[rows])

    def _touch(self, box: Box) -> NDArray[np.int64]:
        """Bring the contact of the nuclei in a box up to date; return their rows."""
        labels = self._session.labels
        if box.shape[0] * box.shape[1] > labels.size // 4:  # one sweep is quicker than many looks
            near = np.flatnonzero(self._session.live)
            self._contact[near] = contact_shares(labels, self._ids[near])
        else:
            near, shares = contact_shares_near(labels, self._ids, box)
            self._contact[near] = shares
        return near

    def _grow(self, by: int) -> None:
        """Make room for new records."""
        if by > 0:
            for name in ("_ids", "_states", "_kinds", "_contact", "_doubt", "_held", "_passed"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros(by, old.dtype)]))
