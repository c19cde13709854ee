"""Where a pixel of the image lies at the model's resolution, and the other way round.

Positions are those of pixel centres, at integers, so the two grids share their outer edges. Labels go from one
grid to the other by the nearest pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.tiling import Box

Shape = tuple[int, int]


@dataclass(frozen=True)
class Scale:
    """The two grids of an image.

    Parameters
    ----------
    level0 : (int, int)
        Height and width of the image.
    model : (int, int)
        Height and width at the model's resolution.
    """

    level0: Shape
    model: Shape

    @property
    def is_identity(self) -> bool:
        """Whether the two grids are the same."""
        return self.level0 == self.model

    @property
    def zoom(self) -> NDArray[np.float64]:
        """Pixels of the model per pixel of level 0, along rows and columns."""
        return np.array(self.model) / np.array(self.level0)

    def to_model(self, box: Box) -> Box:
        """Return the smallest box of the model's grid that covers a box of level 0."""
        zy, zx = self.zoom
        return Box(
            int(np.floor(box.y0 * zy)),
            min(self.model[0], int(np.ceil(box.y1 * zy))),
            int(np.floor(box.x0 * zx)),
            min(self.model[1], int(np.ceil(box.x1 * zx))),
        )

    def to_level0(self, points: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (n, 2) positions on the model's grid in level-0 pixels."""
        result: NDArray[np.float64] = (points + 0.5) / self.zoom - 0.5
        return result

    def model_pixels(self, points: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the pixels of the model's grid in which (n, 2) level-0 positions lie, cut to the grid."""
        pixels = np.floor((np.asarray(points, float).reshape(-1, 2) + 0.5) * self.zoom).astype(np.int64)
        result: NDArray[np.int64] = np.clip(pixels, 0, np.array(self.model) - 1)
        return result

    def covered(self, box: Box) -> tuple[Box, NDArray[np.int64], NDArray[np.int64]]:
        """Return the level-0 pixels whose nearest pixel of the model lies in `box`.

        Returns
        -------
        area : Box
            Level 0; of no rows or columns where level 0 is coarser and has none there.
        rows, cols : int64
            For every row and column of the area, the nearest one of the model.
        """
        y, rows = self._nearest(box.y0, box.y1, 0)
        x, cols = self._nearest(box.x0, box.x1, 1)
        if not (y.size and x.size):
            return Box(0, 0, 0, 0), rows[:0], cols[:0]
        return Box(int(y[0]), int(y[-1]) + 1, int(x[0]), int(x[-1]) + 1), rows, cols

    def sources(self, box: Box) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the level-0 row and column nearest to every row and column of a box of the model's grid."""
        zy, zx = self.zoom
        rows = ((np.arange(box.y0, box.y1) + 0.5) / zy).astype(np.int64)
        cols = ((np.arange(box.x0, box.x1) + 0.5) / zx).astype(np.int64)
        return np.minimum(rows, self.level0[0] - 1), np.minimum(cols, self.level0[1] - 1)

    def labels_to_level0(self, box: Box, labels: NDArray[np.uint32]) -> tuple[Box, NDArray[np.uint32]]:
        """Bring labels of a box of the model's grid to level 0.

        Returns
        -------
        area : Box
            The level-0 pixels whose nearest pixel lies in the labelled part of the box.
        labels : uint32
        """
        rows, cols = np.nonzero(labels.any(1))[0], np.nonzero(labels.any(0))[0]
        if rows.size == 0:
            return Box(0, 0, 0, 0), np.zeros((0, 0), np.uint32)
        labelled = Box(
            box.y0 + int(rows[0]),
            box.y0 + int(rows[-1]) + 1,
            box.x0 + int(cols[0]),
            box.x0 + int(cols[-1]) + 1,
        )
        if self.is_identity:
            return labelled, np.ascontiguousarray(labels[labelled.relative(box).slices])
        area, y, x = self.covered(labelled)
        return area, labels[np.ix_(y - box.y0, x - box.x0)]

    def _nearest(self, start: int, stop: int, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        zoom, length = self.zoom[axis], self.level0[axis]
        first, last = int(start / zoom) - 2, int(stop / zoom) + 3
        index = np.arange(max(0, first), min(length, last))
        nearest = np.minimum(((index + 0.5) * zoom).astype(np.int64), self.model[axis] - 1)
        keep = (nearest >= start) & (nearest < stop)
        return index[keep], nearest[keep]
