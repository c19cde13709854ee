"""Points of a GeoJSON file, converted many at a time: one by one, a million would take a minute."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.io.qupath_feature import NO_NUMBERS, UnusableError, as_array
from napari_nucseg.io.qupath_scale import OUTSIDE, Tally, points_inside

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_nucseg.io.qupath_fill import Ring

_BATCH = 2**16
_NOWHERE = np.full((1, 2), np.nan)


class PointBatches:
    """Collects points on an image of `shape`, (rows, columns).

    Attributes
    ----------
    skipped : Counter
        Reason -> points left out; complete after `result`.
    """

    def __init__(self, shape: tuple[int, int], tally: Tally) -> None:
        self.skipped: Counter[str] = Counter()
        self._shape = shape
        self._tally = tally
        self._found: list[Any] = []
        self._found_kinds: list[str | None] = []
        self._points = [np.empty((0, 2))]
        self._kinds: list[str | None] = []

    def add(self, found: list[Any], kind: str | None) -> None:
        """Add points [x, y] of a class as they stand in the file."""
        self._found += found
        self._found_kinds += [kind] * len(found)
        if len(self._found) >= _BATCH:
            self._convert()

    def result(self) -> tuple[NDArray[np.float64], tuple[str | None, ...]]:
        """Return (row, column) of the points on the image, pixel centres at integers, and their classes."""
        if self._found:
            self._convert()
        return np.concatenate(self._points), tuple(self._kinds)

    def _convert(self) -> None:
        try:
            points = as_array(self._found)
        except UnusableError:
            points = np.concatenate([_point(found) for found in self._found])
        finite = np.isfinite(points).all(axis=1)
        inside = points_inside(points, self._shape, self._tally)
        left_out = {NO_NUMBERS: int((~finite).sum()), OUTSIDE: int((finite & ~inside).sum())}
        self.skipped += Counter(left_out)
        self._points.append(points[inside][:, ::-1] - 0.5)
        self._kinds += [kind for kind, taken in zip(self._found_kinds, inside.tolist(), strict=True) if taken]
        self._found, self._found_kinds = [], []


def _point(found: Any) -> Ring:
    try:
        return as_array([found])
    except UnusableError:
        return _NOWHERE
