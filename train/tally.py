"""The figures of a set of images, from numbers laid out once: fast enough to draw the images a thousand times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.metrics import DetectionCounts, MulticlassPQ, PanopticQuality, mpq_plus

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from numpy.typing import NDArray

    from train.scores import ImageScore, Scheme

PER_IMAGE, POOLED, PER_ORGAN = "mean over images", "pooled over images", "mean over organs"
"""The ways in which a figure of a set is averaged; they differ by more than a point, so each figure says its own."""


@dataclass(frozen=True)
class Figure:
    """One figure of a set: its value, how it is averaged, and its 95 % interval."""

    name: str
    averaging: str
    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class _Typed:
    """Numbers of all images in one scheme of C classes; class 0 is that of true nuclei without one.

    Attributes
    ----------
    matches : (n, C, 4) float64
        True positives, false positives, false negatives and the sum of IoU of each class.
    pq : (n, C + 1) float64
        PQ of each class, and their mean (mPQ).
    pairs : (n, C + 1, C + 1) int64
        Paired centroids by true and predicted class.
    missed, spurious : (n, C + 1) int64
    """

    scheme: Scheme
    matches: NDArray[np.float64]
    pq: NDArray[np.float64]
    pairs: NDArray[np.int64]
    missed: NDArray[np.int64]
    spurious: NDArray[np.int64]

    @classmethod
    def of(cls, scheme: Scheme, scores: Sequence[ImageScore]) -> _Typed:
        count, n = len(scheme.classes), len(scores)
        pairs = np.zeros((n, count + 1, count + 1), np.int64)
        sides = np.zeros((2, n, count + 1), np.int64)
        matches, pq = np.zeros((n, count, 4)), np.zeros((n, count + 1))
        for i, typed in enumerate(score.typed[scheme.key] for score in scores):
            for (true, pred), number in typed.detection.pairs.items():
                pairs[i, _class(true), _class(pred)] = number
            for side, found in zip(sides, (typed.detection.missed, typed.detection.spurious), strict=True):
                for kind, number in found.items():
                    side[i, _class(kind)] = number
            matches[i] = [(c.tp, c.fp, c.fn, c.iou_sum) for c in typed.pq.per_class.values()]
            pq[i] = [*typed.pq.pq_per_class.values(), typed.pq.mpq]
        return cls(scheme, matches, pq, pairs, sides[0], sides[1])

    def figures(self, chosen: NDArray[np.intp]) -> list[Figure]:
        key, classes = self.scheme.key, range(1, len(self.scheme.classes) + 1)
        means, out = _means(self.pq[chosen]), []
        sums = self.matches[chosen].sum(0).tolist()
        pooled = {
            k: PanopticQuality(int(tp), int(fp), int(fn), iou)
            for k, (tp, fp, fn, iou) in zip(classes, sums, strict=True)
            if tp + fn
        }
        by_class = self._detection(chosen).f1_c(list(pooled))
        for k, name in zip(classes, self.scheme.classes, strict=True):
            out.append(Figure(f"F1_c {name} ({key})", POOLED, by_class.get(k, math.nan)))
            out.append(Figure(f"PQ {name} ({key})", PER_IMAGE, means[k - 1]))
        out.append(Figure(f"mPQ ({key})", PER_IMAGE, means[-1]))
        return [*out, Figure(f"mPQ+ ({key})", POOLED, mpq_plus([MulticlassPQ(PanopticQuality(), pooled)]))]

    def _detection(self, chosen: NDArray[np.intp]) -> DetectionCounts:
        """Pool, without the pairs whose true nucleus has no class: they are neither right nor wrong."""
        pairs = self.pairs[chosen].sum(0)
        pairs[0] = 0
        found: dict[tuple[Hashable, Hashable], int]
        found = {(int(t), int(p)): int(pairs[t, p]) for t, p in zip(*np.nonzero(pairs), strict=True)}
        return DetectionCounts(found, _counted(self.missed[chosen]), _counted(self.spurious[chosen]))


def _class(key: Any) -> int:
    return int(key)


def _counted(numbers: NDArray[np.int64]) -> Mapping[Hashable, int]:
    return {kind: number for kind, number in enumerate(numbers.sum(0).tolist()) if number}


def _means(values: NDArray[np.float64]) -> list[float]:
    """Return the mean of each column over what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    means: list[float] = np.where(count > 0, total / np.maximum(count, 1), np.nan).tolist()
    return means


