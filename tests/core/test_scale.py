"""The two grids of an image lie exactly on one another."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_nucseg.core.scale import Scale
from napari_nucseg.core.tiling import Box

shapes = st.tuples(st.integers(8, 60), st.integers(8, 60))
zooms = st.sampled_from([0.4, 0.5, 1.0, 1.3, 2.0, 3.1])


def make(shape, zoom):
    return Scale(shape, (max(1, round(shape[0] * zoom)), max(1, round(shape[1] * zoom))))


@given(shapes, zooms)
def test_every_pixel_of_level_0_has_one_nearest_pixel(shape, zoom):
    scale = make(shape, zoom)
    seen = np.zeros(shape, int)
    for y in range(0, scale.model[0], 7):
        for x in range(0, scale.model[1], 7):
            part = Box(y, min(y + 7, scale.model[0]), x, min(x + 7, scale.model[1]))
            area, rows, cols = scale.covered(part)
            seen[area.slices] += 1
            assert (len(rows), len(cols)) == area.shape or 0 in area.shape
            assert all(part.y0 <= r < part.y1 for r in rows)
    assert (seen == 1).all()


@given(shapes, zooms)
def test_the_nearest_pixel_is_the_one_that_holds_the_centre(shape, zoom):
    scale = make(shape, zoom)
    area, rows, cols = scale.covered(Box(0, scale.model[0], 0, scale.model[1]))
    assert area == Box(0, shape[0], 0, shape[1])
    points = np.stack(np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij"), -1).reshape(-1, 2)
    expected = np.stack(np.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 2)
    np.testing.assert_array_equal(scale.model_pixels(points), expected)
    back_rows, back_cols = scale.sources(Box(0, *scale.model[:1], 0, scale.model[1]))
    assert (np.diff(back_rows) >= 0).all()
    assert back_cols.max() < shape[1]


@given(shapes, zooms)
def test_positions_come_back(shape, zoom):
    scale = make(shape, zoom)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, scale.model, (20, 2))
    np.testing.assert_array_equal(scale.model_pixels(scale.to_level0(pixels)), pixels)


def test_equal_shapes_are_the_identity():
    assert Scale((5, 6), (5, 6)).is_identity
    assert not Scale((5, 6), (10, 12)).is_identity
