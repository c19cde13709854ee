import re
from pathlib import Path

import pytest

from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError
from train.class_map import ClassMap, ClassMapError, OpenClasses
from train.readers import conic, mat, pannuke

SHIPPED = Path(__file__).parents[2] / "train/configs/classes.toml"


def load(tmp_path, text):
    path = tmp_path / "map.toml"
    path.write_text(text)
    return ClassMap.load(path)


def test_sets_with_different_classes_are_merged():
    """The shipped map knows every class of the published sets."""
    shared = ClassMap.load(SHIPPED)
    assert shared.classes == ("neoplastic", "inflammatory", "connective", "epithelial", "other")
    assert shared.numbers(pannuke.CLASSES, "pannuke")[:7].tolist() == [0, 1, 2, 3, 5, 4, IGNORE]
    assert shared.numbers(mat.CONSEP, "consep")[:8].tolist() == [0, 5, 2, 4, 1, 3, 3, 3]
    assert shared.numbers(conic.CLASSES, "conic")[:7].tolist() == [0, 2, IGNORE, 2, 2, 2, 3]
    assert shared.numbers(["epithelial"], "qupath")[1] == 4  # only some formats' are of unknown kind
    assert shared.numbers(["  Healthy  EPITHELIAL"])[1] == 4


def test_the_guides_map_is_one(tmp_path):
    text = (SHIPPED.parents[2] / "docs/training.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(ignore.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = load(tmp_path, block)
    assert found.classes == ClassMap.load(SHIPPED).classes
    names = ["Tumor", "Stroma", "Immune cells", "Necrosis", "Other", "Region*", "Ignore*"]  # QuPath's own
    assert found.numbers(names)[1:8].tolist() == [1, 3, 2, 5, 5, IGNORE, IGNORE]


def test_an_unknown_class_names_the_nearest(tmp_path):
    small = load(tmp_path, '[classes]\ntumour = ["neoplastic"]\nother = ["connective"]')
    told = r"lacks 'neoplastik' \(did you write it 'neoplastic'\?\), 'xyz': add .* to a class or to 'ignore'"
    with pytest.raises(ClassMapError, match=told):
        small.numbers(["neoplastik", "connective", "xyz"])
    with pytest.raises(ClassMapError, match=r"'xyz' \(in 'a\.geojson'\), 'abc' \(in 'b\.geojson'\): add"):
        small.check({"xyz": "a.geojson", "Tumour": "a.geojson", "abc": "b.geojson"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[classes", "not valid TOML"),
        ("ignore = []", r"no table \[classes\]"),
        ("[clases]\na = []", "the key 'clases'"),
        ('[classes]\na = "b"', "'a' in class map .* must be a list of names"),
        ('[classes]\na = ["x"]\nb = ["X"]', "names 'X' twice"),
        ('ignore = ["x"]\n[classes]\na = ["x"]', "names 'x' twice"),
    ],
)
def test_bad_maps_are_told(tmp_path, text, said):
    with pytest.raises(NucSegError, match=said) as caught:
        load(tmp_path, text)
    assert "map.toml" in str(caught.value)


def test_a_missing_map_is_told(tmp_path):
    with pytest.raises(NucSegError, match="No such file"):
        ClassMap.load(tmp_path / "none.toml")


def test_without_a_map_classes_keep_their_numbers_as_more_appear():
    classes = OpenClasses(["b"])
    assert classes.numbers(["a", "b"])[:4].tolist() == [0, 2, 1, IGNORE]
    assert classes.numbers(["c", "a"])[:3].tolist() == [0, 3, 2]
    assert classes.classes == ("b", "a", "c")
    with pytest.raises(NucSegError, match="more than 254 classes"):
        classes.numbers([str(i) for i in range(255)])


def test_what_was_prepared_by_a_map_stays_as_it_is_under_that_map():
    """CoNSeP's healthy epithelium becomes "epithelial", a name that Lizard, read as consep too, uses for any."""
    shared = ClassMap.load(SHIPPED)
    assert shared.numbers(["epithelial"], "consep")[1] == IGNORE
    assert shared.numbers(shared.classes, "consep")[:7].tolist() == [0, 1, 2, 3, 4, 5, IGNORE]
