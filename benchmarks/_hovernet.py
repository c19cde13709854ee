"""A HoVer-Net of the published shape, with random weights: something to time.

Graham et al., HoVer-Net, Medical Image Analysis 58, 2019, in its "fast" form for windows of 256 px: a pre-activation
ResNet-50 that divides the resolution by 8 only, and one decoder of densely connected units per task (nucleus or not,
horizontal and vertical distance, class). The decoders are not padded, so a window of 256 px answers for its inner
164 px.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW, INNER = 256, 164

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Inner channels, units and stride of the encoder's stages; each gives four times its inner channels."""

GROWTH, BOTTLENECK, GROUPS = 32, 128, 4
"""Of the dense units: channels that each adds, channels within, groups of its 3x3 convolution."""


def _norm(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _crop(x: Tensor, size: int) -> Tensor:
    """Return the centre of a square."""
    edge = (x.shape[-1] - size) // 2
    return x[..., edge : edge + size, edge : edge + size]


class Bottleneck(nn.Module):
    """A pre-activation residual unit (He et al. 2016b); the first of a stage has a convolution as its shortcut."""

    def __init__(self, channels: int, inner: int, stride: int, first: bool) -> None:
        super().__init__()
        self.before = nn.Identity() if first else _norm(channels)
        self.body = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            _norm(inner),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False),
            _norm(inner),
            nn.Conv2d(inner, 4 * inner, 1, bias=False),
        )
        self.shortcut = nn.Conv2d(channels, 4 * inner, 1, stride, bias=False) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, 4 * inner, H / stride, W / stride)."""
        out: Tensor = self.shortcut(x) + self.body(self.before(x))
        return out


class Stage(nn.Sequential):
    """Several bottlenecks, ended by norm and ReLU."""

    def __init__(self, channels: int, inner: int, units: int, stride: int) -> None:
        following = (Bottleneck(4 * inner, inner, 1, first=False) for _ in range(units - 1))
        super().__init__(Bottleneck(channels, inner, stride, first=True), *following, _norm(4 * inner))


class Dense(nn.Module):
    """Densely connected units without padding: each sees all before it, and takes one pixel off every side."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        widths = [channels + k * GROWTH for k in range(units)]
        self.units = nn.ModuleList(
            nn.Sequential(
                _norm(width),
                nn.Conv2d(width, BOTTLENECK, 1, bias=False),
                _norm(BOTTLENECK),
                nn.Conv2d(BOTTLENECK, GROWTH, 3, groups=GROUPS, bias=False),
            )
            for width in widths
        )
        self.end = _norm(channels + units * GROWTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, S, S) to (N, channels + units * GROWTH, S - 2 units, S - 2 units)."""
        for unit in self.units:
            new = unit(x)
            x = torch.cat([_crop(x, new.shape[-1]), new], 1)
        out: Tensor = self.end(x)
        return out


class Branch(nn.Module):
    """The decoder of one task."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.coarse = nn.Sequential(
            nn.Conv2d(1024, 256, 3, bias=False), Dense(256, 8), nn.Conv2d(512, 512, 1, bias=False)
        )
        self.middle = nn.Sequential(
            nn.Conv2d(512, 128, 3, bias=False), Dense(128, 4), nn.Conv2d(256, 256, 1, bias=False)
        )
        self.fine = nn.Conv2d(256, 64, 3, padding=1, bias=False)
        self.out = nn.Sequential(_norm(64), nn.Conv2d(64, outputs, 1))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Take the encoder's features, fine to coarse; return (N, outputs, INNER, INNER)."""
        x = features[3]
        for number, part in ((2, self.coarse), (1, self.middle), (0, self.fine)):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = part(x + _crop(features[number], x.shape[-1]))
        out: Tensor = self.out(x)
        return out


class HoverNet(nn.Module):
    """The whole network.

    Parameters
    ----------
    classes : int
        Outputs of the class branch, background included; 6 as for PanNuke.
    """

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, padding=3, bias=False), _norm(64))
        channels, stages = 64, []
        for inner, units, stride in STAGES:
            stages.append(Stage(channels, inner, units, stride))
            channels = 4 * inner
        self.stages = nn.ModuleList(stages)
        self.bridge = nn.Conv2d(channels, 1024, 1, bias=False)
        self.branches = nn.ModuleList(Branch(outputs) for outputs in (2, 2, classes))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (N, 3, WINDOW, WINDOW), 0..255, to the three answers for the inner pixels."""
        x, features = self.stem(image / 255), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        features[3] = self.bridge(x)
        return [branch(features) for branch in self.branches]
