"""Where crops are taken: sets by weight, images by area, and a share of the crops at nuclei of rare classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import PLAUSIBLE
from train.annotated import AnnotatedImage

MARGIN = 0.3
"""Share of a crop's side that its middle keeps from the border of the image, where the image is large enough."""
SPREAD = 1 / 3
"""Largest distance in rows or columns of the nucleus aimed at from the crop's middle, as a share of its side."""


@dataclass(frozen=True)
class CropConfig:
    """Size, resolution and aim of the crops.

    Parameters
    ----------
    size : int
        Side in pixels at the model's resolution.
    mpp : float
        The model's resolution in micrometres per pixel.
    p_balanced : float
        In sets with classes: share of crops aimed at a nucleus of a drawn class, so that rare classes are seen; the
        others are placed anywhere.
    rarity : float
        How much more often rare classes are drawn: each nucleus counts f^-rarity, f the number of nuclei of
        its class in the set. 0 leaves classes as frequent as they are, 1 makes all alike.
    """

    size: int = 256
    mpp: float = 0.25
    p_balanced: float = 0.5
    rarity: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise NucSegError(f"crop.size={self.size} is no size; give the side in pixels, such as 256.")
        if not PLAUSIBLE[0] <= self.mpp <= PLAUSIBLE[1]:
            raise NucSegError(
                f"crop.mpp={self.mpp:g} is no resolution at which nuclei are seen; it must lie within "
                f"{PLAUSIBLE[0]} and {PLAUSIBLE[1]} micrometres per pixel."
            )
        if not 0 <= self.p_balanced <= 1:
            raise NucSegError(
                f"crop.p_balanced={self.p_balanced:g} is no share; it must be at least 0 and at most 1."
            )


@dataclass(frozen=True)
class _Set:
    """What can be drawn of one data set.

    Attributes
    ----------
    images : (m,) int64
        Numbers of its images.
    areas : (m,) float64
        Their cumulative shares of the set's area.
    nuclei : (n, 3) int32
        Image, row and column of every nucleus of a known class, in the order of the classes.
    ends : (c,) int64
        Where each class that occurs ends in `nuclei`.
    classes : (c,) float64
        Cumulative chance of each class.
    """

    images: NDArray[np.int64]
    areas: NDArray[np.float64]
    nuclei: NDArray[np.int32]
    ends: NDArray[np.int64]
    classes: NDArray[np.float64]

    @classmethod
    def of(cls, images: Sequence[AnnotatedImage], numbers: Sequence[int], rarity: float) -> _Set:
        areas = np.array([images[n].shape[0] * images[n].shape[1] for n in numbers], np.float64)
        tables = [np.insert(images[n].nuclei, 0, n, axis=1) for n in numbers]
        nuclei = np.concatenate(tables)
        nuclei = nuclei[nuclei[:, 3] > 0]
        nuclei = nuclei[np.argsort(nuclei[:, 3], kind="stable")]
        counts = np.unique(nuclei[:, 3], return_counts=True)[1]
        chances = counts.astype(np.float64) ** (1 - rarity)
        return cls(
            np.array(numbers), _cumulative(areas), nuclei[:, :3].astype(np.int32), np.cumsum(counts),
            _cumulative(chances),
        )  # fmt: skip


class Aims:
    """Draws images and places in them.

    Parameters
    ----------
    images
        All of the training; which set they are of is in `AnnotatedImage.dataset`.
    weights
        Share of the crops of every set.
    crop
        Size, resolution and balance.

    Raises
    ------
    NucSegError
        A weight is negative, or all are 0.
    """

    def __init__(
        self, images: Sequence[AnnotatedImage], weights: Mapping[str, float], crop: CropConfig
    ) -> None:
        self._images, self._crop = images, crop
        numbers: dict[str, list[int]] = {}
        for number, image in enumerate(images):
            numbers.setdefault(image.dataset, []).append(number)
        shares = np.array([weights[key] for key in numbers], np.float64)
        if (shares < 0).any() or not shares.sum() > 0:
            given = ", ".join(f"{key} {weights[key]:g}" for key in numbers)
            raise NucSegError(f"Weights of the data sets ({given}) must be 0 or more, and one above 0.")
        self._shares = _cumulative(shares)
        self._sets = [_Set.of(images, members, crop.rarity) for members in numbers.values()]

    def draw(self, rng: np.random.Generator) -> tuple[int, tuple[float, float]]:
        """Return the number of an image, and the (row, column) in it that comes to the middle of the crop."""
        chosen = self._sets[_pick(self._shares, rng)]
        if len(chosen.nuclei) and rng.random() < self._crop.p_balanced:
            kind = _pick(chosen.classes, rng)
            first = chosen.ends[kind - 1] if kind else 0
            number, row, column = (int(v) for v in chosen.nuclei[rng.integers(first, chosen.ends[kind])])
            return number, self._around(number, (row, column), rng)
        number = int(chosen.images[_pick(chosen.areas, rng)])
        return number, self._around(number, None, rng)

    def _around(
        self, number: int, point: tuple[int, int] | None, rng: np.random.Generator
    ) -> tuple[float, float]:
        """Return a middle anywhere, or near a point, such that little of the crop lies beyond the border."""
        image = self._images[number]
        side = self._crop.size * self._crop.mpp / image.mpp
        out = []
        for axis, length in enumerate(image.shape):
            low, high = min(MARGIN * side, length / 2), max(length - MARGIN * side, length / 2)
            if point is None:
                out.append(float(rng.uniform(low, high)))
            else:
                near = point[axis] + rng.uniform(-SPREAD, SPREAD) * side
                out.append(float(np.clip(near, low, high)))
        return out[0], out[1]


def _cumulative(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.cumsum(shares)
    return total / total[-1] if len(total) else total


def _pick(cumulative: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Draw a position by its share."""
    return min(int(np.searchsorted(cumulative, rng.random(), side="right")), len(cumulative) - 1)
