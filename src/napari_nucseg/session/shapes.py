"""Masks of nuclei: their inner point, their parts, and how several become one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def inner_point(mask: Mask) -> tuple[int, int]:
    """Return the pixel of a mask that is farthest from its edge; of several the nearest to the centroid."""
    depth = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
    rows, cols = np.nonzero(depth == depth.max())
    where = np.argwhere(mask).mean(0)
    nearest = ((rows - where[0]) ** 2 + (cols - where[1]) ** 2).argmin()
    return int(rows[nearest]), int(cols[nearest])


def parts_of(mask: Mask) -> list[Mask]:
    """Return the 4-connected parts of a mask, the largest first."""
    numbers, n = ndimage.label(mask)
    sizes = np.bincount(numbers.ravel())[1:]
    return [numbers == k + 1 for k in np.argsort(-sizes, kind="stable")[:n]]


def joined(mask: Mask, free: Mask, longest: float) -> Mask | None:
    """Join the parts of a mask by bridges over free pixels, and fill its holes where they are free.

    Parameters
    ----------
    mask, free : bool (H, W)
    longest : float
        Longest bridge in pixels.

    Returns
    -------
    bool (H, W) or None
        A 4-connected mask; None where parts lie too far apart, or something is in the way.
    """
    parts = parts_of(mask)
    whole, apart = parts[0].copy(), mask & ~parts[0]
    while apart.any():  # the nearest part next, so that a chain joins in any order of sizes
        distance, nearest = ndimage.distance_transform_edt(~whole, return_indices=True)
        start = np.unravel_index(np.where(apart, distance, np.inf).argmin(), mask.shape)
        if distance[start] > longest:
            return None
        part = next(part for part in parts if part[start])
        whole |= part | _bridge(start, nearest[:, start[0], start[1]], mask.shape) & free
        apart &= ~whole
    if len(parts_of(whole)) > 1:
        return None
    return whole | ndimage.binary_fill_holes(whole) & free


def _bridge(start: tuple[np.intp, ...], end: NDArray[np.integer], shape: tuple[int, int]) -> Mask:
    """Return a straight band of 3 pixels between two pixels."""
    line = np.zeros(shape, np.bool_)
    steps = 2 * int(max(abs(start[0] - end[0]), abs(start[1] - end[1]))) + 1
    rows = np.rint(np.linspace(start[0], end[0], steps)).astype(int)
    cols = np.rint(np.linspace(start[1], end[1], steps)).astype(int)
    line[rows, cols] = True
    return np.asarray(ndimage.binary_dilation(line, np.ones((3, 3))))
