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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

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

CELL = 2080
"""What a window answers for, without halo: large, since the halo costs less then; bounded by the memory that the
network takes (some 600 MB in bfloat16, twice that in f32)."""

MARGIN = 240
"""Maps that the decoder needs around a tile, if nothing else is said."""

BLOCK = 16_000
"""About the side of a block in pixels: its seams are computed twice, so it should be large; what it holds in memory
grows with it."""


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
class _Line:
    """The windows of a block along one axis.

    Window i begins at ``starts[i]``, and answers for ``answers[i]`` to ``answers[i + 1]``; its tile is ``tiles[i]`` to
    ``tiles[i + 1]``, and may be empty.
    """

    starts: tuple[int, ...]
    answers: tuple[int, ...]
    tiles: tuple[int, ...]


def _lines(length: int, cell: int, halo: int, margin: int, block: int) -> tuple[int, list[_Line]]:
    """Cut an axis into blocks and these into windows of one length; return the length and the blocks.

    Of a few numbers of blocks, the one is taken with which the network sees the fewest pixels.
    """
    if length <= cell + 2 * halo:
        return length, [_Line((0,), (0, length), (0, length))]
    least = -(-length // block)
    cuts = [_cut(length, cell, halo, margin, count) for count in range(least, least + 3)]
    return min(cuts, key=lambda cut: cut[0] * sum(len(line.starts) for line in cut[1]))


def _cut(length: int, cell: int, halo: int, margin: int, count: int) -> tuple[int, list[_Line]]:
    """Cut an axis into so many blocks, see `_lines`."""
    edges = [up(k * length // count) for k in range(count)] + [length]
    spans = [(a, b) for a, b in itertools.pairwise(edges) if a < b]
    # what the windows of a block see, and what of that is not the halo of the first and the last
    seen = [(max(0, a - margin - halo), min(length, b + margin + halo)) for a, b in spans]
    inner = [max(1, b - a - 2 * halo) for a, b in seen]
    step = max(up(-(-n // -(-n // cell))) for n in inner)
    size, limit = step + 2 * halo, max(0, up(length) - step - 2 * halo)
    lines = []
    for (low, high), (first, _), n in zip(spans, seen, inner, strict=True):
        between = [first + halo + k * step for k in range(1, -(-n // step))]
        lines.append(
            _Line(
                tuple(min(first + k * step, limit) for k in range(len(between) + 1)),
                (max(0, low - margin), *between, min(length, high + margin)),
                (low, *(min(max(edge - margin, low), high) for edge in between), high),
            )
        )
    return size, lines


@dataclass(frozen=True)
class Grid:
    """The tiles of an image, and the windows in which the network sees it.

    All windows of an image that is larger than one have the same shape: what the network needs can be laid out for it.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image in pixels of the model's resolution.
    cell : int
        Largest side of what a window answers for.
    halo : int
        Context in pixels that the network sees around what it answers for: its receptive field, up to its stride.
    margin : int
        Maps that the decoder needs around a tile.
    block : int
        About the side of a block.
    """

    shape: tuple[int, int]
    cell: int = CELL
    halo: int = HALO
    margin: int = MARGIN
    block: int = BLOCK

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.cell < 1 or self.halo < 0 or self.halo % STRIDE or self.block < 1:
            raise NucSegError(
                f"A grid of cell {self.cell}, halo {self.halo} (a multiple of {STRIDE}) does not fit an image of "
                f"{self.shape}."
            )

    @cached_property
    def _axes(self) -> tuple[tuple[int, list[_Line]], ...]:
        cut = (self.cell, self.halo, up(self.margin), self.block)
        return tuple(_lines(length, *cut) for length in self.shape)

    @cached_property
    def _tiles(self) -> tuple[list[tuple[int, int]], ...]:
        """Return start and end of the tiles along the rows and the columns."""
        return tuple([e for line in lines for e in itertools.pairwise(line.tiles)] for _, lines in self._axes)

    @property
    def window_shape(self) -> tuple[int, int]:
        """Rows and columns of the windows, up to the stride."""
        return up(self._axes[0][0]), up(self._axes[1][0])

    def owned(self, index: Index) -> Box:
        """Return the pixels that a tile owns."""
        (y0, y1), (x0, x1) = self._tiles[0][index[0]], self._tiles[1][index[1]]
        return Box(y0, y1, x0, x1)

    def window(self, box: Box) -> Box:
        """Return what the network must see to answer for a box that begins on its stride."""
        return window_around(box, self.halo, self.shape)

    def cells(self, box: Box | None = None) -> Iterator[Index]:
        """Yield the tiles that touch a box (all of them by default), in raster order."""
        area = box or Box(0, self.shape[0], 0, self.shape[1])
        rows, cols = (
            [k for k, (a, b) in enumerate(tiles) if max(a, low) < min(b, high)]
            for tiles, low, high in (
                (self._tiles[0], area.y0, area.y1),
                (self._tiles[1], area.x0, area.x1),
            )
        )
        yield from itertools.product(rows, cols)

    def blocks(self) -> Iterator[tuple[Index, ...]]:
        """Yield the tiles block by block, each in raster order."""
        whole = set(self.cells())
        for rows, cols in itertools.product(*(_numbers(lines) for _, lines in self._axes)):
            yield tuple(tile for tile in itertools.product(rows, cols) if tile in whole)

    def windows(self, tile: Index) -> dict[Index, tuple[Box, Box]]:
        """Return what each window of a tile's block sees and answers for, in raster order."""
        rows, cols = (_windows_at(lines, size, k) for (size, lines), k in zip(self._axes, tile, strict=True))
        height, width = self.shape
        return {
            (row, col): (Box(ys[0], min(ys[1], height), xs[0], min(xs[1], width)), Box(*ay, *ax))
            for (row, ys, ay), (col, xs, ax) in itertools.product(rows, cols)
        }


_Ends = tuple[int, int]


def _numbers(lines: Sequence[_Line]) -> list[range]:
    ends = list(itertools.accumulate((len(line.starts) for line in lines), initial=0))
    return [range(a, b) for a, b in itertools.pairwise(ends)]


def _windows_at(lines: Sequence[_Line], size: int, tile: int) -> list[tuple[int, _Ends, _Ends]]:
    """Return number, extent and answer of the windows in the block of a tile, along one axis."""
    numbers, line = next((n, line) for n, line in zip(_numbers(lines), lines, strict=True) if tile in n)
    answers = itertools.pairwise(line.answers)
    return [(k, (y, y + size), a) for k, y, a in zip(numbers, line.starts, answers, strict=True)]


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


class Sweep:
    """How some tiles of a block are done in raster order: see the module.

    Parameters
    ----------
    grid : Grid
    tiles : dict
        Of each tile of the block to do the part that is asked for, in raster order.

    Attributes
    ----------
    windows : tuple of Index
        The windows to compute, in raster order; each is named by the tile that can be done with it and those before it.
    needs : dict
        For each tile the windows whose answers it takes, in raster order.

    Raises
    ------
    NucSegError
        The tiles are not of one block.
    """

    def __init__(self, grid: Grid, tiles: Mapping[Index, Box]) -> None:
        self._reads = {tile: part.grown(grid.margin, grid.shape) for tile, part in tiles.items()}
        self._seen: dict[Index, Box] = {}
        self._answers: dict[Index, Box] = {}
        self._users: dict[Index, list[tuple[Index, Box]]] = {}
        self.needs: dict[Index, list[Index]] = {tile: [] for tile in tiles}
        windows = grid.windows(next(iter(tiles)))
        if missing := [tile for tile in tiles if tile not in windows]:
            raise NucSegError(f"Tile {missing[0]} lies in another block than {next(iter(tiles))}.")
        found: dict[Index, list[tuple[Index, Box]]] = {window: [] for window in windows}
        rows = {row: (share.y0, share.y1) for (row, _), (_, share) in windows.items()}
        cols = {col: (share.x0, share.x1) for (_, col), (_, share) in windows.items()}
        for tile, read in self._reads.items():
            for window in itertools.product(
                _touching(rows, read.y0, read.y1), _touching(cols, read.x0, read.x1)
            ):
                part = read.cut(windows[window][1])
                if part is not None:
                    found[window].append((tile, part))
                    self.needs[tile].append(window)
        for window, (seen, share) in windows.items():
            users = found[window]
            if not users:
                continue
            least = _aligned(_around([part for _, part in users]), grid.shape)
            small = _pixels(least) < _pixels(share) / 2
            self._answers[window] = least if small else share
            self._seen[window] = (
                grid.window(least) if small else grid.window(share) if _narrow(seen, grid) else seen
            )
            self._users[window] = users
        self.windows = tuple(self._users)

    def answer(self, window: Index) -> Box:
        """Return the box that a window answers for; it begins on the network's stride."""
        return self._answers[window]

    def seen(self, window: Index) -> Box:
        """Return the box that the network sees in a window."""
        return self._seen[window]

    def read(self, tile: Index) -> Box:
        """Return the box whose maps a tile needs."""
        return self._reads[tile]

    def needed_after(self, window: Index, done: Index) -> Box | None:
        """Return the least box of a window's answer that tiles after `done` need, None if there is none."""
        parts = [part for tile, part in self._users[window] if tile > done]
        return _around(parts) if parts else None


def _touching(spans: Mapping[int, _Ends], low: int, high: int) -> list[int]:
    return [k for k, (a, b) in spans.items() if a < high and low < b]


def _narrow(seen: Box, grid: Grid) -> bool:
    return seen.x1 - seen.x0 < min(WIDE, grid.shape[1])


def _pixels(box: Box) -> int:
    return box.shape[0] * box.shape[1]


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
