"""A large image of real tissue, put together from the training images at 0.25 um per pixel."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_nucseg.core.synthetic import synthetic_he

SETS = ("monuseg", "consep")
"""Sets of large images at 0.25 um per pixel."""

MPP = 0.25


@dataclass(frozen=True)
class Mosaic:
    """An image to measure on.

    Attributes
    ----------
    image : (H, W, 3) uint8
    origin : str
        What it is made of.
    mpp : float
    """

    image: NDArray[np.uint8]
    origin: str
    mpp: float = MPP

    @property
    def megapixels(self) -> float:
        """Size in millions of pixels."""
        return self.image.shape[0] * self.image.shape[1] / 1e6


def training_images(data: Path) -> Iterator[Path]:
    """Yield the training images of `SETS` in turns, by name; never those of a test split."""
    files = [sorted((data / name / "train" / "images").glob("*.*")) for name in SETS if _fits(data / name)]
    for group in itertools.zip_longest(*files):
        yield from (path for path in group if path is not None)


def _fits(folder: Path) -> bool:
    meta = folder / "dataset.json"
    return meta.is_file() and json.loads(meta.read_text()).get("mpp") == MPP


def mosaic(data: Path, shape: tuple[int, int] = (2048, 2048)) -> Mosaic:
    """Fill an image of `shape` with whole training images side by side, cut at the right and lower edge.

    Parameters
    ----------
    data
        Folder of the data sets. Where it holds none, the synthetic sample is drawn in this size.
    shape
        Rows and columns.

    Returns
    -------
    Mosaic
        The same for the same data and shape. Images are used again where there are too few.
    """
    paths = list(training_images(data))
    if not paths:
        return Mosaic(synthetic_he(shape, mpp=MPP).image, "synthetic tissue (the real data are not there)")
    canvas = np.empty((*shape, 3), np.uint8)
    pool = itertools.cycle(paths)
    used: set[Path] = set()
    y = 0
    while y < shape[0]:
        x, height = 0, shape[0] - y
        while x < shape[1]:
            path = next(pool)
            used.add(path)
            part = np.asarray(Image.open(path).convert("RGB"))[: shape[0] - y, : shape[1] - x]
            height = min(height, part.shape[0])
            canvas[y : y + height, x : x + part.shape[1]] = part[:height]
            x += part.shape[1]
        y += height
    return Mosaic(canvas, f"{len(used)} training images of {' and '.join(SETS)}")
