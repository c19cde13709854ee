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
    `thickness` steps along rows and columns, which is napari's definition.
    """
    height, width = labels.shape
    out = np.zeros((y1 - y0, x1 - x0), labels.dtype)
    for i in range(y1 - y0):
        y = y0 + i
        for x in range(x0, x1):
            own = labels[y, x]
            if own == 0:
                continue
            highest, lowest = own, own
            for dy in range(-thickness, thickness + 1):
                yy = y + dy
                if yy < 0 or yy >= height:
                    continue
                reach = thickness - abs(dy)
                for xx in range(max(0, x - reach), min(width, x + reach + 1)):
                    value = labels[yy, xx]
                    lowest = min(lowest, value)
                    if abs(dy) + abs(xx - x) <= 1:
                        highest = max(highest, value)
            if highest != lowest:
                out[i, x - x0] = own
    return out
