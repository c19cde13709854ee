"""The centre-driven decoder: maps and centres in, exactly one connected nucleus per centre out.

Every pixel of the foreground belongs to the centre that reaches it at the least cost, where a path costs the
energy of the pixels it steps on (4-connected) and ends at `DecodeConfig.max_cost`. Energy is a small constant
plus, on a fixed scale, what the network says of nuclear borders; so a path runs freely inside its own nucleus and pays
to cross into another one. This is the image foresting transform with an additive path cost (Falcao et al. 2004),
in place of a flooding watershed, because it is a pure function of the neighbourhood:

* one centre, one nucleus: a least-cost path never leaves the region of its own centre (ties go to the centre
  that comes first in raster order, consistently along a path), so every region is connected and holds its centre;
* local: a pixel depends on nothing farther than `DecodeConfig.reach`, so an edit changes nothing beyond twice that;
* tile-invariant and deterministic for the same reason: costs are integers, nothing is normalised over the image.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core import _decode_kernels as kernels
from napari_nucseg.core.calibration import NEUTRAL, calibrated, tempered
from napari_nucseg.core.maps import BAND, MapLayout
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError

UNREACHED = np.uint16(65535)
_NOBODY = np.zeros(0, np.int32)
MOST = int(UNREACHED)
"""Path costs, and so all settings, stay below the cost that means "not reached"."""


@dataclass(frozen=True)
class DecodeConfig:
    """Thresholds and scales of the decoder; probabilities in 0..1, lengths in pixels of the model's resolution.

    Parameters
    ----------
    foreground : float
        A pixel belongs to a nucleus above this foreground probability.
    centre : float
        A peak of the centre map counts above this activation.
    spacing : int
        Of two peaks nearer than this (Chebyshev), the higher one stays.
    ridge, saddle : int, float
        A peak is left out if a higher one lies within `ridge` pixels and the map between the two does not fall below
        `saddle` times its height: long nuclei have ridges, not peaks.
    support : int
        A peak needs this many foreground pixels in the 9x9 window around it: specks are no nuclei.
    base, band, edge : int
        Cost of one step: `base` + `band` * boundary-band probability + `edge` * edge strength of the distance maps.
    max_cost : int
        A path ends here, which bounds the size of a nucleus.
    max_hole : int
        Enclosed holes of up to this many pixels are filled.
    score_slope, score_shift : float
        The score reported is ``sigmoid(slope * logit(activation) + shift)`` (Platt 1999).
    type_temperature : float
        The class probabilities reported are p ** (1 / temperature), scaled to add up to 1 (Guo et al. 2017). This and
        the two before change nothing by default, and never which nuclei there are or which class wins.
    """

    foreground: float = 0.5
    centre: float = 0.35
    spacing: int = 4
    ridge: int = 20
    saddle: float = 0.8
    support: int = 20
    base: int = 4
    band: int = 28
    edge: int = 28
    max_cost: int = 320
    max_hole: int = 40
    score_slope: float = NEUTRAL["score_slope"]
    score_shift: float = NEUTRAL["score_shift"]
    type_temperature: float = NEUTRAL["type_temperature"]

    def __post_init__(self) -> None:
        for name in ("foreground", "centre", "saddle"):
            if not 0 <= getattr(self, name) <= 1:
                raise NucSegError(f"Decoder setting {name}={getattr(self, name)} must lie between 0 and 1.")
        lowest = {
            "spacing": 1,
            "ridge": 0,
            "support": 0,
            "base": 1,
            "band": 0,
            "edge": 0,
            "max_cost": 1,
            "max_hole": 0,
        }
        for name, least in lowest.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value < MOST:
                raise NucSegError(
                    f"Decoder setting {name}={value!r} must be a whole number of {least} to {MOST - 1}."
                )
        for name in NEUTRAL:
            value = getattr(self, name)
            known = isinstance(value, int | float) and math.isfinite(value)
            if not known or (value <= 0 and name != "score_shift"):
                wanted = "a finite number" if name == "score_shift" else "a finite number above 0"
                raise NucSegError(f"Decoder setting {name}={value!r} must be {wanted}.")

    def uncalibrated(self) -> DecodeConfig:
        """Return the same settings with scores and class probabilities reported as the network gives them."""
        return replace(self, **dict[str, Any](NEUTRAL))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name; those of what is reported only where they change it.

        So nothing looks changed to what an earlier version has written.
        """
        return {name: value for name, value in asdict(self).items() if value != NEUTRAL.get(name)}

    @property
    def reach(self) -> int:
        """Longest path in pixels, hence the largest distance of a nucleus' pixel from its centre."""
        return self.max_cost // self.base

    @property
    def margin(self) -> int:
        """Pixels that must be known around a region so that nuclei centred in it come out exactly."""
        return 2 * self.reach + self.max_hole + self.ridge + self.spacing + 6


