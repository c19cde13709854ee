"""A synthetic H&E tile with its ground truth: the sample image, the demo and the tests' fixture.

The tile is built from tissue compartments (glands with a lumen, tumour nests, fibrous stroma), populated with
nuclei of five classes, and composed in optical density space (Beer-Lambert) from two stain concentrations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_nucseg.core import _tissue
from napari_nucseg.core._tissue import Gland, Tissue, lay_tissue, smooth_noise
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CLASS_NAMES = ("neoplastic", "inflammatory", "connective", "epithelial", "other")

UM2_PER_NUCLEUS = 115.0
"""Area of tile per nucleus of the default density, in um2; a colon carcinoma has about this many."""
MIN_VISIBLE = 0.7
"""A nucleus of which less than this part would stay visible beneath its neighbours is left out."""
MIN_AREA_UM2 = 6.0
"""Slivers smaller than this, cut off by the edge of the tile, are left out."""


@dataclass(frozen=True, eq=False)
class SyntheticTile:
    """A synthetic H&E image and its ground truth.

    Attributes
    ----------
    image : (H, W, 3) uint8
        RGB.
    labels : (H, W) uint32
        Nuclei 1..N, 0 = background; every nucleus is one 4-connected region.
    types : dict of int to str
        Class name of each nucleus id.
    class_names : tuple of str
        All the classes, in the order of `type_indices`.
    mpp : float
        Micrometres per pixel.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint32]
    types: dict[int, str]
    mpp: float
    class_names: tuple[str, ...] = CLASS_NAMES

    @property
    def type_indices(self) -> NDArray[np.uint8]:
        """Class index of the nuclei 1..N, (N,) uint8: 0 is `class_names[0]`."""
        return np.array([self.class_names.index(self.types[i]) for i in sorted(self.types)], np.uint8)

    @property
    def centres(self) -> NDArray[np.float64]:
        """Centroids of the nuclei 1..N, (N, 2) float (row, col) in pixels."""
        if not self.types:
            return np.empty((0, 2))
        ids = np.arange(1, len(self.types) + 1)
        return np.asarray(ndimage.center_of_mass(self.labels > 0, self.labels, ids), dtype=np.float64)


@dataclass(frozen=True)
class _Look:
    """How the nuclei of a class look: sizes in um, stain as optical density, texture as fractions of it."""

    length: tuple[float, float]
    width: tuple[float, float]
    stain: tuple[float, float]
    grain: float
    rim: float
    wobble: float
    hollow: float = 0.0
    nucleoli: int = 0


_LOOKS = {
    "neoplastic": _Look((10.0, 14.0), (7.4, 9.6), (0.42, 0.68), 0.34, 0.55, 0.10, hollow=0.25, nucleoli=2),
    "inflammatory": _Look((6.0, 7.2), (5.4, 6.6), (0.85, 1.15), 0.24, 0.20, 0.05),
    "connective": _Look((9.5, 18.0), (2.3, 4.0), (0.55, 0.90), 0.22, 0.25, 0.09),
    "epithelial": _Look((8.5, 10.5), (5.2, 6.6), (0.55, 0.80), 0.26, 0.40, 0.06, hollow=0.12, nucleoli=1),
    "other": _Look((4.0, 5.4), (3.4, 4.6), (1.20, 1.50), 0.08, 0.00, 0.14),
}


@dataclass(frozen=True)
class _Nucleus:
    """A nucleus to be drawn: centre (row, col) in pixels, `angle` of its long axis from the column axis."""

    name: str
    y: float
    x: float
    angle: float


@dataclass
class _Canvas:
    tissue: Tissue
    rng: np.random.Generator
    labels: NDArray[np.uint32]
    grain: NDArray[np.float32]
    names: list[str] = field(default_factory=list)


def synthetic_he(
    shape: tuple[int, int] = (512, 512), n_nuclei: int | None = None, seed: int = 0, mpp: float = 0.25
) -> SyntheticTile:
    """Draw an H&E tile of glands, tumour nests and stroma, with the truth about its nuclei.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns, at least 16 pixels each.
    n_nuclei : int, optional
        How many nuclei; by default one per 115 um2. A tile that has no room for so many holds fewer.
    seed : int
        The same arguments give the same tile.
    mpp : float
        Micrometres per pixel, 0.1 to 1.

    Returns
    -------
    SyntheticTile
        Image (H, W, 3) uint8, labels (H, W) uint32 with the ids 1..N, and the class of each id.

    Raises
    ------
    NucSegError
        If an argument is out of its range.
    """
    _check(shape, n_nuclei, mpp)
    rng = np.random.default_rng(seed)
    tissue = lay_tissue((int(shape[0]), int(shape[1])), rng, mpp)
    grain = smooth_noise(rng, tissue.shape, 0.42 / mpp) + 0.5 * smooth_noise(rng, tissue.shape, 0.9 / mpp)
    canvas = _Canvas(tissue, rng, np.zeros(tissue.shape, np.uint32), grain.astype(np.float32))
    wanted = round(shape[0] * shape[1] * mpp**2 / UM2_PER_NUCLEUS) if n_nuclei is None else n_nuclei
    for nucleus in _candidates(canvas, wanted):
        if len(canvas.names) >= wanted:
            break
        _draw(canvas, nucleus)
    types = dict(enumerate(canvas.names, start=1))
    return SyntheticTile(_tissue.develop(tissue, rng), canvas.labels, types, float(mpp))


