import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.resample import Resampled
from napari_nucseg.io.slide import as_source


def smooth_image(height, width):
    rows, cols = np.mgrid[:height, :width]
    planes = [127 + 120 * np.sin(rows / 7 + k) * np.cos(cols / (9 + k)) for k in range(3)]
    return np.stack(planes, axis=-1).astype(np.uint8)


IMAGE = smooth_image(211, 173)


@settings(max_examples=60, deadline=None)
@given(mpp=st.floats(0.1, 1.0), seed=st.integers(0, 1000))
def test_a_window_equals_its_part_of_the_whole(mpp, seed):
    image = Resampled(as_source(IMAGE, mpp), 0.25)
    height, width = image.shape
    whole = image.read(Box(0, height, 0, width))
    rng = np.random.default_rng(seed)
    y0, x0 = int(rng.integers(0, height)), int(rng.integers(0, width))
    box = Box(y0, int(rng.integers(y0 + 1, height + 1)), x0, int(rng.integers(x0 + 1, width + 1)))
    part = image.read(box)
    assert part.shape == (*box.shape, 3)
    np.testing.assert_array_equal(part, whole[box.slices])


@settings(max_examples=60, deadline=None)
@given(mpp=st.floats(0.1, 1.0), seed=st.integers(0, 1000))
def test_labels_come_back_once_wherever_the_windows_lie(mpp, seed):
    image = Resampled(as_source(IMAGE, mpp), 0.25)
    height, width = image.shape
    labels = np.arange(1, height * width + 1, dtype=np.uint32).reshape(height, width)
    out = np.zeros(IMAGE.shape[:2], np.uint32)
    rng = np.random.default_rng(seed)
    cut_y, cut_x = int(rng.integers(0, height + 1)), int(rng.integers(0, width + 1))
    for y0, y1 in ((0, cut_y), (cut_y, height)):
        for x0, x1 in ((0, cut_x), (cut_x, width)):
            if y0 < y1 and x0 < x1:
                box, part = image.scale.labels_to_level0(Box(y0, y1, x0, x1), labels[y0:y1, x0:x1])
                assert (out[box.slices] == 0).all()
                out[box.slices] = part
    assert (out > 0).all()
    rows, cols = np.divmod(out.astype(int) - 1, width)
    back = image.scale.to_level0(np.stack([rows.ravel(), cols.ravel()], 1))
    here = np.stack(np.mgrid[: out.shape[0], : out.shape[1]], -1).reshape(-1, 2)
    assert np.abs(back - here).max() <= max(0.51, 0.51 * 0.25 / mpp) + 0.51  # the nearest pixel


def test_close_resolutions_are_left_alone_and_others_are_not():
    near = Resampled(as_source(IMAGE, 0.2527), 0.25)
    assert near.shape == IMAGE.shape[:2]
    np.testing.assert_array_equal(near.read(Box(3, 50, 7, 60)), IMAGE[3:50, 7:60])
    assert Resampled(as_source(IMAGE, 0.5), 0.25).shape == (422, 346)
    assert near.mpp == 0.2527  # measures use the true one


def test_the_smallest_sufficient_level_is_read():
    levels = [np.full((400, 400, 3), 10, np.uint8), np.full((200, 200, 3), 20, np.uint8),
              np.full((100, 100, 3), 30, np.uint8)]  # fmt: skip
    assert Resampled(as_source(levels, 0.125), 0.25).read(Box(0, 9, 0, 9)).max() == 20
    assert Resampled(as_source(levels, 0.1), 0.25).read(Box(0, 9, 0, 9)).max() == 20
    assert Resampled(as_source(levels, 0.25), 0.25).read(Box(0, 9, 0, 9)).max() == 10


def test_regions_cover_their_pixels():
    image = Resampled(as_source(IMAGE, 0.5), 0.25)
    assert image.scale.to_model(Box(10, 20, 0, 173)) == Box(20, 40, 0, 346)


def test_unknown_resolution_is_refused():
    with pytest.raises(NucSegError, match="unknown resolution"):
        Resampled(as_source(IMAGE), 0.25)
