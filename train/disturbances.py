"""Ordinary disturbances of an image: what scanners, laboratories and file formats do to it.

Each is a pure function of an image and its resolution, with a name, in one table. All are deterministic, and none
touches the truth. Strengths that are lengths are in micrometres, so that they mean the same at every resolution.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from napari_nucseg.core.scale import Scale
from napari_nucseg.core.stain import hed_to_rgb, rgb_to_hed
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError

Image = NDArray[np.uint8]

HAEMATOXYLIN, EOSIN = 0, 1
"""Channels of `napari_nucseg.core.stain.rgb_to_hed`."""

UM_OF_BLUR = 0.25
"""The resolution at which the sigma of a blur counts in pixels."""

SEED = 0
"""Of the noise: every image of a size gets the same."""


class Disturb(Protocol):
    """What a disturbance does."""

    def __call__(self, image: Image, mpp: float, /) -> tuple[NDArray[Any], float]:
        """Return the disturbed image, and the resolution that is then stated, from (H, W, 3) uint8 and its own."""
        ...


@dataclass(frozen=True)
class Disturbance:
    """One row of the table.

    Attributes
    ----------
    key
        Short name without spaces, for the command line and the CSV.
    words
        What it is, for the table.
    apply
        Makes the disturbed image and the micrometres per pixel to state; the image given is left as it is.
    """

    key: str
    words: str
    apply: Disturb


def undisturbed(image: Image, mpp: float) -> tuple[Image, float]:
    """Return the image as it is."""
    return image, mpp


def resample(
    image: Image, mpp: float, *, to: float, stated: float | None = None
) -> tuple[NDArray[np.uint8], float]:
    """Bring an image to another resolution: by area when it shrinks, bicubic when it grows.

    Parameters
    ----------
    image : (H, W, 3) uint8
    mpp
        Micrometres per pixel of it.
    to
        Those of the result; its sides are rounded to whole pixels.
    stated
        What is said of the result; the truth, `to`, if not set.
    """
    height, width = (max(1, round(side * mpp / to)) for side in image.shape[:2])
    if (height, width) != image.shape[:2]:
        way = cv2.INTER_AREA if to > mpp else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)
    return image, to if stated is None else stated


def scale_stain(image: Image, mpp: float, *, stain: int, times: float) -> tuple[NDArray[np.uint8], float]:
    """Multiply the amount of one stain (Ruifrok & Johnston 2001); the others stay."""
    amounts = rgb_to_hed(image)
    amounts[..., stain] *= times
    return hed_to_rgb(amounts), mpp


def brighten(image: Image, mpp: float, *, times: float) -> tuple[NDArray[np.uint8], float]:
    """Multiply all values, as a longer or shorter exposure does; what gets too bright is white."""
    table = np.clip(np.rint(np.arange(256) * times), 0, 255).astype(np.uint8)
    return table[image], mpp


def compress_jpeg(image: Image, mpp: float, *, quality: int) -> tuple[NDArray[np.uint8], float]:
    """Write the image as JPEG and read it again."""
    file = io.BytesIO()
    Pillow.fromarray(image).save(file, "JPEG", quality=quality)
    with Pillow.open(file) as again:
        return np.array(again, np.uint8), mpp


def blur(image: Image, mpp: float, *, pixels: float) -> tuple[NDArray[np.uint8], float]:
    """Blur by a Gaussian whose sigma is so many pixels at `UM_OF_BLUR`, and as many micrometres elsewhere."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), pixels * UM_OF_BLUR / mpp), np.uint8), mpp


def add_noise(image: Image, mpp: float, *, deviation: float) -> tuple[NDArray[np.uint8], float]:
    """Add Gaussian noise, independent in every value, with this standard deviation in grey values."""
    noise = np.random.default_rng(SEED).standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image + np.float32(deviation) * noise), 0, 255).astype(np.uint8), mpp


def widen(image: Image, mpp: float) -> tuple[NDArray[np.uint16], float]:
    """Return the image in 16 bits a channel: 257 times every value, so that 255 becomes 65,535.

    The pipeline takes it as it takes a 16-bit file, whose values `napari_nucseg.io.image.PixelRule` brings back to
    8 bits; nothing should get lost.
    """
    return image.astype(np.uint16) * np.uint16(257), mpp


UNDISTURBED = Disturbance("none", "as it is", undisturbed)

DISTURBANCES: tuple[Disturbance, ...] = (
    *(
        Disturbance(f"mpp-{to:.2f}", f"resampled to {to:.2f} um/px", partial(resample, to=to))
        for to in (0.20, 0.30, 0.40, 0.50, 0.60)
    ),
    Disturbance("wrong-mpp", "resampled to 0.50 um/px, 0.25 stated", partial(resample, to=0.5, stated=0.25)),
    *(
        Disturbance(f"{word}-{times}", f"{word} x {times}", partial(scale_stain, stain=stain, times=times))
        for word, stain in (("haematoxylin", HAEMATOXYLIN), ("eosin", EOSIN))
        for times in (0.7, 1.4)
    ),
    Disturbance("darker", "15 % darker", partial(brighten, times=0.85)),
    Disturbance("brighter", "15 % brighter", partial(brighten, times=1.15)),
    Disturbance("jpeg-30", "JPEG of quality 30", partial(compress_jpeg, quality=30)),
    *(
        Disturbance(f"blur-{n}", f"blur, sigma {n * UM_OF_BLUR:.2f} um", partial(blur, pixels=n))
        for n in (1, 2)
    ),
    Disturbance("noise-10", "noise, deviation 10 of 255", partial(add_noise, deviation=10)),
    Disturbance("16-bit", "16 bits a channel", widen),
)
"""All disturbances, in the order of the table."""


def choose(keys: Sequence[str] = ()) -> list[Disturbance]:
    """Return the undisturbed image and the disturbances of these keys, or all, in the order of the table.

    Raises
    ------
    NucSegError
        There is no such disturbance.
    """
    known = [d.key for d in DISTURBANCES]
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
            raise NucSegError(f"Disturbance '{key}' is not known; {hint}")
    return [UNDISTURBED, *(d for d in DISTURBANCES if not keys or d.key in keys)]


def bring_back(labels: NDArray[np.uint32], shape: tuple[int, int]) -> NDArray[np.uint32]:
    """Bring labels of a resampled image to the size of the truth, each pixel from the nearest one.

    Every nucleus keeps its id. One that was smaller than a pixel of the truth may get lost.
    """
    if labels.shape == shape:
        return labels
    grids = Scale(shape, (labels.shape[0], labels.shape[1]))
    _, rows, columns = grids.covered(Box(0, labels.shape[0], 0, labels.shape[1]))
    return labels[np.ix_(rows, columns)]