def _check(shape: tuple[int, int], n_nuclei: int | None, mpp: float) -> None:
    if len(shape) != 2 or min(shape) < 16:
        raise NucSegError(
            f"shape is {shape}, but a tile has two sides of at least 16 pixels, e.g. (512, 512)."
        )
    if n_nuclei is not None and n_nuclei < 0:
        raise NucSegError(f"n_nuclei is {n_nuclei}, but a number of nuclei is 0 or more.")
    if not 0.1 <= mpp <= 1:
        raise NucSegError(f"mpp is {mpp}, but a synthetic tile has 0.1 to 1 um per pixel, e.g. 0.25 for 40x.")


def _candidates(canvas: _Canvas, wanted: int) -> Iterator[_Nucleus]:
    """Nuclei where the tissue wants them, then lymphocytes anywhere for those who want more."""
    tissue, rng = canvas.tissue, canvas.rng
    found: list[_Nucleus] = []
    for gland in tissue.glands:
        found += _nest(tissue, gland, rng) if gland.tumour else _gland_row(tissue, gland, rng)
    area_um2 = tissue.shape[0] * tissue.shape[1] * tissue.mpp**2
    found += _stromal(tissue, rng, int(area_um2 / 260))
    found += _inflamed(tissue, rng, max(1, int(area_um2 / 9000)))
    found += _scattered(tissue, rng, max(1, int(area_um2 / 3500)), "other")
    order = rng.permutation(len(found))
    yield from (found[i] for i in order)
    yield from _scattered(tissue, rng, 20 * wanted, "inflammatory")


def _gland_row(tissue: Tissue, gland: Gland, rng: np.random.Generator) -> Iterator[_Nucleus]:
    """One row of nuclei along the base of a gland, each standing on its end."""
    theta = float(rng.uniform(0, 2 * np.pi))
    end = theta + 2 * np.pi
    while theta < end:
        depth = rng.normal(0.77, 0.035)
        y, x = gland.point(theta, depth)
        yield _Nucleus("epithelial", y, x, theta + float(rng.normal(0, 0.15)))
        reach = float(np.hypot(y - gland.y, x - gland.x)) * tissue.mpp
        theta += float(rng.uniform(5.9, 8.0)) / max(reach, 8.0)


def _nest(tissue: Tissue, gland: Gland, rng: np.random.Generator) -> Iterator[_Nucleus]:
    """Crowded nuclei of many sizes all over a tumour nest, none in its lumen."""
    taken: list[tuple[float, float]] = []
    for _ in range(500):
        depth = float(np.sqrt(rng.uniform((gland.lumen + 0.16) ** 2, 0.9**2)))
        theta = float(rng.uniform(0, 2 * np.pi))
        y, x = gland.point(theta, depth)
        gap = float(rng.uniform(7.8, 10.2)) / tissue.mpp
        if all((y - v) ** 2 + (x - u) ** 2 > gap**2 for v, u in taken):
            taken.append((y, x))
            yield _Nucleus("neoplastic", y, x, theta + float(rng.normal(0, 0.6)))


def _stromal(tissue: Tissue, rng: np.random.Generator, n: int) -> Iterator[_Nucleus]:
    """Spindle nuclei that lie along the fibres."""
    for y, x in rng.uniform(0, 1, (n, 2)) * tissue.shape:
        if tissue.stroma[int(y), int(x)] > 0.6:
            angle = float(tissue.direction[int(y), int(x)])
            yield _Nucleus("connective", y, x, angle + float(rng.normal(0, 0.12)))


def _inflamed(tissue: Tissue, rng: np.random.Generator, n: int) -> Iterator[_Nucleus]:
    """Clusters of lymphocytes in the stroma."""
    spread = 11.0 / tissue.mpp
    for _ in range(n):
        tries = rng.uniform(0, 1, (30, 2)) * tissue.shape
        y, x = max(tries, key=lambda p: float(tissue.stroma[int(p[0]), int(p[1])]))
        for dy, dx in rng.normal(0, spread, (26, 2)):
            v, u = y + dy, x + dx
            inside = 0 <= v < tissue.shape[0] and 0 <= u < tissue.shape[1]
            if inside and tissue.stroma[int(v), int(u)] > 0.5:
                yield _Nucleus("inflammatory", v, u, float(rng.uniform(0, np.pi)))


