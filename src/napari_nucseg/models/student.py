"""The student: a light convolutional encoder-decoder with one shared decoder for all maps.

What costs on a CPU is memory traffic, not multiplications: every 3x3 convolution is dense and runs at half
resolution or below, where it is near the machine's peak, and a sub-pixel head (Shi et al. 2016) gives
full-resolution maps for the price of one more half-resolution layer. Batch norm folds into the convolutions
for inference (`Student.fuse`), which leaves nothing but convolutions, additions and ReLUs.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError


@dataclass(frozen=True)
class StudentConfig:
    """Shape of a student.

    Parameters
    ----------
    widths : tuple of int
        Channels at 1/2, 1/4, 1/8 and 1/16 of the input's resolution.
    blocks : tuple of int
        Residual blocks of the encoder at each of these.
    decoder_blocks : tuple of int
        Residual blocks of the decoder at 1/8, 1/4 and 1/2.
    layout : MapLayout
        Channels of the output.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 3, 2)
    decoder_blocks: tuple[int, ...] = (1, 1, 1)
    layout: MapLayout = field(default_factory=MapLayout)

    def __post_init__(self) -> None:
        levels = len(self.widths)
        if levels < 2 or len(self.blocks) != levels or len(self.decoder_blocks) != levels - 1:
            raise NucSegError(
                f"Student of widths {self.widths}, blocks {self.blocks}, decoder_blocks {self.decoder_blocks}: "
                "there must be as many blocks as widths, and one decoder block fewer."
            )
        if levels > 4:
            raise NucSegError(
                f"Student of {levels} levels: windows are cut on a stride of 16, so 4 are the most."
            )

    @property
    def stride(self) -> int:
        """Input sides must be multiples of this many pixels."""
        return 2 ** len(self.widths)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> StudentConfig:
        """Rebuild from `to_dict`; unknown keys raise `NucSegError`."""
        if unknown := set(data) - set(cls.__dataclass_fields__):
            raise NucSegError(f"Student config key '{min(unknown)}' is not known; update napari-nucseg.")
        given = data.get("layout", {})
        layout = MapLayout(
            tuple(given.get("angles", MapLayout.angles)), given.get("n_classes", MapLayout.n_classes)
        )
        return cls(layout=layout, **{k: tuple(v) for k, v in data.items() if k != "layout"})


class ConvBN(nn.Module):
    """Convolution, batch norm and (optionally) ReLU; `fuse` folds the norm into the convolution."""

    def __init__(self, cin: int, cout: int, kernel: int = 3, stride: int = 1, act: bool = True) -> None:
        super().__init__()
        padding = (kernel - stride + 1) // 2 if kernel > 1 else 0
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(cout)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, cin, H, W) to (N, cout, H / stride, W / stride)."""
        x = self.bn(self.conv(x))
        return F.relu(x, inplace=True) if self.act else x

    def fuse(self) -> None:
        """Fold the batch norm into the convolution (evaluation mode only)."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.bn)
            self.bn = nn.Identity()


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvBN(width, width)
        self.second = ConvBN(width, width, act=False)
        nn.init.zeros_(self.second.bn.weight)  # starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, width, H, W)."""
        return F.relu(x + self.second(self.first(x)), inplace=True)


class Up(nn.Module):
    """Bring deep features to the skip's resolution and width, add the skip, and refine."""

    def __init__(self, deep: int, skip: int, blocks: int) -> None:
        super().__init__()
        self.reduce = ConvBN(deep, skip, kernel=1, act=False)
        self.lateral = ConvBN(skip, skip, kernel=1, act=False)
        self.refine = nn.Sequential(*(Residual(skip) for _ in range(blocks)))

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """Take (N, deep, H, W) and (N, skip, 2H, 2W); return the shape of the latter."""
        up = F.interpolate(self.reduce(deep), scale_factor=2.0, mode="nearest")
        return self.refine(F.relu(up + self.lateral(skip), inplace=True))


class Student(nn.Module):
    """Encoder-decoder from a normalised image to the logits of every map.

    Shapes: ``(N, 3, H, W)`` float in, ``(N, layout.channels, H, W)`` out; H and W multiples of `config.stride`.
    The output holds logits (`foreground`, `centre`, `boundary`, `type`) and plain values (`distance`);
    `activate` turns it into probabilities.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = ConvBN(3, widths[0], kernel=4, stride=2)
        downs: list[nn.Module] = [nn.Identity()]
        downs += [ConvBN(a, b, kernel=2, stride=2) for a, b in itertools.pairwise(widths)]
        self.down = nn.ModuleList(downs)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(w) for _ in range(n)))
            for w, n in zip(widths, config.blocks, strict=True)
        )
        rev = widths[::-1]
        self.up = nn.ModuleList(
            Up(a, b, n) for a, b, n in zip(rev[:-1], rev[1:], config.decoder_blocks, strict=True)
        )
        self.head = nn.Sequential(
            ConvBN(widths[0], 2 * widths[0]),
            nn.Conv2d(2 * widths[0], 4 * config.layout.channels, 1),
        )

    def features(self, image: Tensor) -> list[Tensor]:
        """Return decoder features from coarse (1/16) to fine (1/2); the last feeds the head."""
        skips, x = [], self.stem(image)
        for down, stage in zip(self.down, self.stages, strict=True):
            x = stage(down(x))
            skips.append(x)
        out = [skips.pop()]
        for up in self.up:
            out.append(up(out[-1], skips.pop()))
        return out

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of each of the `features`, coarse to fine."""
        return self.config.widths[::-1]

    @property
    def feature_strides(self) -> tuple[int, ...]:
        """Input pixels per pixel of each of the `features`, coarse to fine."""
        return tuple(2**level for level in range(len(self.config.widths), 0, -1))

    def subpixels(self, image: Tensor) -> Tensor:
        """Return the raw maps of a normalised image as the head makes them, before `forward` shuffles them into place.

        Of ``(N, 4 * layout.channels, H / 2, W / 2)``, channel ``4 * c + 2 * i + j`` is map c at rows 2y + i and columns
        2x + j.
        """
        subpixels: Tensor = self.head(self.features(image)[-1])
        return subpixels

    def forward_with_features(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the raw maps of a normalised image and the decoder features they come from."""
        features = self.features(image)
        return F.pixel_shuffle(self.head(features[-1]), 2), features

    def forward(self, image: Tensor) -> Tensor:
        """Return the raw maps of a normalised image."""
        return self.forward_with_features(image)[0]

    def fuse(self) -> Student:
        """Fold every batch norm in place and return self (evaluation mode only)."""
        for module in self.modules():
            if isinstance(module, ConvBN):
                module.fuse()
        return self


def activate(raw: Tensor, layout: MapLayout) -> Tensor:
    """Turn a network's raw output into maps: probabilities, and distances clipped to [-1, 1].

    Parameters
    ----------
    raw : Tensor, (N, layout.channels, H, W)
    layout : MapLayout

    Returns
    -------
    Tensor of the same shape.
    """
    return torch.cat(
        [
            raw[:, layout.foreground].sigmoid(),
            raw[:, layout.distance].clamp(-1.0, 1.0),
            raw[:, layout.centre].sigmoid(),
            raw[:, layout.boundary].softmax(1),
            raw[:, layout.type].softmax(1),
        ],
        dim=1,
    )
