"""A convolutional encoder: the alternative to a transformer, which wants more data than most labs own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor, nn

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.student import ConvBN, Residual


@dataclass(frozen=True)
class ConvConfig:
    """Shape of the convolutional encoder.

    Parameters
    ----------
    widths : tuple of int
        Channels at 1/2, 1/4, 1/8 and 1/16 of the input's resolution.
    blocks : tuple of int
        Residual blocks (He et al. 2016) at each of these.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 3, 6, 4)

    def __post_init__(self) -> None:
        if len(self.widths) != 4 or len(self.blocks) != 4 or min(self.widths) < 1 or min(self.blocks) < 0:
            raise NucSegError(
                f"conv.widths={self.widths} (1 or more) and conv.blocks={self.blocks} (0 or more) must have four "
                "numbers each, for 1/2, 1/4, 1/8 and 1/16."
            )


class ConvEncoder(nn.Module):
    """Image to four maps, at 1/2, 1/4, 1/8 and 1/16.

    Attributes
    ----------
    widths, strides : tuple of int
        Channels and pixels per cell of the maps that `forward` returns.
    """

    def __init__(self, config: ConvConfig) -> None:
        super().__init__()
        self.config = config
        self.widths = config.widths
        self.strides = (2, 4, 8, 16)
        self.stem = ConvBN(3, config.widths[0], kernel=4, stride=2)
        self.down = nn.ModuleList(
            ConvBN(a, b, stride=2, kernel=2) for a, b in itertools.pairwise(config.widths)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(w) for _ in range(n)))
            for w, n in zip(config.widths, config.blocks, strict=True)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps (N, widths[i], H / strides[i], W / strides[i]) of a normalised (N, 3, H, W) image."""
        out = [self.stages[0](self.stem(image))]
        for down, stage in zip(self.down, self.stages[1:], strict=True):
            out.append(stage(down(out[-1])))
        return out
