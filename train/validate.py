"""Validation: held-out images through the same pipeline as in use, with a task in place of a loaded model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_nucseg.core.decode import DecodeConfig, Fields, decode
from napari_nucseg.core.maps import MapLayout
from napari_nucseg.core.tiling import Box, Grid
from napari_nucseg.inference import predict_window
from napari_nucseg.io.resample import Resampled
from napari_nucseg.io.slide import Mpp, as_source
from napari_nucseg.models.card import Card
from napari_nucseg.models.student import activate
from train import distributed
from train.augment import AugmentConfig
from train.crops import CropConfig, Crops
from train.data import AnnotatedImage, SetConfig
from train.optim import native_precision
from train.scores import OWN, ImageScore, Scheme, figures, score_image


class Predictor(Protocol):
    """What validation needs of a task, of whatever kind."""

    mean: Tensor
    layout: MapLayout

    def predict(self, image: Tensor) -> Tensor:
        """Return the raw maps of a (N, 3, H, W) uint8 batch from any device, float32."""
        ...


class TaskRuntime:
    """A `napari_nucseg.models.runtime.Runtime` around a task, on whatever device it lies, see `native_precision`."""

    def __init__(self, task: Predictor) -> None:
        device = task.mean.device
        words = {torch.float16: "fp16", torch.bfloat16: "bf16", None: "f32"}[native_precision(device)]
        self._task = task
        self.name = f"torch {torch.__version__} ({device.type.upper()}, {words})"

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Runtime.__call__`."""
        image = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None]
        device = self._task.mean.device
        dtype = native_precision(device)
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            raw = self._task.predict(image)
        maps: NDArray[np.float32] = activate(raw.float(), self._task.layout)[0].contiguous().cpu().numpy()
        return maps


@dataclass(frozen=True)
class Predicted:
    """One annotated image with its fields, ready to be decoded with any settings."""

    item: AnnotatedImage
    image: Resampled
    fields: Fields

    @classmethod
    def of(cls, item: AnnotatedImage, task: Predictor, card: Card) -> Predicted:
        """Run a task on one whole image, in the windows in which a user's image is computed."""
        image = Resampled(as_source(item.image, Mpp(item.mpp, f"the data set {item.dataset}")), card.mpp)
        grid, runtime = Grid(image.shape, halo=card.halo, margin=0), TaskRuntime(task)
        fields = Fields.empty(image.shape, len(card.classes))
        for cell in grid.cells():
            owned = grid.owned(cell)
            window = grid.window(owned)
            part = predict_window(image.read(window), runtime, card, owned.relative(window))
            fields.paste(part, *owned.slices)
        return cls(item, image, fields)

    def score(self, config: DecodeConfig, classes: tuple[str, ...]) -> ImageScore:
        """Decode and compare with the truth, at the truth's resolution."""
        found = decode(self.fields, config)
        whole = Box(0, self.fields.shape[0], 0, self.fields.shape[1])
        box, part = self.image.scale.labels_to_level0(whole, found.owner.astype(np.uint32))
        labels = np.zeros(self.item.labels.shape, np.uint32)
        labels[box.slices] = part
        ids = np.unique(labels[labels > 0])
        named = np.array(classes, dtype=object)[found.probabilities[ids.astype(int) - 1].argmax(1)]
        nuclei = pd.DataFrame({"id": ids, "class": named})
        schemes = schemes_of([self.item], classes)
        return score_image({s.key: self.item for s in schemes} or {"": self.item}, labels, nuclei, schemes)


def schemes_of(items: list[AnnotatedImage], classes: tuple[str, ...]) -> list[Scheme]:
    """Return the model's own classes as the scheme to score in, if the images have classes."""
    typed = any(item.types is not None for item in items)
    return [Scheme(OWN, classes, {name: name for name in classes})] if typed else []


class Validator:
    """Score a task on held-out images: the figures of every set, and `bPQ` over all images.

    Several training processes share the images out among them, and all return the figures of all images.
    """

    def __init__(self, images: list[AnnotatedImage], card: Card) -> None:
        self.images, self.card = images, card

    def __call__(self, task: nn.Module) -> dict[str, float]:
        """Return the figures by name, such as ``monuseg/AJI``."""
        rank, world = distributed.rank(), distributed.world()
        predictor = cast(Predictor, task)
        mine = [
            Predicted.of(item, predictor, self.card).score(self.card.decode, self.card.classes)
            for item in self.images[rank::world]
        ]
        shares = distributed.gathered(mine)
        scores = [shares[k % world][k // world] for k in range(len(self.images))]
        out = {"bPQ": mean_known([s.binary.bpq for s in scores])}
        for key in dict.fromkeys(item.dataset for item in self.images):
            chosen = [k for k, item in enumerate(self.images) if item.dataset == key]
            schemes = schemes_of([self.images[k] for k in chosen], self.card.classes)
            for figure in figures([scores[k] for k in chosen], schemes):
                out[f"{key}/{figure.name}"] = figure.value
        return out


def validation_crops(
    images: list[AnnotatedImage], sets: dict[str, SetConfig], layout: MapLayout, crop: CropConfig, seed: int
) -> Crops:
    """Return crops of the held-out images as they are (turned and flipped, nothing else), for the losses on them."""
    chances: dict[str, Any] = {
        name: 0.0 for name in AugmentConfig.__dataclass_fields__ if name.startswith("p_")
    }
    here = {key: config for key, config in sets.items() if any(im.dataset == key for im in images)}
    return Crops(images, here, layout, crop, AugmentConfig(scale=0.0, **chances), seed)


def mean_known(values: list[float]) -> float:
    """Return the mean of the values that are numbers, NaN if none is."""
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan
