"""Position, size, shape and staining of every nucleus of a label map, in a few sweeps over its runs.

A run is a stretch of one id within a row. Area, centroid, moments and hull need only the runs; staining and
perimeter look at the pixels of the runs. So the cost is that of reading the map, whatever the number of
nuclei, and ids may be any integers. Nothing of the size of the map is held but the runs.

References
----------
Benkrid & Crookes 2000, Queen's University of Belfast, "Design and FPGA implementation of a perimeter
estimator". Andrew 1979, Information Processing Letters 9(5): 216-219 (monotone chain). Ruifrok & Johnston
2001, Analytical and Quantitative Cytology and Histology 23(4): 291-299 (haematoxylin).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from napari_nucseg.core.stain import HAEMATOXYLIN_TABLE, check_rgb
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_ROOT2 = np.sqrt(2.0)


def _perimeter_weights() -> NDArray[np.float64]:
    """Tabulate the length of a border pixel by 1 + 2 * (those beside it) + 10 * (those at its corners)."""
    weights = np.zeros(50)
    weights[[5, 7, 15, 17, 25, 27]] = 1
    weights[[21, 33]] = _ROOT2
    weights[[13, 23]] = (1 + _ROOT2) / 2
    return weights


_WEIGHTS = _perimeter_weights()
_NOWHERE = np.iinfo(np.int64).max  # no pixel on a line


@dataclass(frozen=True)
class NucleusMeasures:
    """Measures of N nuclei; all arrays are aligned, ids ascending.

    Parameters
    ----------
    id
        (N,) uint32.
    centroid_y, centroid_x
        (N,) float64, mean row and column of the pixel indices, in pixels of the label map.
    area_px
        (N,) int64, number of pixels.
    area_um2
        (N,) float64, area in square micrometres.
    perimeter_um
        (N,) float64, perimeter in micrometres (Benkrid & Crookes 2000, 4-neighbourhood; holes and the edge of
        the image count; 0 for a single pixel).
    eccentricity
        (N,) float64, of the ellipse of equal second central moments of the pixel centres: 0 (circle) to 1
        (line).
    solidity
        (N,) float64, area over the area of the convex hull of the pixels' corners, above 0 to 1. This is the
        solidity of the outline along the pixel edges; a hull through pixel centres or edge middles is
        smaller, and the solidity by it a little higher.
    mean_haematoxylin
        (N,) float64, mean haematoxylin amount in OD (Ruifrok & Johnston 2001).
    bbox
        (N, 4) int64, first row, first column, end row, end column; ends exclusive.
    """

    id: NDArray[np.uint32]
    centroid_y: NDArray[np.float64]
    centroid_x: NDArray[np.float64]
    area_px: NDArray[np.int64]
    area_um2: NDArray[np.float64]
    perimeter_um: NDArray[np.float64]
    eccentricity: NDArray[np.float64]
    solidity: NDArray[np.float64]
    mean_haematoxylin: NDArray[np.float64]
    bbox: NDArray[np.int64]

    def __len__(self) -> int:
        return self.id.size


def measure(
    labels: NDArray[Any], rgb: NDArray[np.uint8], mpp: float, ids: ArrayLike | None = None
) -> NucleusMeasures:
    """Measure the nuclei of a label map.

    A nucleus is all pixels of one id, connected or not.

    Parameters
    ----------
    labels
        (H, W) integer label map, 0 = background; ids up to 2**32 - 1, need not be contiguous.
    rgb
        (H, W, 3) uint8, the image under the labels.
    mpp
        Micrometres per pixel of both.
    ids
        The nuclei to measure; default all.

    Returns
    -------
    NucleusMeasures
        One entry a nucleus, by ascending id (duplicates in `ids` are measured once).

    Raises
    ------
    NucSegError
        Labels are not a 2-D map of integers in 0..2**32 - 1, the image is not uint8 RGB of the same size,
        `mpp` is not a positive number, or an id of `ids` is not in the map.
    """
    labels, rgb = _checked_labels(labels), check_rgb(rgb)
    if labels.shape != rgb.shape[:2]:
        raise NucSegError(
            f"The labels are {labels.shape} and the image {rgb.shape[:2]}, but must be of one size; crop one."
        )
    if not 0 < mpp < np.inf:
        raise NucSegError(f"The pixel size is {mpp} um, but must be a positive number; state it as mpp.")
    runs, found = _indexed_runs(labels, ids)
    n = found.size
    bbox, sums = np.empty((n, 4), np.int64), np.zeros((n, 6), np.int64)
    _sum_moments(runs, bbox, sums)
    dark, perimeter = np.zeros(n), np.zeros(n)
    _sum_tables_over_runs(runs, rgb, HAEMATOXYLIN_TABLE, dark)
    _sum_perimeters(labels, runs, _WEIGHTS, perimeter)
    area = sums[:, 0].copy()
    return NucleusMeasures(
        found,
        bbox[:, 0] + sums[:, 1] / area,
        bbox[:, 1] + sums[:, 2] / area,
        area,
        area.astype(np.float64) * mpp**2,
        perimeter * mpp,
        _eccentricity(sums),
        area / _hull_areas(runs, bbox),
        dark / area,
        bbox,
    )


def _checked_labels(labels: NDArray[Any]) -> NDArray[np.uint32]:
    """Return the label map as C-contiguous uint32, without a copy where it is one, or tell what is wrong."""
    a = np.asarray(labels)
    if a.ndim != 2 or a.dtype.kind not in "ui":
        raise NucSegError(f"The label map is {a.dtype} of shape {a.shape}, but must be 2-D and integer.")
    if a.dtype != np.uint32:
        if a.size and (a.min() < 0 or a.max() > 0xFFFFFFFF):
            raise NucSegError(
                f"The label map holds ids {a.min()} to {a.max()}; they must be in 0..2**32 - 1."
            )
        a = a.astype(np.uint32)
    return np.ascontiguousarray(a)


def _indexed_runs(
    labels: NDArray[np.uint32], ids: ArrayLike | None
) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
    """Return runs (row, first column, end column, index into the ids) in raster order, and the sorted ids."""
    runs, values = _find_runs(labels, _count_runs(labels))
    if ids is None:
        found, index = np.unique(values, return_inverse=True)
        runs[:, 3] = index
        return runs, found
    asked = np.unique(np.asarray(ids))
    if asked.size == 0:
        return runs[:0], np.zeros(0, np.uint32)
    missing = asked[~np.isin(asked, values)]
    if missing.size:
        raise NucSegError(f"Nucleus {missing[0]} is not in the label map; ask for ids which it holds.")
    found = asked.astype(np.uint32)
    index = np.minimum(np.searchsorted(found, values), found.size - 1)
    runs[:, 3] = index
    return runs[found[index] == values], found


def _eccentricity(sums: NDArray[np.int64]) -> NDArray[np.float64]:
    """Derive the eccentricity from the sums of `_sum_moments`."""
    n, y, x, yy, xx, yx = sums.T.astype(np.float64)
    a, b, c = (yy - y * y / n) / n, (xx - x * x / n) / n, (yx - y * x / n) / n
    spread = np.sqrt((a - b) ** 2 + 4 * c * c)
    major, minor = (a + b + spread) / 2, np.maximum((a + b - spread) / 2, 0)
    ratio = np.divide(minor, major, out=np.ones_like(major), where=major > 0)
    return np.sqrt(1 - ratio)


def _hull_areas(runs: NDArray[np.int32], bbox: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the area of the convex hull of the pixel corners of each nucleus, in pixels."""
    heights = bbox[:, 2] - bbox[:, 0] + 1  # lines of corners, one more than rows of pixels
    ends = np.cumsum(heights)
    total = int(ends[-1]) if ends.size else 0
    left, right = np.full(total, _NOWHERE, np.int64), np.full(total, _NOWHERE, np.int64)
    out = np.empty(heights.size)
    _corner_extremes(runs, bbox, ends - heights, left, right)
    _hulls_between(ends - heights, ends, left, right, out)
    return out


