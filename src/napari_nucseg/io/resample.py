"""An image at the model's resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.resize import Resize
from napari_nucseg.core.scale import Scale
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import ImageSource

TOLERANCE = 0.1
"""Relative difference of the resolutions up to which an image is used as it is: resampling would blur it for
nothing, since the network is trained with scale jitter well beyond this."""


class Resampled:
    """A source seen at another resolution, read window by window.

    A pixel's value depends only on its position in the whole image, never on the window it is read in.

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
    scale : Scale
        From level 0 to the wanted resolution.
    mpp : float
        Of the source.
    level : int
        Of the source, which is read.
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
        self.scale = Scale(source.shape, self.shape)
        self.level = self._choose_level()

    def _choose_level(self) -> int:
        """Return the smallest level that still has at least the wanted number of pixels."""
        level = 0
        for k, shape in enumerate(self.source.level_shapes):
            if shape[0] >= self.shape[0] and shape[1] >= self.shape[1]:
                level = k
        return level

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return the pixels of a box at the wanted resolution: (rows, columns, 3) uint8."""
        level_shape = self.source.level_shapes[self.level]
        if self.shape == level_shape:
            return self.source.read(box.y0, box.y1, box.x0, box.x1, self.level)
        resize = Resize(level_shape, self.shape)
        need = resize.needed(box)
        return resize.apply(self.source.read(need.y0, need.y1, need.x0, need.x1, self.level), box)
