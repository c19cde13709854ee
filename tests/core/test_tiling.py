import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nucseg.core.tiling import Box, Grid
from napari_nucseg.errors import NucSegError

grids = st.builds(
    Grid,
    shape=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    cell=st.integers(16, 128),
    halo=st.integers(0, 40),
)


@given(grids)
def test_every_pixel_is_owned_once_and_seen_with_its_halo(grid):
    owners = np.zeros(grid.shape, int)
    for index in grid.cells():
        owned, window = grid.owned(index), grid.window(index)
        owners[owned.slices] += 1
        assert owned.cut(window) == owned
        for inner, outer, limit in (
            (owned.y0, window.y0, 0), (owned.x0, window.x0, 0),
            (owned.y1, window.y1, grid.shape[0]), (owned.x1, window.x1, grid.shape[1]),
        ):  # fmt: skip
            assert abs(inner - outer) == grid.halo or outer == limit
    assert (owners == 1).all()
    assert len(list(grid.cells())) == grid.counts[0] * grid.counts[1]


@given(grids, st.integers(0, 399), st.integers(0, 399))
def test_cells_of_a_box_are_those_that_touch_it(grid, y, x):
    box = Box(min(y, grid.shape[0] - 1), grid.shape[0], min(x, grid.shape[1] - 1), grid.shape[1])
    assert set(grid.cells(box)) == {i for i in grid.cells() if grid.owned(i).cut(box)}


def test_an_image_that_fits_with_its_halo_is_one_cell():
    assert Grid((1100, 1150), cell=1024, halo=64).counts == (1, 1)
    assert Grid((1200, 1150), cell=1024, halo=64).counts == (2, 1)


def test_boxes():
    box = Box(10, 20, 30, 50)
    assert box.shape == (10, 20)
    assert box.grown(15, (22, 60)) == Box(0, 22, 15, 60)
    assert box.cut(Box(19, 40, 0, 31)) == Box(19, 20, 30, 31)
    assert box.cut(Box(20, 40, 0, 60)) is None
    assert box.relative(Box(5, 0, 10, 0)) == Box(5, 15, 20, 40)
    assert np.zeros((60, 60))[box.slices].shape == box.shape


def test_impossible_grids_are_refused():
    with pytest.raises(NucSegError, match="does not fit"):
        Grid((0, 10))
