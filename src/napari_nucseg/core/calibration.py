"""From what the network says to what is reported: scores and class probabilities that may be read as frequencies.

Neither touches which nuclei are found or which class wins: a monotone function of the score, and one temperature for
all classes. Both are undone, but for rounding, by the same functions with the inverse parameters.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", bound=np.floating)

NEUTRAL = {"score_slope": 1.0, "score_shift": 0.0, "type_temperature": 1.0}
"""The decoder's settings that concern only what is reported, with the values that change nothing."""

EDGE = 1 / (32 * 65535)
"""Half a step of the scores: nearer to 0 and 1 they are not told apart, so that their logit is finite."""


def calibrated(scores: NDArray[Real], slope: float, shift: float) -> NDArray[Real]:
    """Return ``sigmoid(slope * logit(score) + shift)`` (Platt 1999), the very scores if that changes nothing.

    Parameters
    ----------
    scores : floating, any shape
        0..1; NaN stays NaN.
    slope, shift : float
        Slope above 0. ``1 / slope`` and ``-shift / slope`` undo it.

    Returns
    -------
    Of the same shape and type, higher where the score is higher
    """
    if slope == NEUTRAL["score_slope"] and shift == NEUTRAL["score_shift"]:
        return scores
    raw = np.clip(np.asarray(scores, np.float64), EDGE, 1 - EDGE)
    with np.errstate(over="ignore"):
        out = 1 / (1 + np.exp(-(slope * (np.log(raw) - np.log1p(-raw)) + shift)))
    return np.asarray(out, scores.dtype)


def tempered(probabilities: NDArray[Real], temperature: float) -> NDArray[Real]:
    """Return ``p ** (1 / temperature)``, scaled to add up to 1 (Guo et al. 2017); the very array if that is 1.

    Parameters
    ----------
    probabilities : floating (n, C)
        NaN stays NaN.
    temperature : float
        Above 0; above 1 it makes them more alike. Its inverse undoes it.

    Returns
    -------
    Of the same shape and type, with the same (first) most probable class
    """
    if temperature == NEUTRAL["type_temperature"] or not probabilities.size:
        return probabilities
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        power = np.log(np.asarray(probabilities, np.float64))
        power = (power - power.max(1, keepdims=True)) / temperature
        out = np.exp(power)
    result = np.asarray(out / out.sum(1, keepdims=True), probabilities.dtype)
    # two that differ by less than a rounding may have become one
    winner = probabilities.argmax(1)
    tied = np.flatnonzero(result.argmax(1) != winner)
    result[tied, winner[tied]] = np.nextafter(result[tied].max(1), np.asarray(2, result.dtype))
    return result
