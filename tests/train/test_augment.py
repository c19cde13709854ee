"""Augmentation changes what it should, and nothing else."""

import io

import numpy as np
import pytest
from PIL import Image

from napari_nucseg.errors import NucSegError
from train.augment import AugmentConfig, _colour, _jpeg, augment_colour, warp

NOTHING = {"p_stain": 0.0, "p_colour": 0.0, "p_blur": 0.0, "p_noise": 0.0, "p_jpeg": 0.0, "p_coarse": 0.0}


@pytest.mark.parametrize("quality", [35, 80])
def test_jpeg_is_that_of_an_rgb_image(synthetic, quality):
    crop = np.ascontiguousarray(synthetic.image[:128, :128])
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=quality)
    wanted = np.asarray(Image.open(buffer)).astype(int)
    difference = np.abs(_jpeg(crop, quality).astype(int) - wanted)
    assert difference.mean() < 0.5  # with red and blue swapped: above 2
    assert _jpeg(crop, quality).flags.c_contiguous


def test_noise_and_colour_leave_the_mean_where_it_is():
    rng = np.random.default_rng(0)
    grey = np.full((256, 256, 3), 128, np.uint8)
    noisy = augment_colour(grey, rng, AugmentConfig(**(NOTHING | {"p_noise": 1.0})))
    assert noisy.std() > 0.5
    assert noisy.mean() == pytest.approx(128, abs=0.05)  # truncated it would be 127.5
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert np.array_equal(_colour(ramp, rng, 0.0), ramp)
    means = [_colour(grey, rng, 0.02).mean() for _ in range(400)]
    assert np.mean(means) == pytest.approx(128, abs=0.25)


def test_nothing_asked_nothing_done(synthetic):
    crop = synthetic.image[:64, :64]
    assert np.array_equal(augment_colour(crop, np.random.default_rng(1), AugmentConfig(**NOTHING)), crop)


def test_a_coarse_crop_is_the_mean_of_what_it_covers():
    """Stripes one pixel wide become grey at half the resolution, instead of one of the two colours."""
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[:, ::2] = 200
    half = np.array(
        [[2.0, 0.0, 8.5], [0.0, 2.0, 8.5]]
    )  # the middle of pixel (0, 0) lies amid (8, 8) .. (9, 9)
    assert (warp(stripes, half, 16, nearest=False) == 100).all()
    rng = np.random.default_rng(3)
    source = rng.integers(0, 256, (80, 80, 3), np.uint8)
    blocks = source[8:40, 8:40].reshape(16, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(warp(source, half, 16, nearest=False) - blocks).max() <= 1


@pytest.mark.parametrize("kind", ["blur", "noise", "jpeg"])
def test_a_strength_beyond_its_usual_range_is_no_error(kind):
    grey = np.full((16, 16, 3), 128, np.uint8)
    config = AugmentConfig(**(NOTHING | {kind: 100 if kind == "jpeg" else 0.0, f"p_{kind}": 1.0}))
    assert np.abs(augment_colour(grey, np.random.default_rng(0), config).astype(int) - 128).max() <= 2


@pytest.mark.parametrize(("given", "said"), [({"p_blur": 1.5}, "at most 1"), ({"scale": -1.0}, "0 or more")])
def test_impossible_strengths_are_told(given, said):
    with pytest.raises(NucSegError, match=f"augment.{next(iter(given))}=.*{said}"):
        AugmentConfig(**given)
