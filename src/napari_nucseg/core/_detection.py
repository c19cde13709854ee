"""Detection and classification F1 of typed centres; public through `napari_nucseg.core.metrics`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from napari_nucseg.core._overlap import ratio
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class DetectionCounts:
    """Paired and unpaired centres by class; records of several images add up to the pooled counts.

    Parameters
    ----------
    pairs
        Number of pairs by (true class, predicted class).
    missed
        True centres without a partner, by class.
    spurious
        Predicted centres without a partner, by class.
    """

    pairs: Mapping[tuple[Hashable, Hashable], int] = field(default_factory=dict)
    missed: Mapping[Hashable, int] = field(default_factory=dict)
    spurious: Mapping[Hashable, int] = field(default_factory=dict)

    def __add__(self, other: DetectionCounts) -> DetectionCounts:
        return DetectionCounts(
            dict(Counter(self.pairs) + Counter(other.pairs)),
            dict(Counter(self.missed) + Counter(other.missed)),
            dict(Counter(self.spurious) + Counter(other.spurious)),
        )

    @property
    def classes(self) -> list[Any]:
        """Every class seen in the truth or the prediction, sorted."""
        true, pred = {t for t, _ in self.pairs}, {p for _, p in self.pairs}
        seen: set[Any] = true | pred | set(self.missed) | set(self.spurious)
        return sorted(seen)

    @property
    def f1_d(self) -> float:
        """Detection F1, classes ignored: ``2 tp / (2 tp + fp + fn)``; NaN where both sides are empty."""
        paired = 2 * sum(self.pairs.values())
        return ratio(paired, paired + sum(self.missed.values()) + sum(self.spurious.values()))

    @property
    def type_accuracy(self) -> float:
        """Share of the pairs whose classes agree; NaN without a pair."""
        return ratio(sum(n for (t, p), n in self.pairs.items() if t == p), sum(self.pairs.values()))

    def f1_c(self, classes: Sequence[Hashable] | None = None) -> dict[Any, float]:
        """Classification F1 of each class (Graham et al. 2019).

        ``2 tp / (2 tp + 2 fp_c + 2 fn_c + fp_d + fn_d)`` with tp the pairs of class c on both sides, fp_c and
        fn_c the pairs where only the prediction or only the truth is c, fp_d and fn_d the unpaired centres of
        class c.

        Parameters
        ----------
        classes
            The classes to score; default every class seen.

        Returns
        -------
        dict
            Class -> F1 in 0..1, NaN where nothing of the class was seen.
        """
        return {c: self._f1_of(c) for c in (self.classes if classes is None else classes)}

    def _f1_of(self, c: Hashable) -> float:
        hits = 2 * self.pairs.get((c, c), 0)
        confused = sum(n for (t, p), n in self.pairs.items() if (t == c) != (p == c))
        return ratio(hits, hits + 2 * confused + self.missed.get(c, 0) + self.spurious.get(c, 0))


@dataclass(frozen=True)
class DetectionF1:
    """Detection and classification F1 of one image, with the counts to pool over a set.

    Parameters
    ----------
    f1_d
        F1 of the centres, classes ignored.
    f1_c
        F1 of each class seen in the truth or the prediction.
    counts
        What both come from; add them over images and ask the sum for the figures of the set.
    """

    f1_d: float
    f1_c: dict[Any, float]
    counts: DetectionCounts


def detection_f1(
    true_points: ArrayLike,
    true_types: Sequence[Hashable] | NDArray[Any],
    pred_points: ArrayLike,
    pred_types: Sequence[Hashable] | NDArray[Any],
    radius: float = 12,
) -> DetectionF1:
    """Measure detection and classification F1 of typed centres (Graham et al. 2019).

    Centres are paired by the assignment of least total distance over *all* of them; pairs further apart than
    `radius` are dropped afterwards (so a pair may be lost that a gated assignment would have kept: that is
    the published definition). Memory grows with the product of the two numbers of centres. An image with an
    empty side adds its misses or false positives and nothing else; the published code pairs a made-up nucleus
    at (0, 0) there.

    Parameters
    ----------
    true_points, pred_points
        (N, 2) and (M, 2) centres in pixels, rows and columns in either order, the same for both. N or M may
        be 0.
    true_types, pred_types
        N and M classes, integers or names.
    radius
        Largest distance of a pair in pixels, itself allowed: 12 at 0.25 um/px, 6 at 0.5 um/px.

    Returns
    -------
    DetectionF1
        f1_d, f1_c and the counts, which add up over images.

    Raises
    ------
    NucSegError
        Points are not finite (N, 2) arrays, types are not one a point, or the radius is negative.
    """
    a, a_types = _checked_points(true_points, true_types, "true")
    b, b_types = _checked_points(pred_points, pred_types, "predicted")
    if not radius >= 0:
        raise NucSegError(f"The pairing radius is {radius} px, but must not be negative; try 12.")
    distance = cdist(a, b)
    rows, cols = linear_sum_assignment(distance)
    kept = distance[rows, cols] <= radius
    rows, cols = rows[kept].tolist(), cols[kept].tolist()
    counts = DetectionCounts(
        dict(Counter((a_types[i], b_types[j]) for i, j in zip(rows, cols, strict=True))),
        dict(Counter(a_types[i] for i in set(range(len(a))).difference(rows))),
        dict(Counter(b_types[j] for j in set(range(len(b))).difference(cols))),
    )
    return DetectionF1(counts.f1_d, counts.f1_c(), counts)


def _checked_points(
    points: ArrayLike, types: Sequence[Hashable] | NDArray[Any], side: str
) -> tuple[NDArray[np.float64], list[Any]]:
    a = np.asarray(points, np.float64)
    if a.size == 0:
        a = a.reshape(0, 2)
    if a.ndim != 2 or a.shape[1] != 2 or not np.isfinite(a).all():
        raise NucSegError(
            f"The {side} points have the shape {a.shape}, but must be (N, 2) and finite, in pixels."
        )
    listed = types.tolist() if isinstance(types, np.ndarray) else list(types)
    if len(listed) != len(a):
        raise NucSegError(f"There are {len(listed)} {side} types for {len(a)} points; give one type a point.")
    return a, listed