@numba.njit(cache=True, nogil=True)
def _count_runs(labels: Any) -> int:
    """Count the runs of non-zero ids along the rows."""
    n = 0
    for y in range(labels.shape[0]):
        before = labels.dtype.type(0)
        for x in range(labels.shape[1]):
            n += (labels[y, x] != before) & (labels[y, x] != 0)
            before = labels[y, x]
    return n


@numba.njit(cache=True, nogil=True)
def _find_runs(labels: Any, n: int) -> Any:
    """Return the n runs (row, first column, end column, -1) in raster order, and their ids."""
    runs = np.full((n, 4), -1, np.int32)
    values = np.empty(n, np.uint32)
    k = 0
    for y in range(labels.shape[0]):
        x = 0
        while x < labels.shape[1]:
            value, start = labels[y, x], x
            x += 1
            while x < labels.shape[1] and labels[y, x] == value:
                x += 1
            if value:
                runs[k, 0], runs[k, 1], runs[k, 2] = y, start, x
                values[k] = value
                k += 1
    return runs, values


@numba.njit(cache=True, nogil=True)
def _sum_moments(runs: Any, bbox: Any, sums: Any) -> None:
    """Find the box of each nucleus, and sum 1, y, x, yy, xx, yx over its pixels.

    Coordinates count from the box; the sums are exact: integers, in closed form over each run.
    """
    bbox[:, :2] = np.iinfo(np.int64).max
    bbox[:, 2:] = 0
    for i in range(runs.shape[0]):
        k = runs[i, 3]
        bbox[k, 0], bbox[k, 1] = min(bbox[k, 0], runs[i, 0]), min(bbox[k, 1], runs[i, 1])
        bbox[k, 2], bbox[k, 3] = max(bbox[k, 2], runs[i, 0] + 1), max(bbox[k, 3], runs[i, 2])
    for i in range(runs.shape[0]):
        k = runs[i, 3]
        y, n = runs[i, 0] - bbox[k, 0], np.int64(runs[i, 2] - runs[i, 1])
        a, b = runs[i, 1] - bbox[k, 1], runs[i, 2] - bbox[k, 1] - 1
        x = n * (a + b) // 2
        sums[k, 0] += n
        sums[k, 1] += n * y
        sums[k, 2] += x
        sums[k, 3] += n * y * y
        sums[k, 4] += (b * (b + 1) * (2 * b + 1) - (a - 1) * a * (2 * a - 1)) // 6
        sums[k, 5] += x * y


