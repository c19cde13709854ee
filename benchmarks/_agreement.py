"""How far a label image agrees with the truth, kept in step with every edit at the cost of the changed pixels alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from napari_nucseg.core.targets import centre_points
from train.data import nucleus_classes

Counts = dict[int, dict[int, int]]


class Agreement:
    """The sparse table of pixels shared by true and predicted nuclei of one image.

    Parameters
    ----------
    truth : (H, W) integer
        0 background, any ids.
    types : (H, W) uint8 or None
        Classes of the truth as in `train.data`.
    labels : (H, W) uint32
        The prediction; copied.
    radius : float
        Centroids nearer than this can be a pair, in pixels.

    Attributes
    ----------
    area : dict
        Pixels of every predicted nucleus.
    true_area, true_type : int64 (n + 1,)
        Pixels and class of the true nuclei, which are numbered 1..n here; class 0 is unknown.
    true_centroid : float64 (n + 1, 2)
    anchor : int64 (n + 1, 2)
        A pixel of each true nucleus next to its centroid: where a person would click.
    """

    def __init__(
        self,
        truth: NDArray[np.integer],
        types: NDArray[np.uint8] | None,
        labels: NDArray[np.uint32],
        radius: float,
    ) -> None:
        ids = np.unique(truth[truth > 0])
        self.n, self.radius, self._width = len(ids), radius, truth.shape[1]
        self._truth = (np.searchsorted(ids, truth) + 1) * (truth > 0)
        self._truth = self._truth.astype(np.int64).ravel()
        centroids, classes = nucleus_classes(truth, types)
        self.true_area = np.bincount(self._truth, minlength=self.n + 1)
        self.true_centroid = np.concatenate([np.full((1, 2), -1e9), centroids])
        self.true_type = np.concatenate([[0], classes])
        self.anchor = self._anchors(self._truth.reshape(truth.shape))
        self.area: dict[int, int] = {}
        self._sums: dict[int, NDArray[np.float64]] = {}
        self._of_true: Counts = {}
        self._of_pred: Counts = {}
        self._labels = np.zeros(labels.size, np.int64)
        self._iou_sum, self._paired = 0.0, 0
        filled = np.flatnonzero(labels)
        if filled.size:
            self.update(filled, labels.ravel()[filled])

    def _anchors(self, truth: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return one pixel per nucleus; where it has several parts, that of its part nearest to the centroid."""
        points = centre_points(truth)
        owner = truth[points[:, 0], points[:, 1]]
        far = ((points - self.true_centroid[owner]) ** 2).sum(1)
        out = np.zeros((self.n + 1, 2), np.int64)
        order = np.argsort(-far, kind="stable")
        out[owner[order]] = points[order]
        return out

    def update(self, pixels: NDArray[np.int64], values: NDArray[Any]) -> tuple[set[int], set[int]]:
        """Take over changed labels (flat indices and values).

        Returns
        -------
        true, predicted : set of int
            The nuclei of which an overlap or an area has changed.
        """
        old, new = self._labels[pixels], np.asarray(values).astype(np.int64)
        differs = old != new
        pixels, old, new = pixels[differs], old[differs], new[differs]
        if not pixels.size:
            return set(), set()
        preds = set(np.unique(np.concatenate([old, new])).tolist()) - {0}
        trues = set(np.unique(self._truth[pixels]).tolist()) - {0}
        trues |= {t for p in preds for t in self.trues_of(p)}
        window = self._window(pixels, trues)
        iou, pairs = self._matched_iou(trues), self._pairs(*window)
        self._count(pixels, old, -1)
        self._count(pixels, new, +1)
        self._labels[pixels] = new
        self._iou_sum += self._matched_iou(trues) - iou
        self._paired += self._pairs(*window) - pairs
        return trues, preds

    def _count(self, pixels: NDArray[np.int64], pred: NDArray[np.int64], sign: int) -> None:
        """Add (or take away) pixels to the nuclei that they are labelled with."""
        pixels, pred = pixels[pred > 0], pred[pred > 0]
        truth = self._truth[pixels]
        pairs, where, counts = np.unique(
            np.stack([truth, pred]), axis=1, return_inverse=True, return_counts=True
        )
        rows = np.bincount(where.ravel(), pixels // self._width, counts.size)
        cols = np.bincount(where.ravel(), pixels % self._width, counts.size)
        listed = zip(*pairs.tolist(), counts.tolist(), rows.tolist(), cols.tolist(), strict=True)
        for t, p, count, y, x in listed:
            self.area[p] = self.area.get(p, 0) + sign * count
            self._sums[p] = self._sums.get(p, np.zeros(2)) + sign * np.array([y, x])
            if t:
                self._share(t, p, sign * count)
            if not self.area[p]:
                del self.area[p], self._sums[p]

    def _share(self, t: int, p: int, count: int) -> None:
        total = self._of_true.get(t, {}).get(p, 0) + count
        for table, a, b in ((self._of_true, t, p), (self._of_pred, p, t)):
            row = table.setdefault(a, {})
            row[b] = total
            if not total:
                del row[b]

    def preds_of(self, t: int) -> dict[int, int]:
        """Return the pixels that a true nucleus shares with each predicted one."""
        return self._of_true.get(t, {})

    def trues_of(self, p: int) -> dict[int, int]:
        """Return the pixels that a predicted nucleus shares with each true one."""
        return self._of_pred.get(p, {})

    def iou(self, t: int, preds: tuple[int, ...]) -> float:
        """Return the overlap of a true nucleus with the union of predicted ones."""
        shared = sum(self.preds_of(t).get(p, 0) for p in preds)
        return shared / (int(self.true_area[t]) + sum(self.area[p] for p in preds) - shared)

    def match(self, t: int) -> int:
        """Return the predicted nucleus with an IoU above 0.5, or 0."""
        for p, shared in self.preds_of(t).items():
            if 3 * shared > int(self.true_area[t]) + self.area[p]:
                return p
        return 0

    def match_of(self, p: int) -> int:
        """Return the true nucleus with an IoU above 0.5, or 0."""
        for t, shared in self.trues_of(p).items():
            if 3 * shared > int(self.true_area[t]) + self.area[p]:
                return t
        return 0

    @property
    def bpq(self) -> float:
        """Panoptic quality of all nuclei as one class: ``2 sum(IoU) / (true + predicted)``."""
        return 2 * self._iou_sum / max(1, self.n + len(self.area))

    @property
    def f1_d(self) -> float:
        """Detection F1 with pairs made near by, which differs a little from the published one (see `_detection`)."""
        return 2 * self._paired / max(1, self.n + len(self.area))

    def _matched_iou(self, trues: set[int]) -> float:
        """Return the sum of the IoU of those of some true nuclei that have a match."""
        pairs = ((t, self.match(t)) for t in sorted(trues))
        return sum(self.iou(t, (p,)) for t, p in pairs if p)

    def _window(self, pixels: NDArray[np.int64], trues: set[int]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the corners of the area in which centroids may get another partner."""
        changed = np.stack([pixels // self._width, pixels % self._width], axis=1)
        here = np.concatenate([changed, self.true_centroid[sorted(trues)]])
        return here.min(0) - 3 * self.radius, here.max(0) + 3 * self.radius

    def _pairs(self, low: NDArray[Any], high: NDArray[Any]) -> int:
        """Return how many centroids inside a window pair up within the radius."""
        sums = np.array(list(self._sums.values())).reshape(-1, 2)
        points = sums / np.array(list(self.area.values())).reshape(-1, 1)
        a, b = (c[((c >= low) & (c <= high)).all(1)] for c in (self.true_centroid[1:], points))
        far = cdist(a, b)
        rows, cols = linear_sum_assignment(np.where(far <= self.radius, far, 1e4))
        return int((far[rows, cols] <= self.radius).sum())
