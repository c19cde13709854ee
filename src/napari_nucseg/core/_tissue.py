"""Tissue under the nuclei of the synthetic tile: glands, nests, fibres, and how their stains become RGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

HAEMATOXYLIN_OD = (0.644, 0.717, 0.267)
EOSIN_OD = (0.093, 0.954, 0.283)
"""Unit optical densities of the two stains in R, G, B (Ruifrok & Johnston, Anal Quant Cytol Histol 2001)."""

Field: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Gland:
    """An epithelial structure with a wavy outline; a depth of 0 is its middle, 1 its base.

    `y`, `x` and `radius` are in pixels, `lumen` is the depth at which the lumen begins.
    """

    y: float
    x: float
    radius: float
    lumen: float
    tumour: bool
    waves: NDArray[np.float64]  # (K, 2): amplitude and phase of the waves 2..K+1 of the outline

    def outline(self, theta: NDArray[np.float32]) -> NDArray[np.float32]:
        """Radius of the base, in pixels, in the directions `theta`."""
        edge = np.ones_like(theta)
        for k, (amplitude, phase) in enumerate(self.waves, start=2):
            edge += amplitude * np.cos(k * theta + phase)
        return np.asarray(edge * self.radius, dtype=np.float32)

    def point(self, theta: float, depth: float) -> tuple[float, float]:
        """Row and column of the point in direction `theta` at `depth`."""
        r = depth * float(self.outline(np.array([theta], np.float32))[0])
        return self.y + r * float(np.sin(theta)), self.x + r * float(np.cos(theta))


@dataclass(eq=False)
class Tissue:
    """Stain maps (optical density) and compartments of a tile, all (H, W) float32.

    `stroma` and `solid` are 1 in fibrous and in any tissue; `direction` is the angle of the fibres from
    the column axis, in radians.
    """

    mpp: float
    glands: list[Gland]
    haem: Field
    eosin: Field
    stroma: Field
    solid: Field
    direction: Field

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.haem.shape[0], self.haem.shape[1]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Field:
    """Gaussian noise of unit variance whose details are about `sigma` pixels wide."""
    step = max(1, int(sigma / 2))
    coarse = tuple(n // step + 8 for n in shape)
    field = ndimage.gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), sigma / step, mode="wrap")
    if step > 1:
        field = ndimage.zoom(field, step, order=1)
        field = ndimage.gaussian_filter(field, step / 2)
    field = field[: shape[0], : shape[1]]
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), dtype=np.float32)


def lay_tissue(shape: tuple[int, int], rng: np.random.Generator, mpp: float) -> Tissue:
    """Tissue without nuclei: fibrous stroma with clefts, normal glands and tumour nests."""
    glands = _place_glands(shape, rng, mpp)
    depth = np.full(shape, 9.0, np.float32)
    for gland in glands:
        window, local = _depth(gland, shape)
        depth[window] = np.minimum(depth[window], local)
    direction = _fibre_direction(shape, rng, glands, mpp)
    fibres = _streaks(smooth_noise(rng, shape, 0.45 / mpp), direction, int(5 / mpp))
    bundles = _streaks(smooth_noise(rng, shape, 1.6 / mpp), direction, int(11 / mpp))
    loose = smooth_noise(rng, shape, 13 / mpp)
    grain = smooth_noise(rng, shape, 0.4 / mpp) + smooth_noise(rng, shape, 1.2 / mpp)
    eosin = 0.235 + 0.045 * fibres + 0.055 * bundles - 0.035 * loose + 0.016 * grain
    haem = 0.055 + 0.016 * fibres + 0.012 * bundles + 0.012 * grain
    cleft = _ramp(bundles + 0.45 * loose + 0.12 * grain + 0.15 * fibres, 1.35, 1.95)
    ring = _ramp(depth, 1.0, 1.02) * (1 - _ramp(depth, 1.05, 1.1))
    cleft = np.maximum(cleft * _ramp(depth, 1.0, 1.08), ring * _ramp(loose + 0.5 * bundles, 0.5, 0.9))
    tissue = Tissue(
        mpp, glands, haem * (1 - 0.9 * cleft), eosin * (1 - 0.93 * cleft), 1 - cleft, 1 - cleft, direction
    )
    tissue.stroma *= _ramp(depth, 1.04, 1.1)
    for gland in glands:
        _lay_gland(tissue, gland, rng)
    _lay_red_cells(tissue, rng)
    return tissue


def develop(tissue: Tissue, rng: np.random.Generator) -> NDArray[np.uint8]:
    """RGB (H, W, 3) uint8 of the stain maps: absorption, the blur of the optics, noise of the camera."""
    shape = tissue.shape
    uneven = 1 + 0.04 * smooth_noise(rng, shape, 25 / tissue.mpp)
    haem, eosin = np.clip(tissue.haem, 0.005, None) * uneven, np.clip(tissue.eosin, 0.01, None) * uneven
    out = np.empty((*shape, 3), np.uint8)
    for c, (h, e) in enumerate(zip(HAEMATOXYLIN_OD, EOSIN_OD, strict=True)):
        light = 244 * np.power(10.0, -(haem * h + eosin * e))
        light = ndimage.gaussian_filter(light, 0.2 / tissue.mpp)
        light += 1.6 * smooth_noise(rng, shape, 0.5)
        out[..., c] = np.clip(np.rint(light), 0, 255)
    return out


def _ramp(x: Field, low: float, high: float) -> Field:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def _place_glands(shape: tuple[int, int], rng: np.random.Generator, mpp: float) -> list[Gland]:
    """Glands and nests in turn, at random places that keep a strip of stroma between them."""
    glands: list[Gland] = []
    size = np.array(shape) * mpp
    for _ in range(int(60 + size[0] * size[1] / 100)):
        y, x = rng.uniform(-12, size + 12) / mpp
        tumour = len(glands) % 2 == 0
        radius = float(rng.uniform(27, 36) if tumour else rng.uniform(21, 27)) / mpp
        gap = 5 / mpp
        if any(np.hypot(y - g.y, x - g.x) < radius + g.radius + gap for g in glands):
            continue
        k = np.arange(2, 8)
        waves = np.stack(
            [rng.normal(0, 0.17 if tumour else 0.09, 6) / k**0.9, rng.uniform(0, 6.3, 6)], axis=1
        )
        lumen = float(rng.uniform(0.14, 0.24) if tumour else rng.uniform(0.26, 0.36))
        glands.append(Gland(y, x, radius, lumen, tumour, waves))
    return glands


def _depth(gland: Gland, shape: tuple[int, int]) -> tuple[tuple[slice, slice], Field]:
    """Find the window of the tile which the gland touches, and the depth of its pixels."""
    reach = 1.7 * gland.radius
    window = (
        slice(int(np.clip(gland.y - reach, 0, shape[0])), int(np.clip(gland.y + reach, 0, shape[0]))),
        slice(int(np.clip(gland.x - reach, 0, shape[1])), int(np.clip(gland.x + reach, 0, shape[1]))),
    )
    rows, cols = np.mgrid[window].astype(np.float32)
    dy, dx = rows - gland.y, cols - gland.x
    return window, np.asarray(np.hypot(dy, dx) / gland.outline(np.arctan2(dy, dx)), dtype=np.float32)


def _fibre_direction(
    shape: tuple[int, int], rng: np.random.Generator, glands: list[Gland], mpp: float
) -> Field:
    """Angle of the fibres: a slow wave over the tile that bends around each gland."""
    angle = rng.uniform(0, np.pi) + 0.55 * smooth_noise(rng, shape, 28 / mpp)
    angle += 0.16 * smooth_noise(rng, shape, 5 / mpp)
    cos, sin = np.cos(2 * angle), np.sin(2 * angle)
    for gland in glands:
        window, depth = _depth(gland, shape)
        rows, cols = np.mgrid[window].astype(np.float32)
        around = np.arctan2(rows - gland.y, cols - gland.x) + np.pi / 2
        weight = 3 * np.exp(-(((depth - 1) / 0.25) ** 2))
        cos[window] += weight * np.cos(2 * around)
        sin[window] += weight * np.sin(2 * around)
    return np.asarray(0.5 * np.arctan2(sin, cos), dtype=np.float32)


def _streaks(noise: Field, direction: Field, length: int) -> Field:
    """Noise drawn out along the fibres (line integral convolution, Cabral & Leedom 1993), unit variance."""
    step = max(1.0, length / 12)
    vy, vx = np.sin(direction), np.cos(direction)
    total = noise.copy()
    bottom, right = noise.shape[0] - 1, noise.shape[1] - 1
    for sign in (1.0, -1.0):
        y, x = np.mgrid[: noise.shape[0], : noise.shape[1]].astype(np.float32)
        dy, dx = sign * vy, sign * vx
        for _ in range(round(length / step)):
            y, x = np.clip(y + step * dy, 0, bottom), np.clip(x + step * dx, 0, right)
            iy, ix = np.rint(y).astype(np.intp), np.rint(x).astype(np.intp)
            ny, nx = vy[iy, ix], vx[iy, ix]
            ahead = np.where(ny * dy + nx * dx < 0, np.float32(-1), np.float32(1))
            dy, dx = ahead * ny, ahead * nx
            total += noise[iy, ix]
    return np.asarray((total - total.mean()) / max(float(total.std()), 1e-6), dtype=np.float32)


def _lay_gland(tissue: Tissue, gland: Gland, rng: np.random.Generator) -> None:
    """Cytoplasm and lumen of one gland; normal glands get the mucin of goblet cells."""
    window, depth = _depth(gland, tissue.shape)
    if depth.size == 0:
        return
    shape, mpp = (depth.shape[0], depth.shape[1]), tissue.mpp
    coarse, fine = smooth_noise(rng, shape, 3.5 / mpp), smooth_noise(rng, shape, 0.5 / mpp)
    inside = 1 - _ramp(depth, 0.985, 1.015)
    wall = depth + 0.035 * smooth_noise(rng, shape, 2.0 / mpp)
    lumen = 1 - _ramp(wall, gland.lumen, gland.lumen + 0.05)
    eosin = 0.19 + 0.03 * coarse + 0.03 * fine
    haem = (0.15 if gland.tumour else 0.08) + 0.035 * coarse + 0.03 * fine
    apex = np.exp(-(((wall - gland.lumen - 0.06) / 0.05) ** 2))
    eosin += 0.08 * apex
    if not gland.tumour:
        mucin = _goblets(gland, window, shape, rng, mpp)
        eosin, haem = eosin * (1 - 0.72 * mucin), haem * (1 - 0.35 * mucin)
    secretion = np.clip(0.015 + 0.03 * smooth_noise(rng, shape, 4 / mpp) + 0.015 * fine, 0, None)
    eosin, haem = eosin * (1 - lumen) + secretion * lumen, haem * (1 - lumen) + 0.3 * secretion * lumen
    for target, new in ((tissue.eosin, eosin), (tissue.haem, haem), (tissue.solid, 1 - lumen)):
        target[window] = target[window] * (1 - inside) + new * inside
    tissue.stroma[window] *= 1 - inside


def _goblets(
    gland: Gland, window: tuple[slice, slice], shape: tuple[int, int], rng: np.random.Generator, mpp: float
) -> Field:
    """1 in the mucin droplets between nuclei and lumen, 0 elsewhere."""
    rows, cols = np.mgrid[window].astype(np.float32)
    mucin = np.zeros(shape, np.float32)
    n = int(2 * np.pi * 0.5 * gland.radius * mpp / 8.5)
    for i in range(n):
        if rng.uniform() < 0.35:
            continue
        theta = 2 * np.pi * (i + float(rng.uniform(-0.2, 0.2))) / n
        y, x = gland.point(theta, float(rng.uniform(0.5, 0.56)))
        along = (cols - x) * np.cos(theta) + (rows - y) * np.sin(theta)
        across = -(cols - x) * np.sin(theta) + (rows - y) * np.cos(theta)
        q = np.hypot(
            along / (float(rng.uniform(3.2, 4.2)) / mpp), across / (float(rng.uniform(2.3, 3.0)) / mpp)
        )
        mucin = np.maximum(mucin, 1 - _ramp(q.astype(np.float32), 0.8, 1.05))
    return mucin


def _lay_red_cells(tissue: Tissue, rng: np.random.Generator) -> None:
    """Lay a few red blood cells in the stroma: bright eosin, no nucleus, paler in the middle."""
    mpp = tissue.mpp
    for _ in range(max(1, int(tissue.haem.size * mpp**2 / 9000))):
        tries = rng.uniform(0, 1, (20, 2)) * tissue.shape
        spot = max(tries, key=lambda p: float(tissue.stroma[int(p[0]), int(p[1])]))
        for y, x in spot + rng.normal(0, 5.5 / mpp, (7, 2)):
            r = float(rng.uniform(2.6, 3.3)) / mpp
            y0, x0 = max(0, int(y - 1.2 * r)), max(0, int(x - 1.2 * r))
            window = (slice(y0, max(0, int(y + 1.2 * r) + 1)), slice(x0, max(0, int(x + 1.2 * r) + 1)))
            eosin, haem = tissue.eosin[window], tissue.haem[window]
            rows, cols = np.ogrid[y0 : y0 + eosin.shape[0], x0 : x0 + eosin.shape[1]]
            q = (np.hypot(rows - y, cols - x) / r).astype(np.float32)
            cell = (1 - _ramp(q, 0.85, 1.1)) * np.clip(tissue.stroma[window], 0, 1)
            eosin += cell * (0.5 - 0.14 * np.exp(-4 * q**2) - eosin)
            haem += cell * (0.03 - haem)
