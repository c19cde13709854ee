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

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_nucseg.core.maps import BAND, MapLayout
from napari_nucseg.errors import NucSegError

UNREACHED = np.uint16(65535)


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
    support : int
        A peak needs this many foreground pixels in the 9x9 window around it: specks are no nuclei.
    base, band, edge : int
        Cost of one step: `base` + `band` * boundary-band probability + `edge` * edge strength of the distance maps.
    max_cost : int
        A path ends here, which bounds the size of a nucleus.
    max_hole : int
        Enclosed holes of up to this many pixels are filled.
    """

    foreground: float = 0.5
    centre: float = 0.35
    spacing: int = 4
    support: int = 20
    base: int = 4
    band: int = 28
    edge: int = 28
    max_cost: int = 320
    max_hole: int = 40

    @property
    def reach(self) -> int:
        """Longest path in pixels, hence the largest distance of a nucleus' pixel from its centre."""
        return self.max_cost // self.base

    @property
    def margin(self) -> int:
        """Pixels that must be known around a region so that nuclei centred in it come out exactly."""
        return 2 * self.reach + self.max_hole + self.spacing + 2


@dataclass(frozen=True)
class Fields:
    """What the decoder needs of the maps, compact (6 + C bytes per pixel), and kept for later edits.

    Attributes
    ----------
    foreground : uint8 (H, W)
        Probability times 255.
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
        return self.foreground.shape  # type: ignore[return-value]

    def crop(self, rows: slice, cols: slice) -> Fields:
        """Return a view of a window."""
        return Fields(
            self.foreground[rows, cols],
            self.border[:, rows, cols],
            self.centre[rows, cols],
            self.type[:, rows, cols],
        )

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


@njit(cache=True, nogil=True, fastmath=False)
def _compress(maps, first_distance, steps, centre_at, band_at, type_at, out_fg, out_border, out_centre, out_type):  # type: ignore[no-untyped-def]  # noqa: E501
    """Quantise the maps and take the falling edges of the distance maps along their own angles."""
    height, width = maps.shape[1], maps.shape[2]
    for y in range(height):
        for x in range(width):
            out_fg[y, x] = np.uint8(min(max(maps[0, y, x], 0.0), 1.0) * 255 + 0.5)
            out_centre[y, x] = np.uint16(min(max(maps[centre_at, y, x], 0.0), 1.0) * 65535 + 0.5)
            out_border[0, y, x] = np.uint8(min(max(maps[band_at, y, x], 0.0), 1.0) * 255 + 0.5)
    for k in range(out_type.shape[0]):
        for y in range(height):
            for x in range(width):
                out_type[k, y, x] = np.uint8(min(max(maps[type_at + k, y, x], 0.0), 1.0) * 255 + 0.5)
    for y in range(height):
        for x in range(width):
            if out_fg[y, x] < 16:
                continue
            strongest = 0.0
            for k in range(steps.shape[0]):
                dy, dx = steps[k, 0], steps[k, 1]
                ay, ax = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
                by, bx = min(max(y - dy, 0), height - 1), min(max(x - dx, 0), width - 1)
                fall = (maps[first_distance + k, by, bx] - maps[first_distance + k, ay, ax]) / 2
                strongest = max(strongest, fall)
            out_border[1, y, x] = np.uint8(min(strongest * EDGE_GAIN, 1.0) * 255 + 0.5)


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
    _compress(
        maps, layout.distance.start, steps, layout.centre.start, layout.boundary.start + BAND,
        layout.type.start, out.foreground, out.border, out.centre, out.type,
    )  # fmt: skip
    return out


@njit(cache=True, nogil=True)
def _peaks(centre, foreground, fg_min, centre_min, spacing, support):  # type: ignore[no-untyped-def]
    """Local maxima of the 3x3-smoothed centre map; equal heights go to the first in raster order."""
    height, width = centre.shape
    smooth = np.zeros((height, width), np.int32)
    for y in range(height):
        ys, ye = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            if centre[y, x] * 2 < centre_min:
                continue
            xs, xe = max(x - 1, 0), min(x + 1, width - 1)
            smooth[y, x] = (
                4 * np.int32(centre[y, x])
                + 2 * (np.int32(centre[ys, x]) + centre[ye, x] + centre[y, xs] + centre[y, xe])
                + (np.int32(centre[ys, xs]) + centre[ys, xe] + centre[ye, xs] + centre[ye, xe])
            )
    out = []
    for y in range(height):
        for x in range(width):
            value = smooth[y, x]
            if value < centre_min * 16 or foreground[y, x] < fg_min:
                continue
            highest = True
            for ny in range(max(y - spacing, 0), min(y + spacing + 1, height)):
                for nx in range(max(x - spacing, 0), min(x + spacing + 1, width)):
                    other = smooth[ny, nx]
                    if other > value or (other == value and (ny < y or (ny == y and nx < x))):
                        highest = False
                        break
                if not highest:
                    break
            if not highest:
                continue
            count = 0
            for ny in range(max(y - 4, 0), min(y + 5, height)):
                for nx in range(max(x - 4, 0), min(x + 5, width)):
                    count += foreground[ny, nx] >= fg_min
            if count >= support:
                out.append((y, x, value))
    return out


def quantise(probability: float) -> int:
    """Return the least 8-bit value above a probability threshold."""
    return max(1, min(255, int(probability * 255) + 1))


def find_centres(fields: Fields, config: DecodeConfig) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the peaks of the centre map inside the foreground.

    Returns
    -------
    centres : (n, 2) int64, rows and columns in raster order
    scores : (n,) float32, activation at the peak (smoothed over 3x3), 0..1
    """
    found = _peaks(
        fields.centre,
        fields.foreground,
        quantise(config.foreground),
        int(config.centre * 65535),
        config.spacing,
        config.support,
    )
    table = np.array(found, np.int64).reshape(-1, 3)
    return table[:, :2], (table[:, 2] / (16 * 65535)).astype(np.float32)


