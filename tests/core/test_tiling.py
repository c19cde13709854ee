import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucseg.core.tiling import STRIDE, WIDE, Box, Grid, Sweep, up, window_around
from napari_nucseg.errors import NucSegError

grids = st.builds(
    Grid,
    shape=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    cell=st.integers(16, 128),
    halo=st.sampled_from([0, 16, 32]),
    margin=st.integers(0, 90),
    block=st.integers(1, 500),
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


@given(grids, st.integers(0, 399), st.integers(0, 399))
def test_cells_of_a_box_are_those_that_touch_it(grid, y, x):
    box = Box(min(y, grid.shape[0] - 1), grid.shape[0], min(x, grid.shape[1] - 1), grid.shape[1])
    assert set(grid.cells(box)) == {i for i in grid.cells() if grid.owned(i).cut(box)}


def test_an_image_that_fits_with_its_halo_is_one_cell():
    assert list(Grid((1100, 1150), cell=1024, halo=64).cells()) == [(0, 0)]
    assert list(Grid((1200, 1150), cell=1024, halo=64).cells()) == [(0, 0), (1, 0)]


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


@settings(deadline=None)
@given(grids, st.randoms(use_true_random=False))
def test_a_sweep_knows_all_that_its_tiles_need(grid, random):
    """Any parts of any tiles of any block, with a margin larger or smaller than the tiles."""
    for block in grid.blocks():
        tiles = {tile: grid.owned(tile) for tile in block if random.random() < 0.7}
        for tile, owned in tiles.items():
            if random.random() < 0.5:
                tiles[tile] = Box(owned.y0, owned.y0 + 1, owned.x1 - 1, owned.x1)
        if not tiles:
            continue
        sweep = Sweep(grid, tiles)
        assert list(sweep.windows) == sorted(sweep.windows)
        for window in sweep.windows:
            answer, seen = sweep.answer(window), sweep.seen(window)
            assert answer.y0 % STRIDE == answer.x0 % STRIDE == seen.y0 % STRIDE == seen.x0 % STRIDE == 0
            assert seen.cut(answer.grown(grid.halo, grid.shape)) == answer.grown(grid.halo, grid.shape)
            assert seen.cut(Box(0, grid.shape[0], 0, grid.shape[1])) == seen
        for tile, part in tiles.items():
            assert sweep.read(tile) == part.grown(grid.margin, grid.shape)
            assert sweep.needs[tile] == sorted(sweep.needs[tile])
            have = np.zeros(grid.shape, bool)
            for window in sweep.needs[tile]:
                have[sweep.answer(window).slices] = True
            assert have[sweep.read(tile).slices].all()
        for window in sweep.windows:
            last = max(tile for tile in tiles if window in sweep.needs[tile])
            assert sweep.needed_after(window, last) is None
            before = sweep.needed_after(window, (-1, -1))
            assert before is not None
            assert before.cut(sweep.answer(window)) == before


@settings(deadline=None, max_examples=25)
@given(st.integers(3000, 40_000), st.integers(300, 40_000), st.integers(2000, 30_000))
def test_the_windows_of_a_large_image_have_one_shape_and_a_tile_is_done_with_its_own(height, width, block):
    grid = Grid((height, width), cell=1200, halo=176, margin=230, block=block)
    rows, cols = grid.window_shape
    assert rows <= 1200 + 2 * 176
    assert min(WIDE, width) <= cols <= max(1200 + 2 * 176, WIDE)
    for tiles in grid.blocks():
        sweep = Sweep(grid, {tile: grid.owned(tile) for tile in tiles})
        for window in sweep.windows:
            seen = sweep.seen(window)
            assert (up(seen.y1) - seen.y0, up(seen.x1) - seen.x0) == (rows, cols)
        assert sum(sweep.needs[tile][-1] <= tile for tile in tiles) >= len(tiles) / 2
        assert all(max(grid.owned(tile).shape) <= 1200 + 176 + 240 for tile in tiles)


@given(grids)
def test_blocks_hold_every_tile_once_in_raster_order(grid):
    blocks = list(grid.blocks())
    assert sorted(tile for block in blocks for tile in block) == list(grid.cells())
    assert all(block and list(block) == sorted(block) for block in blocks)


def test_tiles_of_two_blocks_are_no_sweep():
    grid = Grid((900, 300), cell=100, halo=16, margin=8, block=400)
    first, second = (block[0] for block in list(grid.blocks())[:2])
    with pytest.raises(NucSegError, match="another block"):
        Sweep(grid, {first: grid.owned(first), second: grid.owned(second)})


def test_many_small_tiles_are_laid_out_at_once(monkeypatch):
    """What is looked at for a tile does not grow with the number of tiles."""
    cut, calls = Box.cut, []
    monkeypatch.setattr(Box, "cut", lambda box, other: calls.append(1) or cut(box, other))
    grid = Grid((10_000, 10_000), cell=256, halo=176, margin=240)
    (tiles,) = grid.blocks()
    Sweep(grid, {tile: grid.owned(tile) for tile in tiles})
    assert len(tiles) > 1000
    assert len(calls) <= 10 * len(tiles)


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
