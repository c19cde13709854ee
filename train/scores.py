"""Score segmented images against their truth, and sum the scores up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_nucseg.core.metrics import (
    DetectionCounts,
    MulticlassPQ,
    aji,
    aji_plus,
    detection_f1,
    dice,
    multiclass_pq,
)
from train.data import nucleus_classes
from train.tally import PER_IMAGE, PER_ORGAN, POOLED, Figure, Tally

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "OWN",
    "PAIRING_UM",
    "PER_IMAGE",
    "PER_ORGAN",
    "POOLED",
    "Annotated",
    "Figure",
    "ImageScore",
    "Scheme",
    "TypedScore",
    "figures",
    "score_image",
]

OWN = "own"
"""Key of the scheme of the model's own classes; "shipped" in the reports and runs of earlier versions."""

PAIRING_UM = 3.0
"""Centroids are paired within this distance: 12 px at 0.25 um, 6 px at 0.5 um."""


class Annotated(Protocol):
    """What scoring needs of an annotated image: `train.data.AnnotatedImage`, `train.truth.Truth` ..."""

    @property
    def name(self) -> str:
        """Name of the image."""
        ...

    @property
    def mpp(self) -> float:
        """Micrometres per pixel."""
        ...

    @property
    def labels(self) -> NDArray[np.integer]:
        """(H, W), 0 = background."""
        ...

    @property
    def types(self) -> NDArray[np.uint8] | None:
        """(H, W) classes from 1, `napari_nucseg.core.targets.IGNORE` unknown; None without classes."""
        ...


@dataclass(frozen=True)
class Scheme:
    """A way to name classes, in which truth and prediction are compared.

    Parameters
    ----------
    key
        Short name, such as "own".
    classes
        Its classes.
    predicted
        Class of the model -> class of the scheme.
    merge
        The merge in ``dataset.json`` that brings the truth into the scheme; None where it is in it already.
    """

    key: str
    classes: tuple[str, ...]
    predicted: Mapping[str, str]
    merge: str | None = None


@dataclass(frozen=True)
class TypedScore:
    """Counts of one image in the `classes` of one scheme (numbered from 1; 0 is a true nucleus of no class).

    A predicted nucleus that lies mostly on true ones of no class is no false positive of its class in `pq` (the rule
    of Kirillov et al. 2019 for void regions).
    """

    pq: MulticlassPQ
    detection: DetectionCounts
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageScore:
    """Figures and counts of one image.

    Attributes
    ----------
    binary
        Matches of all nuclei as one class.
    detection
        Paired and unpaired centroids, classes ignored.
    typed
        Counts by the key of each scheme.
    organ
        What the image shows, where that is known.
    """

    name: str
    mpp: float
    true_nuclei: int
    pred_nuclei: int
    seconds: float
    dice: float
    aji: float
    aji_plus: float
    binary: MulticlassPQ
    detection: DetectionCounts
    typed: dict[str, TypedScore] = field(default_factory=dict)
    organ: str | None = None

    def row(self) -> dict[str, Any]:
        """Return the figures of this image by name, for a table of images."""
        counts = self.binary.binary
        row: dict[str, Any] = {
            "name": self.name,
            "organ": self.organ or "",
            "mpp": self.mpp,
            "true_nuclei": self.true_nuclei,
            "pred_nuclei": self.pred_nuclei,
            "seconds": round(self.seconds, 3),
            "Dice": self.dice,
            "AJI": self.aji,
            "AJI+": self.aji_plus,
            "DQ": counts.dq,
            "SQ": counts.sq,
            "bPQ": self.binary.bpq,
            "F1_d": self.detection.f1_d,
        }
        for key, typed in self.typed.items():
            row[f"mPQ ({key})"] = typed.pq.mpq
            for name, value in zip(typed.classes, typed.pq.pq_per_class.values(), strict=True):
                row[f"PQ {name} ({key})"] = value
        return row


def score_image(
    items: Mapping[str, Annotated],
    labels: NDArray[np.integer],
    nuclei: pd.DataFrame,
    schemes: Sequence[Scheme],
    seconds: float = 0.0,
) -> ImageScore:
    """Compare a segmented image with its truth.

    Parameters
    ----------
    items
        The image with its truth by the key of each scheme, or one entry under any key where there are no schemes.
    labels : (H, W) integer
        Of the truth's size.
    nuclei
        Columns ``id`` and ``class`` for every id in `labels`.
    schemes
        In which to compare classes.
    seconds
        What the segmentation took, to be reported.

    Returns
    -------
    ImageScore
        Centroids are those of the label instances on both sides.
    """
    item = next(iter(items.values()))
    radius = PAIRING_UM / item.mpp
    true_points, _ = nucleus_classes(item.labels, None)
    pred_points, _ = nucleus_classes(labels, None)
    nameless = np.zeros(len(true_points), int), np.zeros(len(pred_points), int)
    counts = multiclass_pq(item.labels, _constant(item.labels), labels, _constant(labels), ())
    return ImageScore(
        item.name,
        item.mpp,
        len(true_points),
        len(pred_points),
        seconds,
        dice(item.labels, labels),
        aji(item.labels, labels),
        aji_plus(item.labels, labels),
        counts,
        detection_f1(true_points, nameless[0], pred_points, nameless[1], radius).counts,
        {s.key: _score_types(items[s.key], labels, nuclei, s) for s in schemes},
        getattr(item, "organ", None),
    )


def _constant(labels: NDArray[np.integer]) -> dict[int, int]:
    return dict.fromkeys(np.unique(labels[labels > 0]).tolist(), 1)


def _score_types(
    item: Annotated, labels: NDArray[np.integer], nuclei: pd.DataFrame, scheme: Scheme
) -> TypedScore:
    numbers = {name: k for k, name in enumerate(scheme.classes, start=1)}
    named = zip(nuclei["id"].tolist(), nuclei["class"].tolist(), strict=True)
    pred_types = {i: numbers[scheme.predicted[name]] for i, name in named}
    true_points, true_classes = nucleus_classes(item.labels, item.types)
    pred_points, _ = nucleus_classes(labels, None)
    true_ids, pred_ids = (np.unique(a[a > 0]).tolist() for a in (item.labels, labels))
    true_types = dict(zip(true_ids, true_classes.tolist(), strict=True))
    found = detection_f1(
        true_points, true_classes, pred_points, [pred_types[i] for i in pred_ids], PAIRING_UM / item.mpp
    )
    on_unknown = _mostly_on(labels, np.isin(item.labels, np.asarray(true_ids, int)[true_classes == 0]))
    judged = pred_types | dict.fromkeys(on_unknown, 0)
    pq = multiclass_pq(item.labels, true_types, labels, judged, numbers.values())
    return TypedScore(pq, found.counts, scheme.classes)


def _mostly_on(labels: NDArray[np.integer], region: NDArray[np.bool_]) -> list[int]:
    """Return the ids of the nuclei more than half of which lies in a region."""
    ids, area = np.unique(labels[labels > 0], return_counts=True)
    inside = np.bincount(np.searchsorted(ids, labels[(labels > 0) & region]), minlength=len(ids))
    out: list[int] = ids[2 * inside > area].tolist()
    return out


def figures(scores: Sequence[ImageScore], schemes: Sequence[Scheme]) -> list[Figure]:
    """Sum a set up, without intervals, see `Tally.figures`."""
    return Tally(scores, schemes).figures()
