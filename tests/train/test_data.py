import csv
import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError
from train.augment import AugmentConfig, random_affine, warp
from train.crops import CropConfig, Crops, loader
from train.data import DataConfig, SetConfig, load_data, load_image, load_split, nucleus_classes

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
    shutil.copytree(dataset / "toy", tmp_path / "toy")
    meta = json.loads((tmp_path / "toy" / "dataset.json").read_text())
    (tmp_path / "toy" / "dataset.json").write_text(json.dumps({**meta, "mpp": None}))
    with pytest.raises(NucSegError, match="Resolution"):
        load_split(tmp_path, {"toy": SetConfig()}, CLASSES, held_out=False)
    assert load_split(tmp_path, {"toy": SetConfig(mpp=0.5)}, CLASSES, held_out=False)[0].mpp == 0.5
    sized = load_split(tmp_path, {"toy": SetConfig(mpp_from_size=6.5)}, CLASSES, held_out=False)[0]
    assert 0.1 < sized.mpp < 0.6


def test_a_set_without_labels_needs_no_description_if_its_resolution_is_stated(dataset, tmp_path):
    shutil.copytree(dataset / "toy" / "train" / "images", tmp_path / "bare" / "images")
    sets = {"bare": SetConfig(labelled=False, mpp=0.5)}
    assert load_split(tmp_path, sets, CLASSES, held_out=False)[0].mpp == 0.5
    assert load_image(tmp_path / "bare", "train", "im_0", sets["bare"], CLASSES).mpp == 0.5
    with pytest.raises(NucSegError, match=r"set data\.sets\.bare\.mpp"):
        load_split(tmp_path, {"bare": SetConfig(labelled=False)}, CLASSES, held_out=False)


def test_nucleus_classes_takes_the_commonest_known_class():
    labels = np.zeros((8, 8), np.int32)
    labels[:2, :4], labels[5:7, 5:7] = 9, 4
    types = np.zeros((8, 8), np.uint8)
    types[0, :3], types[1, :2] = 2, 3
    types[labels == 4] = IGNORE
    points, classes = nucleus_classes(labels, types)
    assert points.tolist() == [[5.5, 5.5], [0.5, 1.5]]  # by ascending id
    assert classes.tolist() == [0, 2]


def test_pixels_come_when_asked_and_are_those_of_the_files(dataset):
    """In training, validation and one by one; and a crop does not depend on what memory there is."""
    sets = {"toy": SetConfig(held_out=("im_2",))}
    train, held = load_data(DataConfig(dataset, CLASSES, sets=sets))
    for image in (*train, *held):
        whole = load_image(dataset / "toy", "train", image.name, sets["toy"], CLASSES)
        for name in ("image", "labels", "types", "nuclei"):
            assert np.array_equal(getattr(image, name), getattr(whole, name))
        assert (image.mpp, image.shape, image.labels.dtype) == (whole.mpp, whole.shape, whole.labels.dtype)
    plenty, none = (
        Crops(
            load_data(DataConfig(dataset, CLASSES, cache_gb=gb, sets=sets))[0],
            sets, MapLayout(), CropConfig(size=64), AugmentConfig(), 1,
        )
        for gb in (1.0, 0.0)
    )  # fmt: skip
    again = pickle.loads(pickle.dumps(plenty))
    for k in range(6):
        assert all((plenty[k][name] == none[k][name]).all() for name in plenty[k])
        assert (again[k]["image"] == plenty[k]["image"]).all()


