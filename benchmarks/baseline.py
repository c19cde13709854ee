"""The decode as one would write it with scikit-image, from the same maps: what ours is measured against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.feature import peak_local_max
from skimage.filters import gaussian
from skimage.measure import regionprops_table
from skimage.segmentation import watershed

from napari_nucseg.core.decode import DecodeConfig, Fields


def decode(fields: Fields, config: DecodeConfig) -> NDArray[np.int32]:
    """Peaks of the centre map, then a marker-controlled watershed over the border energy in the foreground.

    Parameters
    ----------
    fields : Fields of shape (H, W)
    config : DecodeConfig
        The same thresholds and weights as ours.

    Returns
    -------
    (H, W) int32
        0 background, 1..n nuclei.
    """
    mask = fields.foreground > config.foreground * 255
    smooth = gaussian(fields.centre.astype(np.float32) / 65535, 0.7)
    peaks = peak_local_max(
        smooth,
        min_distance=config.spacing,
        threshold_abs=config.centre,
        labels=mask.astype(np.int32),
        exclude_border=False,
    )
    markers = np.zeros(mask.shape, np.int32)
    markers[peaks[:, 0], peaks[:, 1]] = np.arange(1, len(peaks) + 1)
    band, edge = fields.border.astype(np.float32)
    labels: NDArray[np.int32] = watershed(config.band * band + config.edge * edge, markers, mask=mask)
    return labels


def vote(labels: NDArray[np.int32], fields: Fields) -> NDArray[np.int64]:
    """Return the class of every nucleus: the type of the largest summed probability."""
    n = int(labels.max()) + 1
    flat = labels.ravel()
    sums = [np.bincount(flat, weights=plane.ravel(), minlength=n) for plane in fields.type[1:]]
    result: NDArray[np.int64] = np.argmax(sums, axis=0)[1:]
    return result


def measure(labels: NDArray[np.int32], haematoxylin: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return the same figures as our table holds."""
    names = ("label", "centroid", "area", "perimeter", "eccentricity", "solidity", "mean_intensity")
    table: dict[str, NDArray[Any]] = regionprops_table(labels, haematoxylin, properties=names)
    return table
