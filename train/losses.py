"""Losses of the map heads (see the design: one per map, each a plain function of raw output and target)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_nucseg.core.targets import IGNORE


def soft_dice(probability: Tensor, target: Tensor, valid: Tensor | None = None, eps: float = 1.0) -> Tensor:
    """Return 1 - Dice, averaged over channels; (N, C, H, W) both, sums over batch and space (Milletari 2016)."""
    if valid is not None:
        probability, target = probability * valid, target * valid
    axes = (0, 2, 3)
    overlap = (probability * target).sum(axes)
    total = probability.sum(axes) + target.sum(axes)
    return (1 - (2 * overlap + eps) / (total + eps)).mean()


def focal_tversky(
    probability: Tensor, target: Tensor, valid: Tensor, alpha: float = 0.7, gamma: float = 0.75
) -> Tensor:
    """Focal Tversky loss over the classes present in the batch (Abraham & Khan 2019); (N, C, H, W).

    `alpha` weighs misses, 1 - alpha false positives.
    """
    axes = (0, 2, 3)
    probability, target = probability * valid, target * valid
    hit = (probability * target).sum(axes)
    missed = ((1 - probability) * target).sum(axes)
    wrong = (probability * (1 - target) * valid).sum(axes)
    index = (hit + 1) / (hit + alpha * missed + (1 - alpha) * wrong + 1)
    present = (target.sum(axes) > 0).to(index.dtype)
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
    count = mask.sum().clamp_min(1) * len(angles)
    plain = ((raw - target) ** 2 * mask).sum() / count
    slope = directional_derivative(raw, angles) - directional_derivative(target, angles)
    return plain + (slope**2 * mask).sum() / count


def centre_loss(raw: Tensor, target: Tensor, peak_weight: float = 10.0) -> Tensor:
    """MSE of the activation, weighted up towards the peaks; raw (N, 1, H, W) logits, target (N, H, W)."""
    weight = 1 + peak_weight * target
    return (weight * (raw[:, 0].sigmoid() - target) ** 2).mean()


def boundary_loss(raw: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Class-weighted cross-entropy + Dice; raw (N, 3, H, W) logits, target (N, H, W)."""
    wanted = F.one_hot(target.long(), 3).movedim(-1, 1).to(raw.dtype)
    return F.cross_entropy(raw, target.long(), weights) + soft_dice(raw.softmax(1), wanted)


def type_loss(raw: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Class-balanced cross-entropy + focal Tversky where the class is known; 0 if it is known nowhere.

    raw (N, C + 1, H, W) logits, target (N, H, W) with `IGNORE` for unknown.
    """
    known = target != IGNORE
    if not bool(known.any()):
        return raw.sum() * 0
    clean = torch.where(known, target, 0).long()
    ce = F.cross_entropy(raw, torch.where(known, clean, -100), weights, ignore_index=-100)
    wanted = F.one_hot(clean, raw.shape[1]).movedim(-1, 1).to(raw.dtype)
    return ce + focal_tversky(raw.softmax(1), wanted, known[:, None].to(raw.dtype))
