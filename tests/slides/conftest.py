"""A small slide of many tiles, and requests to segment it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.core.synthetic import synthetic_he
from napari_nucseg.inference import make_plan
from napari_nucseg.io.slide import read_image
from napari_nucseg.models.registry import Model
from napari_nucseg.slides.engine import Request
from napari_nucseg.slides.loaded import Loaded
from napari_nucseg.slides.prepare import Options
from tests.fakes import FakeRuntime, fake_card

TILE = 128
NEAR = {"layout": {"angles": [0, 90], "n_classes": 5}, "blocks": [], "decoder_blocks": []}
"""A network that sees 16 pixels around, which is what the fake one needs."""
CARD = fake_card(network=NEAR, decode=DecodeConfig(max_cost=120, max_hole=10, ridge=10))
SHAPE = (512, 640)
TILES = len(make_plan(np.zeros((*SHAPE, 3), np.uint8), FakeRuntime(), CARD, mpp=0.25, tile=TILE).tiles)
FORMATS = ("tif", "csv", "geojson", "zarr", "parquet")


def write_slide(path, image, tile=128):
    """A TIFF of tiles at 0.25 um per pixel."""
    tifffile.imwrite(
        path, image, photometric="rgb", tile=(tile, tile), compression="deflate",
        resolution=(40000, 40000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def pixels():
    """512 x 640 pixels, some 20 tiles and 150 nuclei; a strip of glass at the right."""
    image = np.tile(synthetic_he().image, (1, 2, 1))[:512, :640].copy()
    image[:, 600:] = 245
    return image


@pytest.fixture(scope="session")
def slide(tmp_path_factory, pixels):
    return write_slide(tmp_path_factory.mktemp("slides") / "slide.tif", pixels)


@pytest.fixture
def ask(slide, tmp_path):
    """Make requests; the image files are closed at the end."""
    opened = []

    def request(path=slide, out=None, runtime=None, formats=FORMATS, stem="slide", **options):
        image = read_image(path) if isinstance(path, str | Path) else path
        opened.append(image)
        loaded = Loaded(Model(Path("fake.safetensors"), CARD), runtime or FakeRuntime())
        return Request(
            image, loaded, out or tmp_path / "out", stem, formats, Options(**{"tile": TILE, **options})
        )

    yield request
    for image in opened:
        image.close()


def contents(folder, without=("_summary.json",)):
    """All files below a folder, by relative path, with what they hold."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file() and not p.name.endswith(without)
    }


def finish(steps):
    """Run a generator to its end; return what it yielded and what it returned."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value
