"""Slides read through OpenSlide (the `wsi` extra), as lazy pyramids."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp
from napari_nucseg.io.tiles import CACHE_BYTES, TileCache, assemble

EXTENSIONS = (".mrxs", ".vms", ".vmu", ".zvi", ".czi", ".dcm", ".svslide")
"""File name extensions of what only OpenSlide reads."""

_CELL = 256  # side of the parts that are read, where the file does not say how it is cut
_CELLS = (128, 1024)  # sides of tiles that are read one by one


class OpenSlidePyramid:
    """An open slide; reading is safe from several threads.

    It is read in cells on a fixed grid (the tiles of the file where they are known), so a pixel's value never depends
    on the window that was asked for. OpenSlide refuses everything after an error: then the slide is opened
    anew, and only what is damaged fails.

    Parameters
    ----------
    path
        Any file that OpenSlide opens.

    Raises
    ------
    NucSegError
        OpenSlide is not installed, or cannot open the file.
    """

    is_rgb = True

    def __init__(self, path: Path) -> None:
        try:
            import openslide
        except (ImportError, OSError) as error:
            raise NucSegError(
                f"{path.name} is read through OpenSlide, which is not installed; "
                "pip install openslide-python openslide-bin, or convert the slide to OME-TIFF."
            ) from error
        self._path = path
        self._open, self._errors = openslide.OpenSlide, (openslide.OpenSlideError, OSError)
        self._lock = threading.Lock()
        self._cache = TileCache(CACHE_BYTES)
        slide = self._opened()
        # a closed handle is let go rather than closed, since another thread may still be reading from it
        self._slide: Any = slide
        self.level_shapes: tuple[tuple[int, int], ...] = tuple((h, w) for w, h in slide.level_dimensions)
        self._scales = slide.level_downsamples
        self._cells = [_cell(slide.properties, level) for level in range(len(self.level_shapes))]
        self.mpp = _mpp(slide.properties)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._slide is None

    def tile_shape(self, level: int) -> tuple[int, int]:
        """Return (height, width) of the cells in which a level is read."""
        return self._cells[level]

    def read(self, y0: int, y1: int, x0: int, x1: int, level: int = 0) -> NDArray[np.uint8]:
        """Return a region, in pixels of its level, as (y1 - y0, x1 - x0, 3) uint8; what was not scanned is white."""
        if self.closed:
            raise NucSegError(f"{self._path.name} has been closed; open it again with read_image")
        out = np.empty((max(0, y1 - y0), max(0, x1 - x0), 3), np.uint8)
        assemble(out, (y0, x0), self._cells[level], lambda row, column: self._cell(level, row, column))
        return out

    def close(self) -> None:
        """Close the slide; further reads raise."""
        self._slide = None
        self._cache.clear()

    def _opened(self) -> Any:
        try:
            return self._open(self._path)
        except self._errors as error:
            raise NucSegError(
                f"{self._path.name} cannot be read as a slide ({_short(error)}); copy or export it again."
            ) from error

    def _cell(self, level: int, row: int, column: int) -> NDArray[np.uint8]:
        """Return a cell, (rows, columns, 3)."""
        key = (level, row, column)
        known = self._cache.get(key)
        if known is not None:
            return known
        slide = self._slide
        if slide is None:
            raise NucSegError(f"{self._path.name} has been closed; open it again with read_image")
        try:
            pixels = self._decoded(slide, level, row, column)
        except self._errors:
            pixels = self._again(slide, level, row, column)
        self._cache.put(key, pixels)
        return pixels

    def _again(self, failed: Any, level: int, row: int, column: int) -> NDArray[np.uint8]:
        """Read a cell through a fresh handle: the other may have failed because of another cell."""
        fresh = self._opened()
        try:
            pixels = self._decoded(fresh, level, row, column)
        except self._errors as error:
            fresh = self._opened()
            raise NucSegError(
                f"{self._path.name} cannot be read in row {row}, column {column} of the tiles of level {level} "
                f"({_short(error)}); copy or export it again."
            ) from error
        finally:
            with self._lock:
                if self._slide is failed:
                    self._slide = fresh
        return pixels

    def _decoded(self, slide: Any, level: int, row: int, column: int) -> NDArray[np.uint8]:
        (tall, wide), (height, width) = self._cells[level], self.level_shapes[level]
        y0, x0 = row * tall, column * wide
        y1, x1 = min(y0 + tall, height), min(x0 + wide, width)
        scale = self._scales[level]
        # whole pixels of level 0, so OpenSlide interpolates where the level does not divide them: alike in every window
        region = slide.read_region((round(x0 * scale), round(y0 * scale)), level, (x1 - x0, y1 - y0))
        rgba = np.asarray(region)
        if rgba[..., 3].min(initial=255) == 255:
            return np.ascontiguousarray(rgba[..., :3])
        alpha = rgba[..., 3:].astype(np.uint16)
        blended = (rgba[..., :3].astype(np.uint16) * alpha + 255 * (255 - alpha) + 127) // 255
        return blended.astype(np.uint8)


def _cell(properties: Any, level: int) -> tuple[int, int]:
    """Return (height, width) of the cells of a level."""
    sides = (properties.get(f"openslide.level[{level}].tile-{side}", "") for side in ("height", "width"))
    tall, wide = (int(text) if text.isdigit() else 0 for text in sides)
    fits = _CELLS[0] <= min(tall, wide) and max(tall, wide) <= _CELLS[1]
    return (tall, wide) if fits else (_CELL, _CELL)


def _mpp(properties: Any) -> Mpp:
    try:
        x = float(properties["openslide.mpp-x"])
        return Mpp.found(x, float(properties.get("openslide.mpp-y") or x), "OpenSlide")
    except (KeyError, ValueError):
        return Mpp()


def _short(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:160] or type(error).__name__
