"""Review sessions of any size: one real image, whose maps are laid side by side and decoded as one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from benchmarks.mosaic import MPP, training_images
from napari_nucseg.core.decode import Fields, decode
from napari_nucseg.core.field_cache import FieldCache
from napari_nucseg.core.nuclei import NucleusClass
from napari_nucseg.core.scale import Scale
from napari_nucseg.core.synthetic import synthetic_he
from napari_nucseg.core.tiling import Box
from napari_nucseg.inference import predict_window
from napari_nucseg.session import Session

if TYPE_CHECKING:
    from napari_nucseg.models.card import Card
    from napari_nucseg.models.runtime import Runtime

WANTED = 1000
"""Nuclei that the chosen image should have, about."""

LOOKED_AT = 60
"""Images to choose from, the first by name."""

PLENTY = 1 << 34
"""Bytes of maps that are kept: all of them."""


@dataclass(frozen=True)
class Tile:
    """An image, and what the network says of it.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    fields : Fields of shape (H, W)
    name : str
    """

    image: NDArray[np.uint8]
    fields: Fields
    name: str


def choose_tile(data: Path, runtime: Runtime, card: Card) -> Tile:
    """Return the training image with the number of nuclei nearest to `WANTED`; a synthetic one without data."""
    best: tuple[int, Tile] | None = None
    for path in list(training_images(data))[:LOOKED_AT]:
        image = np.asarray(Image.open(path).convert("RGB"))
        tile = Tile(image, predict_window(image, runtime, card), f"{path.parts[-4]}/{path.stem}")
        off = abs(len(decode(tile.fields, card.decode).centres) - WANTED)
        if best is None or off < best[0]:
            best = off, tile
    if best is not None:
        return best[1]
    image = synthetic_he((1000, 1000), mpp=MPP).image
    return Tile(image, predict_window(image, runtime, card), "synthetic tissue (the real data are not there)")


def tiled(fields: Fields, times: int) -> Fields:
    """Lay the same fields side by side, `times` x `times`."""
    grid = (times, times)
    return Fields(
        np.tile(fields.foreground, grid),
        np.tile(fields.border, (1, *grid)),
        np.tile(fields.centre, grid),
        np.tile(fields.type, (1, *grid)),
    )


def make_session(tile: Tile, times: int, card: Card) -> Session:
    """Begin a review of an image that consists of `times` x `times` of the tile.

    The network has seen the tile once; the decoder works on the whole.
    """
    fields = tiled(tile.fields, times)
    shape = fields.shape
    cache = FieldCache(shape, len(card.classes), PLENTY)
    cache.put(Box(0, shape[0], 0, shape[1]), fields)
    found = decode(fields, card.decode)
    del fields
    classes = np.array(card.classes, object)
    nuclei = pd.DataFrame(
        {
            "id": np.arange(1, len(found.centres) + 1, dtype=np.uint32),
            "centre_y": found.centres[:, 0].astype(float),
            "centre_x": found.centres[:, 1].astype(float),
            "class": classes[found.probabilities.argmax(1)],
            "score": found.scores,
            **{f"prob_{name}": found.probabilities[:, k] for k, name in enumerate(card.classes)},
        }
    )
    kinds = [NucleusClass(name, card.colours[name]) for name in card.classes]
    labels = found.owner.astype(np.uint32)
    return Session.from_table(labels, nuclei, kinds, Scale(shape, shape), card.decode, cache)
