"""Pixels run by run: (first flat index, number of pixels, label)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def runs_of(pixels: NDArray[np.int64], values: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return flat indices and their labels as runs, int64 (n, 3).

    Parameters
    ----------
    pixels : int64 (p,)
        Flat indices, best in raster order.
    values : uint32 (p,)
    """
    if pixels.size == 0:
        return np.zeros((0, 3), np.int64)
    new = np.ones(pixels.size, bool)
    new[1:] = (np.diff(pixels) != 1) | (values[1:] != values[:-1])
    first = np.flatnonzero(new)
    lengths = np.diff(first, append=pixels.size)
    return np.stack([pixels[first], lengths, values[first].astype(np.int64)], axis=1).astype(np.int64)


def expand_runs(runs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Return flat indices (int64) and labels (uint32) of runs."""
    lengths = runs[:, 1]
    ends = np.cumsum(lengths)
    pixels = np.repeat(runs[:, 0] - (ends - lengths), lengths) + np.arange(ends[-1] if len(runs) else 0)
    return pixels, np.repeat(runs[:, 2], lengths).astype(np.uint32)


def clip_runs(runs: NDArray[np.int64], first: int, end: int) -> NDArray[np.int64]:
    """Return the parts of runs within the flat indices from `first` up to `end`."""
    if not len(runs):
        return runs
    start = np.maximum(runs[:, 0], first)
    length = np.minimum(runs[:, 0] + runs[:, 1], end) - start
    inside = length > 0
    return np.stack([start, length, runs[:, 2]], axis=1)[inside]


def apply_runs(labels: NDArray[np.uint32], runs: NDArray[np.int64], step: int = 1 << 16) -> None:
    """Set the pixels of runs in labels (C order), in place."""
    flat = labels.reshape(-1)
    for start in range(0, len(runs), step):
        pixels, values = expand_runs(runs[start : start + step])
        flat[pixels] = values
