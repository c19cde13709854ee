"""Write an image that is made band by band as a tiled pyramid, in constant memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

TILE = 512
QUALITY = 90
COARSEST = 1024
"""The last level has no longer side than this."""

Rows = Callable[[int, int], NDArray[np.uint8]]
"""Returns some rows of an image, in full width."""


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (rows, columns) of every level, each half the one before, rounded down."""
    shapes = [shape]
    while max(shapes[-1]) > COARSEST and min(shapes[-1]) > 1:
        shapes.append((shapes[-1][0] // 2, shapes[-1][1] // 2))
    return shapes


def write_pyramid(path: Path, shape: tuple[int, int], rows: Rows, mpp: float) -> None:
    """Write a pyramidal OME-TIFF (BigTIFF) of JPEG tiles.

    A level is written from top to bottom, and goes halved into a scratch file on disk, from which the next one is
    written: memory holds two bands of tiles, whatever the size.

    Parameters
    ----------
    path
        Replaced at the end, if all went well.
    shape
        Rows and columns of level 0.
    rows
        Gives the pixels of level 0.
    mpp
        Micrometres per pixel of level 0.
    """
    shapes = level_shapes(shape)
    draft = path.with_name(f".{path.name}.draft")
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mpp,
        "PhysicalSizeYUnit": "µm",
    }
    try:
        with (
            tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch,
            tifffile.TiffWriter(draft, bigtiff=True, ome=True) as tif,
        ):
            for number, here in enumerate(shapes):
                below = None
                if number + 1 < len(shapes):
                    below = _Scratch(Path(scratch) / f"{number + 1}.raw", shapes[number + 1])
                per_cm = 1e4 / (mpp * 2**number)
                tif.write(
                    _tiles(rows, here, below),
                    shape=(*here, 3),
                    dtype=np.uint8,
                    tile=(TILE, TILE),
                    photometric="rgb",
                    subsampling=(2, 2),
                    compression="jpeg",
                    compressionargs={"level": QUALITY},
                    resolution=(per_cm, per_cm),
                    resolutionunit="CENTIMETER",
                    subifds=len(shapes) - 1 if not number else None,
                    subfiletype=1 if number else 0,
                    metadata=metadata if not number else None,
                )
                if below is not None:
                    rows = below.rows
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


class _Scratch:
    """An image in a file, written from top to bottom, then read; not mapped, so that memory does not hold it."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self._path, self.shape = path, shape

    def append(self, band: NDArray[np.uint8]) -> None:
        with self._path.open("ab") as file:
            np.ascontiguousarray(band).tofile(file)

    def rows(self, y0: int, y1: int) -> NDArray[np.uint8]:
        row = 3 * self.shape[1]
        band = np.fromfile(self._path, np.uint8, (y1 - y0) * row, offset=y0 * row)
        return band.reshape(y1 - y0, self.shape[1], 3)


def _tiles(rows: Rows, shape: tuple[int, int], below: _Scratch | None) -> Iterator[NDArray[np.uint8]]:
    """Yield the tiles of a level in the order of the file; those at the far edges repeat their last pixels."""
    height, width = shape
    for y in range(0, height, TILE):
        band = rows(y, min(y + TILE, height))
        if below is not None:
            below.append(_halved(band, below.shape[1]))
        pad = ((0, TILE - len(band)), (0, -width % TILE), (0, 0))
        band = np.pad(band, pad, mode="edge") if pad[0][1] or pad[1][1] else band
        for x in range(0, band.shape[1], TILE):
            yield np.ascontiguousarray(band[:, x : x + TILE])


def _halved(band: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Return the means of 2 x 2 pixels, rounded half up; an odd last row or column is left out."""
    tall, wide = len(band) // 2 * 2, 2 * width
    pairs = band[:tall:2, :wide].astype(np.uint16) + band[1:tall:2, :wide]
    return ((pairs[:, ::2] + pairs[:, 1::2] + 2) >> 2).astype(np.uint8)
