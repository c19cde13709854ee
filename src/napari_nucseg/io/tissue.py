"""Tissue of an image of any size, found on the coarsest level that will do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_nucseg.core.tiling import Box
from napari_nucseg.core.tissue import TissueConfig, TissueMask, tissue_in
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import replacing
from napari_nucseg.io.damage import Tolerant

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_nucseg.io.slide import ImageSource

_FINER = 2  # pixels looked at along a pixel of the mask
_COARSER = 1.5  # a level this much coarser than wanted still shows tissue, and saves reading a far larger one
_BLOCK = 2048  # side of the parts that are read, about


def find_tissue(source: ImageSource, config: TissueConfig | None = None) -> TissueMask:
    """Find the tissue of an image.

    Parameters
    ----------
    source
        With a known mpp. Of a pyramid only a coarse level is read; without one, level 0 is read part by part.
        What a `Tolerant` source can't read counts as tissue.
    config
        `TissueConfig()` by default.

    Raises
    ------
    NucSegError
        The mpp is unknown, or the pixels can't be read.
    """
    config = config or TissueConfig()
    mpp = source.mpp.value
    if mpp is None:
        raise NucSegError(
            f"Tissue can't be found at an unknown scale (the resolution is {source.mpp}); state the mpp."
        )
    height, width = source.shape
    if height * width < config.whole_below:
        return TissueMask.whole(source.shape)
    level, factor = _choose(source, mpp, config)
    level_shape = source.level_shapes[level]
    step = (height / level_shape[0], width / level_shape[1])
    fine = mpp * math.sqrt(step[0] * step[1]) * factor
    shrink = max(1, round(config.mpp / fine))
    mask = tissue_in(_shrunk(source, level, factor), fine, config, shrink)
    size = factor * shrink  # of a pixel of the mask in pixels of the level
    for damage in source.damages if isinstance(source, Tolerant) else ():
        if damage.level == level:
            b = damage.box
            mask[b.y0 // size : -(-b.y1 // size), b.x0 // size : -(-b.x1 // size)] = True
    return TissueMask(mask, source.shape, (size * step[0], size * step[1]))


def save_tissue(tissue: TissueMask, path: str | Path) -> None:
    """Write the mask as a PNG of 0 (glass) and 255 (tissue), one pixel per pixel of the mask.

    Raises
    ------
    NucSegError
        The file can't be written.
    """
    with replacing(path) as draft, draft.open("wb") as file:
        Image.fromarray(tissue.mask.astype(np.uint8) * np.uint8(255)).save(file, "PNG")


def _choose(source: ImageSource, mpp: float, config: TissueConfig) -> tuple[int, int]:
    """Return the coarsest level that is fine enough, and by which whole factor it is to be shrunk."""
    wanted = config.mpp / _FINER
    level, shrink = 0, 1.0
    for k, shape in enumerate(source.level_shapes):
        here = math.sqrt(source.shape[0] / shape[0] * source.shape[1] / shape[1])
        if mpp * here <= wanted * _COARSER:
            level, shrink = k, here
    return level, max(1, round(wanted / (mpp * shrink)))


def _shrunk(source: ImageSource, level: int, factor: int) -> NDArray[np.uint8]:
    """Return a level shrunk to block means of factor x factor pixels; it never lies in memory whole."""
    height, width = source.level_shapes[level]
    out = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    for box in _parts(height, width, factor):
        pixels = source.read(box.y0, box.y1, box.x0, box.x1, level)
        small = np.asarray(Image.fromarray(pixels).reduce(factor)) if factor > 1 else pixels
        y, x = box.y0 // factor, box.x0 // factor
        out[y : y + small.shape[0], x : x + small.shape[1]] = small
    return out


def _parts(height: int, width: int, factor: int) -> Iterator[Box]:
    side = max(1, _BLOCK // factor) * factor
    for y in range(0, height, side):
        for x in range(0, width, side):
            yield Box(y, min(y + side, height), x, min(x + side, width))
