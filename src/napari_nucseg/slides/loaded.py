"""A model ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_nucseg.models.registry import Model
    from napari_nucseg.models.runtime import Runtime


@dataclass(frozen=True)
class Loaded:
    """A model on its runtime, loaded once for all images."""

    model: Model
    runtime: Runtime

    @classmethod
    def of(cls, model: str, device: str) -> Loaded:
        """Find a model and load it onto a device; `NucSegError` where either cannot be had."""
        from napari_nucseg.models.registry import find_model
        from napari_nucseg.models.runtime import load_runtime

        found = find_model(model)
        return cls(found, load_runtime(found, device))

    def describe(self) -> str:
        """Say what runs, under which licence, and what it is not proven to do."""
        card = self.model.card
        return f"{self.model} on {self.runtime.name}; weights: {card.licence}. {card.caution}".rstrip()
