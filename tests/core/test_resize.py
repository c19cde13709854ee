"""Resampling: Pillow's bilinear filter, but with windows that equal the whole to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_nucseg.core.resize import Resize
from napari_nucseg.core.tiling import Box

IMAGE = np.random.default_rng(3).integers(0, 256, (83, 71, 3), dtype=np.uint8)
SIDES = st.integers(1, 200)


def resized(image, wanted, box=None):
    resize = Resize(image.shape[:2], wanted)
    box = box or Box(0, wanted[0], 0, wanted[1])
    return resize.apply(image[resize.needed(box).slices], box)


@settings(max_examples=80, deadline=None)
@given(height=SIDES, width=SIDES)
def test_the_whole_is_what_pillow_makes_of_it(height, width):
    ours = resized(IMAGE, (height, width)).astype(int)
    theirs = np.asarray(Image.fromarray(IMAGE).resize((width, height), Image.Resampling.BILINEAR))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 2  # rounding of weights and of the step between


@settings(max_examples=80, deadline=None)
@given(height=SIDES, width=SIDES, data=st.data())
def test_a_window_is_a_part_of_the_whole(height, width, data):
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(y0, data.draw(st.integers(y0 + 1, height)), x0, data.draw(st.integers(x0 + 1, width)))
    whole = resized(IMAGE, (height, width))
    np.testing.assert_array_equal(resized(IMAGE, (height, width), box), whole[box.slices])


@pytest.mark.parametrize("wanted", [(40, 60), (83, 71), (190, 133), (1, 1)])
@pytest.mark.parametrize("value", [0, 1, 128, 254, 255])
def test_a_plain_area_keeps_its_colour(wanted, value):
    assert (resized(np.full((83, 71, 3), value, np.uint8), wanted) == value).all()


def test_the_same_size_is_the_same_image():
    np.testing.assert_array_equal(resized(IMAGE, IMAGE.shape[:2]), IMAGE)


def test_strips_of_any_layout_are_taken():
    box = Box(0, 40, 0, 30)
    resize = Resize(IMAGE.shape[:2], (40, 30))
    turned = np.asfortranarray(IMAGE)
    np.testing.assert_array_equal(resize.apply(turned, box), resized(IMAGE, (40, 30)))