@dataclass(frozen=True)
class Fields:
    """What the decoder needs of the maps, compact (6 + C bytes per pixel), and kept for later edits.

    Attributes
    ----------
    foreground : uint8 (H, W)
        Probability times 255, smoothed over 3x3 pixels.
    border : uint8 (2, H, W)
        Boundary-band probability and distance-map edge strength, times 255.
    centre : uint16 (H, W)
        Activation times 65535.
    type : uint8 (C + 1, H, W)
        Probabilities times 255, background first.
    """

    foreground: NDArray[np.uint8]
    border: NDArray[np.uint8]
    centre: NDArray[np.uint16]
    type: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.foreground.shape

    def crop(self, rows: slice, cols: slice) -> Fields:
        """Return a view of a window."""
        return Fields(
            self.foreground[rows, cols],
            self.border[:, rows, cols],
            self.centre[rows, cols],
            self.type[:, rows, cols],
        )

    def copy(self) -> Fields:
        """Return fields of their own memory."""
        return Fields(self.foreground.copy(), self.border.copy(), self.centre.copy(), self.type.copy())

    def paste(self, part: Fields, rows: slice, cols: slice) -> None:
        """Write a part into a window of these fields."""
        self.foreground[rows, cols] = part.foreground
        self.border[:, rows, cols] = part.border
        self.centre[rows, cols] = part.centre
        self.type[:, rows, cols] = part.type

    @classmethod
    def empty(cls, shape: tuple[int, int], n_classes: int) -> Fields:
        """Return fields of zeros: nothing is there."""
        return cls(
            np.zeros(shape, np.uint8),
            np.zeros((2, *shape), np.uint8),
            np.zeros(shape, np.uint16),
            np.zeros((n_classes + 1, *shape), np.uint8),
        )


EDGE_GAIN = 4.0
"""A distance map falls by 2 across the border of touching nuclei; blurred over 4-5 px that is about 1/4 per px on
each side, which this gain brings to full strength."""


_STEPS = {0: (0, 1), 45: (1, 1), 90: (1, 0), 135: (1, -1)}


def compress(maps: NDArray[np.float32], layout: MapLayout) -> Fields:
    """Reduce activated maps to the fields the decoder works on.

    Parameters
    ----------
    maps : (layout.channels, H, W) float32
        Probabilities and distances, as the runtimes give them.
    layout : MapLayout

    Returns
    -------
    Fields
    """
    if maps.ndim != 3 or maps.shape[0] != layout.channels:
        raise NucSegError(f"Maps of shape {maps.shape} do not have the layout's {layout.channels} channels.")
    shape = (int(maps.shape[1]), int(maps.shape[2]))
    out = Fields.empty(shape, layout.n_classes)
    steps = np.array([_STEPS[a] for a in layout.angles], np.int64)
    kernels.compress(
        maps, layout.distance.start, steps, layout.centre.start, layout.boundary.start + BAND,
        layout.type.start,
        EDGE_GAIN, out.foreground, out.border, out.centre, out.type,
    )  # fmt: skip
    return out


_FINEST = np.float32(2048)
_SPAN = np.float32(16)


@dataclass(frozen=True)
class _Tables:
    """What the 65,536 codes of raw values stand for: the value, its sigmoid and its exponential."""

    value: NDArray[np.float32]
    sigmoid8: NDArray[np.uint8]
    sigmoid16: NDArray[np.uint16]
    power: NDArray[np.float32]

    @classmethod
    def of(cls, raw: NDArray[np.float32]) -> _Tables:
        clipped = np.clip(raw.astype(np.float64), -40, 40)
        sigmoid = 1 / (1 + np.exp(-clipped))
        return cls(
            np.clip(raw, -1, 1).astype(np.float32),
            np.floor(sigmoid * 255 + 0.5).astype(np.uint8),
            np.floor(sigmoid * 65535 + 0.5).astype(np.uint16),
            np.exp(clipped).astype(np.float32),
        )


