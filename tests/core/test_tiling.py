import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nucseg.core.tiling import STRIDE, WIDE, Box, Grid, Sweep, window_around
from napari_nucseg.errors import NucSegError

grids = st.builds(
    Grid,
    shape=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    cell=st.integers(16, 128),
    halo=st.sampled_from([0, 16, 32]),
)


@given(grids)
def test_every_pixel_is_owned_once_and_seen_with_its_halo(grid):
    owners = np.zeros(grid.shape, int)
    for index in grid.cells():
        owned = grid.owned(index)
        window = grid.window(owned)
        owners[owned.slices] += 1
        assert window.cut(owned.grown(grid.halo, grid.shape)) == owned.grown(grid.halo, grid.shape)
        assert window.y0 % STRIDE == window.x0 % STRIDE == 0
    assert (owners == 1).all()
    assert len(list(grid.cells())) == grid.counts[0] * grid.counts[1]


@given(grids, st.integers(0, 399), st.integers(0, 399))
def test_cells_of_a_box_are_those_that_touch_it(grid, y, x):
    box = Box(min(y, grid.shape[0] - 1), grid.shape[0], min(x, grid.shape[1] - 1), grid.shape[1])
    assert set(grid.cells(box)) == {i for i in grid.cells() if grid.owned(i).cut(box)}


def test_an_image_that_fits_with_its_halo_is_one_cell():
    assert Grid((1100, 1150), cell=1024, halo=64).counts == (1, 1)
    assert Grid((1200, 1150), cell=1024, halo=64).counts == (2, 1)


@given(
    st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 180), st.integers(0, 180), st.integers(1, 2000)
)
def test_windows_are_wide_where_the_image_is(height, width, row, col, length):
    shape = (height, width)
    box = Box(16 * row, 16 * row + length, 16 * col, 16 * col + length).cut(Box(0, height, 0, width))
    if box is None:
        return
    seen = window_around(box, 32, shape)
    assert seen.cut(Box(0, height, 0, width)) == seen
    assert seen.cut(box.grown(32, shape)) == box.grown(32, shape)
    assert seen.x1 - seen.x0 >= min(WIDE, width)
    assert seen.x0 % STRIDE == 0


@given(grids, st.randoms(use_true_random=False), st.integers(0, 90), st.integers(1, 400))
def test_a_sweep_knows_all_that_its_tiles_need_when_they_need_it(grid, random, margin, side):
    """Any tiles of any block, with a margin larger or smaller than the tiles."""
    for block in grid.blocks(side):
        tiles = [tile for tile in block if random.random() < 0.7]
        if not tiles:
            continue
        sweep = Sweep(grid, tiles, margin)
        known, computed = np.zeros(grid.shape, bool), iter(sweep.windows)
        for tile in tiles:
            read = sweep.read(tile)
            assert read == grid.owned(tile).grown(margin, grid.shape)
            assert sweep.needs[tile] == sorted(sweep.needs[tile])
            assert sweep.needs[tile][-1] <= tile
            have = np.zeros(grid.shape, bool)
            for window in sweep.needs[tile]:
                box = sweep.answer(window)
                assert box.y0 % STRIDE == box.x0 % STRIDE == 0
                have[box.slices] = True
            assert have[read.slices].all()
        for window in computed:
            known[sweep.answer(window).slices] = True
            last = max(tile for tile in tiles if window in sweep.needs[tile])
            assert sweep.needed_after(window, last) is None
            before = sweep.needed_after(window, (-1, -1))
            assert before is not None
            assert before.cut(sweep.answer(window)) == before


@given(grids, st.integers(1, 500))
def test_blocks_hold_every_tile_once_in_raster_order(grid, side):
    blocks = list(grid.blocks(side))
    assert sorted(tile for block in blocks for tile in block) == list(grid.cells())
    assert all(list(block) == sorted(block) for block in blocks)


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
    with pytest.raises(NucSegError, match="multiple of 16"):
        Grid((50, 50), halo=10)
