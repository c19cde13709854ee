"""Outlines of labels, as napari draws them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def outlines(labels: Any, y0: int, y1: int, x0: int, x1: int, thickness: int) -> Any:
    """Return a part of a label image with only the outlines left.

    Parameters
    ----------
    labels : integers (H, W)
    y0, y1, x0, x1 : int
        The part, half-open.
    thickness : int
        Of the inner side of the outlines; 1 or more.

    Returns
    -------
    integers (y1 - y0, x1 - x0)

    Notes
    -----
    A pixel is on no outline if the highest label among its four neighbours and itself equals the lowest one within
    `thickness` steps along rows and columns, which is napari's definition. Neighbours are compared a whole row at a
    time, which compilers turn into vector instructions.
    """
    height, width = labels.shape
    out = np.zeros((y1 - y0, x1 - x0), labels.dtype)
    edge = np.empty(x1 - x0, np.bool_)
    for y in range(y0, y1):
        edge[:] = False
        for dy in range(-thickness, thickness + 1):
            if 0 <= y + dy < height:
                reach = thickness - abs(dy)
                for dx in range(-reach, reach + 1):
                    start, stop = max(x0, -dx), min(x1, width - dx)
                    _compare(
                        labels[y, start:stop],
                        labels[y + dy, start + dx : stop + dx],
                        edge[start - x0 :],
                        abs(dy) + abs(dx) == 1,
                    )
        own = labels[y, x0:x1]
        for x in range(x1 - x0):
            out[y - y0, x] = own[x] if edge[x] else 0
    return out


@njit(cache=True, nogil=True)
def _compare(own: Any, other: Any, edge: Any, both: bool) -> None:
    """Mark where a neighbour's label is lower, or, with `both`, another one."""
    if both:
        for x in range(own.size):
            edge[x] |= other[x] != own[x]
    else:
        for x in range(own.size):
            edge[x] |= other[x] < own[x]
