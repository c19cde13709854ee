"""Tissue against glass, at a coarse scale: what need not be looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError

Mask: TypeAlias = NDArray[np.bool_]

_BRIGHT, _GREY = 225, 16  # empty glass: its brightest channel, and how far its channels lie apart at most
_BLACK = 45  # brightest channel of a frame, or of a black pen; the darkest tissue is brighter at this scale
_INK = 25  # how much darker red is than green under a green or blue pen; H&E absorbs most in green
_TINT = 10  # how much darker green is in a pixel that holds a stained nucleus, and no grey dust
_BINS = 128
_SAMPLE = 2**20  # pixels that settle glass and threshold; also those looked at together


@dataclass(frozen=True)
class TissueConfig:
    """How tissue is found.

    Parameters
    ----------
    mpp : float
        Micrometres per pixel of the mask, about.
    margin_um : float
        How far the mask reaches beyond what was seen, so that no nucleus at a rim is lost.
    closing_um : float
        Gaps up to twice this wide are bridged.
    speck_um2 : float
        What is smaller, and not stained, is dust.
    faint, strong : float
        Bounds of the threshold of the optical density: what is fainter is glass and what is stronger is tissue,
        whatever else is on the slide.
    whole_below : int
        An image of fewer level-0 pixels is taken as a picture of tissue, all of it.
    """

    mpp: float = 8.0
    margin_um: float = 50.0
    closing_um: float = 50.0
    speck_um2: float = 1000.0
    faint: float = 0.035
    strong: float = 0.07
    whole_below: int = 4_000_000

    def __post_init__(self) -> None:
        numbers = (self.margin_um, self.closing_um, self.speck_um2, self.whole_below)
        if self.mpp <= 0 or min(numbers) < 0 or not 0 < self.faint <= self.strong:
            raise NucSegError(
                f"{self} can't find tissue: mpp must be above 0, no figure negative, and faint at most strong; "
                "use TissueConfig()"
            )


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Where tissue lies in an image.

    Parameters
    ----------
    mask : bool (h, w)
        True where there is tissue.
    shape : (int, int)
        Height and width of the image in level-0 pixels.
    cell : (float, float)
        Height and width of a pixel of the mask in level-0 pixels; the mask starts at the image's corner, and its
        last row and column may reach beyond the image.
    """

    mask: Mask
    shape: tuple[int, int]
    cell: tuple[float, float]

    @classmethod
    def whole(cls, shape: tuple[int, int]) -> TissueMask:
        """Return a mask that holds all of an image."""
        return cls(np.ones((1, 1), bool), shape, (float(shape[0]), float(shape[1])))

    def holds(self, points: NDArray[np.float64]) -> Mask:
        """Return which of the (n, 2) level-0 points (row, column; a pixel's centre is whole) lie in tissue."""
        last = np.array(self.mask.shape) - 1
        at = np.floor((np.asarray(points, np.float64).reshape(-1, 2) + 0.5) / self.cell)
        rows, columns = np.clip(at, 0, last).astype(np.intp).T
        return np.asarray(self.mask[rows, columns])

    def touches(self, box: Box) -> bool:
        """Whether any pixel of a level-0 box is tissue."""
        height, width = self.mask.shape
        y0, x0 = min(int(box.y0 / self.cell[0]), height - 1), min(int(box.x0 / self.cell[1]), width - 1)
        y1 = min(max(y0 + 1, int(np.ceil(box.y1 / self.cell[0]))), height)
        x1 = min(max(x0 + 1, int(np.ceil(box.x1 / self.cell[1]))), width)
        sums = self._sums
        return bool(sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0])

    @property
    def area_px(self) -> float:
        """Tissue in level-0 pixels."""
        heights, widths = (
            np.diff(np.minimum(np.arange(n + 1) * cell, side))
            for n, cell, side in zip(self.mask.shape, self.cell, self.shape, strict=True)
        )
        return float(heights @ self.mask @ widths)

    @property
    def fraction(self) -> float:
        """Share of the image that is tissue, 0 to 1."""
        return self.area_px / (self.shape[0] * self.shape[1])

    @cached_property
    def _sums(self) -> NDArray[np.int64]:
        return np.pad(self.mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))


