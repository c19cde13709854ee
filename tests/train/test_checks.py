from dataclasses import replace

import numpy as np
import pytest

from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError
from train.checks import LOOSE, MIXED, UNKNOWN, check, doubtful_size, duplicates
from train.class_map import OpenClasses
from train.readers import Raw


@pytest.fixture
def raw():
    """Three nuclei of 20 x 20 pixels at 0.3 um with ids out of order, the last without a class."""
    rng = np.random.default_rng(0)
    labels, types = np.zeros((100, 120), np.int32), np.zeros((100, 120), np.uint8)
    for top, ident, kind in ((5, 900, 2), (35, 7, 1), (65, 44, IGNORE)):
        labels[top : top + 20, 10:30], types[top : top + 20, 10:30] = ident, kind
    image = rng.integers(0, 255, (100, 120, 3)).astype(np.uint8)
    return Raw(image, labels, types, ("a", "b"), 0.3, "the file")


def checked(raw, mpp=None, classes=None):
    return check(raw, OpenClasses(["a", "b"]) if classes is None else classes, mpp, "here")


def test_nuclei_are_numbered_from_one_and_keep_shape_and_class(raw):
    item = checked(raw)
    assert item.labels.dtype == np.uint16
    order = [int(raw.labels[item.labels == n][0]) for n in (1, 2, 3)]
    assert order == [7, 44, 900]
    assert ((item.labels > 0) == (raw.labels > 0)).all()
    assert [int(item.types[item.labels == n][0]) for n in (1, 2, 3)] == [1, IGNORE, 2]
    assert (item.types[item.labels == 0] == 0).all()
    assert (item.counts.tolist(), item.unknown, item.nuclei) == ([1, 1], 1, 3)
    assert item.notes == {UNKNOWN: 1}
    assert item.warnings == ()
    assert item.diameter_um == pytest.approx(2 * np.sqrt(400 / np.pi) * 0.3)


def test_an_image_full_of_nuclei_has_no_background(raw):
    labels = np.repeat([[3, 5]], 100, 0).repeat(60, 1).astype(np.int32)
    item = checked(replace(raw, labels=labels, types=None))
    assert np.unique(item.labels).tolist() == [1, 2]
    assert item.types is None
    assert item.unknown == 2


def test_loose_parts_and_mixed_classes_are_counted(raw):
    raw.labels[90:95, 100:105] = 7
    raw.types[90:95, 100:105] = 2
    item = checked(raw)
    assert item.notes == {LOOSE: 1, MIXED: 1, UNKNOWN: 1}
    assert (item.types[item.labels == 1] == 1).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": np.zeros((100, 120), np.int32)}, "no nuclei"),
        ({"image": np.full((100, 120, 3), 240, np.uint8)}, "image of nearly one colour"),
        (
            {"labels": np.arange(12000, dtype=np.int32).reshape(100, 120) // 2},
            "5,999 of 5,999 nuclei smaller than 4 um2",
        ),
        ({"labels": np.arange(12000, dtype=np.int32).reshape(100, 120) // 2}, "is mpp 0.3 right"),
    ],
)
def test_what_looks_wrong_is_warned_of(raw, change, said):
    assert any(said in w for w in checked(replace(raw, types=None, **change)).warnings)


@pytest.mark.parametrize("true", [4.15, 5.7, 6.4])  # CoNSeP, MoNuSeg, gliomas
def test_half_and_double_the_true_resolution_are_told_once_of_a_set(true):
    rng = np.random.default_rng(0)
    images = [(int(rng.integers(80, 300)), rng.uniform(0.8, 1.2) * true, 0.25) for _ in range(20)]
    images += [(6, 0.6 * true, 0.25), (5, 1.7 * true, 0.25), (0, float("nan"), 0.25)]  # no say in it

    def said(factor):
        return doubtful_size([(n, size * factor, mpp * factor) for n, size, mpp in images])

    assert said(1) == []
    assert "mpp 0.5 is right, or it should be half of that" in said(2)[0]
    assert "mpp 0.125 is right, or it should be double of that" in said(0.5)[0]
    assert len(said(2)) == len(said(0.5)) == 1
    assert doubtful_size([(0, float("nan"), 0.25)]) == doubtful_size([]) == []


def test_the_users_resolution_wins_and_a_difference_is_told(raw):
    item = checked(raw, mpp=0.5)
    assert (item.mpp, item.mpp_source) == (0.5, "stated")
    assert item.warnings[0] == "mpp 0.5 as stated, where the file says 0.3"
    assert checked(raw, mpp=0.31).warnings == ()


def test_what_cannot_be_trained_on_is_refused(raw):
    with pytest.raises(NucSegError, match=r"'here' has labels of \(50, 120\)"):
        checked(replace(raw, labels=raw.labels[:50]))
    with pytest.raises(NucSegError, match="Resolution of 'here' is not known; state it with --mpp"):
        checked(replace(raw, mpp=None, mpp_source="unknown"))
    with pytest.raises(NucSegError, match="'here' has mpp 25 by the file"):
        checked(replace(raw, mpp=25.0))
    many = np.arange(66000, dtype=np.int32).reshape(220, 300)
    with pytest.raises(NucSegError, match="65,999 nuclei, more than 65,535"):
        checked(replace(raw, image=np.zeros((220, 300, 3), np.uint8), labels=many, types=None))


def test_equal_images_are_found_across_splits(raw):
    digest = checked(raw).digest
    assert digest == checked(replace(raw, types=None)).digest
    raw.image[0, 0, 0] ^= 1
    other = checked(raw).digest
    found = duplicates([("a", "train", digest), ("b", "train", other), ("c", "test", digest)])
    assert found == ["'a' and 'c' are the same image, one in train and one in test; leave one out."]
