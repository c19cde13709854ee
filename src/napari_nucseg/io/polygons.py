"""Exact outlines of label instances: the edges of their pixels, as valid polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Ring = list[list[int]]
Polygon = list[Ring]

_BAND_PIXELS = 16 * 2**20


def outline(mask: NDArray[np.bool_], row: int = 0, column: int = 0) -> list[Polygon]:
    """Trace the edges of a mask's pixels.

    Parameters
    ----------
    mask
        (h, w) bool.
    row, column
        Position of the mask's first pixel in the image.

    Returns
    -------
    list of polygons
        One for every 4-connected part of the mask, in raster order of their first pixels; empty for an empty
        mask. A polygon is a list of closed rings of [x, y] corners, the outer ring first and then its holes.
        The pixel at (r, c) covers x from c to c + 1 and y from r to r + 1. Only corners where the direction
        changes are listed; outer rings have a positive area by the shoelace formula in (x, y), holes a
        negative one. No ring touches itself: where an outline passes a corner twice it is cut there, so that
        the polygons are valid in the sense of the OGC's Simple Features.
    """
    vertices, ends, kinds, count = _trace(np.ascontiguousarray(mask))
    vertices[:, 0] += column
    vertices[:, 1] += row
    polygons: list[Polygon] = [[] for _ in range(count)]
    start = 0
    for end, (part, hole) in zip(ends.tolist(), kinds.tolist(), strict=True):
        ring: Ring = vertices[start:end].tolist()
        ring.append(ring[0])
        start = end
        polygon = polygons[part - 1]
        polygon.insert(len(polygon) if hole else 0, ring)
    return polygons


def bounding_boxes(labels: Any, ids: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Find the boxes of instances in one pass over the rows.

    Parameters
    ----------
    labels
        (H, W) integers, 0 = background; anything with numpy's slicing, which is read in bands of rows.
    ids
        (n,) instances to look for, in any order, without repeats.

    Returns
    -------
    ndarray
        (n, 4) int64: first row, end row, first column, end column; all 0 for an id that isn't there.
    """
    height, width = labels.shape
    order = np.argsort(ids, kind="stable")
    known = np.asarray(ids, np.int64)[order]
    boxes = np.tile(np.array([height, 0, width, 0], np.int64), (len(known), 1))
    for y0, band in row_bands(labels, max(1, _BAND_PIXELS // max(width, 1))):
        _grow_boxes(band, y0, known, boxes)
    boxes[boxes[:, 1] == 0] = 0
    result = np.empty_like(boxes)
    result[order] = boxes
    return result


def row_bands(labels: Any, rows: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, contiguous array) for consecutive bands of `rows` rows."""
    for y0 in range(0, labels.shape[0], rows):
        yield y0, np.ascontiguousarray(labels[y0 : y0 + rows])


@njit(cache=True, nogil=True)
def _grow_boxes(
    band: NDArray[Any], y0: int, known: NDArray[np.int64], boxes: NDArray[np.int64]
) -> None:  # pragma: no cover - compiled
    for r in range(band.shape[0]):
        previous, at = 0, -1
        for c in range(band.shape[1]):
            label = band[r, c]
            if label == 0:
                continue
            if label != previous:
                previous = label
                at = int(np.searchsorted(known, np.int64(label)))
                if at == len(known) or known[at] != label:
                    at = -1
            if at >= 0:
                box = boxes[at]
                box[0] = min(box[0], y0 + r)
                box[1] = max(box[1], y0 + r + 1)
                box[2] = min(box[2], c)
                box[3] = max(box[3], c + 1)


@njit(cache=True, nogil=True)
def _parts(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:  # pragma: no cover - compiled
    """Label the 4-connected parts from 1 on, within a frame of one empty pixel."""
    height, width = mask.shape
    parts = np.zeros((height + 2, width + 2), np.int32)
    stack = np.empty((height * width, 2), np.int32)
    count = 0
    for r in range(height):
        for c in range(width):
            if not mask[r, c] or parts[r + 1, c + 1]:
                continue
            count += 1
            parts[r + 1, c + 1] = count
            stack[0, 0], stack[0, 1] = r, c
            top = 1
            while top:
                top -= 1
                y, x = stack[top, 0], stack[top, 1]
                for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                    a, b = y + dy, x + dx
                    if 0 <= a < height and 0 <= b < width and mask[a, b] and not parts[a + 1, b + 1]:
                        parts[a + 1, b + 1] = count
                        stack[top, 0], stack[top, 1] = a, b
                        top += 1
    return parts, count


@njit(cache=True, nogil=True)
def _trace(
    mask: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int]:  # pragma: no cover - compiled
    """Return the corners (x, y) of all rings, where each ends, its (part, is a hole), and how many parts.

    Every ring is walked with its pixels on the right hand: east along their top edges, south along their
    right edges, and so on. It has at least one top edge, from which it is started once.
    """
    parts, count = _parts(mask)
    height, width = mask.shape
    edges = 0
    for r in range(height + 1):
        for c in range(width + 1):
            here = parts[r + 1, c + 1]
            edges += (parts[r, c + 1] != here) + (parts[r + 1, c] != here)
    corners = np.empty((edges, 2), np.int64)
    path = np.empty((edges, 2), np.int64)
    ends = np.empty(edges // 4, np.int64)
    kinds = np.empty((edges // 4, 2), np.int64)
    place = np.full((height + 1, width + 1), -1, np.int64)
    walked = np.zeros((height, width), np.bool_)
    rings = 0
    for r in range(height):
        for c in range(width):
            if parts[r + 1, c + 1] and parts[r, c + 1] == 0 and not walked[r, c]:
                rings = _walk(parts, r, c, walked, place, path, corners, ends, kinds, rings)
    return corners[: ends[rings - 1] if rings else 0], ends[:rings], kinds[:rings], count


@njit(cache=True, nogil=True)
def _walk(
    parts: NDArray[np.int32],
    row: int,
    column: int,
    walked: NDArray[np.bool_],
    place: NDArray[np.int64],
    path: NDArray[np.int64],
    corners: NDArray[np.int64],
    ends: NDArray[np.int64],
    kinds: NDArray[np.int64],
    rings: int,
) -> int:  # pragma: no cover - compiled
    """Walk one closed outline from the top edge of a pixel; return the number of rings so far.

    `place` holds where on the path a corner lies: one that is met again, where two pixels of the part touch
    diagonally, closes a ring of its own, and the walk goes on without it.
    """
    part = parts[row + 1, column + 1]
    y, x, heading = row, column, 0  # 0 east, 1 south, 2 west, 3 north
    path[0, 0], path[0, 1] = x, y
    place[y, x] = 0
    length = 1
    while True:
        if heading == 0:
            walked[y, x] = True
        y += (heading == 1) - (heading == 3)
        x += (heading == 0) - (heading == 2)
        turned = _turn(parts, part, y, x, heading)
        if turned == heading:
            continue
        heading = turned
        closed = place[y, x]
        if closed < 0:
            path[length, 0], path[length, 1] = x, y
            place[y, x] = length
            length += 1
            continue
        _emit(path, closed, length, part, corners, ends, kinds, rings)
        rings += 1
        for k in range(closed + 1, length):
            place[path[k, 1], path[k, 0]] = -1
        length = closed + 1
        if y == row and x == column and heading == 0:
            place[y, x] = -1
            return rings


@njit(cache=True, nogil=True)
def _turn(
    parts: NDArray[np.int32], part: int, y: int, x: int, heading: int
) -> int:  # pragma: no cover - compiled
    """Return the new heading at corner (y, x): right around the own pixel first, so that parts stay apart."""
    north_west, north_east = parts[y, x] == part, parts[y, x + 1] == part
    south_west, south_east = parts[y + 1, x] == part, parts[y + 1, x + 1] == part
    if heading == 0:
        left, right = north_east, south_east
    elif heading == 1:
        left, right = south_east, south_west
    elif heading == 2:
        left, right = south_west, north_west
    else:
        left, right = north_west, north_east
    if not right:
        return (heading + 1) % 4
    return (heading + 3) % 4 if left else heading


@njit(cache=True, nogil=True)
def _emit(
    path: NDArray[np.int64],
    first: int,
    last: int,
    part: int,
    corners: NDArray[np.int64],
    ends: NDArray[np.int64],
    kinds: NDArray[np.int64],
    rings: int,
) -> None:  # pragma: no cover - compiled
    """Append path[first:last] as a ring; the sign of its area tells an outer ring from a hole."""
    at = ends[rings - 1] if rings else 0
    area = 0
    for k in range(first, last):
        following = k + 1 if k + 1 < last else first
        area += path[k, 0] * path[following, 1] - path[following, 0] * path[k, 1]
        corners[at, 0], corners[at, 1] = path[k, 0], path[k, 1]
        at += 1
    ends[rings] = at
    kinds[rings, 0] = part
    kinds[rings, 1] = 1 if area < 0 else 0
