"""How far scores and class probabilities may be read as frequencies, and the parameters that bring them nearer.

References
----------
Platt 1999, Advances in Large Margin Classifiers: a logistic function of the score, and targets short of 0 and 1.
Guo et al. 2017, ICML: one temperature for all classes, and the expected calibration error (ECE).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from napari_nucseg.core.calibration import EDGE, calibrated, tempered

Values = NDArray[np.float64]
BINS = 10
SLOPES, SHIFTS, TEMPERATURES = (0.05, 20.0), (-20.0, 20.0), (0.05, 20.0)
"""Limits of what is fitted; only nuclei that tell next to nothing come to one."""

STAGES = {"before": "before", "after": "after, on these images", "left out": "after, on images left out"}
"""Keys of figures without calibration, with it, and with one fitted without the image; and what to call them."""

FOLDS = 20
"""At most so many fits to all but some images: one for each image would take half an hour with 2,000 of them."""


@dataclass(frozen=True)
class Found:
    """The nuclei found in one annotated image, as the network reports them without calibration.

    Attributes
    ----------
    dataset, name : str
    scores : float64 (n,)
    right : bool (n,)
        Whether there is a true nucleus with an IoU above 0.5.
    probabilities : float64 (m, C)
        Of those whose true class is known.
    classes : int64 (m,)
        Their true classes, from 0.
    """

    dataset: str
    name: str
    scores: Values
    right: NDArray[np.bool_]
    probabilities: Values
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """What is fitted, by the names of `DecodeConfig`."""

    score_slope: float = 1.0
    score_shift: float = 0.0
    type_temperature: float = 1.0

    def score(self, found: Found) -> Values:
        """Return the scores that would be reported."""
        return calibrated(found.scores, self.score_slope, self.score_shift)

    def confidence(self, found: Found) -> Values:
        """Return the probabilities of the class reported."""
        return tempered(found.probabilities, self.type_temperature).max(1, initial=0.0)


def fit(images: Sequence[Found]) -> Calibration:
    """Fit all three to the nuclei of images; data sets weigh the same.

    Without any nucleus, or any of known class, what concerns these stays neutral.
    """
    scores, right = (np.concatenate([getattr(im, key) for im in images]) for key in ("scores", "right"))
    slope, shift = fit_scores(scores, right, weights_of(images, "right"))
    typed = [im for im in images if im.classes.size]
    temperature = 1.0
    if typed:
        probabilities, classes = (
            np.concatenate([getattr(im, k) for im in typed]) for k in ("probabilities", "classes")
        )
        temperature = fit_temperature(probabilities, classes, weights_of(typed, "classes"))
    return Calibration(slope, shift, temperature)


def weights_of(images: Sequence[Found], key: str) -> Values:
    """Return a weight for every nucleus of images, in order: each data set gets the same, mean 1.

    Parameters
    ----------
    images
    key
        Attribute with one entry a nucleus, such as ``right``.
    """
    counts: dict[str, int] = {}
    for image in images:
        counts[image.dataset] = counts.get(image.dataset, 0) + len(getattr(image, key))
    total, sets = sum(counts.values()), sum(n > 0 for n in counts.values())
    each = [np.full(len(getattr(im, key)), total / (sets * max(counts[im.dataset], 1))) for im in images]
    return np.concatenate(each) if each else np.zeros(0)


def fit_scores(scores: Values, right: NDArray[np.bool_], weights: Values) -> tuple[float, float]:
    """Return slope and shift of the most likely logistic function of the logit of the scores, all (n,).

    As in Platt (1999) the targets are those of a uniform prior, so that nuclei which are all right, or perfectly
    parted by their scores, give finite answers too.
    """
    if not scores.size:
        return 1.0, 0.0
    clear = np.clip(scores, EDGE, 1 - EDGE)
    logit = np.log(clear) - np.log1p(-clear)
    good = float(weights[right].sum())
    bad = float(weights.sum()) - good
    target = np.where(right, (good + 1) / (good + 2), 1 / (bad + 2))
    share = weights / weights.sum()

    def loss(x: Values) -> tuple[float, Values]:
        z = x[0] * logit + x[1]
        error = share * (1 / (1 + np.exp(-np.clip(z, -500, 500))) - target)
        value = float(share @ (np.logaddexp(0, z) - target * z))
        return value, np.array([error @ logit, error.sum()])

    best = minimize(
        loss, (1.0, 0.0), jac=True, bounds=(SLOPES, SHIFTS), options={"ftol": 1e-13, "gtol": 1e-9}
    )
    return float(best.x[0]), float(best.x[1])


def fit_temperature(probabilities: Values, classes: NDArray[np.int64], weights: Values) -> float:
    """Return the temperature with the least negative log likelihood of the true classes.

    Parameters
    ----------
    probabilities : (n, C)
    classes : (n,), from 0
    weights : (n,)
    """
    if not classes.size or probabilities.shape[1] < 2:
        return 1.0
    logs = np.log(np.maximum(probabilities, 1e-12))
    mine = logs[np.arange(len(classes)), classes]

    def loss(inverse: float) -> float:
        scaled = inverse * logs
        top = scaled.max(1)
        whole = top + np.log(np.exp(scaled - top[:, None]).sum(1))
        return float(np.average(whole - inverse * mine, weights=weights))

    limits = (1 / TEMPERATURES[1], 1 / TEMPERATURES[0])
    return 1 / float(minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-6}).x)


@dataclass(frozen=True)
class Bin:
    """Nuclei whose confidence lies in one tenth of 0..1: how many, their mean confidence, the share that is right."""

    count: int
    weight: float
    confidence: float
    right: float


def bins(confidence: Values, right: NDArray[np.bool_], weights: Values) -> list[Bin]:
    """Sort nuclei into `BINS` bins of equal width; what an empty one would say is NaN. All (n,)."""
    where = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts, weight, sure, good = (
        np.bincount(where, values, BINS) for values in (None, weights, weights * confidence, weights * right)
    )
    with np.errstate(invalid="ignore"):
        means, shares = sure / weight, good / weight
    return [
        Bin(*row)
        for row in zip(counts.tolist(), weight.tolist(), means.tolist(), shares.tolist(), strict=True)
    ]


def expected_calibration_error(found: Sequence[Bin]) -> float:
    """Return how far the mean confidence of a bin lies from its share right, mean over nuclei; NaN without any.

    ECE (Guo et al. 2017).
    """
    total = sum(b.weight for b in found)
    if not total:
        return math.nan
    return sum(b.weight * abs(b.confidence - b.right) for b in found if b.count) / total


@dataclass(frozen=True)
class Kind:
    """One of the two things that are calibrated, and how to see it in an image."""

    name: str
    key: str

    def confidence(self, calibration: Calibration, image: Found) -> Values:
        """Return what would be reported of the nuclei."""
        return calibration.score(image) if self is SCORE else calibration.confidence(image)

    def right(self, image: Found) -> NDArray[np.bool_]:
        """Return for which nuclei it is true."""
        if self is SCORE:
            return image.right
        if not image.classes.size:  # a model without classes has nothing to choose from
            return np.zeros(0, np.bool_)
        hits: NDArray[np.bool_] = image.probabilities.argmax(1) == image.classes
        return hits


SCORE, CLASS = Kind("score", "right"), Kind("class", "classes")


@dataclass(frozen=True)
class Outcome:
    """A calibration, and what becomes of the images it was fitted to.

    Attributes
    ----------
    images : sequence of Found
    values : Calibration
        Fitted to all of them.
    others : sequence of Calibration
        For each image, fitted without it: to all others, or with more than `FOLDS` images to most of them; empty if
        there is one only.
    """

    images: Sequence[Found]
    values: Calibration
    others: Sequence[Calibration]

    @classmethod
    def of(cls, images: Sequence[Found]) -> Outcome:
        """Fit."""
        folds = min(len(images), FOLDS) if len(images) > 1 else 0
        fits = [fit([im for k, im in enumerate(images) if k % folds != fold]) for fold in range(folds)]
        return cls(images, fit(images), [fits[k % folds] for k in range(len(images) if fits else 0)])

    def bins(self, kind: Kind, by: str, dataset: str | None = None) -> list[Bin]:
        """Return the bins at one of the `STAGES`."""
        plain = [Calibration()] * len(self.images)
        used = {"before": plain, "after": [self.values] * len(self.images), "left out": self.others}[by]
        pairs = [(c, im) for c, im in zip(used, self.images, strict=False) if dataset in (None, im.dataset)]
        if not pairs:
            return []
        confidence = np.concatenate([kind.confidence(c, im) for c, im in pairs])
        right = np.concatenate([kind.right(im) for _, im in pairs])
        return bins(confidence, right, weights_of([im for _, im in pairs], kind.key))

    def rows(self) -> list[dict[str, Any]]:
        """Return the figures: for score and class one row a data set, and of several one over all, and their mean.

        In the row over all, sets that are too sure make up for others that are too unsure.
        """
        out = []
        for kind in (SCORE, CLASS):
            sets = [d for d in dict.fromkeys(im.dataset for im in self.images) if self._count(kind, d)]
            rows = [self._row(kind, d) for d in sets]
            out += rows
            if len(sets) > 1:
                out += [self._row(kind, None), _mean(kind, rows)]
        return out

    def _count(self, kind: Kind, dataset: str | None) -> int:
        return sum(len(getattr(im, kind.key)) for im in self.images if dataset in (None, im.dataset))

    def _row(self, kind: Kind, dataset: str | None) -> dict[str, Any]:
        errors = {by: expected_calibration_error(self.bins(kind, by, dataset)) for by in STAGES}
        found = self.bins(kind, "before", dataset)
        total = sum(b.weight for b in found)
        return {
            "what": kind.name,
            "data": dataset or "all, as one set",
            "nuclei": self._count(kind, dataset),
            "right": sum(b.weight * b.right for b in found if b.count) / total,
            **errors,
        }


def _mean(kind: Kind, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    shares = {key: float(np.mean([row[key] for row in rows])) for key in ("right", *STAGES)}
    nuclei = sum(row["nuclei"] for row in rows)
    return {"what": kind.name, "data": "mean over the sets", "nuclei": nuclei, **shares}
