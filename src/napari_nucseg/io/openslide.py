"""Slides of formats that only OpenSlide reads (the `wsi` extra), as lazy pyramids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp

EXTENSIONS = (".mrxs", ".vms", ".vmu", ".zvi", ".czi", ".dcm", ".svslide")


class OpenSlidePyramid:
    """An open slide; reading is safe from several threads (OpenSlide's own guarantee).

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
        self._path, self._closed = path, False
        self._error = openslide.OpenSlideError
        try:
            self._slide = openslide.OpenSlide(path)
        except (openslide.OpenSlideError, OSError) as error:
            raise NucSegError(
                f"{path.name} cannot be read as a slide ({error}); copy or export it again."
            ) from error
        x, y = (self._slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy")
        self.mpp = Mpp.found(float(x), float(y or x), "OpenSlide") if x else Mpp()

    @property
    def level_shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every level, the largest first."""
        return tuple((h, w) for w, h in self._slide.level_dimensions)

    def read(self, y0: int, y1: int, x0: int, x1: int, level: int = 0) -> NDArray[np.uint8]:
        """Return a region, in pixels of its level, as (y1 - y0, x1 - x0, 3) uint8; what was not scanned is white."""
        if self._closed:
            raise NucSegError(f"{self._path.name} has been closed; open it again with read_image")
        if y1 <= y0 or x1 <= x0:
            return np.zeros((max(0, y1 - y0), max(0, x1 - x0), 3), np.uint8)
        scale = self._slide.level_downsamples[level]
        try:
            region = self._slide.read_region(
                (round(x0 * scale), round(y0 * scale)), level, (x1 - x0, y1 - y0)
            )
        except self._error as error:
            raise NucSegError(
                f"{self._path.name} cannot be read any more ({error}); open it again."
            ) from error
        rgba = np.asarray(region)
        alpha = rgba[..., 3:].astype(np.uint16)
        blended = (rgba[..., :3].astype(np.uint16) * alpha + 255 * (255 - alpha) + 127) // 255
        return blended.astype(np.uint8)

    def close(self) -> None:
        """Close the slide; further reads raise."""
        self._closed = True
        self._slide.close()
