"""A decoder and a head that train on a CPU: those of the student, over the five maps of a light encoder."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.models.student import ConvBN, Residual, Up

STRIDES = (2, 4, 8, 16)
"""Pixels per cell of the features, fine to coarse."""


class LightDecoder(nn.Module):
    """Image and the five maps of an encoder to features at 1/16 to 1/2.

    Parameters
    ----------
    own : tuple of int
        Channels at 1/2, 1/4, 1/8 and 1/16.
    widths : tuple of int
        Channels of the encoder's maps at these and at 1/32.
    """

    def __init__(self, own: tuple[int, ...], widths: tuple[int, ...]) -> None:
        super().__init__()
        inner = (*own, own[-1])
        self.image = ConvBN(3, own[0], kernel=4, stride=2)  # what the encoder's few first channels have lost
        self.laterals = nn.ModuleList(ConvBN(w, d, kernel=1) for w, d in zip(widths, inner, strict=True))
        self.ups = nn.ModuleList(
            Up(deep, skip, 1) for skip, deep in reversed(list(itertools.pairwise(inner)))
        )
        self.refine = Residual(own[0])

    def forward(self, image: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """Return features from coarse (1/16) to fine (1/2), channels as configured.

        Parameters
        ----------
        image : (N, 3, H, W)
            Sides are multiples of 16.
        maps : list of Tensor
            The encoder's five, fine to coarse: (N, widths[i], ceil(H / 2**(i + 1)), ceil(W / 2**(i + 1))).
        """
        *skips, x = (way(m) for way, m in zip(self.laterals, maps, strict=True))
        skips[0] = skips[0] + self.image(image)
        out: list[Tensor] = []
        for up in self.ups:
            skip = skips.pop()
            rows, cols = skip.shape[2:]
            # the sides are odd only at 1/16, where those at 1/32 were rounded up
            if rows % 2 or cols % 2:
                skip = F.pad(skip, (0, cols % 2, 0, rows % 2), mode="replicate")
            x = up(x, skip)[..., :rows, :cols]
            out.append(x)
        return [*out[:-1], self.refine(out[-1])]


class SubpixelHead(nn.Module):
    """Maps at full resolution from features at half of it, see `napari_nucseg.models.student`."""

    def __init__(self, width: int, layout: MapLayout) -> None:
        super().__init__()
        self.maps = nn.Sequential(ConvBN(width, 2 * width), nn.Conv2d(2 * width, 4 * layout.channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, width, H / 2, W / 2) to raw maps (N, layout.channels, H, W)."""
        return F.pixel_shuffle(self.maps(features), 2)