@cache
def _bfloat_tables() -> _Tables:
    bits = np.arange(65536, dtype=np.uint32) << 16
    return _Tables.of(np.nan_to_num(bits.view(np.float32), posinf=40, neginf=-40))


@cache
def _fixed_tables() -> _Tables:
    return _Tables.of(np.arange(65536, dtype=np.float32) / _FINEST - _SPAN)


def unpack(subpixels: NDArray[np.uint16] | NDArray[np.float32], layout: MapLayout, part: Box) -> Fields:
    """Reduce a network's raw answer to the fields the decoder works on.

    Does what pixel shuffle, `models.student.activate` and `compress` do, in one pass over the memory, and by tables,
    since the fields are coarser than floats.

    Parameters
    ----------
    subpixels : (4 * layout.channels, h / 2, w / 2)
        See `models.student.Student.subpixels`: float32, or the bits of bfloat16 as uint16.
    layout : MapLayout
    part : Box
        The part of the window asked for; the edges of the distance maps see what lies around it.

    Returns
    -------
    Fields of the part's shape
    """
    if subpixels.ndim != 3 or subpixels.shape[0] != 4 * layout.channels:
        raise NucSegError(
            f"An answer of shape {subpixels.shape} does not have 4 times the layout's {layout.channels} channels."
        )
    if subpixels.dtype == np.uint16:
        codes, tables = subpixels, _bfloat_tables()
    else:
        y, x = (
            max(0, part.y0 // 2 - 1),
            max(0, part.x0 // 2 - 1),
        )  # no more than the part, and what its edges see
        seen = subpixels[:, y : part.y1 // 2 + 2, x : part.x1 // 2 + 2]
        codes = kernels.encode(seen, _FINEST, _SPAN)
        part = part.relative(Box(2 * y, 0, 2 * x, 0))
        tables = _fixed_tables()
    out = Fields.empty(part.shape, layout.n_classes)
    steps = np.array([_STEPS[a] for a in layout.angles], np.int64)
    kernels.unpack_foreground(codes, part.y0, part.x0, tables.sigmoid8, out.foreground)
    kernels.unpack(
        codes,
        part.y0,
        part.x0,
        len(steps),
        tables.sigmoid16,
        tables.power,
        out.border[0],
        out.centre,
        out.type,
    )
    kernels.unpack_edges(
        codes, part.y0, part.x0, steps, tables.value, np.float32(EDGE_GAIN), out.foreground, out.border[1]
    )
    return out


def quantise(probability: float) -> int:
    """Return the least 8-bit value above a probability threshold."""
    return max(1, min(255, int(probability * 255) + 1))


def find_centres(fields: Fields, config: DecodeConfig) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the peaks of the centre map inside the foreground.

    Parameters
    ----------
    fields : Fields of shape (H, W)
    config : DecodeConfig

    Returns
    -------
    centres : (n, 2) int64, rows and columns in raster order
    scores : (n,) float32, activation at the peak (smoothed over 3x3), 0..1; not calibrated
    """
    lowest, fg_min = int(config.centre * 65535), quantise(config.foreground)
    smooth = kernels.smooth_centre(fields.centre, lowest // 2)
    found = kernels.local_maxima(
        smooth, fields.foreground, 16 * lowest, fg_min, config.spacing, config.support
    )
    peaks = np.array(found, np.int64).reshape(-1, 3)
    peaks = peaks[~kernels.on_ridge(peaks, smooth, config.ridge, config.saddle)]
    return peaks[:, :2], (peaks[:, 2] / (16 * 65535)).astype(np.float32)


def flood(
    fields: Fields,
    centres: NDArray[np.integer],
    config: DecodeConfig,
    wanted: NDArray[np.bool_] | None = None,
) -> NDArray[np.int32]:
    """Grow exactly one connected nucleus from every centre.

    Parameters
    ----------
    fields : Fields of shape (H, W)
    centres : (n, 2) integers
        Rows and columns, distinct pixels inside the image. A centre outside the foreground keeps its pixel.
    config : DecodeConfig
    wanted : (n,) bool, optional
        Which nuclei are asked for; of the others only those come out right that compete with them.

    Returns
    -------
    (H, W) int32
        0 background, k + 1 for the pixels of ``centres[k]``.

    Raises
    ------
    NucSegError
        A centre lies outside the image, or two share a pixel.
    """
    centres = np.asarray(centres, np.int64).reshape(-1, 2)
    height, width = fields.shape
    outside = (centres < 0).any(1) | (centres[:, 0] >= height) | (centres[:, 1] >= width)
    if outside.any():
        raise NucSegError(
            f"Centre {tuple(centres[outside][0])} lies outside the {height}x{width} image; move it."
        )
    seeds = (centres[:, 0] + 1) * (width + 2) + centres[:, 1] + 1
    order = np.argsort(seeds, kind="stable")
    seeds = seeds[order]
    if (np.diff(seeds) == 0).any():
        twin = centres[order][1:][np.diff(seeds) == 0][0]
        raise NucSegError(f"Two centres share the pixel {tuple(twin)}; move or delete one of them.")
    dearest = min(config.base + config.band + config.edge, config.max_cost + 1)
    step = kernels.step_costs(
        fields.foreground, fields.border, quantise(config.foreground), config.base, config.band, config.edge,
        dearest,
    )  # fmt: skip
    owner, cost = np.zeros(step.shape, np.int32), np.full(step.shape, UNREACHED, np.uint16)
    owner.ravel()[seeds] = np.arange(1, len(seeds) + 1)
    asked = np.ones(len(seeds), np.bool_) if wanted is None else wanted[order]
    kernels.flood(step, config.max_cost, dearest, seeds, asked, owner, cost)
    owner = np.ascontiguousarray(owner[1:-1, 1:-1])
    kernels.fill_holes(owner, config.max_hole, _NOBODY, _NOBODY.astype(np.bool_))
    if (order != np.arange(len(order))).any():
        names = np.concatenate([[0], order + 1]).astype(np.int32)
        owner = names[owner]
    return owner


def vote(owner: NDArray[np.int32], fields: Fields, n: int) -> NDArray[np.float32]:
    """Return the class probabilities of every nucleus: the `type` map summed over its pixels.

    Parameters
    ----------
    owner : (H, W) int32, 1..n
    fields : Fields of the same shape
    n : int

    Returns
    -------
    (n, C) float32
        Rows sum to 1; uniform where the map says background everywhere.
    """
    sums = np.zeros((n + 1, fields.type.shape[0] - 1), np.float64)
    kernels.vote(owner, fields.type, sums)
    sums = sums[1:] + 1e-6
    return (sums / sums.sum(1, keepdims=True)).astype(np.float32)


def classify(owner: NDArray[np.int32], fields: Fields, n: int, config: DecodeConfig) -> NDArray[np.float32]:
    """Return the class probabilities to report, float32 (n, C): those of `vote` at the temperature of the settings."""
    return tempered(vote(owner, fields, n), config.type_temperature)


@dataclass(frozen=True)
class Decoded:
    """Nuclei of one window.

    Attributes
    ----------
    owner : int32 (H, W)
        k + 1 for the pixels of nucleus k.
    centres : int64 (n, 2)
    scores : float32 (n,)
        Activation at the centre, calibrated as the settings say.
    probabilities : float32 (n, C)
        Of the classes, likewise.
    """

    owner: NDArray[np.int32]
    centres: NDArray[np.int64]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def decode(fields: Fields, config: DecodeConfig, owned: Box | None = None) -> Decoded:
    """Find the centres, grow their nuclei and classify them.

    Parameters
    ----------
    fields : Fields of shape (H, W)
    config : DecodeConfig
    owned : Box, optional
        Part of the fields whose nuclei are asked for, those with the centre in it: around it less is done, and
        what comes out for other centres means nothing. It should lie `DecodeConfig.margin` inside the fields, but
        where the image ends.

    Returns
    -------
    Decoded
        Nuclei in raster order of their centres.
    """
    centres, scores = find_centres(fields, config)
    # a centre elsewhere may lie in a hole of a nucleus asked for, which reaches no farther than this
    wanted = None if owned is None else owned.grown(config.reach, fields.shape).holds(centres)
    owner = flood(fields, centres, config, wanted)
    scores = calibrated(scores, config.score_slope, config.score_shift)
    return Decoded(owner, centres, scores, classify(owner, fields, len(centres), config))


def warm_up() -> None:
    """Compile (or load from numba's cache) the decoder's kernels; call it off the GUI thread beforehand."""
    layout = MapLayout()
    maps = np.zeros((layout.channels, 16, 16), np.float32)
    maps[layout.foreground, 4:12, 4:12] = 1
    maps[layout.centre, 8, 8] = 1
    decode(compress(maps, layout), DecodeConfig(centre=0.1, support=1))