@numba.njit(cache=True, nogil=True)
def _sum_tables_over_runs(runs: Any, rgb: Any, table: Any, out: Any) -> None:
    """Add table[0][r] + table[1][g] + table[2][b] over the pixels of each nucleus."""
    for i in range(runs.shape[0]):
        y, total = runs[i, 0], 0.0
        for x in range(runs[i, 1], runs[i, 2]):
            total += table[0, rgb[y, x, 0]] + table[1, rgb[y, x, 1]] + table[2, rgb[y, x, 2]]
        out[runs[i, 3]] += total


@numba.njit(cache=True, nogil=True)
def _mark_border(labels: Any, y: int, row: Any) -> None:
    """Mark the pixels of row y with a 4-neighbour of another id, or at the edge; row is padded."""
    height, width = labels.shape
    edge = y == 0 or y == height - 1
    above, below = labels[max(y - 1, 0)], labels[min(y + 1, height - 1)]
    here = labels[y]
    for x in range(width):
        row[x + 1] = edge | (above[x] != here[x]) | (below[x] != here[x])
    for x in range(1, width):
        other = here[x] != here[x - 1]
        row[x] |= other
        row[x + 1] |= other
    row[1] = row[width] = 1


@numba.njit(cache=True, nogil=True)
def _border_code(labels: Any, border: Any, y: int, x: int) -> int:
    """Return 1 + 2 * (border pixels of the same id beside this one) + 10 * (those at its corners)."""
    height, width = labels.shape
    code = 1
    for v in range(max(y - 1, 0), min(y + 2, height)):
        for u in range(max(x - 1, 0), min(x + 2, width)):
            if border[v % 3, u + 1] and labels[v, u] == labels[y, x]:
                code += 10 if v != y and u != x else 2
    return code - 2  # the pixel itself


@numba.njit(cache=True, nogil=True)
def _sum_perimeters(labels: Any, runs: Any, weights: Any, out: Any) -> None:
    """Add the weight of every border pixel to its nucleus, by the border pixels of the same id around it.

    Border flags are held for three rows at a time, padded by one pixel on both sides.
    """
    height, width = labels.shape
    border = np.zeros((3, width + 2), np.uint8)
    marked = -1
    for i in range(runs.shape[0]):
        y, k = runs[i, 0], runs[i, 3]
        while marked < min(y + 1, height - 1):
            marked += 1
            _mark_border(labels, marked, border[marked % 3])
        for x in range(runs[i, 1], runs[i, 2]):
            if border[y % 3, x + 1]:
                out[k] += weights[_border_code(labels, border, y, x)]


@numba.njit(cache=True, nogil=True)
def _corner_extremes(runs: Any, bbox: Any, first: Any, left: Any, right: Any) -> None:
    """Note the leftmost and the (negated) rightmost pixel corner of each nucleus on each line of corners."""
    for i in range(runs.shape[0]):
        k = runs[i, 3]
        line = first[k] + runs[i, 0] - bbox[k, 0]
        for j in range(line, line + 2):
            left[j] = min(left[j], runs[i, 1])
            right[j] = min(right[j], -runs[i, 2])


@numba.njit(cache=True, nogil=True)
def _twice_below_hull(values: Any, stack: Any) -> int:
    """Return twice the integral of the lower convex hull of the points (i, values[i]) (monotone chain)."""
    n = 0
    for i in range(values.size):
        if values[i] == _NOWHERE:
            continue
        while n > 1:
            a, b = stack[n - 2], stack[n - 1]
            if (b - a) * (values[i] - values[a]) > (i - a) * (values[b] - values[a]):
                break
            n -= 1
        stack[n] = i
        n += 1
    total = 0
    for j in range(1, n):
        a, b = stack[j - 1], stack[j]
        total += (b - a) * (values[a] + values[b])
    return total


@numba.njit(cache=True, nogil=True)
def _hulls_between(first: Any, end: Any, left: Any, right: Any, out: Any) -> None:
    """Compute the area between the left and the (negated) right hull of each nucleus."""
    longest = 0
    for k in range(first.size):
        longest = max(longest, end[k] - first[k])
    stack = np.empty(longest, np.int64)
    for k in range(first.size):
        lines = slice(first[k], end[k])
        out[k] = -0.5 * (_twice_below_hull(left[lines], stack) + _twice_below_hull(right[lines], stack))
