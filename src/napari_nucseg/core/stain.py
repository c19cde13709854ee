"""Haematoxylin and eosin as optical densities: colour deconvolution, stain statistics, stain augmentation.

Optical density (OD) is ``-log10(v / 255)`` of an 8-bit value v (Beer-Lambert); v = 0 counts as 1, so OD lies
in 0..2.4065. The OD of a pixel is a sum of stain amounts times the colours of the stains, here the fixed unit
vectors of Ruifrok & Johnston 2001 for haematoxylin, eosin and DAB ("HED"). Amounts are signed: a colour
outside the cone of the three stains has a negative amount of one.

References
----------
Ruifrok & Johnston 2001, Analytical and Quantitative Cytology and Histology 23(4): 291-299 (matrix,
deconvolution). Macenko et al. 2009, ISBI: 1107-1110 (OD 0.15 as the limit of the tissue). Tellez et al. 2018,
IEEE TMI 37(9): 2126-2136 (augmentation in HED space).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])

RGB_FROM_HED: NDArray[np.float64] = (_STAINS / np.linalg.norm(_STAINS, axis=1)[:, None]).astype(np.float64)
"""(3 stains, 3 channels): the unit OD colour of haematoxylin, eosin and DAB."""

HED_FROM_RGB: NDArray[np.float64] = np.linalg.inv(RGB_FROM_HED).astype(np.float64)
"""(3 channels, 3 stains): ``OD @ HED_FROM_RGB`` are the stain amounts."""

OD_OF_VALUE: NDArray[np.float32] = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
"""(256,): optical density of each 8-bit value."""

HAEMATOXYLIN_TABLE: NDArray[np.float32] = np.ascontiguousarray(
    HED_FROM_RGB[:, 0, None] * OD_OF_VALUE[None], np.float32
)
"""(3, 256): what each value of each channel adds to the haematoxylin amount of a pixel."""

_EOSIN_TABLE: NDArray[np.float32] = np.ascontiguousarray(
    HED_FROM_RGB[:, 1, None] * OD_OF_VALUE[None], np.float32
)

_STEPS = 16384  # of OD 0..OD_OF_VALUE[0]; one step is less than a tenth of a grey level
_STEPS_PER_OD = float((_STEPS - 1) / OD_OF_VALUE[0])
_VALUE_OF_STEP = np.rint(255 * 10 ** (-np.arange(_STEPS) / _STEPS_PER_OD)).astype(np.uint8)


@dataclass(frozen=True)
class StainStatistics:
    """How strongly an image is stained; amounts in OD, over the tissue. NaN where there is no tissue.

    Parameters
    ----------
    haematoxylin_mean, haematoxylin_std
        Mean and standard deviation of the haematoxylin amount.
    eosin_mean, eosin_std
        Mean and standard deviation of the eosin amount.
    tissue_fraction
        Share of the pixels that are tissue, 0..1.
    """

    haematoxylin_mean: float
    haematoxylin_std: float
    eosin_mean: float
    eosin_std: float
    tissue_fraction: float


def optical_density(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert 8-bit values to optical density ``-log10(v / 255)`` (Beer-Lambert).

    Parameters
    ----------
    rgb
        (H, W, 3) uint8.

    Returns
    -------
    ndarray
        (H, W, 3) float32, 0 (white) to 2.4065 (values 0 and 1).

    Raises
    ------
    NucSegError
        The image is not (H, W, 3) uint8.
    """
    return OD_OF_VALUE[check_rgb(rgb)]


