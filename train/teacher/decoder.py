"""A U-shaped decoder over the maps of an encoder, with skip connections at 1/1 to 1/16 and one head per map.

The way of a transformer's equally coarse maps to the skips follows UNETR (Hatamizadeh et al. 2022): early
tokens are brought to fine resolutions by transposed convolutions, the image itself joins at 1/1.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.student import ConvBN

STRIDES = (1, 2, 4, 8, 16)
"""Pixels per cell of the decoder's levels, fine to coarse."""


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the decoder.

    Parameters
    ----------
    widths : tuple of int
        Channels at 1/1, 1/2, 1/4, 1/8 and 1/16 of the input's resolution.
    blocks : tuple of int
        3x3 convolutions after the skip has joined, at 1/1, 1/2, 1/4 and 1/8.
    head : int
        Hidden channels of the head of each map.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    head: int = 32

    def __post_init__(self) -> None:
        if len(self.widths) != 5 or len(self.blocks) != 4 or min(*self.widths, *self.blocks, self.head) < 1:
            raise NucSegError(
                f"decoder.widths={self.widths} must be five numbers for 1/1 to 1/16, and "
                f"decoder.blocks={self.blocks} four for 1/1 to 1/8, all (and head={self.head}) at least 1."
            )


def lateral(width: int, stride: int, level: int, widths: tuple[int, ...]) -> nn.Module:
    """Return the way of an encoder's map to a level of the decoder.

    Parameters
    ----------
    width, stride : int
        Channels and pixels per cell of the encoder's map.
    level : int
        Index into `STRIDES` and `widths` of the level it goes to, at most as coarse as the map.
    widths : tuple of int
        Channels of the decoder's levels.
    """
    start = STRIDES.index(stride)
    if start == level:
        return ConvBN(width, widths[level])
    steps: list[nn.Module] = []
    for k in range(start - 1, level - 1, -1):
        steps += [nn.ConvTranspose2d(width, widths[k], 2, 2), ConvBN(widths[k], widths[k])]
        width = widths[k]
    return nn.Sequential(*steps)


class UpBlock(nn.Module):
    """Double the resolution of deep features, join the skip, and refine."""

    def __init__(self, deep: int, width: int, blocks: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(deep, width, 2, 2)
        self.refine = nn.Sequential(*(ConvBN(2 * width if k == 0 else width, width) for k in range(blocks)))

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """Take (N, deep, H, W) and (N, width, 2H, 2W); return the shape of the latter."""
        return self.refine(torch.cat([self.up(deep), skip], 1))


class Decoder(nn.Module):
    """Image and encoder maps to features at every level.

    Parameters
    ----------
    config : DecoderConfig
    widths, strides : tuple of int
        Of the encoder's four maps, for the levels 1/2, 1/4, 1/8 and 1/16 in this order.
    """

    def __init__(self, config: DecoderConfig, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        own = config.widths
        self.image = nn.Sequential(ConvBN(3, own[0]), ConvBN(own[0], own[0]))
        self.laterals = nn.ModuleList(
            lateral(w, s, level, own) for level, (w, s) in enumerate(zip(widths, strides, strict=True), 1)
        )
        self.ups = nn.ModuleList(
            UpBlock(deep, width, blocks)
            for (width, deep), blocks in reversed(
                list(zip(itertools.pairwise(own), config.blocks, strict=True))
            )
        )

    def forward(self, image: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """Return features from coarse (1/16) to fine (1/1), channels as configured.

        Parameters
        ----------
        image : (N, 3, H, W)
        maps : the encoder's four
        """
        skips = [self.image(image)]
        skips += [way(x) for way, x in zip(self.laterals, maps, strict=True)]
        out = [skips.pop()]
        for up in self.ups:
            out.append(up(out[-1], skips.pop()))
        return out


class Heads(nn.Module):
    """One head per map on the finest features, put together in the order of the layout."""

    def __init__(self, width: int, hidden: int, layout: MapLayout) -> None:
        super().__init__()
        self.layout = layout
        self.of = nn.ModuleDict(
            {f"{name}_map": nn.Sequential(ConvBN(width, hidden), nn.Conv2d(hidden, channels, 1))
             for name, channels in map_channels(layout).items()}
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, width, H, W) to raw maps (N, layout.channels, H, W)."""
        return torch.cat([head(features) for head in self.of.values()], 1)


class SideHeads(nn.Module):
    """Raw maps from coarser features, for deep supervision (Lee et al. 2015); not used for prediction."""

    def __init__(self, widths: tuple[int, ...], layout: MapLayout) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(w, layout.channels, 1) for w in widths)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Return (N, layout.channels, *size) for each of the features, resampled bilinearly."""
        return [
            F.interpolate(head(x), size=size, mode="bilinear", align_corners=False)
            for head, x in zip(self.heads, features, strict=True)
        ]


def map_channels(layout: MapLayout) -> dict[str, int]:
    """Return the name and the channels of every map, in the order of the layout."""
    parts = {name: getattr(layout, name) for name in ("foreground", "distance", "centre", "boundary", "type")}
    ordered = sorted(parts.items(), key=lambda item: item[1].start)
    return {name: part.stop - part.start for name, part in ordered}
