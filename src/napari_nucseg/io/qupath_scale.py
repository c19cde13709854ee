"""Where shapes and points of a GeoJSON file lie on the image, and whether its unit can be the image's pixels."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.qupath_feature import NO_NUMBERS, UnusableError
from napari_nucseg.io.qupath_fill import Ring, fill, survey

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

OUTSIDE = "outside of the image"
TOO_LARGE = "too large for a nucleus"
TOO_SMALL = "too small to hold the centre of a pixel"

LEAST_MEDIAN_PIXELS = 2.0
LEAST_MEDIAN_UM = 2.5
"""Shapes of a smaller median length are no nuclei: a lymphocyte is 6 um long, and coordinates in micrometres make
it 1.5 um at 0.25 um per pixel."""

_ENOUGH_FOR_A_MEDIAN = 5
_SPREAD = 16
_MOST_SPREAD = 2.0**26
_FAR = 1e9


@dataclass(frozen=True)
class Placement:
    """A shape on the image; `crossing` if it crosses itself, `cut` if parts of it lie outside."""

    box: Box
    mask: NDArray[np.bool_]
    crossing: bool
    cut: bool


@dataclass
class Tally:
    """How the objects of a file lie."""

    total: int = 0
    outside: int = 0
    lengths: array[float] = field(default_factory=lambda: array("d"))
    """The longer sides of the boxes around shapes which aren't known to be nuclei, pixels."""
    least: tuple[float, float] = (math.inf, math.inf)
    most: tuple[float, float] = (-math.inf, -math.inf)
    """x and y."""

    def reach(self, x0: float, x1: float, y0: float, y1: float) -> None:
        """Note how far an object reaches."""
        self.least = min(self.least[0], x0), min(self.least[1], y0)
        self.most = max(self.most[0], x1), max(self.most[1], y1)

    def check(self, path: Path, shape: tuple[int, int], mpp: float | None) -> None:
        """Raise if the file can't be of this image, or not in its pixels."""
        way_out = (
            "open this very image in QuPath and take File > Export objects as GeoJSON, which writes pixels of the "
            "full resolution"
        )
        if 2 * self.outside > self.total:
            (x0, y0), (x1, y1) = self.least, self.most
            raise NucSegError(
                f"{self.outside:,} of {self.total:,} objects in {path} lie outside of the image of {shape[1]} x "
                f"{shape[0]} pixels (x from {x0:.6g} to {x1:.6g}, y from {y0:.6g} to {y1:.6g}), so that it is of "
                f"another image or resolution, or not in pixels: {way_out}"
            )
        if not self.lengths:
            return
        median = float(np.median(np.frombuffer(self.lengths)))
        in_um = "" if mpp is None else f" or {median * mpp:.3g} um"
        enough = mpp is not None and len(self.lengths) >= _ENOUGH_FOR_A_MEDIAN
        if median < LEAST_MEDIAN_PIXELS or (enough and median * (mpp or 0.0) < LEAST_MEDIAN_UM):
            raise NucSegError(
                f"the shapes in {path} are too small for nuclei, with a median length of {median:.3g} pixels{in_um}, "
                f"so that they are in micrometres, degrees or pixels of a lower resolution: {way_out}"
            )


def points_inside(points: Ring, shape: tuple[int, int], tally: Tally) -> NDArray[np.bool_]:
    """Return which points lie on the image."""
    finite = np.isfinite(points).all(axis=1)
    x, y = points[:, 0], points[:, 1]
    inside: NDArray[np.bool_] = finite & (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    count = int(finite.sum())
    tally.total += count
    tally.outside += count - int(inside.sum())
    if count:
        x, y = x[finite], y[finite]
        tally.reach(float(x.min()), float(x.max()), float(y.min()), float(y.max()))
    return inside


def place(
    polygons: list[list[Ring]], shape: tuple[int, int], limit: float, known: bool, tally: Tally
) -> Placement:
    """Fill polygons on the image.

    Parameters
    ----------
    polygons
        Their rings, the outer one first.
    shape
        (rows, columns) of the image.
    limit
        Area in pixels from which on it is no nucleus.
    known
        It is a nucleus of any size.
    tally
        Counts it.

    Raises
    ------
    UnusableError
        It can't be taken.
    """
    x0, x1, y0, y1, area = _surveyed(polygons)
    tally.total += 1
    tally.reach(x0, x1, y0, y1)
    height, width = shape
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height or max(-x0, -y0, x1, y1) > _FAR:
        tally.outside += 1
        raise UnusableError(OUTSIDE)
    if not known:
        tally.lengths.append(max(x1 - x0, y1 - y0))
    box = Box(
        max(0, math.floor(y0)),
        min(height, math.ceil(y1)),
        max(0, math.floor(x0)),
        min(width, math.ceil(x1)),
    )
    spread = (box.y1 - box.y0) * (box.x1 - box.x0)
    if (area >= limit and not known) or spread > (_MOST_SPREAD if known else _SPREAD * limit):
        raise UnusableError(TOO_LARGE)
    mask, crossing = _filled(polygons, box)
    count = int(np.count_nonzero(mask))
    if count == 0:
        raise UnusableError(TOO_SMALL)
    if count >= limit and not known:  # one that crosses itself has less area by its corners
        raise UnusableError(TOO_LARGE)
    return Placement(box, mask, crossing, min(x0, y0) < 0 or x1 > width or y1 > height)


def _surveyed(polygons: list[list[Ring]]) -> tuple[float, float, float, float, float]:
    """Return the least and greatest x and y, and the area."""
    x0, x1, y0, y1, area = math.inf, -math.inf, math.inf, -math.inf, 0.0
    for rings in polygons:
        for number, ring in enumerate(rings):
            finite, left, right, top, bottom, inside = survey(ring)
            if not finite:
                raise UnusableError(NO_NUMBERS)
            x0, x1, y0, y1 = min(x0, left), max(x1, right), min(y0, top), max(y1, bottom)
            area += -inside if number else inside
    return x0, x1, y0, y1, max(area, 0.0)


def _filled(polygons: list[list[Ring]], box: Box) -> tuple[NDArray[np.bool_], bool]:
    mask: NDArray[np.bool_] = np.zeros(box.shape, np.bool_)
    crossing = False
    for number, rings in enumerate(polygons):
        part = mask if number == 0 else np.zeros_like(mask)
        for ring in rings:
            crossing |= fill(ring, box.y0, box.x0, part)
        if number:
            mask |= part
    return mask, crossing
