"""Segment, classify and review every nucleus of an H&E image.

>>> import napari_nucseg as nn
>>> result = nn.segment("slide.svs")  # doctest: +SKIP
>>> result.labels, result.nuclei, result.save("results")  # doctest: +SKIP

Importing this package is cheap: torch, Qt and the rest come in when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg.core.tiling import Box
    from napari_nucseg.inference import Region, Result, segment
    from napari_nucseg.io.slide import read_image
    from napari_nucseg.models.registry import available as available_models
    from napari_nucseg.models.registry import find_model as load_model

__version__ = "0.1.0"
__all__ = [
    "Box",
    "NucSegError",
    "Region",
    "Result",
    "available_models",
    "load_model",
    "read_image",
    "segment",
]

_WHERE = {
    "Box": ("napari_nucseg.core.tiling", "Box"),
    "Region": ("napari_nucseg.inference", "Region"),
    "Result": ("napari_nucseg.inference", "Result"),
    "segment": ("napari_nucseg.inference", "segment"),
    "read_image": ("napari_nucseg.io.slide", "read_image"),
    "available_models": ("napari_nucseg.models.registry", "available"),
    "load_model": ("napari_nucseg.models.registry", "find_model"),
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'napari_nucseg' has no attribute '{name}'")
    module, attribute = _WHERE[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
