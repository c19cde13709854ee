"""The classical decode of horizontal and vertical maps, as Graham et al. 2019 describe it: written anew, to be timed.

Gradients of the maps by a wide Sobel filter, min-max-normalised over the image, mark the borders; what is left of the
foreground without them are the markers of a watershed; every nucleus then takes the commonest class of its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed

SOBEL = 21
"""Side of the Sobel filter, at 0.25 um per pixel."""

BORDER = 0.4
"""Normalised gradients above this are borders."""

SMALLEST = 10
"""Parts with fewer pixels are left out."""


@dataclass(frozen=True)
class HVMaps:
    """What the network would answer.

    Attributes
    ----------
    nucleus : float32 (H, W)
        Probability.
    distance : float32 (2, H, W)
        Horizontal and vertical, -1..1.
    types : uint8 (H, W)
        The likeliest class, 0 background.
    """

    nucleus: NDArray[np.float32]
    distance: NDArray[np.float32]
    types: NDArray[np.uint8]


def _scaled(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an image stretched to 0..1."""
    out: NDArray[np.float32] = cv2.normalize(image, None, 0, 1, cv2.NORM_MINMAX, dtype=cv2.CV_32F)
    return out


def decode(maps: HVMaps) -> NDArray[np.int32]:
    """Return the nuclei, 1..n, 0 elsewhere, of an image treated as one."""
    parts, _ = ndimage.label(maps.nucleus >= 0.5)
    inside = remove_small_objects(parts, max_size=SMALLEST - 1) > 0
    across, down = (_scaled(m) for m in maps.distance)
    borders = [
        1 - _scaled(cv2.Sobel(m, cv2.CV_32F, dx, 1 - dx, ksize=SOBEL)) for m, dx in ((across, 1), (down, 0))
    ]
    border = np.maximum(*borders)
    border = np.clip(border - ~inside, 0, None)
    basin = -cv2.GaussianBlur(((1 - border) * inside).astype(np.float32), (3, 3), 0)
    markers = ndimage.binary_fill_holes(inside & (border < BORDER))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    opened = cv2.morphologyEx(markers.astype(np.uint8), cv2.MORPH_OPEN, disc)
    seeds, _ = ndimage.label(opened)
    seeds = remove_small_objects(seeds, max_size=SMALLEST - 1)
    labels: NDArray[np.int32] = watershed(basin, seeds, mask=inside)
    return labels


def vote(labels: NDArray[np.int32], types: NDArray[np.uint8]) -> dict[int, tuple[NDArray[np.float64], int]]:
    """Return centroid and class of every nucleus, one after the other within their boxes.

    The commonest class wins; background only where there is no other.
    """
    found = {}
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        mask = labels[box] == number
        corner = np.array([box[0].start, box[1].start])
        centroid = np.argwhere(mask).mean(0) + corner
        names, counts = np.unique(types[box][mask], return_counts=True)
        order = [int(names[k]) for k in np.argsort(-counts)]
        chosen = order[1] if order[0] == 0 and len(order) > 1 else order[0]
        found[number] = centroid, chosen
    return found
