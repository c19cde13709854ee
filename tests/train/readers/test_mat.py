import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from napari_nucseg.errors import NucSegError
from train.readers import detect, open_source


@pytest.fixture
def consep(tmp_path):
    """CoNSeP's folders with one image each of 40 x 50 pixels; the images have an alpha channel as published."""
    for split, name in (("Train", "train_1"), ("Test", "test_1")):
        for kind in ("Images", "Labels", "Overlay"):
            (tmp_path / split / kind).mkdir(parents=True)
        picture = Image.fromarray(np.full((40, 50, 4), 255, np.uint8))
        picture.save(tmp_path / split / "Images" / f"{name}.png")
        picture.save(tmp_path / split / "Overlay" / f"{name}.png")
        inst, kinds = np.zeros((40, 50)), np.zeros((40, 50))
        inst[5:10, 5:10], kinds[5:10, 5:10] = 4, 3
        inst[20:25, 5:10], kinds[20:25, 5:10] = 11, 7
        kinds[0, 0] = 2  # outside of all nuclei
        content = {"inst_map": inst, "type_map": kinds, "inst_type": np.array([[3.0], [7.0]])}
        savemat(tmp_path / split / "Labels" / f"{name}.mat", content)
    return tmp_path


def test_consep_has_its_splits_and_seven_classes(consep):
    assert detect(consep) == "consep"
    source = open_source(consep)
    assert {e.name: e.split for e in source.entries} == {"train_1": "train", "test_1": "test"}
    raw = source.read(source.entries[0])
    assert raw.image.shape == (40, 50, 3)
    assert np.unique(raw.labels).tolist() == [0, 4, 11]
    assert raw.classes[raw.types[7, 7] - 1] == "healthy epithelial"
    assert raw.classes[raw.types[22, 7] - 1] == "endothelial"
    assert raw.types[0, 0] == 0
    assert raw.mpp == 0.25


def test_lizard_gives_classes_by_id(tmp_path):
    inst = np.zeros((40, 50), np.int32)
    inst[5:10, 5:10], inst[20:25, 5:10] = 4, 11
    content = {"inst_map": inst, "id": np.array([[11], [4]]), "class": np.array([[6], [2]])}
    savemat(tmp_path / "crag_1.mat", content)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "crag_1.png")
    source = open_source(tmp_path)
    raw = source.read(source.entries[0])
    assert (raw.classes[raw.types[7, 7] - 1], raw.classes[raw.types[22, 7] - 1]) == (
        "epithelial",
        "connective",
    )
    assert raw.mpp == 0.5


def test_a_file_of_instances_only_has_no_classes_and_no_resolution(tmp_path):
    savemat(tmp_path / "a.mat", {"inst_map": np.eye(40)})
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "a.png")
    source = open_source(tmp_path)
    raw = source.read(source.entries[0])
    assert raw.types is None
    assert raw.mpp is None


def spoil(path, how):
    if how == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif how == "7.3":
        path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    elif how == "other":
        savemat(path, {"mask": np.eye(3)})
    elif how == "size":
        savemat(path, {"inst_map": np.zeros((30, 50)), "type_map": np.zeros((30, 50))})
    elif how == "class":
        savemat(path, {"inst_map": np.ones((40, 50)), "type_map": np.full((40, 50), 9)})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", "a damaged Matlab file"),
        ("7.3", "save it with -v7"),
        ("other", "no 'inst_map' but mask"),
        ("size", "is of 50 x 30 pixels but its image of 50 x 40"),
        ("class", "has class 9"),
    ],
)
def test_bad_files_are_named_in_a_sentence(consep, how, said):
    path = consep / "Train/Labels/train_1.mat"
    spoil(path, how)
    source = open_source(consep)
    entry = next(e for e in source.entries if e.name == "train_1")
    with pytest.raises(NucSegError, match=said) as caught:
        source.read(entry)
    assert "train_1.mat" in str(caught.value)
    assert source.read(next(e for e in source.entries if e.name == "test_1")).labels.any()
