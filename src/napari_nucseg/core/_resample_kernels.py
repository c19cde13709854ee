"""Weighted sums of columns and of rows, for resampling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

BITS = 22  # of the weights: 255 times their sum just fits 32 bits


@njit(cache=True, nogil=True)
def sum_columns(
    pixels: NDArray[np.uint8], first: NDArray[np.int32], weights: NDArray[np.int32]
) -> NDArray[np.uint8]:
    """Return (h, n, 3): pixel i of a row is the sum of the pixels from first[i] on, times weights[i]."""
    height, (count, taps) = pixels.shape[0], weights.shape
    out = np.empty((height, count, 3), np.uint8)
    half = np.int32(1 << (BITS - 1))
    for y in range(height):
        for i in range(count):
            red, green, blue = half, half, half
            at = first[i]
            for k in range(taps):
                w = weights[i, k]
                red += w * np.int32(pixels[y, at + k, 0])
                green += w * np.int32(pixels[y, at + k, 1])
                blue += w * np.int32(pixels[y, at + k, 2])
            out[y, i, 0] = red >> BITS
            out[y, i, 1] = green >> BITS
            out[y, i, 2] = blue >> BITS
    return out


@njit(cache=True, nogil=True)
def sum_rows(
    pixels: NDArray[np.uint8], first: NDArray[np.int32], weights: NDArray[np.int32]
) -> NDArray[np.uint8]:
    """Return (n, w): row i is the sum of the rows from first[i] on, times weights[i]."""
    width, (count, taps) = pixels.shape[1], weights.shape
    out = np.empty((count, width), np.uint8)
    total = np.empty(width, np.int32)
    for i in range(count):
        total[:] = np.int32(1 << (BITS - 1))
        for k in range(taps):
            w = weights[i, k]
            if w:
                row: Any = pixels[first[i] + k]
                for x in range(width):
                    total[x] += w * np.int32(row[x])
        for x in range(width):
            out[i, x] = total[x] >> BITS
    return out
