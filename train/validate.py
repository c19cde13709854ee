"""Validation during training: held-out images, whole, decoded and scored like in use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from napari_nucseg.core.decode import DecodeConfig, Fields, compress, decode
from napari_nucseg.core.maps import MapLayout
from napari_nucseg.core.metrics import aji, detection_f1, dice, panoptic_quality
from napari_nucseg.models.student import activate
from train.data import AnnotatedImage, nucleus_classes

MULTIPLE = 32
"""Images are padded (mirrored) to multiples of this; enough for any network here."""


@torch.no_grad()
def predict_fields(
    predict: Callable[[Tensor], Tensor], item: AnnotatedImage, layout: MapLayout, mpp: float, device: str = "cpu"
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


def score_image(fields: Fields, item: AnnotatedImage, config: DecodeConfig) -> dict[str, NDArray | float]:
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
    return {
        "aji": aji(item.labels, owner),
        "bpq": panoptic_quality(item.labels, owner).pq,
        "dice": dice(item.labels, owner),
        "detection": detection,
    }


class Validator:
    """Score a network on held-out images: mean over images per set, `bpq` over all, pooled F1 per class."""

    def __init__(
        self, images: list[AnnotatedImage], layout: MapLayout, classes: tuple[str, ...], mpp: float
    ) -> None:
        self.images, self.layout, self.classes, self.mpp = images, layout, classes, mpp

    def __call__(self, predict: Callable[[Tensor], Tensor], device: str = "cpu") -> dict[str, float]:
        config = DecodeConfig()
        scored = [
            (item, score_image(predict_fields(predict, item, self.layout, self.mpp, device), item, config))
            for item in self.images
        ]
        return summarise(scored, self.classes)


def summarise(scored: list, classes: tuple[str, ...]) -> dict[str, float]:
    """Average the scores of `score_image` over images, set by set; detection counts are pooled."""
    out: dict[str, float] = {"bpq": float(np.mean([s["bpq"] for _, s in scored]))}
    for key in dict.fromkeys(item.dataset for item, _ in scored):
        mine = [s for item, s in scored if item.dataset == key]
        for name in ("aji", "bpq", "dice"):
            out[f"{key}/{name}"] = float(np.mean([s[name] for s in mine]))
        total = mine[0]["detection"].counts
        for s in mine[1:]:
            total = total + s["detection"].counts
        out[f"{key}/f1_d"] = total.f1_d
        if any(item.types is not None for item, _ in scored if item.dataset == key):
            for number, value in total.f1_c(range(1, len(classes) + 1)).items():
                out[f"{key}/f1_{classes[number - 1]}"] = value
    return out
