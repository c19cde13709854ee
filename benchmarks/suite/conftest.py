"""What the benchmarks start from: one real image of `SIDE` x `SIDE` pixels, seen by the shipped network once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks._canvas import make_canvas
from benchmarks.mosaic import MPP, write_mosaic
from napari_nucseg.core.tiling import Box
from napari_nucseg.inference import make_plan, predict_window, run_tiles
from napari_nucseg.models.registry import find_model
from napari_nucseg.models.runtime import load_runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_nucseg.core.decode import Fields
    from napari_nucseg.inference import Tile
    from napari_nucseg.models.card import Card
    from napari_nucseg.models.runtime import Runtime

SIDE = 2048
"""4.2 megapixels, about 4,000 nuclei."""

DATA = Path(os.environ.get("NUCSEG_DATA", "../shared/data"))


@dataclass(frozen=True)
class Seen:
    """An image and all that is known of it.

    Attributes
    ----------
    image : uint8 (SIDE, SIDE, 3)
    card, runtime
        Of the shipped model.
    fields : Fields
        Of the whole image.
    tile : Tile
        Of the whole image: labels and table.
    """

    image: NDArray[np.uint8]
    card: Card
    runtime: Runtime
    fields: Fields
    tile: Tile


@pytest.fixture(scope="session")
def seen() -> Seen:
    """Return the image, segmented as one tile."""
    model = find_model("default")
    runtime = load_runtime(model, "cpu")
    image = make_canvas(DATA, (SIDE, SIDE)).rows(0, SIDE)
    fields = predict_window(image, runtime, model.card, Box(0, SIDE, 0, SIDE))
    plan = make_plan(image, runtime, model.card, mpp=MPP)
    (tile,) = run_tiles(plan, plan.blocks[0])
    return Seen(image, model.card, runtime, fields, tile)


@pytest.fixture(scope="session")
def slide(tmp_path_factory: Any) -> Path:
    """Return the same image as a pyramid of JPEG tiles."""
    path: Path = tmp_path_factory.mktemp("slide") / "slide.tif"
    write_mosaic(DATA, SIDE, path)
    return path