@pytest.fixture
def folds(dataset, tmp_path):
    """The toy set as prepare writes one: two folders, folds as published, patients and a table of splits."""
    folder = tmp_path / "sets" / "toy"
    shutil.copytree(dataset / "toy", folder)
    for kind in ("images", "instances", "types"):
        (folder / "val" / kind).mkdir(parents=True)
        (folder / "train" / kind / "im_3.png").rename(folder / "val" / kind / "im_3.png")
        for k in range(4):
            (folder / "test" / kind / f"im_{k}.png").rename(folder / "test" / kind / f"im_{k + 4}.png")
    rows = [
        ("train", "im_0", "0.5", "P1", "fold1"),
        ("train", "im_1", "0.25", "P1", "train"),
        ("train", "im_2", "0.25", "P2", "fold2"),
        ("val", "im_3", "0.25", "P3", "train"),
        ("test", "im_4", "0.125", "P9", "train"),
    ]
    with (folder / "index.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("split", "name", "mpp", "group", "published"), *rows])
    table = [("name", "split", "patient"), ("im_0", "b", "P1"), ("im_1", "a", "P4"), ("im_3", "a", "P3")]
    with (folder / "mine.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(table)
    return folder


@pytest.mark.parametrize(
    ("settings", "train", "held"),
    [
        ({}, "012", "3"),  # a published "train" in val or test does not come back to the training
        ({"validation": ()}, "012", ""),
        ({"train": ("fold2",), "validation": ("fold1",)}, "2", "0"),
        ({"train": ("fold1", "val"), "validation": ("fold2",)}, "03", "2"),
        ({"held_out": ("P1",)}, "2", "013"),
        ({"held_out": ("im_1", "P2")}, "0", "123"),
        ({"splits": "mine.csv", "train": ("a",), "validation": ("b",)}, "13", "0"),
        ({"splits": "mine.csv", "train": ("a",), "held_out": ("P4",)}, "3", "1"),
        ({"patient": "_([0-2])$", "held_out": ("2",)}, "01", "23"),
    ],
)
def test_sides_by_folder_fold_table_name_and_patient(folds, settings, train, held):
    def names(held_out):
        try:
            found = load_split(folds.parent, {"toy": SetConfig(**settings)}, CLASSES, held_out)
        except NucSegError:
            return ""
        return "".join(sorted(im.name.removeprefix("im_") for im in found))

    assert (names(False), names(True)) == (train, held)


def test_a_share_is_held_out_by_whole_patients(folds):
    sets = {"toy": SetConfig(validation=(), val_fraction=0.4)}
    train, held = load_data(DataConfig(folds.parent, CLASSES, sets=sets))
    sides = {im.name: side for side, images in enumerate((train, held)) for im in images}
    assert sides.keys() == {"im_0", "im_1", "im_2"}
    assert sides["im_0"] == sides["im_1"] != sides["im_2"]
    assert {im.name: im.mpp for im in (*train, *held)} == {"im_0": 0.5, "im_1": 0.25, "im_2": 0.25}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train": ("fold3",)}, "did you mean 'fold"),
        ({"validation": ("vla",)}, "did you mean 'val'"),
        ({"train": ("train", "val")}, "in train and validation"),
        ({"splits": "other.csv"}, "names no image"),
        ({"patient": "("}, "regular expression"),
        ({"held_out": ("im",)}, "No training image"),
        ({"held_out": ("im_1", "mi_2")}, "held_out names 'mi_2'.*did you mean 'im_2'"),
        ({"validation": ()}, "No validation image"),
        (
            {"val_fraction": 0.2, "patient": "im"},
            r"val_fraction=0\.2 can hold nothing out.* are of 'im'; name",
        ),
    ],
)
def test_impossible_divisions_are_told(folds, settings, said):
    with pytest.raises(NucSegError, match=said):
        load_data(DataConfig(folds.parent, CLASSES, sets={"toy": SetConfig(**settings)}))
    with pytest.raises(NucSegError, match="did you mean 'toy'"):
        load_data(DataConfig(folds.parent, CLASSES, sets={"tyo": SetConfig()}))


def test_a_single_image_is_not_enough(folds):
    for kind in ("images", "instances", "types"):
        for k in (1, 2):
            (folds / "train" / kind / f"im_{k}.png").unlink()
    for settings, said in (
        (
            SetConfig(validation=()),
            "a single image to train on, 'im_0', and none to validate with; at least two images",
        ),
        (SetConfig(validation=(), val_fraction=0.5), "nothing out of a single image; at least two images"),
    ):
        with pytest.raises(NucSegError, match=said):
            load_data(DataConfig(folds.parent, CLASSES, sets={"toy": settings}))


def test_a_table_of_splits_needs_names_that_are_unique(folds):
    for kind in ("images", "instances", "types"):
        (folds / "test" / kind / "im_4.png").rename(folds / "test" / kind / "im_0.png")
    with pytest.raises(NucSegError, match="both in test and in train"):
        load_split(folds.parent, {"toy": SetConfig(splits="mine.csv", train=("b",))}, CLASSES, False)


def test_patients_on_both_sides_are_told(folds, caplog):
    load_data(DataConfig(folds.parent, CLASSES, sets={"toy": SetConfig(held_out=("im_0",))}))
    assert "'P1'" in caplog.text
    caplog.clear()
    load_data(DataConfig(folds.parent, CLASSES, sets={"toy": SetConfig(held_out=("P1",))}))
    assert "patients" not in caplog.text


def test_a_class_map_gives_the_classes_of_all_sets(dataset, tmp_path):
    path = tmp_path / "classes.toml"
    path.write_text(
        'ignore = ["toy:connective"]\n[classes]\ntumour = ["neoplastic", "epithelial"]\n'
        'rest = ["Inflammatory", "connective", "other"]\n'
    )
    sets = {"toy": SetConfig(held_out=("im_3",))}
    config = DataConfig(dataset, class_map=path, sets=sets).resolved()
    assert config.classes == ("tumour", "rest")
    (image, *_), _ = load_data(config)
    plain = load_image(dataset / "toy", "train", image.name, SetConfig(), CLASSES).types
    for ours, theirs in ((0, 0), (1, 1), (2, 2), (IGNORE, 3), (1, 4), (2, 5)):
        assert (image.types[plain == theirs] == ours).all()
    assert set(image.nuclei[:, 2]) <= {0, 1, 2}
    with pytest.raises(NucSegError, match=r"data\.classes"):
        load_data(DataConfig(dataset, class_map=path, sets=sets))
    path.write_text('[classes]\ntumour = ["neoplastik"]\nneoplastic = []\ninflammatory = ["epithelial"]\n')
    with pytest.raises(NucSegError, match="connective"):
        load_data(DataConfig(dataset, class_map=path, sets=sets).resolved())


