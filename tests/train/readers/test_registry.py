import pytest

from napari_nucseg.errors import NucSegError
from train.readers import detect, open_source
from train.readers.record import Entry, distinct, safe_name, split_in


def test_what_is_not_a_data_set_is_told_with_what_would_be(tmp_path):
    with pytest.raises(NucSegError, match="does not exist"):
        detect(tmp_path / "nowhere")
    with pytest.raises(NucSegError, match=r"no data set of a known format.*pannuke.*qupath"):
        detect(tmp_path)
    with pytest.raises(NucSegError, match="did you mean 'pannuke'"):
        open_source(tmp_path, "panuke")
    with pytest.raises(NucSegError, match="no data set of the format conic"):
        open_source(tmp_path, "conic")


def test_two_formats_in_one_folder_must_be_told_apart(tmp_path):
    (tmp_path / "a.geojson").write_text("{}")
    (tmp_path / "a.mat").write_text("")
    with pytest.raises(NucSegError, match=r"may be consep or qupath; say which with --format"):
        detect(tmp_path)


def test_names_are_safe_and_distinct():
    assert safe_name("case 1.a/b*") == "case_1_a_b"
    assert safe_name("...") == "image"
    names = [e.name for e in distinct(Entry(n, "") for n in ("a", "A", "a", "b"))]
    assert names == ["a", "A-2", "a-3", "b"]


def test_the_innermost_folder_below_the_root_names_the_split(tmp_path):
    root = tmp_path / "test_data"
    assert split_in(root / "a.png", root) is None
    assert split_in(root / "MoNuSegTraining" / "a.png", root) is None
    assert split_in(root / "test/Training Data/a.png", root) == "train"
    assert split_in(root / "valid/images/a.png", root) == "val"
