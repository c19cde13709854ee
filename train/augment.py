"""Augmentation: what H&E images differ in from lab to lab, applied to one crop at a time.

A crop is a pure function of (images, config, seed, index): a killed training resumes with exactly the crops that
an uninterrupted one would have seen, whatever the number of loader workers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.stain import jitter_stain
from napari_nucseg.errors import NucSegError

Image = NDArray[np.uint8]
cv2.setNumThreads(0)


@dataclass(frozen=True)
class AugmentConfig:
    """Strengths and probabilities.

    Parameters
    ----------
    scale : float
        Half width of the log-uniform scale jitter (0.25: from 1/1.28 to 1.28).
    stain : float
        Largest relative change of each stain (Tellez et al. 2018), with probability `p_stain`.
    colour : float
        Half width of brightness, contrast and channel gains, with probability `p_colour`.
    blur : float
        Largest Gaussian sigma in pixels.
    noise : float
        Largest standard deviation of Gaussian noise in grey values.
    jpeg : int
        Lowest JPEG quality.
    p_coarse : float
        Probability of a detour through half the resolution (a 20x scan).
    """

    scale: float = 0.25
    stain: float = 0.25
    p_stain: float = 0.8
    colour: float = 0.12
    p_colour: float = 0.5
    blur: float = 1.2
    p_blur: float = 0.25
    noise: float = 8.0
    p_noise: float = 0.25
    jpeg: int = 35
    p_jpeg: float = 0.25
    p_coarse: float = 0.12

    def __post_init__(self) -> None:
        for item in fields(self):
            value, most = getattr(self, item.name), 1.0 if item.name.startswith("p_") else math.inf
            if not 0 <= value <= most:
                limit = "and at most 1" if most == 1 else "or more"
                raise NucSegError(f"augment.{item.name}={value:g} is impossible; it must be 0 {limit}.")


def random_affine(
    rng: np.random.Generator, aim: tuple[float, float], zoom: float, size: int, jitter: float
) -> NDArray[np.float64]:
    """Return the 2x3 matrix from crop to source pixels: any rotation, a flip, and scale jitter around `aim`.

    Parameters
    ----------
    aim : (row, col) of the source that comes to the crop's middle
    zoom : source pixels per crop pixel before jitter
    """
    angle = rng.uniform(0, 2 * np.pi)
    step = zoom * np.exp(rng.uniform(-jitter, jitter))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    c, s = step * np.cos(angle), step * np.sin(angle)
    linear = np.array([[c * flip, -s], [s * flip, c]])
    middle = (size - 1) / 2
    shift = np.array([aim[1], aim[0]]) - linear @ np.array([middle, middle])
    return np.hstack([linear, shift[:, None]])


def warp(source: NDArray, matrix: NDArray[np.float64], size: int, nearest: bool) -> NDArray:
    """Sample a (size, size) crop; beyond the border the image is mirrored.

    Where the crop is much coarser than the source, a pixel is the mean over what it covers, unless `nearest`.
    """
    step = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    times = 1 if nearest else max(1, round(step))
    if times > 1:
        linear = matrix[:, :2] / times
        # the middle of a coarse pixel is the middle of its fine ones
        shift = matrix[:, 2:] - linear @ np.full((2, 1), (times - 1) / 2)
        fine = warp(source, np.hstack([linear, shift]), size * times, nearest)
        return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
    flags = (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(source, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def _colour(image: Image, rng: np.random.Generator, amount: float) -> Image:
    gain = (1 + rng.uniform(-amount, amount)) * (1 + rng.uniform(-amount, amount, 3) / 2)
    offset = 255 * rng.uniform(-amount, amount) / 2
    table = np.clip(np.arange(256)[:, None] * gain + offset, 0, 255)
    return np.asarray(cv2.LUT(image, np.rint(table).astype(np.uint8).reshape(1, 256, 3)), np.uint8)


def _jpeg(image: Image, quality: int) -> Image:
    # OpenCV takes and gives BGR; JPEG weighs red and blue differently
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])


def augment_colour(image: Image, rng: np.random.Generator, config: AugmentConfig) -> Image:
    """Vary stain, colour, sharpness, noise and compression of one (H, W, 3) uint8 crop."""
    if rng.random() < config.p_stain:
        image = jitter_stain(image, rng, config.stain)
    if rng.random() < config.p_colour:
        image = _colour(image, rng, config.colour)
    if rng.random() < config.p_coarse:
        half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        image = cv2.resize(half, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    elif rng.random() < config.p_blur:
        sigma = rng.uniform(min(0.3, config.blur), config.blur)
        image = cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0 else image
    if rng.random() < config.p_noise:
        noisy = rng.standard_normal(image.shape, np.float32)
        noisy *= np.float32(rng.uniform(min(1.0, config.noise), config.noise))
        noisy += image
        image = np.clip(np.rint(noisy, out=noisy), 0, 255, out=noisy).astype(np.uint8)
    if rng.random() < config.p_jpeg:
        image = _jpeg(image, int(rng.integers(min(config.jpeg, 95), 96)))
    return image
