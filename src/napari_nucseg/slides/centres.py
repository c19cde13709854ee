"""The centres of very many nuclei, sorted on a grid: those of any part of a slide are found in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

    from napari_nucseg.core.tiling import Box

CELL = 512
"""Side of the squares by which centres are sorted, level-0 pixels."""


@dataclass(frozen=True)
class View:
    """What a part of a slide holds.

    Attributes
    ----------
    rows : int64 (n,)
        Places in the columns of `Centres` of the nuclei to show, a part of all where there are too many.
    counts : int64 (classes + 1,)
        Of all nuclei there, by class; the last is of those without one.
    """

    rows: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Number of nuclei there, shown or not."""
        return int(self.counts.sum())


class Centres:
    """Columns of the nuclei of a slide, in the order of the squares that their centres lie in.

    Parameters
    ----------
    table : DataFrame
        id, centre_y, centre_x, and as far as there: class, score, area_um2.
    classes : sequence of str
        Others are counted as of no class.

    Attributes
    ----------
    ids : uint32, y, x, score, area : float32, kinds : int16
        Of all nuclei; -1 is no class.
    """

    def __init__(self, table: pd.DataFrame, classes: Sequence[str]) -> None:
        n = len(table)
        y = table["centre_y"].to_numpy(np.float32)
        x = table["centre_x"].to_numpy(np.float32)
        col = np.maximum(x, 0).astype(np.int64) // CELL
        row = np.maximum(y, 0).astype(np.int64) // CELL
        self._counts = (int(row.max(initial=0)) + 1, int(col.max(initial=0)) + 1)
        cell = row * self._counts[1] + col
        # Within a square the order is a shuffled one, so that every k-th nucleus is a fair choice of all.
        shuffled = np.random.default_rng(0).permutation(n)
        order = shuffled[np.argsort(cell[shuffled], kind="stable")]
        self._starts = np.searchsorted(cell[order], np.arange(self._counts[0] * self._counts[1] + 1))
        self.classes = tuple(classes)
        self.ids = table["id"].to_numpy(np.uint32)[order]
        self.y, self.x = y[order], x[order]
        self.kinds = _kinds(table, self.classes)[order]
        self.score, self.area = (
            table[name].to_numpy(np.float32)[order] if name in table else np.full(n, np.nan, np.float32)
            for name in ("score", "area_um2")
        )
        self._totals = self._count(self.kinds)
        self._by_id = np.argsort(self.ids)
        self._sorted_ids = self.ids[self._by_id]

    def __len__(self) -> int:
        return len(self.ids)

    def counts(self) -> NDArray[np.int64]:
        """Return the number of nuclei of every class, and last of those without one."""
        return self._totals.copy()

    def look(self, box: Box, most: int, leave_out: NDArray[np.integer] | None = None) -> View:
        """Return what lies in a box.

        Parameters
        ----------
        box : Box
            Level 0.
        most : int
            Nuclei to return at most: where there are more, evenly chosen ones.
        leave_out : integers, optional
            Ids of nuclei not to return; they are counted all the same.
        """
        spans = self._spans(box)
        rows = np.concatenate([np.arange(a, b) for a, b in spans]) if spans else np.zeros(0, np.int64)
        y, x = self.y[rows], self.x[rows]
        rows = rows[(y >= box.y0 - 0.5) & (y < box.y1 - 0.5) & (x >= box.x0 - 0.5) & (x < box.x1 - 0.5)]
        counts = self._count(self.kinds[rows])
        if leave_out is not None and len(leave_out):
            rows = rows[~np.isin(self.ids[rows], leave_out)]
        if len(rows) > most:
            rows = rows[:: -(-len(rows) // most)]
        return View(rows, counts)

    def describe(self, id_: int) -> dict[str, object] | None:
        """Return what is known of a nucleus, None of one that is not there."""
        at = int(np.searchsorted(self._sorted_ids, id_))
        if at == len(self) or self._sorted_ids[at] != id_:
            return None
        row = int(self._by_id[at])
        kind = int(self.kinds[row])
        told: dict[str, object] = {"class": self.classes[kind]} if kind >= 0 else {}
        for name, value in (("score", self.score[row]), ("area_um2", self.area[row])):
            if np.isfinite(value):
                told[name] = round(float(value), 2 if name == "score" else 1)
        return told

    def _count(self, kinds: NDArray[np.int16]) -> NDArray[np.int64]:
        found = np.bincount(kinds.astype(np.int64) + 1, minlength=len(self.classes) + 1)
        return np.roll(found, -1).astype(np.int64)

    def _spans(self, box: Box) -> list[tuple[int, int]]:
        rows, cols = self._counts
        x0, x1 = max(0, box.x0 // CELL), min(cols, -(-box.x1 // CELL))
        if x0 >= x1 or not len(self):
            return []
        wanted = range(max(0, box.y0 // CELL), min(rows, -(-box.y1 // CELL)))
        spans = ((int(self._starts[r * cols + x0]), int(self._starts[r * cols + x1])) for r in wanted)
        return [(a, b) for a, b in spans if a < b]


def _kinds(table: pd.DataFrame, classes: tuple[str, ...]) -> NDArray[np.int16]:
    import pandas as pd

    if "class" not in table:
        return np.full(len(table), -1, np.int16)
    if isinstance(table["class"].dtype, pd.CategoricalDtype):
        numbers = {name: k for k, name in enumerate(classes)}
        known = np.array([numbers.get(name, -1) for name in table["class"].cat.categories] + [-1], np.int16)
        return known[table["class"].cat.codes.to_numpy()]
    return pd.Index(classes).get_indexer(pd.Index(table["class"])).astype(np.int16)
