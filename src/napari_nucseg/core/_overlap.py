"""The sparse table of which true nucleus overlaps which predicted nucleus, and pairings made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Overlap:
    """Pairs (t, p) of overlapping nuclei, as indices into the sorted ids, and the areas of all."""

    true_ids: NDArray[np.int64]
    true_areas: NDArray[np.int64]
    pred_ids: NDArray[np.int64]
    pred_areas: NDArray[np.int64]
    t: NDArray[np.int64]
    p: NDArray[np.int64]
    shared: NDArray[np.int64]

    @classmethod
    def of(cls, true: NDArray[Any], pred: NDArray[Any]) -> Overlap:
        """Count the overlaps of two label maps."""
        starts, lengths = runs([true, pred])
        t, p = (m.ravel()[starts].astype(np.int64) for m in (true, pred))
        return cls.of_runs(t, p, lengths)

    @classmethod
    def of_runs(cls, t: NDArray[np.int64], p: NDArray[np.int64], lengths: NDArray[np.int64]) -> Overlap:
        """Count the overlaps from runs of pixels with true key t and predicted key p, 0 = background."""
        true_ids, ti, true_areas = _areas(t, lengths)
        pred_ids, pi, pred_areas = _areas(p, lengths)
        both = (ti >= 0) & (pi >= 0)
        joint, where = np.unique(ti[both] * max(pred_ids.size, 1) + pi[both], return_inverse=True)
        shared = np.bincount(where, weights=lengths[both], minlength=joint.size).astype(np.int64)
        ti, pi = np.divmod(joint, max(pred_ids.size, 1))
        return cls(true_ids, true_areas, pred_ids, pred_areas, ti, pi, shared)

    @property
    def union(self) -> NDArray[np.int64]:
        return self.true_areas[self.t] + self.pred_areas[self.p] - self.shared

    @property
    def iou(self) -> NDArray[np.float64]:
        return self.shared / self.union

    def only(self, pairs: NDArray[Any]) -> Overlap:
        """Drop all pairs but these."""
        return Overlap(
            self.true_ids,
            self.true_areas,
            self.pred_ids,
            self.pred_areas,
            self.t[pairs],
            self.p[pairs],
            self.shared[pairs],
        )

    def jaccard(self, pairs: NDArray[Any]) -> float:
        """Aggregate the Jaccard index over these pairs; all other nuclei add their area to the union."""
        chosen = self.only(pairs)
        lone_true = self.true_areas.sum() - self.true_areas[np.unique(chosen.t)].sum()
        lone_pred = self.pred_areas.sum() - self.pred_areas[np.unique(chosen.p)].sum()
        return ratio(chosen.shared.sum(), chosen.union.sum() + lone_true + lone_pred)


def runs(maps: Sequence[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and lengths of the runs, in raster order, in which every map is constant."""
    size = maps[0].size
    if not size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    change = np.zeros(size - 1, bool)
    for m in maps:
        flat = m.ravel()
        change |= flat[1:] != flat[:-1]
    starts = np.concatenate(([0], np.flatnonzero(change) + 1)).astype(np.int64)
    return starts, np.diff(starts, append=size)


def _areas(
    keys: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the sorted non-zero keys, each run's index among them (-1 = background), and the areas."""
    ids, where = np.unique(np.append(keys, 0), return_inverse=True)
    where = where[:-1]
    areas = np.bincount(where, weights=lengths, minlength=ids.size).astype(np.int64)
    return ids[1:], where - 1, areas[1:]


def assign(table: Overlap, weight: NDArray[np.float64]) -> NDArray[np.int64]:
    """Choose the one-to-one pairs of greatest total weight, cluster by cluster of nuclei."""
    if not table.t.size:
        return np.zeros(0, np.int64)
    n, m = table.true_ids.size, table.pred_ids.size
    graph = coo_array((np.ones(table.t.size, np.int8), (table.t, table.p + n)), shape=(n + m, n + m))
    cluster = connected_components(graph, directed=False)[1][table.t]
    order = np.argsort(cluster, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1)
    return np.concatenate([g if g.size == 1 else _assign_cluster(table, weight, g) for g in groups])


def _assign_cluster(table: Overlap, weight: NDArray[np.float64], pairs: NDArray[Any]) -> NDArray[np.int64]:
    """Solve the assignment within one cluster of overlapping nuclei."""
    rows, r = np.unique(table.t[pairs], return_inverse=True)
    cols, c = np.unique(table.p[pairs], return_inverse=True)
    gain = np.zeros((rows.size, cols.size))
    pair_at = np.full(gain.shape, -1, np.int64)
    gain[r, c], pair_at[r, c] = weight[pairs], pairs
    chosen = pair_at[linear_sum_assignment(gain, maximize=True)]
    return chosen[chosen >= 0]


def ratio(part: float, whole: float) -> float:
    """Divide; NaN where there is nothing to divide by."""
    return float(part) / float(whole) if whole else float("nan")


def checked_pair(true: ArrayLike, pred: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both label maps as arrays, or tell what is wrong with them."""
    a, b = _checked_labels(true, "true"), _checked_labels(pred, "predicted")
    if a.shape != b.shape:
        raise NucSegError(
            f"The label maps have the shapes {a.shape} and {b.shape}, but must have one; crop or resample."
        )
    return a, b


def _checked_labels(labels: ArrayLike, side: str) -> NDArray[Any]:
    a = np.asarray(labels)
    if a.ndim != 2 or a.dtype.kind not in "uib":
        raise NucSegError(
            f"The {side} label map is {a.dtype} of shape {a.shape}, but must be 2-D and integer; convert it."
        )
    if a.size and (a.min() < 0 or a.max() > 0xFFFFFFFF):
        raise NucSegError(
            f"The {side} label map holds ids {a.min()} to {a.max()}, but they must lie in 0..2**32 - 1."
        )
    return a
