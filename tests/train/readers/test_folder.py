import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_nucseg.errors import NucSegError
from train.readers import open_source


@pytest.fixture
def toy(dataset, tmp_path):
    shutil.copytree(dataset / "toy", tmp_path / "toy")
    return tmp_path / "toy"


def test_the_layout_is_read_with_splits_classes_and_merges(toy):
    source = open_source(toy)
    assert source.format == "folder"
    assert [e.split for e in source.entries] == ["test"] * 4 + ["train"] * 4
    assert len(set(source.names)) == 8  # the same names in two splits
    assert source.classes == ("neoplastic", "inflammatory", "connective", "epithelial", "other")
    assert "merge_two" in source.merges
    raw = source.read(source.entries[4])
    assert (raw.image == np.asarray(Image.open(toy / "train/images/im_0.png"))).all()
    assert (raw.labels == np.asarray(Image.open(toy / "train/instances/im_0.png"))).all()
    assert (raw.mpp, raw.mpp_source) == (0.25, "dataset.json")


def test_the_index_has_the_last_word_on_resolution_patient_and_organ(toy):
    (toy / "index.csv").write_text("split,name,mpp,group,organ\ntrain,im_1,0.5,case7,colon\n")
    source = open_source(toy)
    entry = next(e for e in source.entries if e.where.endswith("train/images/im_1.png"))
    assert (entry.group, entry.organ) == ("case7", "colon")
    assert source.read(entry).mpp == 0.5


def test_bad_files_are_named_in_a_sentence(toy):
    (toy / "train/instances/im_0.png").unlink()
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(toy / "train/instances/im_1.png")
    Image.fromarray(np.full((128, 128), 77, np.uint8)).save(toy / "train/types/im_2.png")
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(toy / "train/instances/im_3.png")
    source = open_source(toy)
    for entry, said in zip(
        source.entries[4:],
        ("has no labels", "is of 9 x 9 pixels but its image of 128 x 128", "has class 77", "has the shape"),
        strict=True,
    ):
        with pytest.raises(NucSegError, match=said):
            source.read(entry)
    (toy / "dataset.json").write_text("{")
    with pytest.raises(NucSegError, match=r"dataset\.json' can't be read"):
        open_source(toy)


def test_classes_need_names(toy):
    meta = json.loads((toy / "dataset.json").read_text())
    (toy / "dataset.json").write_text(json.dumps({**meta, "classes": []}))
    source = open_source(toy)
    with pytest.raises(NucSegError, match=r"dataset\.json names 0"):
        source.read(source.entries[4])


def test_labels_may_be_tiff_or_npy_and_a_damaged_one_is_named(toy):
    wanted = np.asarray(Image.open(toy / "train/instances/im_0.png")).astype(np.int64)
    (toy / "train/instances/im_0.png").unlink()
    np.save(toy / "train/instances/im_0.npy", wanted)
    (toy / "train/instances/im_1.png").unlink()
    tifffile.imwrite(toy / "train/instances/im_1.tif", wanted.astype(np.uint16), compression="zlib")
    (toy / "train/images/._im_0.png").write_bytes(b"left by a file manager")
    source = open_source(toy)
    first, second = source.entries[4:6]
    assert len(source.entries) == 8
    assert (source.read(first).labels == wanted).all()
    assert (source.read(second).labels == wanted).all()
    damaged = bytearray((toy / "train/instances/im_1.tif").read_bytes())
    damaged[-40:-20] = bytes(20)
    (toy / "train/instances/im_1.tif").write_bytes(damaged)
    with pytest.raises(NucSegError, match=r"im_1\.tif' can't be read"):
        source.read(second)
    np.save(toy / "train/instances/im_0.npy", np.full(wanted.shape, 0.5))
    with pytest.raises(NucSegError, match=r"im_0\.npy' has fractions"):
        source.read(first)
