"""Reading of PNG, JPEG and BMP files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp, from_dpi

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_CONVERTED = {"P": "RGB", "PA": "RGBA", "LA": "RGBA", "La": "RGBA"}
_FOREIGN = ("CMYK", "YCbCr", "LAB", "HSV")


def read_picture(path: Path) -> tuple[NDArray[Any], Mpp]:
    """Decode a picture completely, so that damage is found now.

    Returns
    -------
    pixels
        (H, W), (H, W, 3) or (H, W, 4), mostly uint8.
    mpp
        From the PNG's ``pHYs`` chunk or the like, where it's plausible for a microscope.

    Raises
    ------
    NucSegError
        The file is damaged, truncated, animated, or not in RGB.
    """
    try:
        with Image.open(path) as picture:
            return _pixels(picture, path), _mpp(picture)
    except NucSegError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).replace(str(path), path.name)
        raise NucSegError(f"{path.name} can't be read: {reason}; copy or export the file again") from error


def _pixels(picture: Image.Image, path: Path) -> NDArray[Any]:
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise NucSegError(f"{path.name} holds {frames} frames instead of one image; export a single one")
    if picture.mode in _FOREIGN:
        raise NucSegError(f"{path.name} stores its colours as {picture.mode}; export it as RGB")
    mode = _CONVERTED.get(picture.mode, picture.mode)
    if picture.mode == "P" and "transparency" in picture.info:
        mode = "RGBA"
    return np.asarray(picture if mode == picture.mode else picture.convert(mode))


def _mpp(picture: Image.Image) -> Mpp:
    return from_dpi(picture.info.get("dpi"), f"{picture.format or 'picture'} resolution") or Mpp()