@njit(cache=True, nogil=True)
def _flood(foreground, border, fg_min, base, band, edge, max_cost, rows, cols, owner, cost):  # type: ignore[no-untyped-def]
    """Dial's bucket queue over integer costs; `owner` gets 1-based centre numbers, `cost` the path costs.

    Every step costs at least 1, so all pixels that can reach cost c have been settled when bucket c is
    opened: comparing (cost, owner) while relaxing is enough to break ties by owner.
    """
    height, width = foreground.shape
    longest = base + band + edge + 1
    head = np.full(longest + 1, -1, np.int64)
    capacity = max(1024, foreground.size // 2 + rows.size)
    nxt = np.empty(capacity, np.int64)
    pixel = np.empty(capacity, np.int64)
    used = 0
    for k in range(rows.size):
        owner[rows[k], cols[k]] = k + 1
        cost[rows[k], cols[k]] = 0
        pixel[used], nxt[used], head[0] = rows[k] * width + cols[k], head[0], used
        used += 1
    waiting = used
    now = 0
    while waiting > 0 and now <= max_cost:
        slot = now % (longest + 1)
        entry = head[slot]
        head[slot] = -1
        while entry >= 0:
            waiting -= 1
            y, x = pixel[entry] // width, pixel[entry] % width
            entry = nxt[entry]
            if cost[y, x] != now:
                continue  # reached more cheaply since
            mine = owner[y, x]
            for k in range(4):
                ny, nx = y + (k == 0) - (k == 1), x + (k == 2) - (k == 3)
                if ny < 0 or nx < 0 or ny >= height or nx >= width or foreground[ny, nx] < fg_min:
                    continue
                step = base + (band * np.int64(border[0, ny, nx]) + edge * np.int64(border[1, ny, nx])) // 255
                total = now + step
                if total > max_cost or total > cost[ny, nx]:
                    continue
                if total == cost[ny, nx]:
                    owner[ny, nx] = min(owner[ny, nx], mine)
                    continue
                cost[ny, nx] = total
                owner[ny, nx] = mine
                if used == capacity:
                    capacity *= 2
                    nxt = np.append(nxt, np.empty(capacity - used, np.int64))
                    pixel = np.append(pixel, np.empty(capacity - used, np.int64))
                target = total % (longest + 1)
                pixel[used], nxt[used], head[target] = ny * width + nx, head[target], used
                used += 1
                waiting += 1
        now += 1


@njit(cache=True, nogil=True)
def _fill_holes(owner, max_hole):  # type: ignore[no-untyped-def]
    """Give background components of at most `max_hole` pixels to the one label that encloses them."""
    height, width = owner.shape
    seen = np.zeros((height, width), np.bool_)
    members = np.empty(max_hole + 1, np.int64)
    for sy in range(height):
        for sx in range(1, width):
            # a hole's first pixel in raster order has a label on its left and above it
            if owner[sy, sx] != 0 or owner[sy, sx - 1] == 0 or seen[sy, sx] or sy == 0 or owner[sy - 1, sx] == 0:
                continue
            around = owner[sy, sx - 1]
            members[0] = sy * width + sx
            seen[sy, sx] = True
            count, at, closed = 1, 0, True
            while at < count and closed:
                y, x = members[at] // width, members[at] % width
                at += 1
                for k in range(4):
                    ny, nx = y + (k == 0) - (k == 1), x + (k == 2) - (k == 3)
                    if ny < 0 or nx < 0 or ny >= height or nx >= width:
                        closed = False
                    elif owner[ny, nx] == 0:
                        if not seen[ny, nx]:
                            if count > max_hole:
                                closed = False
                            else:
                                seen[ny, nx] = True
                                members[count] = ny * width + nx
                                count += 1
                    elif owner[ny, nx] != around:
                        closed = False
            if closed and count <= max_hole:
                for k in range(count):
                    owner[members[k] // width, members[k] % width] = around
            else:
                for k in range(count):
                    seen[members[k] // width, members[k] % width] = False


def flood(fields: Fields, centres: NDArray[np.integer], config: DecodeConfig) -> NDArray[np.int32]:
    """Grow exactly one connected nucleus from every centre.

    Parameters
    ----------
    fields : Fields of shape (H, W)
    centres : (n, 2) integers
        Rows and columns, distinct pixels inside the image. A centre outside the foreground keeps its pixel.
    config : DecodeConfig

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
        raise NucSegError(f"Centre {tuple(centres[outside][0])} lies outside the {height}x{width} image; move it.")
    keys = centres[:, 0] * width + centres[:, 1]
    order = np.argsort(keys, kind="stable")
    if (np.diff(keys[order]) == 0).any():
        twin = centres[order][1:][np.diff(keys[order]) == 0][0]
        raise NucSegError(f"Two centres share the pixel {tuple(twin)}; move or delete one of them.")
    owner = np.zeros((height, width), np.int32)
    cost = np.full((height, width), UNREACHED, np.uint16)
    _flood(
        fields.foreground, fields.border, quantise(config.foreground), config.base, config.band, config.edge,
        config.max_cost, centres[order, 0], centres[order, 1], owner, cost,
    )  # fmt: skip
    _fill_holes(owner, config.max_hole)
    if (order != np.arange(len(order))).any():
        names = np.concatenate([[0], order + 1]).astype(np.int32)
        owner = names[owner]
    return owner


@njit(cache=True, nogil=True)
def _vote(owner, types, sums):  # type: ignore[no-untyped-def]
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            if owner[y, x]:
                for k in range(sums.shape[1]):
                    sums[owner[y, x], k] += types[k + 1, y, x]


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
    _vote(owner, fields.type, sums)
    sums = sums[1:] + 1e-6
    return (sums / sums.sum(1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class Decoded:
    """Nuclei of one window.

    Attributes
    ----------
    owner : int32 (H, W)
        k + 1 for the pixels of nucleus k.
    centres : int64 (n, 2)
    scores : float32 (n,)
    probabilities : float32 (n, C)
    """

    owner: NDArray[np.int32]
    centres: NDArray[np.int64]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def decode(fields: Fields, config: DecodeConfig) -> Decoded:
    """Find the centres, grow their nuclei and classify them."""
    centres, scores = find_centres(fields, config)
    owner = flood(fields, centres, config)
    return Decoded(owner, centres, scores, vote(owner, fields, len(centres)))


def warm_up() -> None:
    """Compile (or load from numba's cache) every kernel; call it off the GUI thread before the first decode."""
    layout = MapLayout()
    maps = np.zeros((layout.channels, 16, 16), np.float32)
    maps[layout.foreground, 4:12, 4:12] = 1
    maps[layout.centre, 8, 8] = 1
    decode(compress(maps, layout), DecodeConfig(centre=0.1, support=1))
