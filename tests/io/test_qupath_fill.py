"""A pixel belongs to a ring where its centre lies inside by the even-odd rule."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shapely import contains_xy
from shapely.geometry import LinearRing, Polygon

from napari_nucseg.io.qupath_fill import fill, survey

SHAPE = (9, 11)
CORNERS = st.lists(
    st.tuples(st.floats(-4, 14, width=32), st.floats(-4, 12, width=32)), min_size=3, max_size=9
)
EIGHTHS = st.lists(
    st.tuples(st.integers(-32, 112), st.integers(-32, 96)).map(lambda pair: (pair[0] / 8, pair[1] / 8)),
    min_size=3,
    max_size=9,
)


def filled(
    corners: list, row: int = 0, column: int = 0, shape: tuple[int, int] = SHAPE
) -> tuple[np.ndarray, bool]:
    mask = np.zeros(shape, bool)
    crossing = fill(np.array(corners, float), row, column, mask)
    return mask, crossing


def even_odd(corners: list, x: float, y: float) -> bool:
    """The textbook's ray to the left, in exact arithmetic for corners in eighths."""
    inside = False
    for (xa, ya), (xb, yb) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (ya < y) != (yb < y) and (x - xa) * abs(yb - ya) >= (y - ya) * (xb - xa) * np.sign(yb - ya):
            inside = not inside
    return inside


@settings(deadline=None, max_examples=300)
@given(EIGHTHS)
def test_every_pixel_is_that_of_the_even_odd_rule(corners: list) -> None:
    mask, _ = filled(corners)
    on_edge = LinearRing(corners).buffer(1e-6) if len(set(corners)) > 1 else None
    for r, c in np.ndindex(SHAPE):
        # centres on an edge are the business of the next test
        if on_edge is None or not contains_xy(on_edge, c + 0.5, r + 0.5):
            assert mask[r, c] == even_odd(corners, c + 0.5, r + 0.5)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 8), st.lists(st.integers(0, 44), min_size=4, max_size=4), EIGHTHS)
def test_neighbours_that_share_edges_share_no_pixel_and_leave_none(
    number: int, quarters: list, corners: list
) -> None:
    """A rectangle cut into the triangles around a point in it: every pixel in exactly one, edges and all."""
    inner = tuple(min(max(v, 0.0), 8.0) for v in corners[number % len(corners)])
    square = [(0, 0), (8, 0), (8, 8), (0, 8)]
    total = np.zeros((8, 8), int)
    for k in range(4):
        triangle = [square[k], square[(k + 1) % 4], inner]
        forward, _ = filled(triangle, shape=(8, 8))
        backward, _ = filled(triangle[::-1], shape=(8, 8))
        np.testing.assert_array_equal(forward, backward)
        total += forward
    np.testing.assert_array_equal(total, 1)


@settings(deadline=None, max_examples=200)
@given(CORNERS, st.integers(-2, 3), st.integers(-2, 3))
def test_a_window_shows_the_same_pixels(corners: list, row: int, column: int) -> None:
    whole, _ = filled(corners, row=-5, column=-5, shape=(20, 22))
    part, _ = filled(corners, row=row, column=column, shape=(6, 7))
    np.testing.assert_array_equal(part, whole[row + 5 : row + 11, column + 5 : column + 12])


@settings(deadline=None)
@given(CORNERS)
def test_valid_rings_do_not_cross_themselves(corners: list) -> None:
    if Polygon(corners).is_valid:
        assert not filled(corners)[1]


def test_a_bow_tie_and_a_double_loop_cross_themselves() -> None:
    bow, crossing = filled([(0, 0), (8, 8), (8, 0), (0, 8)])
    assert crossing
    assert bow[4, 0]
    assert bow[4, 7]
    assert not bow[0, 4]
    square = [(1, 1), (7, 1), (7, 7), (1, 7)]
    assert not filled(square)[1]
    twice, crossing = filled(square + square)
    assert crossing
    assert not twice.any()


@settings(deadline=None)
@given(hnp.arrays(np.float64, (4, 2), elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_no_coordinate_writes_outside_of_the_mask(corners: np.ndarray) -> None:
    finite, x0, x1, y0, y1, area = survey(corners)
    assert finite == bool(np.isfinite(corners).all())
    if finite:
        assert (x0, x1) == (corners[:, 0].min(), corners[:, 0].max())
        assert (y0, y1) == (corners[:, 1].min(), corners[:, 1].max())
        if np.abs(corners).max() <= 1e12:
            guarded = np.zeros((8, 8), bool)
            fill(corners, 0, 0, guarded[2:6, 2:6])
            guarded[2:6, 2:6] = False
            assert not guarded.any()
            assert area >= 0


@settings(deadline=None)
@given(CORNERS.filter(lambda corners: Polygon(corners).is_valid), st.sampled_from([0, 1e5, 1e8]))
def test_area(corners: list, offset: float) -> None:
    moved = np.array(corners) + offset
    np.testing.assert_allclose(survey(moved)[5], Polygon(moved - offset).area, rtol=1e-6, atol=1e-3)
