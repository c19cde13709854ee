"""Vision transformers of patch 16 that public weights fit (DINO, HIPT ViT-256, the encoder of SAM).

Dosovitskiy et al. 2021 (ViT), Caron et al. 2021 (DINO), Chen et al. 2022 (HIPT), Kirillov et al. 2023 (SAM).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from napari_nucseg.errors import NucSegError
from train.teacher.attention import Attention, from_windows, to_windows

PATCH = 16
"""Side in pixels of the square an image token stands for."""
_EPS = 1e-6


@dataclass(frozen=True)
class VitConfig:
    """Shape of a vision transformer.

    Parameters
    ----------
    width, depth, heads : int
        Channels of a token, blocks, attention heads.
    mlp : int
        Hidden channels of a block's perceptron, in widths.
    image_size : int
        Side in pixels of the images for which the position embedding was learnt; others have it interpolated.
    class_token : bool
        Carry a class token along (DINO, HIPT); the decoder does not see it.
    window : int
        Side in tokens of the windows that attention stays within; 0 for attention over the whole image.
    global_blocks : tuple of int
        Blocks (from 0) that attend over the whole image all the same.
    relative : bool
        Learn relative positions too (SAM).
    neck : int
        Channels to which SAM's neck brings the last tokens; 0 leaves the neck out.
    skips : tuple of int
        Blocks (counted from 1) after which tokens go to the decoder, four in rising order and the last of them
        the last block; empty for quarters of the depth.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp: int = 4
    image_size: int = 224
    class_token: bool = True
    window: int = 0
    global_blocks: tuple[int, ...] = ()
    relative: bool = False
    neck: int = 0
    skips: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise NucSegError(f"width={self.width} must be a multiple of heads={self.heads}; change one.")
        if self.image_size < PATCH or self.image_size % PATCH:
            raise NucSegError(f"image_size={self.image_size} must be a multiple of {PATCH} pixels; try 224.")
        if self.class_token and (self.window or self.relative):
            raise NucSegError(
                "class_token=true goes neither with windows nor with relative positions; set class_token=false."
            )
        if min(self.mlp, self.depth, self.window + 1, self.neck + 1) < 1:
            raise NucSegError(
                f"mlp={self.mlp} and depth={self.depth} must be at least 1, window={self.window} and "
                f"neck={self.neck} at least 0."
            )
        if wrong := [k for k in self.global_blocks if not 0 <= k < self.depth]:
            raise NucSegError(
                f"global_blocks has {wrong[0]}, but blocks are numbered from 0 to {self.depth - 1}; choose among these."
            )
        taps = self.taps
        if len(taps) != 4 or list(taps) != sorted({*taps}) or taps[0] < 1 or taps[-1] != self.depth:
            raise NucSegError(
                f"skips={list(taps)} must be four rising block numbers from 1 to depth={self.depth}, the last "
                "of them the depth; give others."
            )

    @property
    def taps(self) -> tuple[int, ...]:
        """Blocks (from 1) after which tokens go to the decoder."""
        return self.skips or tuple(round(self.depth * k / 4) for k in (1, 2, 3, 4))

    @property
    def grid(self) -> int:
        """Side in tokens of the learnt position embedding."""
        return self.image_size // PATCH


VITS = {
    "vit_small": VitConfig(),
    "vit_base": VitConfig(width=768, heads=12),
    "sam_vit_b": VitConfig(
        width=768, heads=12, image_size=1024, class_token=False, window=14,
        global_blocks=(2, 5, 8, 11), relative=True,
    ),
}  # fmt: skip
"""The encoders that have a name; public weights exist for each."""


class PatchEmbedding(nn.Module):
    """Project squares of 16 x 16 pixels to tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, H / 16 * W / 16, width)."""
        return self.proj(image).flatten(2).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers around a GELU, on every token alone."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep the shape (N, T, width)."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """One pre-norm transformer block; `window` 0 attends over all tokens."""

    def __init__(self, config: VitConfig, window: int) -> None:
        super().__init__()
        self.window = window
        span = (window or config.grid) if config.relative else 0
        self.norm1 = nn.LayerNorm(config.width, eps=_EPS)
        self.attn = Attention(config.width, config.heads, span)
        self.norm2 = nn.LayerNorm(config.width, eps=_EPS)
        self.mlp = Mlp(config.width, config.mlp * config.width)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Keep the shape (N, T, width); `grid` is (rows, columns) of the image tokens."""
        tokens = tokens + self._attend(self.norm1(tokens), grid)
        return tokens + self.mlp(self.norm2(tokens))

    def _attend(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        if not self.window:
            return self.attn(tokens, grid)
        parts, across = to_windows(tokens, grid, self.window)
        return from_windows(self.attn(parts, (self.window, self.window)), grid, self.window, across)


class MapNorm(nn.Module):
    """Layer norm over the channels of a map (N, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, maps: Tensor) -> Tensor:
        """Keep the shape."""
        last = maps.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias, _EPS).permute(0, 3, 1, 2)


