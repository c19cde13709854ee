"""Where nuclei lie in a label image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_BAND_PIXELS = 16 * 2**20


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
    for y0, band in row_bands(labels, band_rows(width)):
        _grow_boxes(as_labels(band), y0, known, boxes)
    boxes[boxes[:, 1] == 0] = 0
    result = np.empty_like(boxes)
    result[order] = boxes
    return result


def band_rows(width: int) -> int:
    """Return how many rows of an image are read at once."""
    return max(1, _BAND_PIXELS // max(width, 1))


def row_bands(labels: Any, rows: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, contiguous array) for consecutive bands of `rows` rows."""
    for y0 in range(0, labels.shape[0], rows):
        yield y0, np.ascontiguousarray(labels[y0 : y0 + rows])


def as_labels(part: Any) -> NDArray[np.uint32]:
    """Return integers as contiguous uint32; what no id can be is background."""
    array = np.asarray(part)
    if array.dtype.kind == "i" or array.dtype.itemsize > 4:
        array = np.where((array < 0) | (array > 2**32 - 1), 0, array)
    return np.ascontiguousarray(array, np.uint32)


@njit(cache=True, nogil=True)
def _grow_boxes(
    band: NDArray[np.uint32], y0: int, known: NDArray[np.int64], boxes: NDArray[np.int64]
) -> None:  # pragma: no cover - compiled
    """Widen the boxes of `known` (ascending) by every run of pixels in the rows from `y0` on."""
    width = band.shape[1]
    for r in range(band.shape[0]):
        line = band[r]
        c = 0
        while c < width:
            label = line[c]
            first = c
            c += 1
            if label == 0:
                continue
            while c < width and line[c] == label:
                c += 1
            at = _find(known, label)
            if at >= 0:
                box = boxes[at]
                box[0] = min(box[0], y0 + r)
                box[1] = y0 + r + 1
                box[2] = min(box[2], first)
                box[3] = max(box[3], c)


@njit(cache=True, nogil=True)
def _find(known: NDArray[np.int64], label: int) -> int:  # pragma: no cover - compiled
    """Return where a label stands among ascending ones, or -1. Ids without a gap are found at once."""
    count = len(known)
    first, last = 0, count
    guess = np.int64(label) - known[0] if count else count
    if 0 <= guess < count and known[guess] == label:
        return guess
    while first < last:
        middle = (first + last) // 2
        if known[middle] < label:
            first = middle + 1
        else:
            last = middle
    return first if first < count and known[first] == label else -1
