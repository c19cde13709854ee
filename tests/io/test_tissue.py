"""Tissue is found on a coarse level, of a file of any size, and holds every nucleus that somebody drew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from napari_nucseg.core.tissue import TissueConfig
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.damage import Tolerant
from napari_nucseg.io.slide import as_source, read_image
from napari_nucseg.io.tissue import find_tissue, save_tissue

if TYPE_CHECKING:
    from pathlib import Path

ALWAYS = TissueConfig(whole_below=0)


class Noting:
    """A source that remembers what was read of it, and can't read some of it."""

    def __init__(self, source, broken=()):
        self.source, self.broken, self.reads = source, broken, []
        self.mpp, self.shape, self.level_shapes = source.mpp, source.shape, source.level_shapes

    def read(self, y0, y1, x0, x1, level=0):
        self.reads.append((level, (y1 - y0) * (x1 - x0)))
        for wrong, row, column in self.broken:
            if level == wrong and y0 <= row < y1 and x0 <= column < x1:
                raise NucSegError("a damaged place")
        return self.source.read(y0, y1, x0, x1, level)


def slide(height=3000, width=4200):
    image = np.full((height, width, 3), 244, np.uint8)
    image[800:2000, 900:1900] = (200, 130, 180)
    return image


def test_a_pyramid_is_read_on_its_coarse_level():
    image = slide()
    levels = [image, image[::4, ::4], image[::16, ::16], image[::64, ::64]]
    source = Noting(as_source(levels, 0.25))
    tissue = find_tissue(source)
    assert {level for level, _ in source.reads} == {2}  # 4 um, two pixels along a pixel of the mask
    assert tissue.mask.shape == (94, 132)
    assert tissue.shape == (3000, 4200)
    flat = Noting(as_source(image, 0.25))
    same = find_tissue(flat)
    assert max(pixels for _, pixels in flat.reads) <= 2048**2
    assert sum(pixels for _, pixels in flat.reads) == 3000 * 4200
    assert (same.mask != tissue.mask).mean() < 0.01
    rows, columns = np.mgrid[800:2000:50, 900:1900:50]
    assert tissue.holds(np.stack([rows.ravel(), columns.ravel()], 1)).all()
    assert not tissue.holds(np.array([[100.0, 100.0], [2900.0, 4100.0]])).any()
    assert tissue.area_px == pytest.approx((1200 + 400) * (1000 + 400), rel=0.06)


def test_pyramids_of_odd_sizes_keep_their_geometry():
    image = slide(3001, 4203)
    coarse = np.asarray(Image.fromarray(image).resize((4203 // 16, 3001 // 16), Image.Resampling.BOX))
    tissue = find_tissue(as_source([image, coarse], 0.25))
    assert tissue.cell[0] * tissue.mask.shape[0] >= 3001
    assert tissue.holds(np.array([[800.0, 900.0], [1999.0, 1899.0]])).all()
    assert not tissue.holds(np.array([[800.0 - 300, 900.0], [1999.0, 1899.0 + 300]])).any()


def test_a_small_picture_is_all_tissue_unread():
    source = Noting(as_source(np.full((1000, 1000, 3), 255, np.uint8), 0.25))
    assert find_tissue(source).fraction == 1.0
    assert source.reads == []


def test_an_unknown_scale_is_refused():
    with pytest.raises(NucSegError, match="state the mpp"):
        find_tissue(as_source(slide()))


def test_what_cannot_be_read_counts_as_tissue():
    image = slide()
    levels = [image, np.repeat(np.repeat(image[::16, ::16], 3, 0), 3, 1)]
    broken = Tolerant(Noting(as_source(levels, 1.0), [(1, 500, 750)]))
    tissue = find_tissue(broken, ALWAYS)
    assert len(broken.damages) == 1
    damage = broken.damages[0]
    assert damage.level == 1
    scale = np.array(image.shape[:2]) / levels[1].shape[:2]
    corners = np.array([[damage.box.y0 + 1, damage.box.x0 + 1], [damage.box.y1 - 1, damage.box.x1 - 1]])
    assert tissue.holds(corners * scale).all()
    assert not find_tissue(as_source(levels, 1.0), ALWAYS).holds(corners * scale).any()


def test_the_mask_is_saved_as_a_picture(tmp_path: Path):
    tissue = find_tissue(as_source(slide(), 0.25))
    save_tissue(tissue, tmp_path / "new" / "t.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "t.png")) == 255, tissue.mask)
    with pytest.raises(NucSegError, match="can't be written"):
        save_tissue(tissue, tmp_path)


def test_real_slides(shared: Path):
    with read_image(shared / "wsi" / "CMU-1-Small-Region.svs") as slide_:
        tissue = find_tissue(slide_)
    assert 0.5 < tissue.fraction < 0.7
    assert tissue.holds(np.array([[2500.0, 1100.0], [1700.0, 1500.0]])).all()
    assert not tissue.holds(np.array([[1500.0, 200.0], [300.0, 2000.0]])).any()


@pytest.mark.parametrize("name", ["monuseg", "consep", "gbm40", "tcga_glioma", "dsb2018_color", "cpm16"])
def test_no_nucleus_of_the_training_images_lies_outside(shared: Path, name: str):
    folder = shared / "data" / name
    mpp = json.loads((folder / "dataset.json").read_text()).get("mpp")
    mpp = mpp if isinstance(mpp, float) else 0.25
    paths = sorted((folder / "train" / "images").iterdir())
    # train_25 of CoNSeP is fat, whose nuclei lie alone on unstained membranes
    for path in [p for p in paths if p.stem == "train_25"] + paths[::9]:
        image = np.asarray(Image.open(path).convert("RGB"))
        labels = np.asarray(Image.open(folder / "train" / "instances" / f"{path.stem}.png"))
        canvas = np.full((image.shape[0] + 900, image.shape[1] + 1300, 3), 245, np.uint8)
        canvas[400:-500, 600:-700] = image
        tissue = find_tissue(as_source(canvas, mpp), ALWAYS)
        ids = np.unique(labels)[1:]
        centres = np.array(ndimage.center_of_mass(labels > 0, labels, ids)).reshape(-1, 2)
        assert tissue.holds(centres + np.array([400, 600])).all(), path.name
        assert not tissue.mask[0].any()
