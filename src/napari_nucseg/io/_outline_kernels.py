"""Compiled loops that trace the outlines of nuclei along the edges of their pixels.

A nucleus is traced in its box alone. Every outline is walked with the nucleus on the right hand: east along the top
edges of its pixels, south along their right edges, and so on; where two of its pixels touch diagonally, around the
own one, so that parts which are not 4-connected stay apart. An outline that passes a corner twice is cut there into
two, so that no ring touches itself: valid polygons in the sense of the OGC's Simple Features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.io._text_kernels import ZERO, inner

_OWN, _WALKED = 1, 2
_SIDE = 64  # of the box that the arrays hold at first


class Tracing(NamedTuple):
    """Arrays for the outlines of one nucleus after the other.

    Attributes
    ----------
    mask : uint8
        Its pixels in raster order, within a frame of one empty pixel.
    place : int32
        For every corner of a pixel, 1 + where it lies on `path`, or 0.
    path : int32 (k, 2)
        Corners (x, y) of the walk.
    corners : int32 (k, 2)
        Those of all rings, in the pixels of the box; only corners where the direction changes, none twice.
    ends : int64 (r,)
        Where each ring ends in `corners`.
    areas : int64 (r,)
        Twice the area of each, negative for holes.
    starts : int32 (r, 2)
        Column and row of a pixel of the nucleus on each ring.
    """

    mask: NDArray[np.uint8]
    place: NDArray[np.int32]
    path: NDArray[np.int32]
    corners: NDArray[np.int32]
    ends: NDArray[np.int64]
    areas: NDArray[np.int64]
    starts: NDArray[np.int32]


@inner
def room_for(height: int, width: int) -> Tracing:  # pragma: no cover - compiled
    """Return arrays for boxes up to a size."""
    corners = (max(height, _SIDE) + 1) * (max(width, _SIDE) + 1)
    return Tracing(
        np.zeros((max(height, _SIDE) + 2) * (max(width, _SIDE) + 2), np.uint8),
        np.zeros(corners, np.int32),
        np.empty((corners, 2), np.int32),
        np.empty((2 * corners, 2), np.int32),
        np.empty(corners, np.int64),
        np.empty(corners, np.int64),
        np.empty((corners, 2), np.int32),
    )


@inner
def trace(
    labels: NDArray[np.uint32], id_: int, box: NDArray[np.int64], space: Tracing
) -> int:  # pragma: no cover - compiled
    """Trace a nucleus; return its number of rings."""
    height, width = box[1] - box[0], box[3] - box[2]
    stride = width + 2
    mask = space.mask[: (height + 2) * stride]
    mask[:] = 0
    for r in range(height):
        line, own = labels[box[0] + r, box[2] : box[3]], mask[(r + 1) * stride + 1 : (r + 2) * stride - 1]
        for c in range(width):
            own[c] = line[c] == id_
    rings = ZERO
    for r in range(height):
        for c in range(width):
            at = (r + 1) * stride + c + 1
            if mask[at] == _OWN and mask[at - stride] == 0:
                rings = _walk(mask, stride, r, c, space, rings)
    return rings


@inner
def part_of(space: Tracing, rings: int, ring: int) -> int:  # pragma: no cover - compiled
    """Return the outer ring of the part that a ring belongs to: the smallest around a pixel on it."""
    found, least = -1, np.int64(0)
    x, y = space.starts[ring, 0], space.starts[ring, 1]
    for other in range(rings):
        area = space.areas[other]
        if area > 0 and (found < 0 or area < least) and _surrounds(space, other, x, y):
            found, least = other, area
    return found


@inner
def _surrounds(space: Tracing, ring: int, x: int, y: int) -> bool:  # pragma: no cover - compiled
    """Return whether a pixel lies inside a ring: an odd number of its upright edges lie to the left."""
    first, last = space.ends[ring - 1] if ring else 0, space.ends[ring]
    inside = False
    before = last - 1
    for k in range(first, last):
        y0, y1 = space.corners[before, 1], space.corners[k, 1]
        if space.corners[k, 0] <= x and min(y0, y1) <= y < max(y0, y1):
            inside = not inside
        before = k
    return inside


@inner
def _walk(
    mask: NDArray[np.uint8], stride: int, row: int, column: int, space: Tracing, rings: int
) -> int:  # pragma: no cover - compiled
    """Walk one closed outline from the top edge of a pixel; return the number of rings so far."""
    path, place = space.path, space.place
    across = stride - 1  # corners in a row
    y, x, heading = row, column, ZERO  # 0 east, 1 south, 2 west, 3 north
    path[0, 0], path[0, 1] = x, y
    place[y * across + x] = 1
    length = ZERO + 1
    while True:
        if heading == 0:
            mask[(y + 1) * stride + x + 1] |= _WALKED
            x += 1
        elif heading == 1:
            y += 1
        elif heading == 2:
            x -= 1
        else:
            y -= 1
        turned = _turn(mask, y * stride + x, stride, heading)
        if turned == heading:
            continue
        heading = turned
        met = place[y * across + x]
        if met == 0:
            path[length, 0], path[length, 1] = x, y
            length += 1
            place[y * across + x] = length
            continue
        _keep_ring(space, met - 1, length, row, column, rings)
        rings += 1
        for k in range(met, length):
            place[path[k, 1] * across + path[k, 0]] = 0
        length = met
        if y == row and x == column and heading == 0:
            place[y * across + x] = 0
            return rings


@inner
def _turn(
    mask: NDArray[np.uint8], north_west: int, stride: int, heading: int
) -> int:  # pragma: no cover - compiled
    """Return the new heading at a corner, given the pixel to its north-west: right around the own pixel first."""
    if heading == 0:
        left, right = mask[north_west + 1], mask[north_west + stride + 1]
    elif heading == 1:
        left, right = mask[north_west + stride + 1], mask[north_west + stride]
    elif heading == 2:
        left, right = mask[north_west + stride], mask[north_west]
    else:
        left, right = mask[north_west], mask[north_west + 1]
    if right == 0:
        return (heading + 1) & 3
    return (heading + 3) & 3 if left else heading


@inner
def _keep_ring(
    space: Tracing, first: int, last: int, row: int, column: int, rings: int
) -> None:  # pragma: no cover - compiled
    """Take path[first:last] as a ring; the sign of its area tells an outer ring from a hole."""
    path, corners = space.path, space.corners
    at = space.ends[rings - 1] if rings else 0
    area = np.int64(0)
    for k in range(first, last):
        following = k + 1 if k + 1 < last else first
        area += np.int64(path[k, 0]) * path[following, 1] - np.int64(path[following, 0]) * path[k, 1]
        corners[at, 0], corners[at, 1] = path[k, 0], path[k, 1]
        at += 1
    space.ends[rings] = at
    space.areas[rings] = area
    space.starts[rings, 0], space.starts[rings, 1] = column, row
