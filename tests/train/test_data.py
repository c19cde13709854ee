import numpy as np
import pytest

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError
from train.augment import AugmentConfig, random_affine, warp
from train.crops import CropConfig, Crops, loader
from train.data import SetConfig, load_split, nucleus_classes

CLASSES = ("neoplastic", "inflammatory", "connective", "epithelial", "other")


def crops_of(dataset, **kwargs):
    sets = {"toy": SetConfig(held_out=("im_3",), **kwargs)}
    images = load_split(dataset, sets, CLASSES, held_out=False)
    return Crops(images, sets, MapLayout(), CropConfig(size=64), AugmentConfig(), seed=7)


def test_held_out_images_are_never_trained_on(dataset):
    sets = {"toy": SetConfig(held_out=("im_1", "im_3"))}
    train = {im.name for im in load_split(dataset, sets, CLASSES, held_out=False)}
    held = {im.name for im in load_split(dataset, sets, CLASSES, held_out=True)}
    assert train == {"im_0", "im_2"}
    assert held == {"im_1", "im_3"}


def test_classes_are_merged_and_the_unmapped_ignored(dataset):
    plain = load_split(dataset, {"toy": SetConfig()}, CLASSES, held_out=False)[0]
    merged = load_split(dataset, {"toy": SetConfig(merge="merge_two")}, CLASSES, held_out=False)[0]
    assert (merged.types[plain.types == 4] == 1).all()
    assert (merged.types[plain.types == 3] == IGNORE).all()
    assert (merged.types[plain.types == 0] == 0).all()
    with pytest.raises(NucSegError, match="merge_two"):
        load_split(dataset, {"toy": SetConfig(merge="merge_x")}, CLASSES, held_out=False)


def test_a_crop_is_a_pure_function_of_seed_and_index(dataset):
    crops = crops_of(dataset)
    first, again = crops[11], crops_of(dataset)[11]
    assert all((first[k] == again[k]).all() for k in first)
    assert (first["image"] != crops[12]["image"]).any()
    assert first["image"].shape == (3, 64, 64)
    assert first["distance"].shape == (2, 64, 64)


def test_the_loader_starts_anywhere_whatever_the_workers(dataset):
    crops = crops_of(dataset)
    whole = list(loader(crops, 0, 12, 3, workers=0))
    later = list(loader(crops, 6, 12, 3, workers=1))
    assert len(whole) == 4
    assert (whole[2]["image"] == later[0]["image"]).all()
    assert (whole[3]["centre"] == later[1]["centre"]).all()


def test_image_and_labels_are_warped_alike():
    """A disc of one colour stays under its label whatever the warp."""
    rows, cols = np.mgrid[:100, :100]
    disc = (rows - 40) ** 2 + (cols - 60) ** 2 < 400
    image = np.where(disc[..., None], 255, 0).astype(np.uint8).repeat(3, 2)
    rng = np.random.default_rng(0)
    for _ in range(20):
        matrix = random_affine(rng, (40.0, 60.0), 1.0, 64, 0.2)
        a, b = warp(image, matrix, 64, nearest=False), warp(disc.astype(np.int32), matrix, 64, nearest=True)
        assert ((a[..., 0] > 127) != (b > 0)).mean() < 0.01
        assert b[32, 32] == 1  # the aim is in the middle


def test_unknown_resolution_is_refused_unless_given(dataset, tmp_path):
    import json
    import shutil

    shutil.copytree(dataset / "toy", tmp_path / "toy")
    meta = json.loads((tmp_path / "toy" / "dataset.json").read_text())
    (tmp_path / "toy" / "dataset.json").write_text(json.dumps({**meta, "mpp": None}))
    with pytest.raises(NucSegError, match="Resolution"):
        load_split(tmp_path, {"toy": SetConfig()}, CLASSES, held_out=False)
    assert load_split(tmp_path, {"toy": SetConfig(mpp=0.5)}, CLASSES, held_out=False)[0].mpp == 0.5
    sized = load_split(tmp_path, {"toy": SetConfig(mpp_from_size=6.5)}, CLASSES, held_out=False)[0]
    assert 0.1 < sized.mpp < 0.6


def test_nucleus_classes_takes_the_commonest_known_class():
    labels = np.zeros((8, 8), np.int32)
    labels[:2, :4], labels[5:7, 5:7] = 9, 4
    types = np.zeros((8, 8), np.uint8)
    types[0, :3], types[1, :2] = 2, 3
    types[labels == 4] = IGNORE
    points, classes = nucleus_classes(labels, types)
    assert points.tolist() == [[5.5, 5.5], [0.5, 1.5]]  # by ascending id
    assert classes.tolist() == [0, 2]
