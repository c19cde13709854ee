"""A network without weights, and a card for it: deterministic, local, and good enough to find blue nuclei."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_nucseg.core.maps import BAND, INSIDE, MapLayout
from napari_nucseg.models.card import Card

CLASSES = ("neoplastic", "inflammatory", "connective", "epithelial", "other")
LAYOUT = MapLayout()


def fake_card(**changes):
    facts = {
        "name": "fake", "version": "1", "title": "Threshold on haematoxylin", "classes": CLASSES,
        "colours": {name: (40 * k, 200 - 30 * k, 90) for k, name in enumerate(CLASSES)},
        "mpp": 0.25, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0),
        "network": {"layout": {"angles": [0, 90], "n_classes": 5}}, "licence": "BSD-3-Clause",
    }  # fmt: skip
    return Card(**{**facts, **changes})


class FakeRuntime:
    """Dark red light means haematoxylin; every filter has a support below the halo of the tiles."""

    name = "fake (CPU)"

    def __init__(self):
        self.windows = 0

    def __call__(self, rgb):
        self.windows += 1
        dark = 255.0 - rgb[..., 0].astype(np.float32)
        smooth = gaussian_filter(dark, 2, truncate=3)
        broad = gaussian_filter(dark, 5, truncate=3)
        maps = np.zeros((LAYOUT.channels, *dark.shape), np.float32)
        inside = smooth > 100
        maps[LAYOUT.foreground] = inside
        maps[LAYOUT.centre] = np.clip((broad - 70) / 130, 0, 1)
        maps[LAYOUT.boundary.start + INSIDE] = inside
        maps[LAYOUT.boundary.start + BAND] = np.clip((120 - broad) / 100, 0, 1)
        maps[LAYOUT.type.start + 1] = broad > 120
        maps[LAYOUT.type.start + 2] = broad <= 120
        return maps
