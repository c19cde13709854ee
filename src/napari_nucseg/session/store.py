"""The arrays of a session, written through a log, so that every edit can be told, undone and done again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.edit import bounds
from napari_nucseg.core.nuclei import Change, State, centre_pixels, is_live

Pixels = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One undoable edit: what the touched pixels and records were, and what they became."""

    name: str
    pixels: Pixels
    before: NDArray[np.uint32]
    after: NDArray[np.uint32]
    rows: NDArray[np.int64]
    records_before: NDArray[Any]
    records_after: NDArray[Any]

    @property
    def is_empty(self) -> bool:
        """Whether it changed nothing."""
        return not (self.pixels.size or self.rows.size)

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        arrays = (self.pixels, self.before, self.after, self.rows, self.records_before, self.records_after)
        return sum(a.nbytes for a in arrays)


class _Log:
    """The places overwritten so far and what stood there; of a place overwritten twice the first counts."""

    def __init__(self) -> None:
        self._places: list[NDArray[np.int64]] = []
        self._values: list[NDArray[Any]] = []

    def add(self, places: NDArray[np.int64], values: NDArray[Any]) -> None:
        self._places.append(places)
        self._values.append(values)

    def net(self, now: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
        """Return the places whose value is another one now, ascending, with the old and the new values."""
        if not self._places:
            return np.zeros(0, np.int64), now[:0].copy(), now[:0].copy()
        places, first = np.unique(np.concatenate(self._places), return_index=True)
        before = np.concatenate(self._values)[first]
        after = now[places]
        changed = _differ(before, after)
        return places[changed], before[changed], after[changed]


def _differ(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Compare element by element; records as bytes, since NaN is equal to itself here."""
    if a.dtype.names is None:
        return np.asarray(a != b)
    if not len(a):
        return np.zeros(0, np.bool_)
    width = a.dtype.itemsize
    rows = [np.ascontiguousarray(part).view(np.uint8).reshape(-1, width) for part in (a, b)]
    different: NDArray[np.bool_] = (rows[0] != rows[1]).any(1)
    return different


class Store:
    """Labels and records, and the logs of the edits under way.

    Parameters
    ----------
    labels : uint32 (H, W)
        Kept, and written in place.
    records : (n,) of `core.nuclei.record_dtype`
        Ids ascending.
    """

    def __init__(self, labels: NDArray[np.uint32], records: NDArray[Any]) -> None:
        self.labels = labels
        self._flat = labels.reshape(-1)
        self._records = records.copy()
        self._n = len(records)
        self._index()
        self._logs: list[tuple[_Log, _Log]] = []

    def _index(self) -> None:
        """Keep ids and centres in arrays of their own, which are searched much faster than records."""
        self._ids = self._records["id"].astype(np.int64)
        self._y, self._x = self._records["y"].copy(), self._records["x"].copy()

    @property
    def records(self) -> NDArray[Any]:
        """All records, to be read only; a view that holds until the next edit."""
        view = self._records[: self._n]
        view.flags.writeable = False
        return view

    @property
    def next_id(self) -> int:
        """The least id never given."""
        return int(self._records["id"][self._n - 1]) + 1 if self._n else 1

    def rows_of(self, ids: Any) -> NDArray[np.int64]:
        """Return the rows of ids, -1 for one never given."""
        wanted = np.atleast_1d(np.asarray(ids, np.int64))
        known = self._ids[: self._n]
        if not self._n:
            return np.full(len(wanted), -1, np.int64)
        rows = np.searchsorted(known, wanted)
        rows[rows == self._n] = self._n - 1
        return np.where(known[rows] == wanted, rows, -1).astype(np.int64)

    def at(self, y: float, x: float) -> int:
        """Return the label at a position, 0 outside the image."""
        row, col = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
        height, width = self.labels.shape
        return int(self.labels[row, col]) if 0 <= row < height and 0 <= col < width else 0

    def live_in(self, low: tuple[float, float], high: tuple[float, float]) -> NDArray[np.int64]:
        """Return the rows of live nuclei with low <= centre < high."""
        y = self._y[: self._n]
        rows = np.flatnonzero((y >= low[0]) & (y < high[0]))
        x = self._x[rows]
        rows = rows[(x >= low[1]) & (x < high[1])]
        return rows[is_live(self._records[rows])]

    def write(self, pixels: Pixels, values: NDArray[np.uint32] | int) -> None:
        """Set labels."""
        old = self._flat[pixels]
        for log, _ in self._logs:
            log.add(pixels, old)
        self._flat[pixels] = values

    def put(self, rows: NDArray[np.int64], records: NDArray[Any]) -> None:
        """Set records."""
        old = self._records[rows]
        for _, log in self._logs:
            log.add(rows, old)
        self._records[rows] = records
        self._y[rows], self._x[rows] = records["y"], records["x"]

    def append(self, records: NDArray[Any]) -> NDArray[np.int64]:
        """Add records with ids above all those given before; return their rows."""
        n = len(records)
        rows = np.arange(self._n, self._n + n)
        if self._n + n > len(self._records):
            grown = np.zeros(max(1024, 2 * (self._n + n)), self._records.dtype)
            grown[: self._n] = self._records[: self._n]
            self._records = grown
            self._index()
        absent = np.zeros(n, self._records.dtype)
        absent["id"], absent["state"] = records["id"], State.ABSENT
        self._records[rows] = absent
        self._ids[rows] = records["id"]
        self._n += n
        self.put(rows, records)
        return rows

    @contextmanager
    def logged(self, name: str) -> Iterator[list[Step]]:
        """Log what is written inside; the list holds the step afterwards. An error takes everything back."""
        log = (_Log(), _Log())
        self._logs.append(log)
        made: list[Step] = []
        n = self._n
        try:
            yield made
        except BaseException:
            self.revert(self._step(name, log))
            self._n = n
            raise
        else:
            made.append(self._step(name, log))
        finally:
            self._logs.remove(log)

    def _step(self, name: str, log: tuple[_Log, _Log]) -> Step:
        return Step(name, *log[0].net(self._flat), *log[1].net(self._records[: self._n]))

    def revert(self, step: Step) -> None:
        """Make everything as it was before a step."""
        self.write(step.pixels, step.before)
        self.put(step.rows, step.records_before)

    def repeat(self, step: Step) -> None:
        """Make everything as it was after a step."""
        self.write(step.pixels, step.after)
        self.put(step.rows, step.records_after)

    def change(self, step: Step, name: str | None = None) -> Change:
        """Return what a step's pixels and records are now."""
        box = bounds(step.pixels, self.labels.shape[1]) if step.pixels.size else None
        return Change(
            name or step.name,
            box,
            step.pixels,
            self._flat[step.pixels],
            step.rows,
            self._records[step.rows],
        )

    def check(self) -> str | None:
        """Return what is wrong where labels and records disagree, None where all is well."""
        records = self.records
        live = records[is_live(records)]
        pixels = centre_pixels(live)
        height, width = self.labels.shape
        outside = ((pixels < 0) | (pixels >= (height, width))).any(1)
        if outside.any():
            return f"the centre of nucleus {live['id'][outside][0]} lies outside the image"
        off = self.labels[pixels[:, 0], pixels[:, 1]] != live["id"]
        if off.any():
            return f"nucleus {live['id'][off][0]} does not cover its centre"
        present = np.unique(self.labels)
        strangers = np.setdiff1d(present[present > 0], live["id"])
        if strangers.size:
            return f"label {strangers[0]} has no nucleus in the table"
        return None


class History:
    """Steps done and undone, within a memory.

    Parameters
    ----------
    max_bytes : int
        The oldest steps are forgotten beyond it.
    """

    def __init__(self, max_bytes: int = 2**30) -> None:
        self._max_bytes = max_bytes
        self.done: list[Step] = []
        self.undone: list[Step] = []

    def add(self, step: Step) -> None:
        """Take in a step; what was undone cannot be done again after it."""
        self.done.append(step)
        self.undone.clear()
        total = sum(s.n_bytes for s in self.done) if len(self.done) % 64 == 0 or step.n_bytes > 2**20 else 0
        while total > self._max_bytes and len(self.done) > 1:
            total -= self.done.pop(0).n_bytes

    def erased(self, row: int, id_: int) -> Pixels | None:
        """Return the pixels that a locked nucleus had when it was last taken away; None where it was not locked."""
        for step in reversed(self.done):
            at = np.searchsorted(step.rows, row)
            if at == len(step.rows) or step.rows[at] != row:
                continue
            if is_live(step.records_before[at : at + 1])[0]:
                locked = bool(step.records_before["locked"][at])
                return step.pixels[step.before == id_] if locked else None
        return None
