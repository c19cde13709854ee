"""Part of a large image, seen as an image of its own: what is found there comes into layers of its size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg.io.mpp import Mpp
    from napari_nucseg.io.slide import ImageSource

LARGE = 150_000_000
"""Pixels from which on an image is dealt with as a slide: regions get layers of their own, the whole goes to files."""

MOST = 400_000_000
"""Pixels of the largest region whose results are held in one Labels layer (1.6 GB)."""

ALIGN = 64
"""Places begin on multiples of this many pixels, so that tiles and levels lie as they do in the whole image."""

CONTEXT = 256
"""Pixels at the model's resolution around a region that the network and the decoder look at."""


def is_large(shape: tuple[int, int]) -> bool:
    """Return whether an image is too large to hold the results of all of it in one layer."""
    return shape[0] * shape[1] > LARGE


def place_of(box: Box, shape: tuple[int, int], zoom: float = 1.0) -> Box:
    """Return the part of an image that is needed to segment a box of it.

    Parameters
    ----------
    box : Box
        Level 0.
    shape : (int, int)
        Of the image.
    zoom : float
        Pixels of the image per pixel of the model.

    Raises
    ------
    NucSegError
        It is too large to hold the results in memory.
    """
    grown = box.grown(math.ceil(CONTEXT * zoom), shape)
    place = Box(
        grown.y0 // ALIGN * ALIGN,
        min(-(-grown.y1 // ALIGN) * ALIGN, shape[0]),
        grown.x0 // ALIGN * ALIGN,
        min(-(-grown.x1 // ALIGN) * ALIGN, shape[1]),
    )
    rows, cols = place.shape
    if rows * cols > MOST:
        raise NucSegError(
            f"This region has {rows * cols / 1e6:,.0f} megapixels, and a layer holds {MOST / 1e6:,.0f}; zoom in or "
            "draw a smaller shape, or choose Whole image, whose results go to a folder."
        )
    return place


def holds(place: Box | None, box: Box) -> bool:
    """Return whether a place holds all of a box."""
    return place is not None and place.cut(box) == box


class Crop:
    """Part of an image as an image of its own.

    Parameters
    ----------
    source : ImageSource
    place : Box
        Level 0.
    """

    def __init__(self, source: ImageSource, place: Box) -> None:
        self._source, self._place = source, place
        self.mpp: Mpp = source.mpp
        shape = source.shape
        self._levels: list[tuple[int, int, tuple[int, int]]] = []  # number, factor, shape
        for k, level in enumerate(source.level_shapes):
            factor = round(shape[0] / level[0])
            fits = all(abs(n / factor - m) < 1 for n, m in zip(shape, level, strict=True))
            if not fits or place.y0 % factor or place.x0 % factor:
                continue
            rows = min(-(-place.y1 // factor), level[0]) - place.y0 // factor
            cols = min(-(-place.x1 // factor), level[1]) - place.x0 // factor
            known = self._levels[-1][2] if self._levels else (rows + 1, cols + 1)
            if rows > 0 and cols > 0 and (rows, cols) < known:
                self._levels.append((k, factor, (rows, cols)))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of level 0."""
        return self.level_shapes[0]

    @property
    def level_shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every level that begins where the place does."""
        return tuple(shape for _, _, shape in self._levels)

    def read(self, y0: int, y1: int, x0: int, x1: int, level: int = 0) -> NDArray[np.uint8]:
        """See `ImageSource.read`."""
        number, factor, (rows, cols) = self._levels[level]
        if not (0 <= y0 <= y1 <= rows and 0 <= x0 <= x1 <= cols):
            raise NucSegError(f"rows {y0}..{y1}, columns {x0}..{x1} do not lie in a place of {rows} x {cols}")
        y, x = self._place.y0 // factor, self._place.x0 // factor
        return self._source.read(y + y0, y + y1, x + x0, x + x1, number)


def as_list(place: Box | None) -> list[int] | None:
    """Return a place as it is written to files and metadata."""
    return None if place is None else [place.y0, place.y1, place.x0, place.x1]


def from_list(numbers: Any) -> Box | None:
    """Return what `as_list` has written."""
    return None if numbers is None else Box(*(int(n) for n in numbers))
