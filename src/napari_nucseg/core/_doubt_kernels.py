"""Compiled loops over the outlines of nuclei; see `core.doubt` for what they mean. They hold no GIL."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def place_of(ids: NDArray[np.uint32], wanted: Any) -> int:
    """Place of an id among ascending ids, -1 where it is none of them."""
    low, high = 0, ids.size
    while low < high:
        middle = (low + high) // 2
        if ids[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    if low < ids.size and ids[low] == wanted:
        return low
    return -1


@njit(cache=True, nogil=True)
def mark_present(
    labels: NDArray[np.uint32],
    ids: NDArray[np.uint32],
    window: tuple[int, int, int, int],
    out: NDArray[np.bool_],
) -> None:
    """Mark which ids have a pixel in a window of (y0, y1, x0, x1)."""
    y0, y1, x0, x1 = window
    for y in range(y0, y1):
        last = np.uint32(0)
        for x in range(x0, x1):
            label = labels[y, x]
            if label != last:
                last = label
                place = place_of(ids, label)
                if place >= 0:
                    out[place] = True


@njit(cache=True, nogil=True)
def count_edges(
    labels: NDArray[np.uint32],
    ids: NDArray[np.uint32],
    window: tuple[int, int, int, int],
    edges: NDArray[np.int64],
    touching: NDArray[np.int64],
) -> None:
    """Count the pixel edges between an id and anything else, and those between it and another id.

    Only pixels in the window are counted, their neighbours outside are seen; the image's own edge counts as neither.
    A row is searched for the place of an id once per run of pixels.
    """
    height, width = labels.shape
    y0, y1, x0, x1 = window
    for y in range(y0, y1):
        last = np.uint32(0)
        place = -1
        for x in range(x0, x1):
            label = labels[y, x]
            if label == 0:
                continue
            if label != last:
                last = label
                place = place_of(ids, label)
            if place < 0:
                continue
            if y > 0 and labels[y - 1, x] != label:
                edges[place] += 1
                if labels[y - 1, x] != 0:
                    touching[place] += 1
            if y + 1 < height and labels[y + 1, x] != label:
                edges[place] += 1
                if labels[y + 1, x] != 0:
                    touching[place] += 1
            if x > 0 and labels[y, x - 1] != label:
                edges[place] += 1
                if labels[y, x - 1] != 0:
                    touching[place] += 1
            if x + 1 < width and labels[y, x + 1] != label:
                edges[place] += 1
                if labels[y, x + 1] != 0:
                    touching[place] += 1