def tissue_in(
    rgb: NDArray[np.uint8], mpp: float, config: TissueConfig | None = None, shrink: int = 1
) -> Mask:
    """Tell tissue from glass in a small image of a slide.

    The threshold of the optical density is Otsu's (IEEE Trans Syst Man Cybern 1979), held between two bounds, so
    that an image without glass is all tissue and one without tissue is all glass. What is pink or purple needs to
    pass the lower bound only.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8.
    mpp
        Its micrometres per pixel, best about `config.mpp` over `shrink`.
    config
        `TissueConfig()` by default.
    shrink
        So many pixels a side make one of the mask: finer pixels show lone nuclei.

    Returns
    -------
    ndarray
        (h / shrink, w / shrink) bool, rounded up.
    """
    config = config or TissueConfig()
    step = max(1, math.isqrt(rgb.shape[0] * rgb.shape[1] // _SAMPLE))
    sample = rgb[::step, ::step]
    tables = _tables(sample)
    density = _density(sample, tables)
    threshold = _threshold(density[~_ink(sample, density, config)], config)
    height, width = (-(-n // shrink) for n in rgb.shape[:2])
    seen, stained, ink = (np.zeros((height, width), bool) for _ in range(3))
    rows = max(1, _SAMPLE // rgb.shape[1] // shrink)
    for y in range(
        0, height, rows
    ):  # in bands, since the densities take many times the memory of the picture
        band = rgb[y * shrink : (y + rows) * shrink]
        density = _density(band, tables)
        red, green, blue = (_relative(band[..., c], tables[c]) for c in range(3))
        tinted = (np.maximum(red, blue) - green > _TINT) & (density > config.faint)
        stained[y : y + rows] = _any(tinted, shrink)
        seen[y : y + rows] = _any(density > threshold, shrink)
        ink[y : y + rows] = ~_any(~_ink(band, density, config), shrink)
    foreign = _wide(ink)
    mpp = mpp * shrink
    mask = _closed((seen | stained) & ~foreign, config.closing_um / mpp) & ~foreign
    mask = _without_specks(mask, config.speck_um2 / mpp**2, stained)
    return _grown(mask, config.margin_um / mpp)


def _any(mask: Mask, shrink: int) -> Mask:
    """Return which squares of `shrink` pixels a side hold a pixel of the mask."""
    if shrink == 1:
        return mask
    height, width = (-(-n // shrink) for n in mask.shape)
    padded = np.zeros((height * shrink, width * shrink), bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return np.asarray(padded.reshape(height, shrink, width, shrink).any((1, 3)))


def _tables(sample: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the optical density of every value of every channel, (3, 256), with the glass as white.

    The glass is seen in the bright grey pixels. One too dim to be told from pale tissue is taken for tissue: that
    costs time, and loses nothing.
    """
    brightest, darkest = sample.max(2), sample.min(2)
    bare = sample[(brightest >= _BRIGHT) & (brightest - darkest <= _GREY)]
    seen = len(bare) >= 0.005 * brightest.size
    glass = np.percentile(bare, 75, axis=0) if seen else np.full(3, 245.0)
    return np.log10((glass[:, None] + 1) / (np.arange(256) + 1.0)).astype(np.float32)


def _relative(values: NDArray[np.uint8], table: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return how much brighter a channel is than the glass."""
    return values.astype(np.int16) - np.int16(np.abs(table).argmin())


def _density(rgb: NDArray[np.uint8], tables: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest optical density of the channels."""
    density = tables[0][rgb[..., 0]]
    for c in (1, 2):
        np.maximum(density, tables[c][rgb[..., c]], out=density)
    return density


def _ink(rgb: NDArray[np.uint8], density: NDArray[np.float32], config: TissueConfig) -> Mask:
    """Return what is black, or blue and green as no stain of H&E is."""
    red, green = rgb[..., 0].astype(np.int16), rgb[..., 1].astype(np.int16)
    black = rgb.max(2) < _BLACK
    return np.asarray(black | ((density > config.strong) & (green - red > _INK)))


def _wide(ink: Mask) -> Mask:
    """Return frames and pens: the wide parts of the ink, and their rims, which are mixed with the glass around.

    What is narrower is pigment or a fold.
    """
    if not ink.any():
        return ink
    wide = np.pad(ink, 4, mode="edge")  # as if it went on beyond the image
    return _grown(_grown(~_grown(~wide, 3), 3)[4:-4, 4:-4], 4)


def _threshold(density: NDArray[np.float32], config: TissueConfig) -> float:
    """Return Otsu's threshold, held between the bounds of the configuration."""
    counts, edges = np.histogram(density, bins=_BINS, range=(0.0, 0.6))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    apart[~np.isfinite(apart)] = 0.0
    return float(np.clip(edges[1 + int(apart.argmax())], config.faint, config.strong))


def _grown(mask: Mask, by: float) -> Mask:
    """Return the pixels at most `by` pixels away from the mask."""
    if not mask.any() or mask.all():
        return mask
    out = np.zeros_like(mask)
    for rise in range(min(int(by), len(mask) - 1) + 1):
        half = math.isqrt(int(by * by - rise * rise))
        line = ndimage.maximum_filter1d(mask.view(np.uint8), 2 * half + 1, 1, mode="nearest").view(bool)
        out[: len(out) - rise] |= line[rise:]
        out[rise:] |= line[: len(line) - rise]
    return out


def _closed(mask: Mask, by: float) -> Mask:
    return ~_grown(~_grown(mask, by), by)


def _without_specks(mask: Mask, pixels: float, stained: Mask) -> Mask:
    """Return a mask without its parts of fewer pixels, unless they are stained: a lone nucleus is no dust."""
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    kept = np.bincount(parts.ravel(), minlength=count + 1) >= pixels
    kept[np.unique(parts[stained])] = True
    kept[0] = False
    return np.asarray(kept[parts])