class Tally:
    """The numbers of a scored set, ready to be summed up over any of its images.

    Figures of a class are NaN where the truth of these images holds none of it, and means over classes are over the
    others, so that they are over the same classes for every model: `mpq_plus` by itself counts a class that a model
    made up as 0, but one that it did not make up not at all.

    Parameters
    ----------
    scores
        One record an image.
    schemes
        In which classes were compared.
    """

    NAMES = ("Dice", "AJI", "AJI+", "DQ", "SQ", "bPQ")

    def __init__(self, scores: Sequence[ImageScore], schemes: Sequence[Scheme]) -> None:
        rows = [
            (s.dice, s.aji, s.aji_plus, s.binary.binary.dq, s.binary.binary.sq, s.binary.bpq) for s in scores
        ]
        self._values = np.array(rows, np.float64).reshape(len(scores), len(self.NAMES))
        counts = [_numbers(s.detection) for s in scores]
        self._centres = np.array(counts, np.int64).reshape(len(scores), 3)
        self._typed = [_Typed.of(scheme, scores) for scheme in schemes]
        organs = [s.organ or "" for s in scores]
        self.organs = sorted(set(organs) - {""})
        self._organ = np.array([self.organs.index(o) if o else -1 for o in organs], np.intp)

    def __len__(self) -> int:
        return len(self._values)

    def figures(self, chosen: Iterable[int] | None = None) -> list[Figure]:
        """Sum up the images at these positions (all by default; one may come several times), without intervals.

        Images without a true nucleus are left out of bPQ, as in PanNuke; elsewhere NaN alone is left out of a mean.
        """
        index = self._index(chosen)
        means = _means(self._values[index])
        out = [Figure(name, PER_IMAGE, value) for name, value in zip(self.NAMES, means, strict=True)]
        paired, missed, spurious = self._centres[index].sum(0).tolist()
        pooled = DetectionCounts({(0, 0): paired}, {0: missed}, {0: spurious})
        out.append(Figure("F1_d", POOLED, pooled.f1_d))
        return out + [figure for typed in self._typed for figure in typed.figures(index)]

    def by_organ(self, chosen: Iterable[int] | None = None) -> dict[str, list[Figure]]:
        """Return the `figures` of the images of each organ, by name; images of no known organ are left out."""
        index = self._index(chosen)
        groups = {name: index[self._organ[index] == k] for k, name in enumerate(self.organs)}
        return {name: self.figures(group) for name, group in groups.items() if len(group)}

    def organ_means(self, chosen: Iterable[int] | None = None) -> list[Figure]:
        """Return the mean of every figure over the organs, each weighing the same (PanNuke's published average).

        Empty where no organ is known. An organ in which a figure is not defined is left out of its mean.
        """
        found = list(self.by_organ(chosen).values())
        if not found:
            return []
        means = _means(np.array([[f.value for f in one] for one in found]))
        return [Figure(f.name, PER_ORGAN, value) for f, value in zip(found[0], means, strict=True)]

    def _index(self, chosen: Iterable[int] | None) -> NDArray[np.intp]:
        return np.arange(len(self)) if chosen is None else np.asarray(list(chosen), np.intp)


def _numbers(counts: DetectionCounts) -> tuple[int, int, int]:
    return sum(counts.pairs.values()), sum(counts.missed.values()), sum(counts.spurious.values())
