"""A stand-in for the session: rectangles as nuclei, edited at random, told of by `Change`s."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.nuclei import Change, NucleusClass, Origin, State, is_live, record_dtype
from napari_nucseg.core.tiling import Box
from napari_nucseg.io.session_format import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

CELL = 24
CLASSES = (NucleusClass("tumour", (200, 0, 0)), NucleusClass('lympho, "small"', (0, 120, 255)))


class FakeSession:
    """One nucleus at most per cell of a grid; every edit is random."""

    def __init__(self, shape: tuple[int, int], seed: int = 0, filled: float = 0.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.labels = np.zeros(shape, np.uint32)
        self.records = np.zeros(0, record_dtype(len(CLASSES)))
        self.classes = CLASSES
        self.about: dict[str, Any] = {"mpp": 0.25, "image": {"name": "a.tif", "path": "/gone/a.tif"}}
        self.cells = np.zeros(
            (-(-shape[0] // CELL), -(-shape[1] // CELL)), np.int64
        )  # row of the nucleus + 1
        self.lock = threading.Lock()  # held while editing, as a window's thread is busy then
        for cell in np.argwhere(self.rng.random(self.cells.shape) < filled):
            self._new(*cell)

    def between_edits(self, call: Callable[[], None]) -> None:
        with self.lock:
            call()

    @property
    def next_id(self) -> int:
        return int(self.records["id"][-1]) + 1 if len(self.records) else 1

    def snapshot(self, copy: bool = False) -> Snapshot:
        labels = self.labels.copy() if copy else self.labels
        return Snapshot(labels, self.records.copy(), self.classes, self.next_id, self.about)

    def edit(self, tell: Callable[[Change], None] = lambda change: None) -> Change:
        """Do something to some cell, and tell of it."""
        with self.lock:
            change = self._edit()
            tell(change)
        return change

    def _edit(self) -> Change:
        before, n = self.labels.copy() if self.labels.size < 1e6 else None, len(self.records)
        cell = tuple(int(self.rng.integers(n)) for n in self.cells.shape)
        row = int(self.cells[cell]) - 1
        box = self._box(cell)
        old = self.labels[box.slices].copy()
        if row < 0:
            row = self._new(*cell)
        elif self.rng.random() < 0.3:
            self.records["state"][row] = self.rng.choice([State.REJECTED, State.ABSENT])
            self.records["area"][row] = 0
            self.labels[box.slices] = 0
            self.cells[cell] = 0
        else:
            self._shape(row, box)
            self.records["kind"][row] = self.rng.integers(-1, len(self.classes))
            self.records["state"][row] = self.rng.choice([State.EDITED, State.DRAWN, State.ACCEPTED])
        y, x = np.nonzero(self.labels[box.slices] != old)
        pixels = (y + box.y0) * self.labels.shape[1] + x + box.x0
        if before is not None:
            assert np.array_equal(np.flatnonzero(self.labels != before), pixels)
        rows = np.array([row], np.int64) if row < n else np.arange(n, row + 1)
        return Change("Edit", box, pixels, self.labels.ravel()[pixels], rows, self.records[rows].copy())

    def add_class(self, name: str) -> tuple[NucleusClass, ...]:
        self.classes = (*self.classes, NucleusClass(name, (1, 2, 3)))
        return self.classes

    def _box(self, cell: tuple[int, ...]) -> Box:
        y, x = cell[0] * CELL, cell[1] * CELL
        return Box(y, min(y + CELL, self.labels.shape[0]), x, min(x + CELL, self.labels.shape[1]))

    def _new(self, *cell: int) -> int:
        record = np.zeros(1, self.records.dtype)
        record["id"] = self.next_id + int(self.rng.integers(3) == 0)
        record["score"] = self.rng.choice([np.nan, self.rng.random()])
        record["prob"] = self.rng.random(len(CLASSES)) if self.rng.random() < 0.7 else np.nan
        record["kind"], record["origin"] = self.rng.integers(-1, 2), self.rng.choice(list(Origin))
        record["state"] = State.PREDICTED
        record["floor"], record["typed"] = self.rng.integers(256), self.rng.random() < 0.5
        record["locked"] = self.rng.random() < 0.5
        self.records = np.concatenate([self.records, record])
        self.cells[cell] = len(self.records)
        self._shape(len(self.records) - 1, self._box(cell))
        return len(self.records) - 1

    def _shape(self, row: int, box: Box) -> None:
        y, x = (int(self.rng.integers(a, b)) for a, b in ((box.y0, box.y1), (box.x0, box.x1)))
        y1, x1 = int(self.rng.integers(y, box.y1)) + 1, int(self.rng.integers(x, box.x1)) + 1
        self.labels[box.slices] = 0
        self.labels[y:y1, x:x1] = self.records["id"][row]
        self.records["area"][row] = (y1 - y) * (x1 - x)
        self.records["y"][row] = y + self.rng.random() * 0.49
        self.records["x"][row] = x + self.rng.random() * 0.49


def same(a: Snapshot, b: Snapshot) -> None:
    """Assert that two snapshots are equal to the last bit."""
    assert np.array_equal(a.labels, b.labels)
    assert a.labels.dtype == b.labels.dtype == np.uint32
    assert a.records.dtype == b.records.dtype
    assert len(a.records) == len(b.records)
    for name in a.records.dtype.names:
        x, y = a.records[name], b.records[name]
        assert np.array_equal(x, y, equal_nan=x.dtype.kind == "f"), name
    assert a.classes == b.classes
    assert a.about == b.about
    assert a.next_id == b.next_id


def live_ids(snapshot: Snapshot) -> set[int]:
    return set(snapshot.records["id"][is_live(snapshot.records)].tolist())
