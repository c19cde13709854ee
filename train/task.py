"""Training tasks: a task owns its networks, normalisation and losses; the loop never knows which it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from napari_nucseg.core.maps import MapLayout
from train import losses
from train.crops import Batch
from train.without import check_without, stand_ins


@dataclass(frozen=True)
class LossWeights:
    """Weight of each map's loss in the total.

    Parameters
    ----------
    foreground, distance, centre, boundary, type : float
        Weight of this map.
    """

    foreground: float = 1.0
    distance: float = 2.0
    centre: float = 20.0
    boundary: float = 1.0
    type: float = 1.0


class MapTask(nn.Module):
    """Learn every map from labels (a student without a teacher, or the teacher itself).

    Parameters
    ----------
    network : nn.Module
        ``(N, 3, H, W)`` normalised image to ``(N, layout.channels, H, W)`` raw maps.
    layout : MapLayout
    mean, std : per-channel normalisation of 8-bit RGB
    weights : LossWeights
    class_weights : (C + 1,) weights of the type cross-entropy, background first
    without : tuple of str
        Maps that are not learnt: `predict` puts in what `train.without` says.
    """

    def __init__(
        self,
        network: nn.Module,
        layout: MapLayout,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        weights: LossWeights,
        class_weights: Tensor,
        without: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        check_without(without, layout)
        self.network, self.layout, self.without = network, layout, without
        self.weights = replace(weights, **dict.fromkeys(without, 0.0))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.register_buffer("class_weights", class_weights)
        self.register_buffer("boundary_weights", torch.tensor([0.7, 1.0, 2.0]))

    def normalised(self, image: Tensor) -> Tensor:
        """Return the network's input of a (N, 3, H, W) uint8 batch from any device."""
        scaled = (image.to(self.mean.device).float() - self.mean) / self.std
        return scaled.contiguous(memory_format=torch.channels_last)

    def predict(self, image: Tensor) -> Tensor:
        """Return the raw maps of a (N, 3, H, W) uint8 batch from any device, float32."""
        return stand_ins(self.network(self.normalised(image)).float(), self.layout, self.without)

    def predict_with_features(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what `predict` does, and the decoder features behind it, coarse to fine."""
        raw, features = self.network.forward_with_features(self.normalised(image))
        return raw.float(), features

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch, see `losses`."""
        raw = self.network(self.normalised(batch["image"])).float()
        with torch.autocast(raw.device.type, enabled=False):
            return self.losses(raw, batch)

    def losses(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of each map and their weighted `total`."""
        lay, w = self.layout, self.weights
        parts = {
            "foreground": losses.foreground_loss(raw[:, lay.foreground], batch["foreground"]),
            "distance": losses.distance_loss(
                raw[:, lay.distance], batch["distance"], batch["foreground"], lay.angles
            ),
            "centre": losses.centre_loss(raw[:, lay.centre], batch["centre"]),
            "boundary": losses.boundary_loss(raw[:, lay.boundary], batch["boundary"], self.boundary_weights),
            "type": losses.type_loss(raw[:, lay.type], batch["type"], self.class_weights),
        }
        total = torch.stack([getattr(w, k) * v for k, v in parts.items()]).sum()
        return {**parts, "total": total}


class TeacherTask(MapTask):
    """Learn every map from labels with deep supervision, where the network has heads on its coarser features.

    Their maps get the same losses: `side_weight` times the mean of their totals is added to the total, as the
    part `side`. Without such heads it is a `MapTask`.
    """

    side_weight: float = 0.4

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch, see `losses`."""
        raw, features = self.predict_with_features(batch["image"])
        sides = self.network.side_maps(features)
        with torch.autocast(raw.device.type, enabled=False):
            parts = self.losses(raw, batch)
            if not sides:
                return parts
            side = torch.stack([self.losses(maps.float(), batch)["total"] for maps in sides]).mean()
            return {**parts, "side": side, "total": parts["total"] + self.side_weight * side}
