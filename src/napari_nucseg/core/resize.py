"""Resampling of windows of an image, such that every window gives the very pixels of the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core._resample_kernels import BITS, sum_columns, sum_rows
from napari_nucseg.core.tiling import Box


@dataclass(frozen=True)
class _Taps:
    """Which pixels of an axis make which others: `weights` (n, taps) of those from `first` (n,) on."""

    first: NDArray[np.int64]
    weights: NDArray[np.int32]

    @property
    def span(self) -> tuple[int, int]:
        """First pixel needed, and the one after the last."""
        return int(self.first.min()), int(self.first.max()) + self.weights.shape[1]


def _taps(start: int, stop: int, length: int, wanted: int) -> _Taps:
    """Return what makes the pixels start..stop of an axis that goes from `length` to `wanted` pixels.

    A triangle, widened when shrinking so that nothing is aliased, normalised at the borders: Pillow's bilinear
    filter. Nothing here depends on the window but which pixels are asked for.
    """
    step = length / wanted
    support = max(step, 1.0)
    centres = (np.arange(start, stop) + 0.5) * step
    taps = min(length, math.ceil(2 * support))
    low = np.floor(centres - support + 0.5).astype(np.int64)
    first = np.clip(low, 0, length - taps)
    at = first[:, None] + np.arange(taps)
    weights = np.clip(1.0 - np.abs((at + 0.5 - centres[:, None]) / support), 0.0, None)
    weights /= weights.sum(1, keepdims=True)
    whole = np.floor(weights * (1 << BITS)).astype(np.int32)
    # the weights of a pixel sum up exactly, so that a plain area keeps its colour
    heaviest = whole.argmax(1)
    whole[np.arange(len(whole)), heaviest] += (1 << BITS) - whole.sum(1, dtype=np.int32)
    return _Taps(first, whole)


@dataclass(frozen=True)
class Resize:
    """The step from an image of one size to the same at another.

    Parameters
    ----------
    shape, wanted : (int, int)
        Height and width, before and after.
    """

    shape: tuple[int, int]
    wanted: tuple[int, int]

    def needed(self, box: Box) -> Box:
        """Return the pixels of the image that make a box of the wanted one."""
        rows, columns = self._both(box)
        return Box(*rows.span, *columns.span)

    def apply(self, pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
        """Return a box of the wanted image.

        Parameters
        ----------
        pixels
            What `needed` says, (rows, columns, 3) uint8.
        box
            A box of the wanted image that holds a pixel.
        """
        rows, columns = self._both(box)
        left, top = columns.span[0], rows.span[0]
        pixels = np.ascontiguousarray(pixels)
        wide = sum_columns(pixels, (columns.first - left).astype(np.int32), columns.weights)
        flat = wide.reshape(len(wide), -1)
        return sum_rows(flat, (rows.first - top).astype(np.int32), rows.weights).reshape(*box.shape, 3)

    def _both(self, box: Box) -> tuple[_Taps, _Taps]:
        return (
            _taps(box.y0, box.y1, self.shape[0], self.wanted[0]),
            _taps(box.x0, box.x1, self.shape[1], self.wanted[1]),
        )
