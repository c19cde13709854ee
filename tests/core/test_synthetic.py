from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_nucseg.core.synthetic import CLASS_NAMES, SyntheticTile, synthetic_he
from napari_nucseg.errors import NucSegError


def test_shapes_and_dtypes(synthetic: SyntheticTile):
    assert synthetic.image.shape == (512, 512, 3)
    assert synthetic.image.dtype == np.uint8
    assert synthetic.labels.shape == (512, 512)
    assert synthetic.labels.dtype == np.uint32
    assert synthetic.mpp == 0.25


def test_ids_are_1_to_n_and_each_is_one_4_connected_region(synthetic: SyntheticTile):
    n = len(synthetic.types)
    np.testing.assert_array_equal(np.unique(synthetic.labels), np.arange(n + 1))
    assert sorted(synthetic.types) == list(range(1, n + 1))
    for i, window in enumerate(ndimage.find_objects(synthetic.labels), start=1):
        _, pieces = ndimage.label(synthetic.labels[window] == i)
        assert pieces == 1, f"nucleus {i} is in {pieces} pieces"


def test_every_class_is_there_with_its_own_size(synthetic: SyntheticTile):
    assert set(synthetic.types.values()) == set(CLASS_NAMES)
    area = np.bincount(synthetic.labels.ravel())[1:] * synthetic.mpp**2
    median = {name: np.median(area[synthetic.type_indices == i]) for i, name in enumerate(CLASS_NAMES)}
    assert median["neoplastic"] > median["epithelial"] > median["inflammatory"] > median["other"]
    assert 60 < median["neoplastic"] < 115
    assert 22 < median["inflammatory"] < 42


def test_centres_lie_in_the_tile_and_mostly_in_their_nucleus(synthetic: SyntheticTile):
    centres = np.rint(synthetic.centres).astype(int)
    assert centres.shape == (len(synthetic.types), 2)
    hit = synthetic.labels[centres[:, 0], centres[:, 1]]
    assert np.mean(hit == np.arange(1, len(centres) + 1)) > 0.97


def test_nuclei_are_bluer_and_darker_than_their_surroundings(synthetic: SyntheticTile):
    red = synthetic.image[..., 0].astype(float)
    inside = synthetic.labels > 0
    near = ndimage.binary_dilation(inside, iterations=8) & ~ndimage.binary_dilation(inside, iterations=2)
    assert red[inside].mean() + 60 < red[near].mean()
    white = synthetic.image.min(axis=2) > 205
    assert 0.01 < white[~inside].mean() < 0.25, "a tile has lumina and clefts, but is not empty"


def test_same_seed_same_tile_other_seed_other_tile(synthetic: SyntheticTile):
    again, other = synthetic_he(), synthetic_he(seed=1)
    np.testing.assert_array_equal(again.image, synthetic.image)
    np.testing.assert_array_equal(again.labels, synthetic.labels)
    assert again.types == synthetic.types
    assert not np.array_equal(other.image, synthetic.image)


@pytest.mark.parametrize("n", [0, 1, 40])
def test_number_of_nuclei_is_what_was_asked(n: int):
    tile = synthetic_he((300, 260), n_nuclei=n)
    assert len(tile.types) == n == tile.labels.max()
    assert tile.centres.shape == (n, 2)


@pytest.mark.parametrize(
    ("shape", "mpp"), [((16, 16), 1.0), ((17, 400), 0.25), ((128, 128), 0.1), ((96, 64), 0.5)]
)
@pytest.mark.parametrize("seed", range(4))
def test_odd_tiles(shape: tuple[int, int], mpp: float, seed: int):
    tile = synthetic_he(shape, seed=seed, mpp=mpp)
    assert tile.image.shape == (*shape, 3)
    np.testing.assert_array_equal(np.unique(tile.labels[tile.labels > 0]), np.arange(1, len(tile.types) + 1))


def test_more_nuclei_than_room_gives_fewer():
    assert 0 < len(synthetic_he((64, 64), n_nuclei=1000).types) < 60


def test_nuclei_keep_their_size_in_um_when_the_mpp_changes():
    def median_area(mpp: float) -> float:
        tile = synthetic_he((int(128 / mpp), int(128 / mpp)), mpp=mpp)
        return float(np.median(np.bincount(tile.labels.ravel())[1:])) * mpp**2

    assert median_area(0.5) == pytest.approx(median_area(0.25), rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"shape": (8, 512)}, "(8, 512)"),
        ({"n_nuclei": -1}, "-1"),
        ({"mpp": 5.0}, "5.0"),
        ({"mpp": float("nan")}, "nan"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, value: str):
    with pytest.raises(NucSegError) as error:
        synthetic_he(**arguments)
    assert value in str(error.value)
