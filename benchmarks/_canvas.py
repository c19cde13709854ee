"""What a large mosaic is made of: square cells of real tissue, each in one of eight orientations."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.mosaic import MPP, training_images
from napari_nucseg.core.synthetic import synthetic_he
from napari_nucseg.errors import NucSegError

DENSITY = 1000
"""Nuclei per megapixel that the chosen images have on average: 100,000 in 10,000 x 10,000 px, a cellular tumour."""

ORIENTATIONS = 8
"""Turns by 90 degrees, plain and mirrored."""

SAME_SCALE = 0.05
"""Images whose resolution differs by no more than this count as 0.25 um per pixel."""

SYNTHETIC_SIDE = 1000


@dataclass(frozen=True)
class Canvas:
    """An image of any size that is made band by band.

    Parameters
    ----------
    pictures : tuple of uint8 (side, side, 3)
    shape : (int, int)
        Rows and columns.
    origin : str
        What it is made of.
    """

    pictures: tuple[NDArray[np.uint8], ...]
    shape: tuple[int, int]
    origin: str

    @property
    def side(self) -> int:
        """Pixels along the side of a cell."""
        return len(self.pictures[0])

    def cell(self, row: int, column: int) -> NDArray[np.uint8]:
        """Return a cell: the pictures in a new order, each in its next orientation, every time all have been used."""
        number = row * -(-self.shape[1] // self.side) + column
        turn, place = divmod(number, len(self.pictures))
        picture = _order(len(self.pictures), turn)[place]
        return oriented(self.pictures[picture], turn + picture if turn else 0)

    def rows(self, y0: int, y1: int) -> NDArray[np.uint8]:
        """Return the rows y0..y1 - 1 in full width."""
        height, width = self.shape
        side, out = self.side, np.empty((y1 - y0, width, 3), np.uint8)
        for row in range(y0 // side, -(-min(y1, height) // side)):
            a, b = max(y0, row * side), min(y1, (row + 1) * side)
            for column in range(-(-width // side)):
                x0, x1 = column * side, min((column + 1) * side, width)
                part = self.cell(row, column)[a - row * side : b - row * side, : x1 - x0]
                out[a - y0 : b - y0, x0:x1] = part
        return out


def oriented(picture: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Return a picture in one of its `ORIENTATIONS`, 0 being as it is."""
    mirrored = picture[:, ::-1] if number % ORIENTATIONS >= 4 else picture
    return np.rot90(mirrored, number % 4)


@lru_cache(maxsize=256)
def _order(count: int, turn: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(turn).permutation(count).tolist())


def make_canvas(data: Path, shape: tuple[int, int], density: float = DENSITY) -> Canvas:
    """Choose the pictures of a mosaic.

    Parameters
    ----------
    data
        Folder of the data sets. Without any, the synthetic sample is used.
    shape
        Rows and columns of the mosaic.
    density
        The training images with most nuclei are taken, so many that they have this many nuclei per megapixel
        on average; all of them where they have fewer.

    Raises
    ------
    NucSegError
        The size is not a positive number.
    """
    if min(shape) < 1:
        raise NucSegError(f"A mosaic of {shape[1]} x {shape[0]} px holds nothing; ask for 1 px at least.")
    ranked = sorted(((_density(p), p) for p in _of_known_scale(data)), key=lambda known: -known[0])
    mean = np.cumsum([d for d, _ in ranked]) / np.arange(1, len(ranked) + 1)
    chosen = [path for (_, path), m in zip(ranked, mean, strict=True) if m >= density]
    chosen = chosen or [path for _, path in ranked]
    if not chosen:
        picture = synthetic_he((SYNTHETIC_SIDE, SYNTHETIC_SIDE), mpp=MPP).image
        return Canvas((picture,), shape, "synthetic tissue (the real data are not there)")
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in chosen]
    side = min(min(p.shape[:2]) for p in pictures)
    sets = " and ".join(sorted({path.parts[-4] for path in chosen}))
    cells = -(-shape[0] // side) * -(-shape[1] // side)
    origin = (
        f"{len(chosen)} training images of {sets} in {cells:,} cells of {side} px; repeated images are turned or "
        f"mirrored ({len(chosen) * ORIENTATIONS} different cells)"
    )
    return Canvas(tuple(p[:side, :side] for p in pictures), shape, origin)


def _of_known_scale(data: Path) -> list[Path]:
    """Return the training images, less those that the index of their set says to be of another resolution."""
    return [path for path in training_images(data) if path.stem not in _other_scale(path.parents[2])]


@lru_cache(maxsize=8)
def _other_scale(folder: Path) -> frozenset[str]:
    index = folder / "index.csv"
    if not index.is_file():
        return frozenset()
    with index.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return frozenset(row["name"] for row in rows if abs(float(row["mpp"]) / MPP - 1) > SAME_SCALE)


def _density(image: Path) -> float:
    """Return the annotated nuclei per megapixel, 0 where there are no annotations."""
    labels = image.parents[1] / "instances" / f"{image.stem}.png"
    if not labels.is_file():
        return 0.0
    ids = np.asarray(Image.open(labels))
    return float(np.count_nonzero(np.bincount(ids.ravel())[1:])) / (ids.size / 1e6)
