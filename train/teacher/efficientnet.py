"""EfficientNet-lite encoders: a few million parameters with public ImageNet weights, which train on a CPU.

The scaling is that of EfficientNet (Tan & Le 2019, ICML); the lite ones have neither squeeze-and-excitation nor swish.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LITES = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
    "efficientnet_lite3": (1.2, 1.4),
    "efficientnet_lite4": (1.4, 1.8),
}
"""Factors of width and depth, by the name of the encoder."""

STEM = 32
_STAGES = (  # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
DROPPED = 0.1
"""Share of the last blocks that are left out in training (stochastic depth, Huang et al. 2016); earlier ones less."""

_PUBLIC_TOP = {"_conv_stem": "stem.conv", "_bn0": "stem.norm"}
_PUBLIC_BLOCK = {
    "_expand_conv": "expand.conv", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm", "_project_conv": "project.conv", "_bn2": "project.norm",
}  # fmt: skip
_PUBLIC_NAME = re.compile(r"(?P<prefix>(?:.*?\.)??)(?P<block>_blocks\.\d+\.)?(?P<layer>_\w+)(?P<kind>\.\w+)")


def own_name(name: str) -> str:
    """Return the name that `EfficientNetLite` has for a tensor of the public PyTorch weights, behind the same prefix.

    Any other name, such as those of the head, is returned as it is.
    """
    found = _PUBLIC_NAME.fullmatch(name)
    layer = found and (_PUBLIC_BLOCK if found["block"] else _PUBLIC_TOP).get(found["layer"])
    if not found or not layer:
        return name
    return f"{found['prefix']}{(found['block'] or '').removeprefix('_')}{layer}{found['kind']}"


class ConvNorm(nn.Module):
    """Convolution padded as in TensorFlow, batch norm and (optionally) ReLU6."""

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(cout, eps=1e-3, momentum=0.01)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, cin, H, W) to (N, cout, ceil(H / stride), ceil(W / stride))."""
        (kernel, _), (stride, _) = self.conv.kernel_size, self.conv.stride
        rows, cols = (max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
        if rows or cols:  # the odd one behind: the weights were trained so
            x = F.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
        x = self.norm(self.conv(x))
        return F.relu6(x) if self.act else x


class Block(nn.Module):
    """Widen, filter each channel, narrow (Sandler et al. 2018), around a shortcut where the shape stays."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int, dropped: float) -> None:
        super().__init__()
        wide = cin * expansion
        self.expand = ConvNorm(cin, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, cout, 1, act=False)
        self.shortcut, self.dropped = stride == 1 and cin == cout, dropped

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, cin, H, W) to (N, cout, ceil(H / stride), ceil(W / stride))."""
        out = self.project(self.depthwise(self.expand(x)))
        if not self.shortcut:
            return out
        if self.training and self.dropped:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.dropped
            out = out * kept.to(out.dtype) / (1 - self.dropped)
        return x + out


class EfficientNetLite(nn.Module):
    """Image to five maps, at 1/2 to 1/32 of its resolution; the head of ImageNet is left out.

    Parameters
    ----------
    name : str
        One of `LITES`.

    Attributes
    ----------
    widths, strides : tuple of int
        Channels and pixels per cell of the maps that `forward` returns.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        wide, deep = LITES[name]
        last = len(_STAGES) - 1
        counts = [n if k in (0, last) else math.ceil(n * deep) for k, (n, *_) in enumerate(_STAGES)]
        self.stem = ConvNorm(3, STEM, 3, 2)
        self.blocks = nn.ModuleList()
        self._ends: list[int] = []  # of the blocks
        widths: list[int] = []
        cin = STEM
        for count, (_, kernel, stride, expansion, channels) in zip(counts, _STAGES, strict=True):
            if stride == 2:  # what is there before the resolution is halved is handed out
                self._ends.append(len(self.blocks) - 1)
                widths.append(cin)
            cout = rounded(channels * wide)
            for k in range(count):
                dropped = DROPPED * len(self.blocks) / sum(counts)
                self.blocks.append(Block(cin, cout, kernel, stride if k == 0 else 1, expansion, dropped))
                cin = cout
        self.widths = (*widths, cin)
        self.strides = (2, 4, 8, 16, 32)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (N, 3, H, W) to five of (N, widths[i], ceil(H / strides[i]), ceil(W / strides[i])), fine to coarse."""
        x, out = self.stem(image), []
        for k, block in enumerate(self.blocks):
            x = block(x)
            if k in self._ends:
                out.append(x)
        return [*out, x]


def rounded(channels: float, step: int = 8) -> int:
    """Return a number of channels as a multiple of a step, at most a tenth below what was asked for."""
    near = max(step, int(channels + step / 2) // step * step)
    return near + step if near < 0.9 * channels else near
