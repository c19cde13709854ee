"""An image at the model's resolution, and the way back to level 0."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import ImageSource

TOLERANCE = 0.1
"""Relative difference of the resolutions up to which an image is used as it is: resampling would blur it for
nothing, since the network is trained with scale jitter well beyond this."""


class Resampled:
    """A source seen at another resolution, read window by window.

    A pixel's value depends only on its position in the whole image, never on the window it is read in (up to
    the rounding of 8-bit values).

    Parameters
    ----------
    source : ImageSource
        With a known mpp.
    mpp : float
        The wanted micrometres per pixel.

    Attributes
    ----------
    shape : (int, int)
        Height and width at the wanted resolution.
    mpp : float
        Of the source.
    """

    def __init__(self, source: ImageSource, mpp: float) -> None:
        if source.mpp.value is None:
            raise NucSegError("An image of unknown resolution cannot be resampled; state its mpp.")
        self.source, self.mpp = source, source.mpp.value
        ratio = self.mpp / mpp
        height, width = source.shape
        self.shape = (
            source.shape
            if abs(ratio - 1) <= TOLERANCE
            else (max(1, round(height * ratio)), max(1, round(width * ratio)))
        )
        self._zoom = np.array(self.shape) / np.array(source.shape)
        self._level = self._choose_level()

    def _choose_level(self) -> int:
        """Return the smallest level that still has at least the wanted number of pixels."""
        level = 0
        for k, shape in enumerate(self.source.level_shapes):
            if shape[0] >= self.shape[0] and shape[1] >= self.shape[1]:
                level = k
        return level

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return the pixels of a box at the wanted resolution: (rows, columns, 3) uint8."""
        level_shape = self.source.level_shapes[self._level]
        if self.shape == level_shape:
            return self.source.read(box.y0, box.y1, box.x0, box.x1, self._level)
        # Pillow widens its triangle filter when shrinking (no aliasing) and takes a box in fractions of a
        # pixel; a border of two filter supports makes the window's edge equal to the whole image's.
        step = np.array(level_shape) / np.array(self.shape)
        support = np.ceil(2 * np.maximum(step, 1)).astype(int) + 1
        low = np.array([box.y0, box.x0]) * step
        high = np.array([box.y1, box.x1]) * step
        y0, x0 = np.maximum(np.floor(low).astype(int) - support, 0)
        y1, x1 = np.minimum(np.ceil(high).astype(int) + support, level_shape)
        pixels = self.source.read(int(y0), int(y1), int(x0), int(x1), self._level)
        part = (low[1] - x0, low[0] - y0, min(high[1] - x0, x1 - x0), min(high[0] - y0, y1 - y0))
        rows, cols = box.shape
        return np.asarray(Image.fromarray(pixels).resize((cols, rows), Image.Resampling.BILINEAR, box=part))

    def to_model(self, box: Box) -> Box:
        """Return the smallest box at the wanted resolution that covers a box of level 0."""
        zy, zx = self._zoom
        return Box(
            int(np.floor(box.y0 * zy)),
            min(self.shape[0], int(np.ceil(box.y1 * zy))),
            int(np.floor(box.x0 * zx)),
            min(self.shape[1], int(np.ceil(box.x1 * zx))),
        )

    def to_level0(self, points: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return (n, 2) pixel positions of the wanted resolution in level-0 pixels."""
        result: NDArray[np.float64] = (points + 0.5) / self._zoom - 0.5
        return result

    def labels_to_level0(self, box: Box, labels: NDArray[np.uint32]) -> tuple[Box, NDArray[np.uint32]]:
        """Bring labels of a box to level 0 by the nearest pixel.

        Returns
        -------
        box : Box
            The level-0 pixels whose nearest neighbour lies in the given box, cut to the labelled part.
        labels : uint32
        """
        rows, cols = np.nonzero(labels.any(1))[0], np.nonzero(labels.any(0))[0]
        if rows.size == 0:
            return Box(0, 0, 0, 0), np.zeros((0, 0), np.uint32)
        y, y1 = self._nearest(box.y0 + int(rows[0]), box.y0 + int(rows[-1]) + 1, 0)
        x, x1 = self._nearest(box.x0 + int(cols[0]), box.x0 + int(cols[-1]) + 1, 1)
        out = labels[np.ix_(y1 - box.y0, x1 - box.x0)]
        if not (y.size and x.size):
            return Box(0, 0, 0, 0), np.zeros((0, 0), np.uint32)
        return Box(int(y[0]), int(y[-1]) + 1, int(x[0]), int(x[-1]) + 1), out

    def _nearest(self, start: int, stop: int, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Level-0 indices whose nearest pixel lies in start..stop - 1, and that pixel for each."""
        zoom, length = self._zoom[axis], self.source.shape[axis]
        first, last = int(start / zoom) - 2, int(stop / zoom) + 3
        index = np.arange(max(0, first), min(length, last))
        nearest = np.minimum(((index + 0.5) * zoom).astype(np.int64), self.shape[axis] - 1)
        keep = (nearest >= start) & (nearest < stop)
        return index[keep], nearest[keep]
