"""Training tasks: a task owns its networks, normalisation and losses; the loop never knows which it runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_nucseg.core.maps import MapLayout
from train import losses
from train.crops import Batch


@dataclass(frozen=True)
class LossWeights:
    """Weight of each map's loss in the total."""

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
    """

    def __init__(
        self,
        network: nn.Module,
        layout: MapLayout,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        weights: LossWeights,
        class_weights: Tensor,
    ) -> None:
        super().__init__()
        self.network, self.layout, self.weights = network, layout, weights
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.register_buffer("class_weights", class_weights)
        self.register_buffer("boundary_weights", torch.tensor([0.7, 1.0, 2.0]))

    def predict(self, image: Tensor) -> Tensor:
        """Return the raw maps of a (N, 3, H, W) uint8 batch from any device, float32."""
        scaled = (image.to(self.mean.device).float() - self.mean) / self.std
        return self.network(scaled.contiguous(memory_format=torch.channels_last)).float()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch, see `losses`."""
        raw = self.predict(batch["image"])
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
