"""Training targets from instance labels: the ground truth of every map of `core.maps`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core import _target_kernels as kernels
from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError

IGNORE = 255
"""Value of `Targets.type` where the class of a pixel is not known; losses leave it out."""

SIGMA_PER_DIAMETER = 0.13
SIGMA_RANGE = (1.5, 5.0)
BAND_RADIUS = 2


@dataclass(frozen=True)
class Targets:
    """Targets of one image, all (H, W) in size.

    Attributes
    ----------
    foreground : uint8 (H, W)
        1 in a nucleus.
    distance : float32 (K, H, W)
        One signed distance map per angle, 0 outside nuclei.
    centre : float32 (H, W)
        Gaussian bumps of height 1.
    boundary : uint8 (H, W)
        `BACKGROUND`, `INSIDE` or `BAND`.
    type : uint8 (H, W)
        0 background, 1..C class, `IGNORE` unknown.
    """

    foreground: NDArray[np.uint8]
    distance: NDArray[np.float32]
    centre: NDArray[np.float32]
    boundary: NDArray[np.uint8]
    type: NDArray[np.uint8]


def split_parts(labels: NDArray[np.integer]) -> tuple[NDArray[np.int32], int]:
    """Give numbers to the 4-connected parts of every id.

    Parameters
    ----------
    labels : (H, W) integers, 0 = background, any ids

    Returns
    -------
    parts : (H, W) int32, 1..n in raster order
    n : int
    """
    if labels.ndim != 2:
        raise NucSegError(f"Labels of shape {labels.shape} are not an image; give a 2-D array of ids.")
    parts = np.zeros(labels.shape, np.int32)
    return parts, int(kernels.split(np.ascontiguousarray(labels), parts))


def distance_maps(
    labels: NDArray[np.integer],
    angles: tuple[int, ...] = (0, 90),
    crop: tuple[int, int] | None = None,
    min_area: int = 30,
) -> NDArray[np.float32]:
    """Signed distance of every pixel to its nucleus' centroid along each angle.

    The horizontal and vertical maps of Graham et al. 2019 (HoVer-Net), extended to any angle. Every 4-connected
    part of an id is a nucleus of its own. The origin of a nucleus is one pixel before its centroid rounded half
    up, and each side is divided by its own extreme, as in the published generator; so 0 (horizontal) and 90
    (vertical) equal its output. Unlike it, nuclei that touch the top or left border get their map too (there
    a negative slice start silently drops them), and ids need not be contiguous.

    Parameters
    ----------
    labels : (H, W) integers
    angles : degrees from the column axis towards the row axis
    crop : (rows, columns), optional
        Centre crop inside which `min_area` is counted; the whole image if None.
    min_area : int
        Nuclei with fewer pixels than this inside the crop stay 0.

    Returns
    -------
    (len(angles), H, W) float32 in [-1, 1]
    """
    parts, n = split_parts(labels)
    moments = kernels.moments(parts, n)
    inside = moments[:, 0]
    if crop is not None:
        y0, x0 = ((s - c) // 2 for s, c in zip(labels.shape, crop, strict=True))
        inside = np.bincount(parts[y0 : y0 + crop[0], x0 : x0 + crop[1]].ravel(), minlength=n + 1)
    return _distances(parts, moments, inside >= min_area, angles)


def _distances(
    parts: NDArray[np.int32],
    moments: NDArray[np.float64],
    keep: NDArray[np.bool_],
    angles: tuple[int, ...],
) -> NDArray[np.float32]:
    """Return the distance maps of numbered parts; those not to keep stay 0."""
    area = np.maximum(moments[:, 0], 1)
    origin = np.floor(moments[:, 1:] / area[:, None] + 0.5) - 1
    out = np.zeros((len(angles), *parts.shape), np.float32)
    for k, angle in enumerate(angles):
        cosine, sine = round(math.cos(math.radians(angle)), 12), round(math.sin(math.radians(angle)), 12)
        kernels.distance(parts, origin, keep, cosine, sine, out[k])
    return out


def centre_points(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return one pixel per 4-connected part, inside it and nearest to its centroid: (n, 2) rows and columns."""
    parts, n = split_parts(labels)
    return kernels.anchor(parts, kernels.moments(parts, n))[1:]


def make_targets(
    labels: NDArray[np.integer], types: NDArray[np.integer] | None, layout: MapLayout
) -> Targets:
    """Make every training target of one image.

    Parameters
    ----------
    labels : (H, W) integers, 0 = background
        Every 4-connected part of an id is a nucleus of its own.
    types : (H, W) integers or None
        0 background, 1..C class, `IGNORE` unknown; None if the image has no classes.
    layout : MapLayout

    Returns
    -------
    Targets
    """
    if types is not None and types.shape != labels.shape:
        raise NucSegError(f"Types of shape {types.shape} do not fit labels of shape {labels.shape}.")
    parts, n = split_parts(labels)
    moments = kernels.moments(parts, n)
    diameter = 2 * np.sqrt(moments[:, 0] / math.pi)
    centre = np.zeros(labels.shape, np.float32)
    kernels.bumps(
        kernels.anchor(parts, moments), np.clip(SIGMA_PER_DIAMETER * diameter, *SIGMA_RANGE), centre
    )
    boundary = np.zeros(labels.shape, np.uint8)
    kernels.boundary(parts, BAND_RADIUS, boundary)
    return Targets(
        foreground=(parts > 0).astype(np.uint8),
        distance=_distances(parts, moments, np.ones(n + 1, np.bool_), layout.angles),
        centre=centre,
        boundary=boundary,
        type=np.full(labels.shape, IGNORE, np.uint8) if types is None else types.astype(np.uint8),
    )
