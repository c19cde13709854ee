"""Outlines are valid polygons that cover exactly the pixels of their nuclei."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from shapely import contains_xy
from shapely.geometry import MultiPolygon, Polygon, box, shape
from shapely.ops import unary_union

from napari_nucseg.io.geojson import GeoJsonWriter
from napari_nucseg.io.polygons import as_labels, bounding_boxes

if TYPE_CHECKING:
    from pathlib import Path

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outlines")


def outlines(folder: Path, labels: np.ndarray, row: int = 0, column: int = 0) -> dict[int, dict[str, Any]]:
    """The geometry of every nucleus."""
    ids = np.unique(labels)
    with GeoJsonWriter(folder / "a.geojson") as writer:
        writer.add(labels, (row, column), pd.DataFrame({"id": ids[ids > 0]}))
    features = json.loads((folder / "a.geojson").read_text())["features"]
    return {f["properties"]["measurements"]["NucSeg id"]: f["geometry"] for f in features}


def polygons_of(geometry: dict[str, Any]) -> list[list[list[list[int]]]]:
    many = geometry["type"] == "MultiPolygon"
    return geometry["coordinates"] if many else [geometry["coordinates"]]


def painted(whole: Any, like: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: like.shape[0], : like.shape[1]]
    return contains_xy(whole, x + 0.5, y + 0.5)


def check(folder: Path, labels: np.ndarray) -> None:
    found = outlines(folder, labels)
    again = np.zeros_like(labels)
    for id_, geometry in found.items():
        parts, count = ndimage.label(labels == id_)
        polygons = polygons_of(geometry)
        assert len(polygons) == count
        assert (geometry["type"] == "Polygon") == (count == 1)
        whole = MultiPolygon([Polygon(rings[0], rings[1:]) for rings in polygons])
        assert whole.is_valid
        for index, rings in enumerate(
            polygons, 1
        ):  # in raster order of their first pixels, as ndimage has them
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
        inside = painted(whole, labels)
        assert not again[inside].any()
        again[inside] = id_
    np.testing.assert_array_equal(again, labels)


@settings(deadline=None, max_examples=300)
@given(hnp.arrays(np.uint32, SIZES, elements=st.sampled_from([0, 1, 2**32 - 1])))
def test_any_labels(folder: Path, labels: np.ndarray) -> None:
    check(folder, labels)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(st.floats(-5, 45), st.floats(-5, 35), st.floats(1, 12), st.floats(1, 12), st.booleans()),
        max_size=12,
    )
)
def test_random_blobs(folder: Path, blobs: list[tuple[float, float, float, float, bool]]) -> None:
    labels = np.zeros((40, 30), np.uint32)
    y, x = np.mgrid[:40, :30]
    for id_, (cy, cx, ry, rx, ring) in enumerate(blobs, 1):
        size = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2
        labels[(size < 1) & (size > 0.3 * ring)] = id_
    check(folder, labels)


def test_large_ragged_masks(folder: Path) -> None:
    rng = np.random.default_rng(2)
    for density in (0.1, 0.5, 0.6, 0.9):
        check(folder, (rng.random((40, 50)) < density).astype(np.uint32))
    check(
        folder, rng.integers(0, 4, (70, 90)).astype(np.uint32)
    )  # larger boxes than the arrays hold at first
    check(folder, (rng.random((3, 900)) < 0.7).astype(np.uint32))


def test_parts_within_holes_of_parts(folder: Path) -> None:
    labels = np.zeros((13, 13), np.uint32)
    for k in range(0, 6, 2):
        labels[k : 13 - k, k : 13 - k] = 1
        labels[k + 1 : 12 - k, k + 1 : 12 - k] = 0
    labels[6, 6] = 1
    check(folder, labels)
    assert [len(rings) for rings in polygons_of(outlines(folder, labels)[1])] == [2, 2, 2, 1]


def test_every_3x3_mask(folder: Path) -> None:
    labels = np.zeros((4 * 512, 3), np.uint32)
    for number in range(512):
        mask = np.array([number >> bit & 1 for bit in range(9)], bool).reshape(3, 3)
        labels[4 * number : 4 * number + 3] = mask * number
    found = outlines(folder, labels)
    assert len(found) == 511
    for number, geometry in found.items():
        whole = shape(geometry)
        squares = [box(c, r, c + 1, r + 1) for r, c in np.argwhere(labels == number)]
        assert whole.is_valid
        assert whole.equals(unary_union(squares))


def test_one_pixel_is_a_square_between_pixel_corners(folder: Path) -> None:
    geometry = outlines(folder, np.full((1, 1), 9, np.uint32), row=7, column=3)[9]
    assert geometry == {"type": "Polygon", "coordinates": [[[3, 7], [4, 7], [4, 8], [3, 8], [3, 7]]]}
    assert outlines(folder, np.zeros((1, 1), np.uint32)) == {}


def test_a_hole_and_a_diagonal_touch(folder: Path) -> None:
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint32)
    assert [len(rings) for rings in polygons_of(outlines(folder, ring)[1])] == [2]
    ring[0, 0] = 0  # the hole and the outside now touch at a corner
    assert [len(rings) for rings in polygons_of(outlines(folder, ring)[1])] == [2]
    assert [len(rings) for rings in polygons_of(outlines(folder, np.eye(3, dtype=np.uint32))[1])] == [1, 1, 1]


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


def test_what_no_id_can_be_is_background() -> None:
    for dtype in (np.int8, np.int32, np.int64):
        assert as_labels(np.array([[-1, 0, 5]], dtype)).tolist() == [[0, 0, 5]]
    assert as_labels(np.array([[2**32, 2**32 - 1]], np.uint64)).tolist() == [[0, 2**32 - 1]]
    array = np.ones((3, 3), np.uint32)
    assert as_labels(array) is array