def sam_neck(width: int, out: int) -> nn.Module:
    """Return what SAM puts after its last block: 1x1 and 3x3 convolutions with norms, `width` to `out` channels."""
    if not out:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(width, out, 1, bias=False),
        MapNorm(out),
        nn.Conv2d(out, out, 3, padding=1, bias=False),
        MapNorm(out),
    )


def resize_positions(cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample a position embedding bicubically; an equal grid gives it back unchanged.

    Parameters
    ----------
    cells : (1, rows, cols, C) float
    grid : (int, int)

    Returns
    -------
    Tensor (1, *grid, C)
    """
    if tuple(cells.shape[1:3]) == tuple(grid):
        return cells
    maps = F.interpolate(cells.permute(0, 3, 1, 2), size=grid, mode="bicubic", align_corners=False)
    return maps.permute(0, 2, 3, 1)


class Vit(nn.Module):
    """Image to four maps of tokens, each at 1/16: after each quarter of the blocks.

    Parameters
    ----------
    config : VitConfig
    checkpointing : bool
        In training, keep only the inputs of the blocks and compute the rest again on the way back: about a
        third more time for far less memory.

    Attributes
    ----------
    widths, strides : tuple of int
        Channels and pixels per cell of the maps that `forward` returns.
    """

    def __init__(self, config: VitConfig, checkpointing: bool = False) -> None:
        super().__init__()
        self.config, self.checkpointing = config, checkpointing
        self.widths = (config.width,) * 3 + (config.neck or config.width,)
        self.strides = (PATCH,) * 4
        self.patch_embed = PatchEmbedding(config.width)
        extra = int(config.class_token)
        if extra:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid**2 + extra, config.width))
        whole = {*config.global_blocks}
        self.blocks = nn.ModuleList(
            Block(config, 0 if k in whole else config.window) for k in range(config.depth)
        )
        # SAM norms in its neck, not after the last block
        self.norm: nn.Module = nn.Identity() if config.relative else nn.LayerNorm(config.width, eps=_EPS)
        self.neck = sam_neck(config.width, config.neck)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for name, value in self.named_parameters():
            if name in ("cls_token", "pos_embed") or "rel_pos" in name:
                nn.init.trunc_normal_(value, std=0.02)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Return the position embedding for a grid of tokens, (1, T, width), the class token's first."""
        extra, side = int(self.config.class_token), self.config.grid
        cells = resize_positions(self.pos_embed[:, extra:].unflatten(1, (side, side)), grid)
        return torch.cat([self.pos_embed[:, :extra], cells.flatten(1, 2)], 1)

    def tokens(self, image: Tensor) -> list[Tensor]:
        """Return the tokens (N, T, width) after each of `config.taps`, a class token first, the last normed."""
        grid = image.shape[2] // PATCH, image.shape[3] // PATCH
        x = self.patch_embed(image)
        if self.config.class_token:
            x = torch.cat([self.cls_token.to(x.dtype).expand(len(x), -1, -1), x], 1)
        x = x + self.positions(grid)
        keep = self.checkpointing and self.training and torch.is_grad_enabled()
        out = []
        for number, block in enumerate(self.blocks, 1):
            x = checkpoint(block, x, grid, use_reentrant=False) if keep else block(x, grid)
            if number in self.config.taps:
                out.append(x)
        out[-1] = self.norm(out[-1])
        return out

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return four maps (N, widths[i], H / 16, W / 16) of a normalised (N, 3, H, W) image, early blocks first."""
        grid = image.shape[2] // PATCH, image.shape[3] // PATCH
        extra = int(self.config.class_token)
        maps = [x[:, extra:].transpose(1, 2).unflatten(2, grid) for x in self.tokens(image)]
        return [*maps[:-1], self.neck(maps[-1])]
