"""Polygons to masks: the pixels whose centre lies inside."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""Corners (x, y), (n, 2) C-contiguous float64; the first may be repeated at the end."""


@njit(cache=True, nogil=True)
def survey(ring: Ring) -> tuple[bool, float, float, float, float, float]:  # pragma: no cover - compiled
    """Return whether all corners are finite, the least and greatest x, the same of y, and the area."""
    x0, x1, y0, y1 = np.inf, -np.inf, np.inf, -np.inf
    area = 0.0
    finite = True
    count = len(ring)
    for k in range(count):
        x, y = ring[k, 0], ring[k, 1]
        finite = finite and np.isfinite(x) and np.isfinite(y)
        x0, x1 = min(x0, x), max(x1, x)
        y0, y1 = min(y0, y), max(y1, y)
        following = k + 1 if k + 1 < count else 0
        # relative to the first corner: far from the origin little of the product would be left
        area += (x - ring[0, 0]) * (ring[following, 1] - ring[0, 1])
        area -= (ring[following, 0] - ring[0, 0]) * (y - ring[0, 1])
    return finite, x0, x1, y0, y1, abs(area) / 2


@njit(cache=True, nogil=True)
def fill(ring: Ring, row: int, column: int, mask: NDArray[np.bool_]) -> bool:  # pragma: no cover - compiled
    """Invert the pixels of `mask` inside a ring, and return whether the ring crosses itself around any.

    Parameters
    ----------
    ring
        Corners (x, y) with coordinates of at most 1e12; the pixel at (r, c) is the square from (c, r) to
        (c + 1, r + 1).
    row, column
        Of the mask's first pixel.
    mask
        (h, w) bool, changed in place. A pixel belongs to the ring if its centre lies inside by the even-odd
        rule; on an edge, if it is a left or an upper one, so that neighbours which share an edge share no pixel.
        Inverted by a polygon's outer ring and then by its holes, the mask is that of the polygon.

    Notes
    -----
    Per row, the direction of every edge that crosses it is noted where it crosses. The sum from the left is the
    winding number of a pixel; it is odd where the number of crossings is. A ring that does not cross itself
    winds around every pixel once, and all in one direction.
    """
    height, width = mask.shape
    winding = np.zeros((height, width + 1), np.int32)
    count = len(ring)
    for k in range(count):
        following = k + 1 if k + 1 < count else 0
        xa, ya, xb, yb = ring[k, 0], ring[k, 1], ring[following, 0], ring[following, 1]
        step = 1
        if ya > yb:
            xa, ya, xb, yb = xb, yb, xa, ya
            step = -1
        first = min(max(np.ceil(ya - 0.5) - row, 0.0), float(height))
        end = min(max(np.ceil(yb - 0.5) - row, 0.0), float(height))
        for r in range(int(first), int(end)):
            x = xa + (row + r + 0.5 - ya) / (yb - ya) * (xb - xa)
            c = min(max(np.ceil(x - 0.5) - column, 0.0), float(width))
            winding[r, int(c)] += step
    least, most = 0, 0
    for r in range(height):
        around = 0
        for c in range(width):
            around += winding[r, c]
            least, most = min(least, around), max(most, around)
            if around & 1:
                mask[r, c] = not mask[r, c]
    return most - least > 1
