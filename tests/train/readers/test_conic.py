import numpy as np
import pytest

from napari_nucseg.errors import NucSegError
from train.readers import detect, open_source


@pytest.fixture
def conic(tmp_path):
    """Three patches in the form of the challenge's download."""
    labels = np.zeros((3, 256, 256, 2), np.uint16)
    labels[0, 100:110, 100:110] = 5, 2
    labels[0, 120:130, 100:110] = 9, 6
    labels[2, 50:60, 50:60] = 1, 1
    np.save(tmp_path / "images.npy", np.full((3, 256, 256, 3), 200, np.uint8))
    np.save(tmp_path / "labels.npy", labels)
    head = "neutrophil,epithelial,lymphocyte,plasma,eosinophil,connective\n"
    (tmp_path / "counts.csv").write_text(head + "0,1,0,0,0,1\n0,0,0,0,0,0\n0,0,3,0,0,0\n")
    (tmp_path / "patch_info.csv").write_text("patch_info\nconsep_1-0000\nconsep_1-0001\ncrag_10-0002\n")
    return tmp_path


def test_patches_have_names_slides_classes_and_the_resolution(conic):
    assert detect(conic) == "conic"
    source = open_source(conic)
    assert source.names == ["consep_1-0000", "consep_1-0001", "crag_10-0002"]
    assert [e.group for e in source.entries] == ["consep_1", "consep_1", "crag_10"]
    raw = source.read(source.entries[0])
    assert raw.mpp == 0.5
    assert (raw.classes[raw.types[105, 105] - 1], raw.classes[raw.types[125, 105] - 1]) == (
        "epithelial",
        "connective",
    )
    assert np.unique(raw.labels).tolist() == [0, 5, 9]
    assert not raw.notes
    assert source.read(source.entries[2]).notes == {"nuclei fewer than counts.csv states": 3}


def test_without_the_tables_patches_are_numbered(conic):
    (conic / "counts.csv").unlink()
    (conic / "patch_info.csv").unlink()
    assert open_source(conic).names == ["conic_00000", "conic_00001", "conic_00002"]


def test_mismatches_are_told(conic):
    (conic / "counts.csv").write_text("neutrophil,epithelial\n1,2\n")
    assert "counts.csv' has 1 rows for 3 images" in open_source(conic).remarks[0]
    np.save(conic / "labels.npy", np.zeros((2, 256, 256, 2), np.uint16))
    with pytest.raises(NucSegError, match=r"labels\.npy.*take both from one download"):
        open_source(conic)
    (conic / "labels.npy").write_bytes(b"\x93NUMPY nonsense")
    with pytest.raises(NucSegError, match="damaged or no array"):
        open_source(conic)


def test_an_unknown_class_is_named(conic):
    labels = np.load(conic / "labels.npy")
    labels[1, 0, 0] = 1, 7
    np.save(conic / "labels.npy", labels)
    source = open_source(conic)
    with pytest.raises(NucSegError, match=r"labels\.npy\[1\]' has class 7"):
        source.read(source.entries[1])


def test_a_second_set_is_not_left_out_silently(conic):
    (conic / "more").mkdir()
    for name in ("images", "labels"):
        np.save(conic / "more" / f"{name}.npy", np.load(conic / f"{name}.npy"))
    source = open_source(conic)
    assert len(source.entries) == 3
    assert "more/images.npy' is a second set" in source.problems[0]
