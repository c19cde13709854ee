"""The maps contract: which channels a network predicts, and in which order.

This is the one place that names channels. Targets, losses, network heads, runtimes and the decoder all take
their channel positions from a `MapLayout`.
"""

from __future__ import annotations

from dataclasses import dataclass

from napari_nucseg.errors import NucSegError

BACKGROUND, INSIDE, BAND = 0, 1, 2
"""Channels of the `boundary` map, in order: background, inside a nucleus, boundary band."""

ALLOWED_ANGLES = (0, 45, 90, 135)
"""Angles in degrees, measured from the column axis towards the row axis (image coordinates, rows downwards)."""


@dataclass(frozen=True)
class MapLayout:
    """Order and meaning of the channels of one map stack ``(channels, H, W)``.

    Parameters
    ----------
    angles : tuple of int
        Angles of the signed distance maps in degrees: 0 is the horizontal map, 90 the vertical one; 45 and 135
        complete the multi-angle map.
    n_classes : int
        Number of nucleus classes C. The `type` map has C + 1 channels; its channel 0 is background.
    """

    angles: tuple[int, ...] = (0, 90)
    n_classes: int = 5

    def __post_init__(self) -> None:
        if not self.angles or len(set(self.angles)) != len(self.angles):
            raise NucSegError(f"angles={self.angles} must be distinct and at least one; use (0, 90).")
        if bad := [a for a in self.angles if a not in ALLOWED_ANGLES]:
            raise NucSegError(f"angle {bad[0]} is not one of {ALLOWED_ANGLES}; use (0, 90) or all four.")
        if self.n_classes < 1:
            raise NucSegError(f"n_classes={self.n_classes} must be at least 1.")

    @property
    def foreground(self) -> slice:
        """Probability that a pixel lies in a nucleus (1 channel)."""
        return slice(0, 1)

    @property
    def distance(self) -> slice:
        """Signed distance to the nucleus' centroid, one channel per angle, each side scaled to [-1, 1]."""
        return slice(1, 1 + len(self.angles))

    @property
    def centre(self) -> slice:
        """Centre-point activation (1 channel): a Gaussian bump at each nucleus' centre."""
        return slice(self.distance.stop, self.distance.stop + 1)

    @property
    def boundary(self) -> slice:
        """Background / inside / boundary band (3 channels)."""
        return slice(self.centre.stop, self.centre.stop + 3)

    @property
    def type(self) -> slice:
        """Background and the C classes (C + 1 channels)."""
        return slice(self.boundary.stop, self.boundary.stop + self.n_classes + 1)

    @property
    def channels(self) -> int:
        """Total number of channels."""
        return self.type.stop

    def names(self) -> tuple[str, ...]:
        """Return one readable name per channel, in order."""
        return (
            "foreground",
            *(f"distance_{a}" for a in self.angles),
            "centre",
            "boundary_background",
            "boundary_inside",
            "boundary_band",
            "type_background",
            *(f"type_{k}" for k in range(1, self.n_classes + 1)),
        )
