"""Outlines are valid polygons that cover exactly the pixels of their mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from shapely.geometry import MultiPolygon, Point, Polygon, box
from shapely.ops import unary_union

from napari_nucseg.io.polygons import bounding_boxes, outline

if TYPE_CHECKING:
    import pytest

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.booleans())


def shape(polygons: list) -> MultiPolygon:
    return MultiPolygon([Polygon(rings[0], rings[1:]) for rings in polygons])


def check(mask: np.ndarray) -> None:
    polygons = outline(mask)
    parts, count = ndimage.label(mask)
    assert len(polygons) == count
    whole = shape(polygons)
    assert whole.is_valid
    for index, rings in enumerate(polygons, 1):
        polygon = Polygon(rings[0], rings[1:])
        assert polygon.is_valid
        assert polygon.exterior.is_ccw
        assert not any(hole.is_ccw for hole in polygon.interiors)
        assert polygon.area == (parts == index).sum()
        for ring in rings:
            assert ring[0] == ring[-1]
            assert Polygon(ring).is_valid
            steps = np.sign(np.diff(np.array(ring), axis=0))
            assert (np.abs(steps).sum(axis=1) == 1).all()
            assert (steps[1:] != steps[:-1]).any(axis=1).all()
    painted = np.array(
        [
            [whole.contains(Point(c + 0.5, r + 0.5)) for c in range(mask.shape[1])]
            for r in range(mask.shape[0])
        ]
    )
    np.testing.assert_array_equal(painted.reshape(mask.shape), mask)


@settings(deadline=None, max_examples=400)
@given(MASKS)
def test_any_mask(mask: np.ndarray) -> None:
    check(mask)


def test_large_ragged_masks() -> None:
    rng = np.random.default_rng(2)
    for density in (0.1, 0.5, 0.6, 0.9):
        check(rng.random((40, 50)) < density)


def test_every_3x3_mask() -> None:
    for number in range(512):
        mask = np.array([number >> bit & 1 for bit in range(9)], bool).reshape(3, 3)
        whole = shape(outline(mask))
        squares = [box(c, r, c + 1, r + 1) for r, c in np.argwhere(mask)]
        assert whole.is_valid
        assert whole.equals(unary_union(squares)) or not squares


def test_one_pixel_is_a_square_between_pixel_corners() -> None:
    mask = np.ones((1, 1), bool)
    assert outline(mask, row=7, column=3) == [[[[3, 7], [4, 7], [4, 8], [3, 8], [3, 7]]]]
    assert outline(~mask) == []


def test_a_hole_and_a_diagonal_touch() -> None:
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    assert [len(rings) for rings in outline(ring)] == [2]
    ring[0, 0] = False  # the hole and the outside now touch at a corner
    assert [len(rings) for rings in outline(ring)] == [2]
    assert [len(rings) for rings in outline(np.eye(3, dtype=bool))] == [1, 1, 1]


@settings(deadline=None)
@given(
    hnp.arrays(
        np.uint32,
        st.tuples(st.integers(1, 8), st.integers(1, 8)),
        elements=st.sampled_from([0, 1, 7, 2**32 - 1]),
    )
)
def test_bounding_boxes(labels: np.ndarray) -> None:
    ids = np.array([2**32 - 1, 3, 1, 7], np.uint32)
    boxes = bounding_boxes(labels, ids)
    for id_, found in zip(ids, boxes.tolist(), strict=True):
        rows, columns = np.nonzero(labels == id_)
        expected = (
            [rows.min(), rows.max() + 1, columns.min(), columns.max() + 1] if len(rows) else [0, 0, 0, 0]
        )
        assert found == expected


def test_boxes_cross_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_nucseg.io.polygons._BAND_PIXELS", 30)
    labels = np.zeros((20, 10), np.int32)
    labels[2:17, 3:5] = 4
    assert bounding_boxes(labels, np.array([4])).tolist() == [[2, 17, 3, 5]]
    assert bounding_boxes(labels, np.array([], np.uint32)).shape == (0, 4)
