"""Tiles: which pixels a tile owns, and which it must read.

An image is cut into a grid of tiles. Exactly one tile owns a nucleus, the one that holds its centre (the read and
write regions of StarDist's `big`, with the ownership decided by the centre). The decoder takes a tile together
with the maps around it; the network sees what it answers for with a halo of its receptive field, in windows that
begin on its stride, so that the maps of a pixel are the same in whatever window they were computed, and the nuclei
in whatever tiles.

The tiles of a block are done in raster order. Each window answers for what its tile lacks when those above and to
the left are done: so a tile can be decoded as soon as its own window was computed, and of what lies behind no more
is held than strips.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError

STRIDE = 16
"""Windows of the network begin on multiples of this many pixels."""

HALO = 176
"""The shipped student's receptive field has a radius of 175 pixels."""

WIDE = 1024
"""Columns that every window has if the image has them: in narrower ones OpenVINO rounds bfloat16 otherwise, and the
maps of a pixel shall not depend on the window."""

CELL = 2560
"""Side of a tile: large, since the halo costs less then; bounded by the memory of what the network computes."""


@dataclass(frozen=True)
class Box:
    """A half-open rectangle of pixels: rows y0..y1 - 1, columns x0..x1 - 1."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index into an array of the whole image."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def grown(self, by: int, shape: tuple[int, int]) -> Box:
        """Return the box widened on every side, cut to an image of `shape`."""
        return Box(
            max(0, self.y0 - by),
            min(shape[0], self.y1 + by),
            max(0, self.x0 - by),
            min(shape[1], self.x1 + by),
        )

    def cut(self, other: Box) -> Box | None:
        """Return the part shared with another box, or None."""
        y0, y1 = max(self.y0, other.y0), min(self.y1, other.y1)
        x0, x1 = max(self.x0, other.x0), min(self.x1, other.x1)
        return Box(y0, y1, x0, x1) if y0 < y1 and x0 < x1 else None

    def holds(self, points: NDArray[np.number]) -> NDArray[np.bool_]:
        """Return which of the (n, 2) pixels (row, column) lie in the box."""
        y, x = points[:, 0], points[:, 1]
        inside: NDArray[np.bool_] = (self.y0 <= y) & (y < self.y1) & (self.x0 <= x) & (x < self.x1)
        return inside

    def relative(self, origin: Box) -> Box:
        """Return the box in coordinates that start at the corner of `origin`."""
        return Box(self.y0 - origin.y0, self.y1 - origin.y0, self.x0 - origin.x0, self.x1 - origin.x0)


Index = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """The tiles of an image.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image in pixels of the model's resolution.
    cell : int
        Largest side of a tile. The tiles of an axis are made equally long.
    halo : int
        Context in pixels that the network sees around what it answers for: its receptive field, up to its stride.
    """

    shape: tuple[int, int]
    cell: int = CELL
    halo: int = HALO

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.cell < 1 or self.halo < 0 or self.halo % STRIDE:
            raise NucSegError(
                f"A grid of cell {self.cell}, halo {self.halo} (a multiple of {STRIDE}) does not fit an image of "
                f"{self.shape}."
            )

    def _size(self, axis: int) -> int:
        """Return the length of the tiles along an axis; an image that fits with its halo is not divided."""
        length = self.shape[axis]
        count = 1 if length <= self.cell + 2 * self.halo else -(-length // self.cell)
        return up(-(-length // count))

    @property
    def counts(self) -> tuple[int, int]:
        """Tiles along the rows and the columns."""
        return -(-self.shape[0] // self._size(0)), -(-self.shape[1] // self._size(1))

    def owned(self, index: Index) -> Box:
        """Return the pixels that a tile owns."""
        h, w = self._size(0), self._size(1)
        y, x = index[0] * h, index[1] * w
        return Box(y, min(y + h, self.shape[0]), x, min(x + w, self.shape[1]))

    def window(self, box: Box) -> Box:
        """Return what the network must see to answer for a box that begins on its stride."""
        return window_around(box, self.halo, self.shape)

    def cells(self, box: Box | None = None) -> Iterator[Index]:
        """Yield the tiles that touch a box (all of them by default), in raster order."""
        h, w = self._size(0), self._size(1)
        area = box or Box(0, self.shape[0], 0, self.shape[1])
        for row in range(area.y0 // h, -(-area.y1 // h)):
            for col in range(area.x0 // w, -(-area.x1 // w)):
                yield row, col

    def blocks(self, side: int) -> Iterator[tuple[Index, ...]]:
        """Yield the tiles in blocks of about `side` pixels, each in raster order."""
        spans = [_spans(self.counts[axis], max(1, side // self._size(axis))) for axis in (0, 1)]
        for rows, cols in itertools.product(*spans):
            yield tuple(itertools.product(rows, cols))


def window_around(box: Box, halo: int, shape: tuple[int, int]) -> Box:
    """Return a box with its halo, widened to `WIDE` columns where the image of `shape` has them."""
    seen = box.grown(halo, shape)
    missing = WIDE - (seen.x1 - seen.x0)
    if missing <= 0:
        return seen
    x0 = max(0, seen.x0 - up(missing // 2))
    x1 = min(shape[1], x0 + WIDE)
    return Box(seen.y0, seen.y1, max(0, (x1 - WIDE) // STRIDE * STRIDE), max(x1, seen.x1))


def up(length: int) -> int:
    """Return the next multiple of the network's stride."""
    return -(-length // STRIDE) * STRIDE


def _spans(count: int, most: int) -> list[range]:
    """Cut range(count) into parts of nearly equal length, at most `most`."""
    parts = -(-count // most)
    edges = [round(k * count / parts) for k in range(parts + 1)]
    return [range(a, b) for a, b in itertools.pairwise(edges)]


class Sweep:
    """How some tiles of a block are done in raster order: see the module.

    Parameters
    ----------
    grid : Grid
    tiles : sequence of Index
        In raster order.
    margin : int
        Maps that a tile needs around it.

    Attributes
    ----------
    windows : tuple of Index
        The windows to compute, named by the tile of the block they are for, in raster order. Where tiles are missing
        there are some without one; one at the edge of the image may have nothing to add.
    needs : dict
        For each tile the windows whose answers it takes; none comes after its own.
    """

    def __init__(self, grid: Grid, tiles: Sequence[Index], margin: int) -> None:
        self._reads = {tile: grid.owned(tile).grown(margin, grid.shape) for tile in tiles}
        rows, cols = [r for r, _ in tiles], [c for _, c in tiles]
        first = (min(rows), min(cols))
        self._answers: dict[Index, Box] = {}
        self._users: dict[Index, list[tuple[Index, Box]]] = {}
        for window in itertools.product(range(first[0], max(rows) + 1), range(first[1], max(cols) + 1)):
            share = _share(grid, window, first, up(margin))
            parts = {} if share is None else {t: read.cut(share) for t, read in self._reads.items()}
            users = [(tile, part) for tile, part in parts.items() if part is not None]
            if users:
                self._users[window] = users
                self._answers[window] = _aligned(_around([part for _, part in users]), grid.shape)
        self.windows = tuple(self._users)
        self.needs: dict[Index, list[Index]] = {tile: [] for tile in tiles}
        for window, users in self._users.items():
            for tile, _ in users:
                self.needs[tile].append(window)

    def answer(self, window: Index) -> Box:
        """Return the box that a window answers for; it begins and ends on the network's stride."""
        return self._answers[window]

    def read(self, tile: Index) -> Box:
        """Return the box whose maps a tile needs."""
        return self._reads[tile]

    def needed_after(self, window: Index, done: Index) -> Box | None:
        """Return the least box of a window's answer that tiles after `done` need, None if there is none."""
        parts = [part for tile, part in self._users[window] if tile > done]
        return _around(parts) if parts else None


def _share(grid: Grid, window: Index, first: Index, margin: int) -> Box | None:
    """Return what a window adds to those above and to the left of it: the shares are disjoint."""
    owned, (height, width) = grid.owned(window), grid.shape
    y0 = max(0, owned.y0 - margin) if window[0] == first[0] else owned.y0 + margin
    x0 = max(0, owned.x0 - margin) if window[1] == first[1] else owned.x0 + margin
    return Box(y0, owned.y1 + margin, x0, owned.x1 + margin).cut(Box(0, height, 0, width))


def _around(boxes: Sequence[Box]) -> Box:
    return Box(
        min(b.y0 for b in boxes), max(b.y1 for b in boxes), min(b.x0 for b in boxes), max(b.x1 for b in boxes)
    )


def _aligned(box: Box, shape: tuple[int, int]) -> Box:
    return Box(
        box.y0 // STRIDE * STRIDE,
        min(up(box.y1), shape[0]),
        box.x0 // STRIDE * STRIDE,
        min(up(box.x1), shape[1]),
    )
