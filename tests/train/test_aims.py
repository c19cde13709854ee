import numpy as np
import pytest

from napari_nucseg.errors import NucSegError
from train.aims import Aims, CropConfig
from train.annotated import AnnotatedImage


def image(dataset, shape=(400, 400), nuclei=(), mpp=0.25):
    blank = np.zeros(shape, np.uint8)
    table = np.array(nuclei, np.int64).reshape(-1, 3)
    return AnnotatedImage(dataset, "x", blank[..., None].repeat(3, 2), blank, None, mpp, table)


def drawn(aims, count=4000):
    rng = np.random.default_rng(0)
    return [aims.draw(rng) for _ in range(count)]


def test_sets_come_by_weight_and_images_by_area():
    images = [image("a", (100, 100)), image("b"), image("b", (400, 1200)), image("c")]
    numbers = [n for n, _ in drawn(Aims(images, {"a": 3.0, "b": 1.0, "c": 0.0}, CropConfig()))]
    shares = np.bincount(numbers, minlength=4) / len(numbers)
    assert shares == pytest.approx([0.75, 0.0625, 0.1875, 0], abs=0.025)


@pytest.mark.parametrize(("rarity", "rare"), [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)])
def test_rare_classes_are_drawn_over_the_whole_set(rarity, rare):
    """90 nuclei of class 1 in one image, 10 of class 3 in another that is a tenth of the area."""
    common = image("a", (1000, 1000), [(500, 500, 1)] * 90 + [(1, 1, 0)] * 50)
    few = image("a", (316, 316), [(150, 150, 3)] * 10)
    aims = Aims([common, few], {"a": 1.0}, CropConfig(p_balanced=1.0, rarity=rarity))
    assert np.mean([n for n, _ in drawn(aims)]) == pytest.approx(rare, abs=0.025)


def test_a_share_of_the_crops_is_placed_anywhere():
    """An image without nuclei is met only by crops that are not aimed at one."""
    images = [image("a", nuclei=[(200, 200, 2)]), image("a")]
    numbers = [n for n, _ in drawn(Aims(images, {"a": 1.0}, CropConfig(p_balanced=0.6)))]
    assert np.mean(numbers) == pytest.approx(0.2, abs=0.025)


@pytest.mark.parametrize("mpp", [0.1, 0.25, 0.5])
def test_the_nucleus_aimed_at_is_in_the_crop_and_the_crop_in_the_image(mpp):
    """Whatever the resolution of the source, and in its corner too."""
    crop = CropConfig(size=100, mpp=0.25, p_balanced=1.0)
    side = crop.size * crop.mpp / mpp
    for row, column in ((0, 0), (500, 999), (500, 500)):
        aims = Aims([image("a", (1000, 1000), [(row, column, 1)], mpp)], {"a": 1.0}, crop)
        middles = np.array([middle for _, middle in drawn(aims, 300)])
        assert (np.abs(middles - [row, column]) <= 0.3334 * side).all()
        assert ((middles >= 0.3 * side - 1) & (middles <= 1000 - 0.3 * side + 1)).all()
        assert len(np.unique(middles, axis=0)) > 1


def test_an_image_smaller_than_the_crop_is_in_its_middle():
    aims = Aims([image("a", (40, 60), [(0, 0, 1)])], {"a": 1.0}, CropConfig(size=256))
    assert {middle for _, middle in drawn(aims, 50)} == {(20.0, 30.0)}


@pytest.mark.parametrize("weights", [{"a": 0.0, "b": 0.0}, {"a": -1.0, "b": 2.0}])
def test_impossible_weights_are_told(weights):
    with pytest.raises(NucSegError, match="Weights"):
        Aims([image("a"), image("b")], weights, CropConfig())


@pytest.mark.parametrize("given", [{"size": 0}, {"mpp": 0.0}, {"p_balanced": 1.5}])
def test_impossible_crops_are_told(given):
    with pytest.raises(NucSegError, match=f"crop.{next(iter(given))}="):
        CropConfig(**given)
