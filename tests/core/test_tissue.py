"""Tissue is kept whole, glass is left out, and what is neither misleads nobody."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucseg.core.tiling import Box
from napari_nucseg.core.tissue import TissueConfig, TissueMask, tissue_in
from napari_nucseg.errors import NucSegError

GLASS, PINK, PURPLE = (244, 243, 242), (222, 160, 196), (120, 80, 150)
BLACK, GREEN_PEN, BLUE_PEN = (8, 8, 8), (40, 150, 90), (60, 110, 190)
RADIUS = 50 / 8


def canvas(colour=GLASS, shape=(200, 240), noise=3.0):
    rng = np.random.default_rng(5)
    return np.clip(np.full((*shape, 3), colour) + rng.normal(0, noise, (*shape, 3)), 0, 255).astype(np.uint8)


def paint(image, box, colour, noise=8.0):
    rng = np.random.default_rng(box.y0)
    image[box.slices] = np.clip(colour + rng.normal(0, noise, (*box.shape, 3)), 0, 255)
    return image


@pytest.mark.parametrize("colour", [PINK, PURPLE, (205, 205, 215), (170, 60, 70), (228, 205, 218)])
def test_an_image_without_glass_is_all_tissue(colour):
    assert tissue_in(canvas(colour, noise=6), 8).all()
    two = canvas(colour, noise=6)
    assert tissue_in(paint(two, Box(50, 150, 0, 120), PURPLE), 8).all()


@pytest.mark.parametrize("colour", [(255, 255, 255), GLASS, (238, 236, 230), (230, 230, 230)])
def test_an_image_without_tissue_is_all_glass(colour):
    assert not tissue_in(canvas(colour), 8).any()


def test_tissue_is_kept_with_its_margin_and_no_more():
    box = Box(60, 120, 80, 160)
    mask = tissue_in(paint(canvas(), box, PINK), 8)
    assert mask[box.grown(6, mask.shape).slices][RADIUS_CORNER].all()
    outside = np.ones(mask.shape, bool)
    outside[box.grown(8, mask.shape).slices] = False
    assert not mask[outside].any()


RADIUS_CORNER = np.s_[6:-6]  # all but the corners, which the margin rounds


def test_the_smaller_the_share_of_tissue_the_same_the_mask():
    small = tissue_in(paint(canvas(shape=(100, 100)), Box(40, 60, 40, 60), PINK), 8)
    large = tissue_in(paint(canvas(shape=(900, 900)), Box(40, 60, 40, 60), PINK), 8)
    assert small.sum() == large.sum() > 400


def test_gaps_are_bridged_and_dust_is_dropped_but_no_lone_nucleus():
    image = paint(paint(canvas(), Box(20, 60, 20, 60), PINK), Box(20, 60, 70, 110), PINK)
    assert tissue_in(image, 8)[30:50, 20:110].all()
    dust = paint(canvas(), Box(100, 102, 100, 102), (120, 118, 119), 2)
    assert not tissue_in(dust, 8).any()
    lone = paint(canvas(), Box(100, 101, 100, 101), PURPLE)
    assert tissue_in(lone, 8)[95:106, 100].all()


@pytest.mark.parametrize("colour", [BLACK, GREEN_PEN, BLUE_PEN])
def test_pens_and_frames_are_no_tissue_and_hide_none(colour):
    bare = paint(canvas(shape=(400, 400)), Box(0, 400, 0, 60), colour, noise=4)
    assert not tissue_in(bare, 8).any()
    both = paint(bare, Box(200, 300, 200, 300), PINK)
    mask = tissue_in(both, 8)
    assert mask[200:300, 200:300].all()
    assert not mask[:, :150].any()


def test_a_frame_around_tissue_keeps_the_tissue():
    image = canvas(BLACK, (300, 300))
    image = paint(image, Box(40, 260, 40, 260), GLASS, 3)
    mask = tissue_in(paint(image, Box(40, 150, 40, 260), PINK), 8)
    assert mask[40:150, 40:260].all()
    assert not mask[200:].any()


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (5, 2), (1, 300)])
def test_narrow_images(shape):
    image = canvas(shape=shape)
    assert not tissue_in(image, 8).any()
    image[-1, -1] = PURPLE
    mask = tissue_in(image, 8, TissueConfig(closing_um=0))
    rows, columns = np.indices(shape)
    far = np.hypot(rows - shape[0] + 1, columns - shape[1] + 1)
    np.testing.assert_array_equal(mask, far <= RADIUS)


def test_large_images_are_looked_at_in_bands_alike():
    image = paint(canvas(shape=(1601, 1501)), Box(0, 800, 0, 800), PINK)
    image = paint(image, Box(1300, 1601, 0, 300), BLACK, 2)
    mask = tissue_in(image, 4, shrink=2)
    assert mask[:400, :400].all()
    assert not mask[420:].any()


def test_finer_pixels_give_the_same_mask():
    box = Box(61, 123, 83, 161)
    fine = paint(canvas(shape=(401, 481)), Box(122, 246, 166, 322), PINK)
    mask = tissue_in(fine, 4, shrink=2)
    assert mask.shape == (201, 241)
    coarse = tissue_in(paint(canvas(shape=(201, 241)), box, PINK), 8)
    assert (mask != coarse).mean() < 0.01


MASKS = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((7, 9)) < 0.3)


@settings(max_examples=60, deadline=None)
@given(mask=MASKS, seed=st.integers(0, 1000), cell=st.sampled_from([(10.0, 10.0), (10.37, 9.81)]))
def test_points_boxes_and_area_follow_the_mask(mask, seed, cell):
    shape = (66, 85)  # the last cells reach beyond
    tissue = TissueMask(mask, shape, cell)
    rows, columns = (np.minimum(((np.arange(n) + 0.5) / c).astype(int), m - 1)
                     for n, c, m in zip(shape, cell, mask.shape, strict=True))  # fmt: skip
    whole = mask[np.ix_(rows, columns)]
    points = np.stack(np.mgrid[: shape[0], : shape[1]], -1).reshape(-1, 2).astype(float)
    np.testing.assert_array_equal(tissue.holds(points), whole.ravel())
    rng = np.random.default_rng(seed)
    y0, x0 = int(rng.integers(0, 66)), int(rng.integers(0, 85))
    box = Box(y0, int(rng.integers(y0 + 1, 67)), x0, int(rng.integers(x0 + 1, 86)))
    if whole[box.slices].any():
        assert tissue.touches(box)
    if not tissue.touches(box):
        assert not whole[box.slices].any()
    elif cell == (10.0, 10.0):
        assert whole[box.slices].any()
    assert tissue.area_px == pytest.approx(whole.sum(), abs=66 * 85 * 0.03 if cell != (10.0, 10.0) else 1e-6)
    assert 0 <= tissue.fraction <= 1


def test_a_whole_mask_holds_everything():
    tissue = TissueMask.whole((300, 500))
    assert tissue.fraction == 1.0
    assert tissue.area_px == 150_000
    assert tissue.holds(np.array([[-0.4, 0], [299.4, 499.4]])).all()
    assert tissue.touches(Box(299, 300, 499, 500))


def test_settings_that_make_no_sense_are_refused():
    for bad in ({"mpp": 0}, {"margin_um": -1}, {"faint": 0.2}, {"strong": 0.01}):
        with pytest.raises(NucSegError, match="can't find tissue"):
            TissueConfig(**bad)
