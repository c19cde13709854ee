"""Validation during training: held-out images, whole, decoded and scored like in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_nucseg.core.decode import DecodeConfig, Fields, compress, decode
from napari_nucseg.core.maps import MapLayout
from napari_nucseg.core.metrics import DetectionCounts, aji, detection_f1, dice, panoptic_quality
from napari_nucseg.models.student import activate
from train.data import AnnotatedImage, nucleus_classes

MULTIPLE = 32
"""Images are padded (mirrored) to multiples of this; enough for any network here."""


@torch.no_grad()
def predict_fields(
    predict: Callable[[Tensor], Tensor],
    item: AnnotatedImage,
    layout: MapLayout,
    mpp: float,
    device: str = "cpu",
) -> Fields:
    """Run a network on one whole image at the model's resolution and return the decoder's fields there."""
    image = torch.from_numpy(np.ascontiguousarray(item.image.transpose(2, 0, 1)))[None].to(device).float()
    if abs(item.mpp / mpp - 1) > 0.1:
        image = F.interpolate(image, scale_factor=item.mpp / mpp, mode="bilinear", antialias=True)
    height, width = image.shape[2:]
    padded = F.pad(image, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="reflect")
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        raw = predict(padded)
    maps = activate(raw.float(), layout)[0, :, :height, :width]
    return compress(np.ascontiguousarray(maps.cpu().numpy()), layout)


@dataclass(frozen=True)
class Score:
    """Scores of one image."""

    image: AnnotatedImage
    aji: float
    bpq: float
    dice: float
    detection: DetectionCounts


def score_image(fields: Fields, item: AnnotatedImage, config: DecodeConfig) -> Score:
    """Decode one image and compare it with its truth, at the truth's resolution."""
    found = decode(fields, config)
    owner = found.owner
    scale = np.array(owner.shape) / np.array(item.labels.shape)
    if owner.shape != item.labels.shape:
        rows = ((np.arange(item.labels.shape[0]) + 0.5) * scale[0]).astype(int)
        cols = ((np.arange(item.labels.shape[1]) + 0.5) * scale[1]).astype(int)
        owner = owner[rows][:, cols]
    true_points, true_types = nucleus_classes(item.labels, item.types)
    pred_points, _ = nucleus_classes(owner, None)
    shown = np.unique(owner[owner > 0]) - 1
    pred_types = found.probabilities[shown].argmax(1) + 1
    detection = detection_f1(true_points, true_types, pred_points, pred_types, radius=3.0 / item.mpp)
    return Score(
        image=item,
        aji=aji(item.labels, owner),
        bpq=panoptic_quality(item.labels, owner).pq,
        dice=dice(item.labels, owner),
        detection=detection.counts,
    )


class Validator:
    """Score a network on held-out images: mean over images per set, `bpq` over all, pooled F1 per class."""

    def __init__(
        self, images: list[AnnotatedImage], layout: MapLayout, classes: tuple[str, ...], mpp: float
    ) -> None:
        self.images, self.layout, self.classes, self.mpp = images, layout, classes, mpp

    def __call__(self, predict: Callable[[Tensor], Tensor], device: str = "cpu") -> dict[str, float]:
        """Return the scores of a network given by its raw prediction."""
        config = DecodeConfig()
        scored = [
            score_image(predict_fields(predict, item, self.layout, self.mpp, device), item, config)
            for item in self.images
        ]
        return summarise(scored, self.classes)


def summarise(scores: list[Score], classes: tuple[str, ...]) -> dict[str, float]:
    """Average the scores over images, set by set; detection counts are pooled."""
    out: dict[str, float] = {"bpq": float(np.mean([s.bpq for s in scores]))}
    for key in dict.fromkeys(s.image.dataset for s in scores):
        mine = [s for s in scores if s.image.dataset == key]
        for name in ("aji", "bpq", "dice"):
            out[f"{key}/{name}"] = float(np.mean([getattr(s, name) for s in mine]))
        total = sum((s.detection for s in mine), DetectionCounts())
        out[f"{key}/f1_d"] = total.f1_d
        if any(s.image.types is not None for s in mine):
            per_class = total.f1_c(range(1, len(classes) + 1))
            out |= {f"{key}/f1_{classes[k - 1]}": value for k, value in per_class.items()}
    return out