def test_the_student_trains_on_what_it_always_did(shared):
    """The sets and validation images of its configuration: whatever is added must not change them."""
    from pathlib import Path

    from train.config import load_config
    from train.fit import FitConfig
    from train.listing import list_set

    config = load_config(FitConfig, Path(__file__).parents[2] / "train" / "configs" / "student.toml").data
    sides = {key: list_set(shared / "data" / key, value) for key, value in config.sets.items()}
    counts = {key: tuple(len(side) for side in both) for key, both in sides.items()}
    assert counts == {
        "monuseg": (26, 4), "consep": (23, 4), "gbm40": (40, 0), "tcga_glioma": (28, 0), "cpm16": (32, 0),
        "dsb2018_color": (107, 0),
    }  # fmt: skip


def retype(folder, change):
    """Change the types of one training image."""
    path = folder / "train" / "types" / "im_0.png"
    types = np.asarray(Image.open(path)).copy()
    labels = np.asarray(Image.open(folder / "train" / "instances" / "im_0.png"))
    change(types, labels)
    Image.fromarray(types).save(path)


def test_a_nucleus_of_no_class_is_never_taught_as_background(folds):
    def forget(types, labels):
        types[labels == labels.max()] = 0
        types[0, labels[0] == 0] = 3  # and a class where there is no nucleus

    retype(folds, forget)
    images = load_split(folds.parent, {"toy": SetConfig()}, CLASSES, held_out=False)
    (image,) = (im for im in images if im.name == "im_0")
    assert (image.types[image.labels == image.labels.max()] == IGNORE).all()
    assert (image.types[image.labels == 0] == 0).all()
    assert image.nuclei[-1, 2] == 0


def test_a_class_number_without_a_name_is_told(folds):
    def shift(types, labels):
        types[labels > 0] = 6

    retype(folds, shift)
    with pytest.raises(
        NucSegError, match=r"im_0\.png' has class 6, but the last of 'classes'.* is 5 \(other\)"
    ):
        load_split(folds.parent, {"toy": SetConfig()}, CLASSES, held_out=False)


def test_classes_that_nothing_teaches_are_told(folds, caplog):
    nothing = r"toy: no nucleus is of a class to learn \(Tumour, Stroma; the set has neoplastic, "
    with pytest.raises(NucSegError, match=nothing):
        load_data(DataConfig(folds.parent, ("Tumour", "Stroma"), sets={"toy": SetConfig()}))
    shutil.copytree(folds, folds.parent / "more")
    sets = {"toy": SetConfig(merge="merge_none"), "more": SetConfig()}
    meta = json.loads((folds / "dataset.json").read_text())
    (folds / "dataset.json").write_text(json.dumps({**meta, "merge_none": {"mass": ["other"]}}))
    load_data(DataConfig(folds.parent, ("neoplastic", "connective"), sets=sets))
    assert "toy: no nucleus is of a class to learn (neoplastic, connective; the set" in caplog.text
    caplog.clear()
    load_data(DataConfig(folds.parent, ("neoplastic", "Stroma"), sets={"toy": SetConfig()}))
    assert "of a class to learn" not in caplog.text
    assert (
        "No training nucleus is of the class Stroma: it can't be learnt. The data also have " in caplog.text
    )
    assert "inflammatory, connective, epithelial, other: say by a class map (data.class_map)" in caplog.text
    assert "or name those to learn in data.classes." in caplog.text
    caplog.clear()
    load_data(DataConfig(folds.parent, ("neoplastic", "inflammatory"), sets={"toy": SetConfig()}))
    assert not caplog.text


@pytest.mark.parametrize("name", ["Neoplastic", "neoplastik"])
def test_a_class_that_is_spelt_otherwise_is_told(folds, name):
    with pytest.raises(
        NucSegError, match=f"class '{name}' of.*did you mean 'neoplastic', as in the set 'toy'"
    ):
        load_data(DataConfig(folds.parent, (name, "inflammatory"), sets={"toy": SetConfig()}))


def test_classes_that_validation_lacks_are_told(folds, caplog):
    path = folds / "val" / "types" / "im_3.png"
    types = np.asarray(Image.open(path)).copy()
    types[types == 2] = IGNORE
    Image.fromarray(types).save(path)
    load_data(DataConfig(folds.parent, ("neoplastic", "inflammatory"), sets={"toy": SetConfig()}))
    assert "No validation nucleus is of the class inflammatory: its figures" in caplog.text


def test_a_resolution_that_is_not_heeded_is_told(folds, caplog):
    sets = {"toy": SetConfig(mpp=0.25, validation=("val",))}
    load_data(DataConfig(folds.parent, CLASSES, sets=sets))
    assert "data.sets.toy.mpp=0.25 is not heeded" in caplog.text
    assert "as for im_0 (0.5) and 0 more" in caplog.text
    assert caplog.text.count("heeded") == 1


def test_a_class_is_learnt_once():
    with pytest.raises(NucSegError, match="'a' twice"):
        DataConfig(classes=("a", "b", "a"))
