"""The eight orientations of a square image, and what they do to maps.

Turning an image also turns the directions along which its distance maps run: their channels change places and
signs. With the angles 0 and 90, for example, a mirror image has the negated horizontal map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError


@dataclass(frozen=True)
class Orientation:
    """Rows and columns exchanged or not, then rows and columns reversed or not: any rotation by 90 degrees or flip.

    Parameters
    ----------
    transpose : exchange rows and columns
    flip_rows, flip_columns : reverse their order, afterwards
    """

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def turn(self, image: Tensor) -> Tensor:
        """Turn the last two axes of a (..., H, W) tensor; H and W change places with `transpose`."""
        image = image.transpose(-2, -1) if self.transpose else image
        return image.flip(self._flipped) if self._flipped else image

    def undo(self, image: Tensor) -> Tensor:
        """Reverse `turn`."""
        image = image.flip(self._flipped) if self._flipped else image
        return image.transpose(-2, -1) if self.transpose else image

    def turn_array(self, image: NDArray) -> NDArray:
        """Turn the first two axes of a (H, W, ...) array."""
        image = image.swapaxes(0, 1) if self.transpose else image
        return image[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def turn_maps(self, maps: Tensor, layout: MapLayout) -> Tensor:
        """Turn a (N, layout.channels, H, W) map stack as if the network had seen the turned image.

        Exact up to the origin of the distance targets, which lies a pixel before the centroid (see
        `core.targets.distance_maps`) and so comes to lie a pixel behind it in a flipped axis.

        Raises
        ------
        NucSegError
            The angles do not map onto each other, see `orientations`.
        """
        sources, signs = self._channels(layout)
        return self.turn(maps)[:, sources] * _column(signs, maps)

    def undo_maps(self, maps: Tensor, layout: MapLayout) -> Tensor:
        """Reverse `turn_maps`."""
        sources, signs = self._channels(layout)
        places = [sources.index(k) for k in range(len(sources))]
        return (self.undo(maps) * _column(signs, maps))[:, places]

    @property
    def _flipped(self) -> list[int]:
        return [axis for axis, flip in ((-2, self.flip_rows), (-1, self.flip_columns)) if flip]

    def _before(self, angle: int) -> tuple[int, int]:
        """Return the direction (columns, rows) that this orientation turns into an angle's, in whole steps."""
        x, y = (round(f(math.radians(angle))) for f in (math.cos, math.sin))
        x, y = -x if self.flip_columns else x, -y if self.flip_rows else y
        return (y, x) if self.transpose else (x, y)

    def _channels(self, layout: MapLayout) -> tuple[list[int], list[int]]:
        """Return for each channel of a turned stack the channel it comes from, and its sign."""
        steps = [Orientation()._before(angle) for angle in layout.angles]
        sources, signs = list(range(layout.channels)), [1] * layout.channels
        first = layout.distance.start
        for k, angle in enumerate(layout.angles):
            x, y = self._before(angle)
            sign = 1 if (x, y) in steps else -1
            if (sign * x, sign * y) not in steps:
                raise NucSegError(
                    f"{self} turns {angle} degrees into an angle that is not in angles={layout.angles}; "
                    "use (0, 90) or all four."
                )
            sources[first + k], signs[first + k] = first + steps.index((sign * x, sign * y)), sign
        return sources, signs


def _column(signs: list[int], like: Tensor) -> Tensor:
    return torch.tensor(signs, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)


ALL = tuple(Orientation(bool(k & 1), bool(k & 2), bool(k & 4)) for k in range(8))
"""The eight orientations; number 0 leaves everything as it is."""


def orientations(layout: MapLayout) -> tuple[Orientation, ...]:
    """Return the orientations under which the angles of a layout map onto each other, up to sign.

    With (0, 90) or all four angles these are all eight; with 0 alone the four without `transpose`.
    """
    steps = {Orientation()._before(angle) for angle in layout.angles}
    closed = steps | {(-x, -y) for x, y in steps}
    return tuple(o for o in ALL if all(o._before(angle) in closed for angle in layout.angles))
