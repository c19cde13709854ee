"""Multi-head self-attention over a grid of tokens: whole or in windows, with or without relative positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017), with the parameter names of the public ViT weights.

    Parameters
    ----------
    width : int
        Channels of a token, a multiple of `heads`.
    heads : int
    span : int
        Side of the grid of tokens whose relative positions are learnt (decomposed into rows and columns, Li et al.
        2022, MViTv2, as in SAM, Kirillov et al. 2023); 0 for none. A grid of another side has them interpolated.
    """

    def __init__(self, width: int, heads: int, span: int = 0) -> None:
        super().__init__()
        self.heads, self.span = heads, span
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        if span:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * span - 1, width // heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * span - 1, width // heads))

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Attend.

        Parameters
        ----------
        tokens : (N, T, width) float
            T = rows * columns of `grid`; one class token may precede them where `span` is 0.
        grid : (int, int)

        Returns
        -------
        Tensor of the same shape.
        """
        batch, count, width = tokens.shape
        q, k, v = self.qkv(tokens).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self._bias(q, grid) if self.span else None
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(out.transpose(1, 2).reshape(batch, count, width))

    def _bias(self, q: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return what the relative positions add to the scores, (N, heads, T, T); q as in `forward`, unscaled."""
        rows, cols = grid
        by_cell = q.unflatten(2, grid)
        vertical = torch.einsum("nhyxd,ykd->nhyxk", by_cell, between(self.rel_pos_h, rows))
        horizontal = torch.einsum("nhyxd,xkd->nhyxk", by_cell, between(self.rel_pos_w, cols))
        both = vertical[..., :, None] + horizontal[..., None, :]
        return both.reshape(*q.shape[:2], rows * cols, rows * cols).to(q.dtype)


def between(table: Tensor, side: int) -> Tensor:
    """Return the embedding of every pair of places on one axis.

    Parameters
    ----------
    table : (2 * span - 1, d)
        Entry i belongs to the offset i - (span - 1); resampled linearly where `side` is not span.
    side : int

    Returns
    -------
    Tensor (side, side, d)
        [i, k] is the embedding of the offset i - k.
    """
    place = torch.arange(side, device=table.device)
    return resize_offsets(table, side)[place[:, None] - place[None, :] + side - 1]


def resize_offsets(table: Tensor, side: int) -> Tensor:
    """Resample a table of offsets (2 * span - 1, d) linearly to (2 * side - 1, d)."""
    if len(table) == 2 * side - 1:
        return table
    return F.interpolate(table.T[None], size=2 * side - 1, mode="linear")[0].T


def to_windows(tokens: Tensor, grid: tuple[int, int], side: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut a grid of tokens into square windows, padded with zeros at the bottom and right (as SAM does).

    Parameters
    ----------
    tokens : (N, rows * cols, C)
    grid : (rows, cols)
    side : int

    Returns
    -------
    windows : Tensor (N * windows, side * side, C)
    across : (int, int)
        Windows per column and per row.
    """
    batch, _, width = tokens.shape
    rows, cols = grid
    across = -(-rows // side), -(-cols // side)
    cells = F.pad(tokens.unflatten(1, grid), (0, 0, 0, across[1] * side - cols, 0, across[0] * side - rows))
    parts = cells.view(batch, across[0], side, across[1], side, width).transpose(2, 3)
    return parts.reshape(-1, side * side, width), across


def from_windows(windows: Tensor, grid: tuple[int, int], side: int, across: tuple[int, int]) -> Tensor:
    """Put the windows of `to_windows` together again and drop the padding: (N, rows * cols, C)."""
    down, right = across
    width = windows.shape[-1]
    parts = windows.view(-1, down, right, side, side, width).transpose(2, 3)
    cells = parts.reshape(-1, down * side, right * side, width)
    return cells[:, : grid[0], : grid[1]].reshape(-1, grid[0] * grid[1], width)
