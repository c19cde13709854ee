"""Losses of the map heads (see the design: one per map, each a plain function of raw output and target).

Sums over the batch go through `distributed.total`: in a training step of several processes they are sums over the
crops of all of them, so that a ratio (Dice, a weighted mean) is what one process with all the crops would get.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_nucseg.core.targets import IGNORE
from train.distributed import total


def soft_dice(probability: Tensor, target: Tensor, valid: Tensor | None = None, eps: float = 1.0) -> Tensor:
    """Return 1 - Dice, averaged over channels; (N, C, H, W) both, sums over batch and space (Milletari 2016)."""
    if valid is not None:
        probability, target = probability * valid, target * valid
    axes = (0, 2, 3)
    overlap = total((probability * target).sum(axes))
    both = total(probability.sum(axes) + target.sum(axes))
    return (1 - (2 * overlap + eps) / (both + eps)).mean()


def weighted_cross_entropy(
    raw: Tensor, target: Tensor, weights: Tensor, known: Tensor | None = None
) -> Tensor:
    """Weighted mean of the cross-entropy over all pixels, or the known ones; 0 if none is.

    raw (N, C, H, W) logits, target (N, H, W) int64, weights (C,), known (N, H, W) bool.
    """
    if known is not None:
        target = torch.where(known, target, -100)
    sums = F.cross_entropy(raw, target, weights, ignore_index=-100, reduction="sum")
    weight = weights[target.clamp_min(0)] * (target >= 0)
    return total(sums) / total(weight.sum()).clamp_min(torch.finfo(weight.dtype).tiny)


def focal_tversky(
    probability: Tensor, target: Tensor, valid: Tensor, alpha: float = 0.7, gamma: float = 0.75
) -> Tensor:
    """Focal Tversky loss over the classes present in the batch (Abraham & Khan 2019); (N, C, H, W).

    `alpha` weighs misses, 1 - alpha false positives.
    """
    axes = (0, 2, 3)
    probability, target = probability * valid, target * valid
    hit = total((probability * target).sum(axes))
    missed = total(((1 - probability) * target).sum(axes))
    wrong = total((probability * (1 - target) * valid).sum(axes))
    index = (hit + 1) / (hit + alpha * missed + (1 - alpha) * wrong + 1)
    present = (total(target.sum(axes)) > 0).to(index.dtype)
    return (((1 - index).clamp_min(1e-6) ** gamma) * present).sum() / present.sum().clamp_min(1)


def foreground_loss(raw: Tensor, target: Tensor) -> Tensor:
    """BCE + Dice; raw (N, 1, H, W) logits, target (N, H, W) 0 or 1."""
    wanted = target[:, None].to(raw.dtype)
    return F.binary_cross_entropy_with_logits(raw, wanted) + soft_dice(raw.sigmoid(), wanted)


def directional_derivative(maps: Tensor, angles: tuple[int, ...]) -> Tensor:
    """Central difference of each map along its own angle; (N, K, H, W) in and out, borders replicated."""
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    out = []
    for k, angle in enumerate(angles):
        dx, dy = round(math.cos(math.radians(angle))), round(math.sin(math.radians(angle)))
        m, height, width = padded[:, k], maps.shape[2], maps.shape[3]
        ahead = m[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        behind = m[:, 1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        out.append((ahead - behind) / 2)
    return torch.stack(out, 1)


def distance_loss(raw: Tensor, target: Tensor, inside: Tensor, angles: tuple[int, ...]) -> Tensor:
    """MSE on nuclei plus MSE of the derivative along each map's angle (Graham et al. 2019).

    raw, target (N, K, H, W); `inside` (N, H, W) tells how much a pixel counts, 0 to 1.
    """
    mask = inside[:, None].to(raw.dtype)
    count = total(mask.sum()).clamp_min(1) * len(angles)
    plain = total(((raw - target) ** 2 * mask).sum()) / count
    slope = directional_derivative(raw, angles) - directional_derivative(target, angles)
    return plain + total((slope**2 * mask).sum()) / count


def centre_loss(raw: Tensor, target: Tensor, peak_weight: float = 10.0) -> Tensor:
    """MSE of the activation, weighted up towards the peaks; raw (N, 1, H, W) logits, target (N, H, W)."""
    weight = 1 + peak_weight * target
    return (weight * (raw[:, 0].sigmoid() - target) ** 2).mean()


def boundary_loss(raw: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Class-weighted cross-entropy + Dice; raw (N, 3, H, W) logits, target (N, H, W)."""
    wanted = F.one_hot(target.long(), 3).movedim(-1, 1).to(raw.dtype)
    return weighted_cross_entropy(raw, target.long(), weights) + soft_dice(raw.softmax(1), wanted)


def type_loss(raw: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Class-balanced cross-entropy + focal Tversky where the class is known; 0 if it is known nowhere.

    raw (N, C + 1, H, W) logits, target (N, H, W) with `IGNORE` for unknown.
    """
    known = target != IGNORE
    clean = torch.where(known, target, 0).long()
    ce = weighted_cross_entropy(raw, clean, weights, known)
    wanted = F.one_hot(clean, raw.shape[1]).movedim(-1, 1).to(raw.dtype)
    return ce + focal_tversky(raw.softmax(1), wanted, known[:, None].to(raw.dtype))
