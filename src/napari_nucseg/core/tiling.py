"""Tiles: which pixels a tile owns, and which it must read.

An image is cut into a grid of cells that depends on nothing but its size. The network sees every cell with a halo
around it (the window) and answers for the cell alone, so the maps of a pixel do not depend on which region of
the image was asked for. The decoder then takes a cell together with the maps of its neighbours; exactly one cell
owns a nucleus, the one that holds its centre (the read and write regions of StarDist's `big`, with the ownership
decided by the centre).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from napari_nucseg.errors import NucSegError


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
        box = Box(
            max(self.y0, other.y0), min(self.y1, other.y1), max(self.x0, other.x0), min(self.x1, other.x1)
        )
        return box if box.y0 < box.y1 and box.x0 < box.x1 else None

    def relative(self, origin: Box) -> Box:
        """Return the box in coordinates that start at the corner of `origin`."""
        return Box(self.y0 - origin.y0, self.y1 - origin.y0, self.x0 - origin.x0, self.x1 - origin.x0)


Index = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """The cells of an image.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image in pixels of the model's resolution.
    cell : int
        Largest side of a cell. The cells of an axis are made equally long.
    halo : int
        Context in pixels that the network sees around a cell. The shipped student's receptive field has a radius of
        175, but what it sees beyond 128 moves no output by more than some 1e-4.
    """

    shape: tuple[int, int]
    cell: int = 1536
    halo: int = 128

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.cell < 1 or self.halo < 0:
            raise NucSegError(
                f"A grid of cell {self.cell}, halo {self.halo} does not fit an image of {self.shape}."
            )

    def _edges(self, axis: int) -> tuple[int, int]:
        """Return number and length of the cells along an axis; one that fits with its halo is not divided."""
        length = self.shape[axis]
        count = 1 if length <= self.cell + 2 * self.halo else -(-length // self.cell)
        size = -(-length // count)
        return count, -(-size // 16) * 16  # on the network's stride

    @property
    def counts(self) -> tuple[int, int]:
        """Cells along the rows and the columns."""
        return tuple(-(-self.shape[a] // self._edges(a)[1]) for a in (0, 1))  # type: ignore[return-value]

    def owned(self, index: Index) -> Box:
        """Return the pixels that a cell owns."""
        (_, h), (_, w) = self._edges(0), self._edges(1)
        y, x = index[0] * h, index[1] * w
        return Box(y, min(y + h, self.shape[0]), x, min(x + w, self.shape[1]))

    def window(self, index: Index) -> Box:
        """Return the pixels that the network sees for a cell."""
        return self.owned(index).grown(self.halo, self.shape)

    def cells(self, box: Box | None = None) -> Iterator[Index]:
        """Yield the cells that touch a box (all of them by default), in raster order."""
        (_, h), (_, w) = self._edges(0), self._edges(1)
        area = box or Box(0, self.shape[0], 0, self.shape[1])
        for row in range(area.y0 // h, -(-area.y1 // h)):
            for col in range(area.x0 // w, -(-area.x1 // w)):
                yield row, col