def rgb_to_hed(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Unmix an image into amounts of haematoxylin, eosin and DAB (Ruifrok & Johnston 2001).

    Parameters
    ----------
    rgb
        (H, W, 3) uint8.

    Returns
    -------
    ndarray
        (H, W, 3) float32 amounts in OD, signed.

    Raises
    ------
    NucSegError
        The image is not (H, W, 3) uint8.
    """
    return optical_density(rgb) @ HED_FROM_RGB.astype(np.float32)


def hed_to_rgb(hed: NDArray[Any]) -> NDArray[np.uint8]:
    """Mix amounts of haematoxylin, eosin and DAB into colours, the inverse of `rgb_to_hed`.

    Parameters
    ----------
    hed
        (H, W, 3) floating-point amounts in OD.

    Returns
    -------
    ndarray
        (H, W, 3) uint8, rounded and clipped. ``hed_to_rgb(rgb_to_hed(rgb))`` is `rgb`, but for 0, which
        becomes 1.

    Raises
    ------
    NucSegError
        The array is not (H, W, 3) floating point.
    """
    hed = np.asarray(hed)
    if hed.ndim != 3 or hed.shape[2] != 3 or hed.dtype.kind != "f":
        raise NucSegError(f"Stain amounts are {hed.dtype} of shape {hed.shape}, but must be float (H, W, 3).")
    value = 255 * 10.0 ** -(hed @ RGB_FROM_HED.astype(hed.dtype))
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)


def haematoxylin(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Measure the haematoxylin amount of each pixel, the first channel of `rgb_to_hed`.

    Parameters
    ----------
    rgb
        (H, W, 3) uint8.

    Returns
    -------
    ndarray
        (H, W) float32 amounts in OD, signed.

    Raises
    ------
    NucSegError
        The image is not (H, W, 3) uint8.
    """
    rgb = check_rgb(rgb)
    out = np.empty(rgb.shape[:2], np.float32)
    _sum_tables(rgb, HAEMATOXYLIN_TABLE, out)
    return out


def stain_statistics(rgb: NDArray[np.uint8], tissue_od: float = 0.15) -> StainStatistics:
    """Measure mean and spread of haematoxylin and eosin in the tissue of one image.

    Parameters
    ----------
    rgb
        (H, W, 3) uint8.
    tissue_od
        A pixel is tissue where the mean OD of its channels is above this (0.15 after Macenko et al. 2009).

    Returns
    -------
    StainStatistics
        Amounts in OD; NaN where no pixel is tissue.

    Raises
    ------
    NucSegError
        The image is not (H, W, 3) uint8.
    """
    rgb = check_rgb(rgb)
    n, h, hh, e, ee = _stain_sums(rgb, OD_OF_VALUE, HAEMATOXYLIN_TABLE, _EOSIN_TABLE, tissue_od)
    if not n:
        nan = float("nan")
        return StainStatistics(nan, nan, nan, nan, 0.0 if rgb.size else nan)
    h, e = h / n, e / n
    h_std, e_std = (max(square / n - mean**2, 0.0) ** 0.5 for square, mean in ((hh, h), (ee, e)))
    return StainStatistics(h, h_std, e, e_std, n / (rgb.shape[0] * rgb.shape[1]))


def jitter_stain(
    rgb: NDArray[np.uint8], rng: np.random.Generator, strength: float = 0.2, shift: float | None = None
) -> NDArray[np.uint8]:
    """Vary the staining of an image at random, stain by stain (after Tellez et al. 2018).

    The amount of each of the three stains becomes ``alpha * amount + beta``, with alpha uniform in
    ``1 - strength .. 1 + strength`` and beta uniform in ``-shift .. shift``, drawn once per stain and image.

    Parameters
    ----------
    rgb
        (H, W, 3) uint8.
    rng
        Source of the six random numbers; their draw does not depend on the image.
    strength
        Largest relative change of a stain, 0 (none) to below 1; 0.05 is light, 0.2 strong.
    shift
        Largest change of a stain amount in OD; default a quarter of `strength`, which tints the glass
        background by no more than scanners do.

    Returns
    -------
    ndarray
        (H, W, 3) uint8, a new array.

    Raises
    ------
    NucSegError
        The image is not (H, W, 3) uint8, or strength or shift are out of range.
    """
    rgb = check_rgb(rgb)
    shift = strength / 4 if shift is None else shift
    if not (0 <= strength < 1 and 0 <= shift < np.inf):
        raise NucSegError(
            f"Stain jitter {strength} with shift {shift} is out of range; use 0 <= strength < 1, shift >= 0."
        )
    alpha, beta = rng.uniform(1 - strength, 1 + strength, 3), rng.uniform(-shift, shift, 3)
    mix = (HED_FROM_RGB * alpha @ RGB_FROM_HED).astype(np.float32) * np.float32(_STEPS_PER_OD)
    offset = (beta @ RGB_FROM_HED).astype(np.float32) * np.float32(_STEPS_PER_OD)
    out = np.empty_like(rgb)
    _mix_densities(rgb, np.ascontiguousarray(mix), offset, OD_OF_VALUE, _VALUE_OF_STEP, out)
    return out


def check_rgb(rgb: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the image C-contiguous, or tell why it is none.

    Parameters
    ----------
    rgb
        Anything array-like.

    Returns
    -------
    ndarray
        (H, W, 3) uint8, C-contiguous.

    Raises
    ------
    NucSegError
        The image is not (H, W, 3) uint8.
    """
    rgb = np.asarray(rgb)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise NucSegError(f"The image is {rgb.dtype} of shape {rgb.shape}, but must be 8-bit RGB (H, W, 3).")
    return np.ascontiguousarray(rgb)


@numba.njit(cache=True, nogil=True)
def _sum_tables(rgb: Any, table: Any, out: Any) -> None:
    """Write table[0][r] + table[1][g] + table[2][b] of each pixel."""
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            out[y, x] = table[0, rgb[y, x, 0]] + table[1, rgb[y, x, 1]] + table[2, rgb[y, x, 2]]


@numba.njit(cache=True, nogil=True)
def _stain_sums(rgb: Any, od: Any, h_table: Any, e_table: Any, tissue_od: float) -> Any:
    """Count the tissue pixels, and sum their haematoxylin and eosin amounts and the squares of these."""
    n, h1, h2, e1, e2 = 0, 0.0, 0.0, 0.0, 0.0
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            r, g, b = rgb[y, x, 0], rgb[y, x, 1], rgb[y, x, 2]
            if od[r] + od[g] + od[b] > 3 * tissue_od:
                h = float(h_table[0, r] + h_table[1, g] + h_table[2, b])
                e = float(e_table[0, r] + e_table[1, g] + e_table[2, b])
                n += 1
                h1 += h
                h2 += h * h
                e1 += e
                e2 += e * e
    return n, h1, h2, e1, e2


@numba.njit(cache=True, nogil=True)
def _mix_densities(rgb: Any, mix: Any, offset: Any, od: Any, value_of_step: Any, out: Any) -> None:
    """Map each OD by ``od @ mix + offset``, which counts in table steps, and look the values up."""
    last = np.float32(value_of_step.size - 1)
    half, zero = np.float32(0.5), np.float32(0)
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            r, g, b = od[rgb[y, x, 0]], od[rgb[y, x, 1]], od[rgb[y, x, 2]]
            for c in range(3):
                step = r * mix[0, c] + g * mix[1, c] + b * mix[2, c] + offset[c]
                out[y, x, c] = value_of_step[int(min(max(step, zero), last) + half)]