def _scattered(tissue: Tissue, rng: np.random.Generator, n: int, name: str) -> Iterator[_Nucleus]:
    """Single cells in the stroma, a few of them on their way through the epithelium."""
    for y, x in rng.uniform(0, 1, (n, 2)) * tissue.shape:
        where = tissue.stroma if rng.uniform() < 0.93 else tissue.solid
        if where[int(y), int(x)] > 0.5:
            yield _Nucleus(name, y, x, float(rng.uniform(0, np.pi)))


def _draw(canvas: _Canvas, nucleus: _Nucleus) -> None:
    """Add the nucleus to the labels and the stains, unless its neighbours leave too little room."""
    rng, tissue, look = canvas.rng, canvas.tissue, _LOOKS[nucleus.name]
    a = float(rng.uniform(*look.length)) / 2 / tissue.mpp
    b = min(float(rng.uniform(*look.width)) / 2 / tissue.mpp, a)
    bend = float(rng.normal(0, 0.12)) if nucleus.name == "connective" else 0.0
    reach = int(np.ceil(1.3 * a)) + 2
    y0, x0 = max(0, int(nucleus.y) - reach), max(0, int(nucleus.x) - reach)
    window = (slice(y0, int(nucleus.y) + reach + 1), slice(x0, int(nucleus.x) + reach + 1))
    occupied = canvas.labels[window] > 0
    rows, cols = np.mgrid[y0 : y0 + occupied.shape[0], x0 : x0 + occupied.shape[1]].astype(np.float32)
    cos, sin = np.cos(nucleus.angle), np.sin(nucleus.angle)
    along = (cols - nucleus.x) * cos + (rows - nucleus.y) * sin
    across = -(cols - nucleus.x) * sin + (rows - nucleus.y) * cos
    across = across - bend * (along**2 / a - a / 3)
    theta = np.arctan2(across / b, along / a)
    edge = np.ones_like(theta)
    for k in (2, 3, 4, 5):
        edge += float(rng.normal(0, look.wobble / k)) * np.cos(k * theta + float(rng.uniform(0, 2 * np.pi)))
    q = np.hypot(along / a, across / b) / edge
    whole = q < 1
    mask = _largest_piece(whole & ~occupied)
    crowded = mask.sum() < MIN_VISIBLE * whole.sum()
    surrounds = bool((ndimage.binary_fill_holes(mask) & occupied).any())
    if crowded or surrounds or mask.sum() * tissue.mpp**2 < MIN_AREA_UM2:
        return
    canvas.names.append(nucleus.name)
    canvas.labels[window][mask] = len(canvas.names)
    _stain(canvas, look, window, q, mask, (a, b))


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, n = ndimage.label(mask)
    if n <= 1:
        return mask
    return np.asarray(pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:]))


def _stain(
    canvas: _Canvas,
    look: _Look,
    window: tuple[slice, slice],
    q: NDArray[np.float32],
    mask: NDArray[np.bool_],
    axes: tuple[float, float],
) -> None:
    """Lay the chromatin of one nucleus over the tissue; `q` is 0 at its centre and 1 on its outline."""
    rng, tissue = canvas.rng, canvas.tissue
    mean_radius = float(np.sqrt(axes[0] * axes[1])) * tissue.mpp
    depth_um = np.clip(1 - q, 0, None) * mean_radius
    texture = 1 + look.grain * canvas.grain[window] - look.hollow * np.clip(1 - q, 0, 1)
    texture += look.rim * np.exp(-((depth_um / 0.45) ** 2))
    for _ in range(int(rng.integers(0, look.nucleoli + 1))):
        inside = np.argwhere(mask & (q < 0.6))
        if len(inside):
            v, u = inside[rng.integers(len(inside))]
            rows, cols = np.ogrid[: q.shape[0], : q.shape[1]]
            size = float(rng.uniform(0.55, 0.85)) / tissue.mpp
            texture += 0.8 * np.exp(-((rows - v) ** 2 + (cols - u) ** 2) / (2 * size**2))
    stain = float(rng.uniform(*look.stain)) * np.clip(texture, 0.35, 2.2)
    focus = float(rng.uniform(0.15, 0.55))
    cover = np.where(mask, 1 - np.exp(-((depth_um + 0.12) / focus)), 0).astype(np.float32)
    tissue.haem[window] += cover * (stain - tissue.haem[window])
    tissue.eosin[window] += cover * (0.13 - 0.6 * tissue.eosin[window])
