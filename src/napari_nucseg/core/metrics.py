"""Agreement of two label maps, or of two sets of typed centres, in the figures of the nuclei literature.

Every figure of label maps is read off one sparse table: which true nucleus overlaps which predicted nucleus
in how many pixels. A nucleus is all pixels of one id, connected or not; ids are any integers from 1 to
4294967295 in any order (published code needs them renumbered to 1..n); 0 is background. No small constant is
added to any denominator, so identical maps score exactly 1 (published code adds 1e-6, which moves a value by
at most 2e-6). Nothing to compare is NaN, never 0 or 1.

References
----------
Kumar et al. 2017, IEEE TMI 36(7): AJI. Kirillov et al. 2019, CVPR: panoptic quality (PQ).
Graham et al. 2019, Medical Image Analysis 58, HoVer-Net: AJI+, F1_d, F1_c. Gamper et al. 2020, PanNuke, arXiv
2003.10778: bPQ and mPQ. Graham et al. 2021/2024, CoNIC, arXiv 2111.14485 and Medical Image Analysis 92: mPQ+.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_nucseg.core._detection import DetectionCounts, DetectionF1, detection_f1
from napari_nucseg.core._overlap import Overlap, assign, checked_pair, ratio, runs
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "AveragePQ",
    "DetectionCounts",
    "DetectionF1",
    "MulticlassPQ",
    "PanopticQuality",
    "aji",
    "aji_plus",
    "average_pq",
    "detection_f1",
    "dice",
    "mpq_plus",
    "multiclass_pq",
    "panoptic_quality",
    "pooled_pq",
]

TypeInput: TypeAlias = "NDArray[Any] | Mapping[int, int]"
_NAN = float("nan")


@dataclass(frozen=True)
class PanopticQuality:
    """Matched and unmatched nuclei, and the panoptic quality they make (Kirillov et al. 2019).

    Records add up: the sum of several is the record of the pooled nuclei.

    Parameters
    ----------
    tp, fp, fn
        Matched pairs, predicted nuclei without a partner, true nuclei without a partner.
    iou_sum
        Sum of the intersection over union of the matched pairs.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    iou_sum: float = 0.0

    @property
    def dq(self) -> float:
        """Detection quality ``tp / (tp + fp/2 + fn/2)``; NaN where both sides are empty."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def sq(self) -> float:
        """Segmentation quality, the mean IoU of the matches; 0 without a match, NaN with both sides empty."""
        return ratio(self.iou_sum, self.tp) if self.tp else 0.0 * self.dq

    @property
    def pq(self) -> float:
        """Panoptic quality ``dq * sq``; NaN where both sides are empty."""
        return self.dq * self.sq

    def __add__(self, other: PanopticQuality) -> PanopticQuality:
        return PanopticQuality(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.iou_sum + other.iou_sum
        )


@dataclass(frozen=True)
class MulticlassPQ:
    """Panoptic quality of one image, all nuclei as one class and class by class.

    Parameters
    ----------
    binary
        Counts over all nuclei, whatever their class.
    per_class
        Counts within each asked class, in the order asked.
    """

    binary: PanopticQuality
    per_class: dict[int, PanopticQuality]

    @property
    def bpq(self) -> float:
        """PQ of all nuclei as one class; NaN where the truth holds no nucleus (PanNuke)."""
        return _pannuke(self.binary)

    @property
    def pq_per_class(self) -> dict[int, float]:
        """PQ within each class; NaN where the truth holds none, whatever was predicted (PanNuke)."""
        return {c: _pannuke(counts) for c, counts in self.per_class.items()}

    @property
    def mpq(self) -> float:
        """Mean of `pq_per_class` over the classes that the truth holds; NaN without any."""
        return _nanmean(self.pq_per_class.values())


@dataclass(frozen=True)
class AveragePQ:
    """Panoptic quality of a set of images, averaged as PanNuke does; NaN is left out of every mean.

    Parameters
    ----------
    bpq_images, mpq_images
        Plain means over the images.
    pq_per_class
        Mean over the images, per class.
    per_tissue
        Mean (bPQ, mPQ) over the images of each tissue; empty where no tissues were given.
    bpq_tissues, mpq_tissues
        Means over the tissues with equal weight, PanNuke's published figure; NaN where no tissues were given.
    """

    bpq_images: float
    mpq_images: float
    pq_per_class: dict[int, float]
    per_tissue: dict[str, tuple[float, float]]
    bpq_tissues: float
    mpq_tissues: float


def dice(true: NDArray[Any], pred: NDArray[Any]) -> float:
    """Measure the Dice coefficient of the two foregrounds (all ids against 0).

    Parameters
    ----------
    true, pred
        (H, W) label maps of one shape, integer or bool, 0 = background.

    Returns
    -------
    float
        0..1; 0 where one side is empty, NaN where both are.

    Raises
    ------
    NucSegError
        Shapes differ, or an array is not a 2-D map of non-negative integers.
    """
    true, pred = checked_pair(true, pred)
    a, b = true != 0, pred != 0
    return ratio(2 * int((a & b).sum()), int(a.sum()) + int(b.sum()))


def aji(true: NDArray[Any], pred: NDArray[Any]) -> float:
    """Measure the aggregated Jaccard index (Kumar et al. 2017).

    Each true nucleus takes the prediction of highest IoU (the lower id on a tie; a prediction may be taken
    more than once). The index is the sum of these intersections over the sum of these unions plus the area of
    all nuclei, true or predicted, that nobody took.

    Parameters
    ----------
    true, pred
        (H, W) label maps of one shape, integer or bool, 0 = background.

    Returns
    -------
    float
        0..1; 0 where one side is empty (published code fails on an empty prediction), NaN where both are.

    Raises
    ------
    NucSegError
        Shapes differ, or an array is not a 2-D map of non-negative integers.
    """
    table = Overlap.of(*checked_pair(true, pred))
    best = np.lexsort((table.p, -table.iou, table.t))
    best = best[np.unique(table.t[best], return_index=True)[1]]
    return table.jaccard(best)


def aji_plus(true: NDArray[Any], pred: NDArray[Any]) -> float:
    """Measure the aggregated Jaccard index over a one-to-one pairing, AJI+ (Graham et al. 2019).

    As `aji`, but every nucleus has one partner at most, by the assignment that maximises the sum of IoU
    (equal sums go to the pairs of larger union).

    Parameters
    ----------
    true, pred
        (H, W) label maps of one shape, integer or bool, 0 = background.

    Returns
    -------
    float
        0..1; 0 where one side is empty, NaN where both are.

    Raises
    ------
    NucSegError
        Shapes differ, or an array is not a 2-D map of non-negative integers.
    """
    table = Overlap.of(*checked_pair(true, pred))
    return table.jaccard(assign(table, table.shared / (table.union + 1e-6)))


def panoptic_quality(true: NDArray[Any], pred: NDArray[Any], iou: float = 0.5) -> PanopticQuality:
    """Measure the panoptic quality of one image, all nuclei one class (Kirillov et al. 2019).

    Parameters
    ----------
    true, pred
        (H, W) label maps of one shape, integer or bool, 0 = background.
    iou
        A pair matches where its IoU is strictly above this. From 0.5 on matches are unique; below it they are
        taken from the one-to-one assignment that maximises the sum of IoU.

    Returns
    -------
    PanopticQuality
        tp, fp, fn, iou_sum, dq, sq, pq. With both sides empty dq, sq and pq are NaN (published code fails or
        says 0).

    Raises
    ------
    NucSegError
        Shapes differ, an array is not a 2-D map of non-negative integers, or `iou` is not in [0, 1).
    """
    if not 0 <= iou < 1:
        raise NucSegError(f"The IoU threshold is {iou}, but it must be at least 0 and below 1; 0.5 is usual.")
    table = Overlap.of(*checked_pair(true, pred))
    if iou < 0.5:
        table = table.only(assign(table, table.iou))
    return _count_matches(table.iou[table.iou > iou], table.true_areas.size, table.pred_areas.size)


def multiclass_pq(
    true: NDArray[Any],
    true_types: TypeInput,
    pred: NDArray[Any],
    pred_types: TypeInput,
    classes: Iterable[int],
) -> MulticlassPQ:
    """Measure the panoptic quality of one image within each class and over all nuclei (Gamper et al. 2020).

    Both maps are restricted to a class before matching at IoU > 0.5. Nuclei of a class not in `classes` count
    in `binary` alone.

    Parameters
    ----------
    true, pred
        (H, W) label maps of one shape, integer or bool, 0 = background.
    true_types, pred_types
        Classes, either as an (H, W) integer map that is constant inside each nucleus (where it is not, each
        part counts as a nucleus of its own class) or as a mapping id -> class that holds every id of the
        label map.
    classes
        The classes to score, positive integers.

    Returns
    -------
    MulticlassPQ
        Counts per class and over all nuclei, with the image's bPQ, PQ per class and mPQ. Pool several with
        `pooled_pq` and `mpq_plus`, average them with `average_pq`.

    Raises
    ------
    NucSegError
        Shapes differ, an array is not a 2-D map of non-negative integers, an id has no class, or a class is
        below 1.
    """
    true, pred = checked_pair(true, pred)
    wanted = np.asarray(list(dict.fromkeys(classes)), np.int64)
    if wanted.size and wanted.min() < 1:
        raise NucSegError(f"Class {wanted.min()} cannot be scored, as 0 is background; use classes from 1.")
    maps = [true, pred]
    maps += [
        _checked_types(types, true.shape)
        for types in (true_types, pred_types)
        if not isinstance(types, Mapping)
    ]
    starts, lengths = runs(maps)
    t, p = (m.ravel()[starts].astype(np.int64) for m in (true, pred))
    typed_t = _typed_keys(t, true_types, starts, wanted, "true")
    typed_p = _typed_keys(p, pred_types, starts, wanted, "predicted")
    binary = Overlap.of_runs(t, p, lengths)
    counts = _count_matches(binary.iou[binary.iou > 0.5], binary.true_areas.size, binary.pred_areas.size)
    typed = Overlap.of_runs(typed_t, typed_p, lengths)
    return MulticlassPQ(counts, _matches_per_class(typed, wanted))


def pooled_pq(results: Iterable[MulticlassPQ]) -> dict[int, PanopticQuality]:
    """Pool the per-class counts of a set of images, to divide afterwards (Graham et al. 2021).

    Parameters
    ----------
    results
        One record an image.

    Returns
    -------
    dict
        Class -> summed counts, whose ``pq`` is the PQ+ of the class.
    """
    pooled: dict[int, PanopticQuality] = {}
    for result in results:
        for c, counts in result.per_class.items():
            pooled[c] = pooled.get(c, PanopticQuality()) + counts
    return pooled


def mpq_plus(results: Iterable[MulticlassPQ], absent: float = _NAN) -> float:
    """Measure the mPQ+ of a set: the mean over classes of the PQ of the pooled counts (Graham et al. 2021).

    Parameters
    ----------
    results
        One record an image.
    absent
        The PQ of a class which neither truth nor prediction holds anywhere in the set: NaN leaves it out of
        the mean; 0 reproduces the figure that CoNIC's own code prints, which divides by six whatever classes
        exist.

    Returns
    -------
    float
        0..1, NaN where no class exists.
    """
    values = [counts.pq for counts in pooled_pq(results).values()]
    return _nanmean(absent if np.isnan(v) else v for v in values)


def average_pq(results: Iterable[MulticlassPQ], tissues: Sequence[str] | None = None) -> AveragePQ:
    """Average the per-image values of a set over images and over tissues (Gamper et al. 2020).

    Parameters
    ----------
    results
        One record an image.
    tissues
        The tissue of each image, in the same order; None where unknown.

    Returns
    -------
    AveragePQ
        Means over images and over tissues, named so.

    Raises
    ------
    NucSegError
        `tissues` is not as long as `results`.
    """
    images = list(results)
    if tissues is not None and len(tissues) != len(images):
        raise NucSegError(f"There are {len(tissues)} tissues for {len(images)} images; name one per image.")
    groups: dict[str, list[MulticlassPQ]] = {}
    for name, image in zip(tissues or (), images, strict=False):
        groups.setdefault(name, []).append(image)
    per_tissue = {n: (_nanmean(i.bpq for i in g), _nanmean(i.mpq for i in g)) for n, g in groups.items()}
    per_class = [image.pq_per_class for image in images]
    classes = dict.fromkeys(c for values in per_class for c in values)
    return AveragePQ(
        _nanmean(i.bpq for i in images),
        _nanmean(i.mpq for i in images),
        {c: _nanmean(values.get(c, _NAN) for values in per_class) for c in classes},
        per_tissue,
        _nanmean(b for b, _ in per_tissue.values()),
        _nanmean(m for _, m in per_tissue.values()),
    )


def _typed_keys(
    ids: NDArray[np.int64], types: TypeInput, starts: NDArray[np.int64], wanted: NDArray[np.int64], side: str
) -> NDArray[np.int64]:
    """Join id and class of each run into one key; 0 where the class is not wanted."""
    if isinstance(types, Mapping):
        unique, where = np.unique(ids, return_inverse=True)
        missing = [i for i in unique.tolist() if i and i not in types]
        if missing:
            raise NucSegError(f"The {side} nucleus {missing[0]} has no class; give every id one.")
        type_of_run = np.asarray([types[i] if i else 0 for i in unique.tolist()], np.int64)[where]
    else:
        type_of_run = np.asarray(types).ravel()[starts].astype(np.int64)
    order = np.argsort(wanted)
    at = np.searchsorted(wanted, type_of_run, sorter=order) if wanted.size else np.zeros(ids.size, np.int64)
    rank = np.append(order, 0)[at]
    valid = (np.append(wanted, -1)[rank] == type_of_run) & (ids > 0)
    return np.where(valid, ids * max(wanted.size, 1) + rank, 0)


def _matches_per_class(typed: Overlap, wanted: NDArray[np.int64]) -> dict[int, PanopticQuality]:
    """Count the matches within each class from an overlap table of `_typed_keys`."""
    n = max(wanted.size, 1)
    true_class, pred_class = typed.true_ids % n, typed.pred_ids % n
    match = (true_class[typed.t] == pred_class[typed.p]) & (typed.iou > 0.5)
    iou, match_class = typed.iou[match], true_class[typed.t[match]]
    return {
        c: _count_matches(iou[match_class == k], int((true_class == k).sum()), int((pred_class == k).sum()))
        for k, c in enumerate(wanted.tolist())
    }


def _count_matches(iou: NDArray[np.float64], n_true: int, n_pred: int) -> PanopticQuality:
    tp = int(iou.size)
    return PanopticQuality(tp, int(n_pred) - tp, int(n_true) - tp, float(iou.sum()))


def _pannuke(counts: PanopticQuality) -> float:
    return counts.pq if counts.tp + counts.fn else _NAN


def _nanmean(values: Iterable[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return ratio(sum(known), len(known))


def _checked_types(types: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    a = np.asarray(types)
    if a.shape != shape or a.dtype.kind not in "uib":
        raise NucSegError(
            f"The type map is {a.dtype} of shape {a.shape}, but must be integer, of shape {shape}; "
            "a mapping of id to class works too."
        )
    return a
