"""Nuclei come back from QuPath as they went, and what can't come is counted."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shapely import contains_xy
from shapely.geometry import Polygon

from napari_nucseg.core.nuclei import NucleusClass, Outline
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.geojson import write_geojson
from napari_nucseg.io.geojson_objects import object_uuid, object_uuids
from napari_nucseg.io.qupath import Imported, read_geojson
from tests.io import qupath_files

SHAPE = (400, 500)
TYPES = ["Polygon", "MultiPolygon", "Point", "MultiPoint", "GeometryCollection", "x"]


def square(x: float, y: float, size: float = 10) -> dict:
    ring = [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]
    return {"type": "Polygon", "coordinates": [ring]}


def feature(geometry: Any, **properties: Any) -> dict:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def read(folder: Path, document: Any, *args: Any, shape: tuple[int, int] = SHAPE, **options: Any) -> Imported:
    path = folder / "a.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return read_geojson(path, shape, *args, **options)


def painted(outlines: list[Outline], shape: tuple[int, int] = SHAPE) -> np.ndarray:
    labels = np.zeros(shape, np.uint32)
    for number, outline in enumerate(outlines, 1):
        labels[outline.box.slices][outline.mask] = outline.id or number
    return labels


def test_a_detection(tmp_path: Path) -> None:
    found = read(tmp_path, qupath_files.DETECTION)
    (outline,) = found.outlines
    assert (outline.kind, outline.id) == ("Tumor", None)
    assert found.classes == (NucleusClass("Tumor", (200, 0, 0)),)
    polygon = Polygon([(110.5, 60), (120.25, 64.75), (121, 75.5), (109.13, 77.01), (104, 68.9)])
    rows, columns = np.mgrid[:400, :500]
    np.testing.assert_array_equal(painted([outline]) > 0, contains_xy(polygon, columns + 0.5, rows + 0.5))
    assert (found.skipped, found.notes, len(found.points)) == ({}, {}, 0)
    assert found.summary() == "Read 1 shape and 0 points; left out none."


def test_the_nucleus_of_a_cell_and_its_derived_class(tmp_path: Path) -> None:
    found = read(tmp_path, qupath_files.CELL)
    (outline,) = found.outlines
    assert outline.box == Box(212, 230, 210, 225)
    assert outline.mask.all()
    assert found.classes == (NucleusClass("Tumor: Positive", (250, 62, 62)),)
    whole = read(tmp_path, qupath_files.CELL.replace('"nucleusGeometry"', '"other"'))
    assert whole.outlines[0].box == Box(200, 240, 200, 240)


def test_a_hierarchy_with_holes_parts_regions_lines_and_cores(tmp_path: Path) -> None:
    found = read(tmp_path, qupath_files.HIERARCHY)
    (outline,) = found.outlines
    expected = np.zeros(SHAPE, bool)
    expected[50:60, 50:60] = True
    expected[53:56, 53:56] = False
    expected[50:60, 62:66] = True
    np.testing.assert_array_equal(painted([outline]) > 0, expected)
    assert found.skipped == {
        "no nuclei by their type (tiles, TMA cores)": 2,
        "too large for a nucleus": 1,
        "neither area nor point": 1,
    }
    assert found.summary() == (
        "Read 1 shape and 0 points; left out: 2 no nuclei by their type (tiles, TMA cores); "
        "1 too large for a nucleus; 1 neither area nor point."
    )


def test_points_have_their_pixel_centres_at_integers(tmp_path: Path) -> None:
    found = read(tmp_path, qupath_files.POINTS)
    np.testing.assert_allclose(found.points, [[20, 10], [43.94, 32.83], [-0.5, 499.49]])
    assert found.points.dtype == np.float64
    assert found.point_kinds == ("Immune cells", "Immune cells", None)
    assert found.classes == (NucleusClass("Immune cells", (160, 90, 160)),)
    pixels = np.floor(found.points + 0.5).astype(int)
    np.testing.assert_array_equal(pixels, [[20, 10], [44, 33], [0, 499]])


def test_overlapping_parts_are_united_and_open_rings_closed(tmp_path: Path) -> None:
    parts = [square(10, 10)["coordinates"], [square(15, 15)["coordinates"][0][:-1]]]
    found = read(tmp_path, feature({"type": "MultiPolygon", "coordinates": parts}))
    expected = np.zeros(SHAPE, bool)
    expected[10:20, 10:20] = expected[15:25, 15:25] = True
    np.testing.assert_array_equal(painted(found.outlines) > 0, expected)
    assert not found.notes


def test_older_files(tmp_path: Path) -> None:
    found = read(tmp_path, qupath_files.OLD)
    assert [(o.kind, o.id, o.box) for o in found.outlines] == [
        ("Tumor", 12, Box(10, 20, 10, 20)),
        ("Tumor: Negative", None, Box(10, 20, 30, 40)),
    ]
    assert found.classes == (
        NucleusClass("Tumor", (200, 0, 0)),
        NucleusClass("Tumor: Negative", (112, 112, 225)),
    )
    assert found.skipped == {"no nuclei by their type (tiles, TMA cores)": 1}


@settings(deadline=None, max_examples=150)
@given(
    hnp.arrays(
        np.uint32,
        st.tuples(st.integers(1, 14), st.integers(1, 14)),
        elements=st.sampled_from([0, 1, 1, 7, 2**32 - 1]),
    )
)
def test_our_own_export_comes_back_pixel_by_pixel(
    tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray
) -> None:
    """Of any shape: with holes, in parts, touching at corners, at the image's edge, of one pixel."""
    path = tmp_path_factory.getbasetemp() / "own.geojson"
    ids = np.array([1, 7, 2**32 - 1], np.uint32)
    write_geojson(
        path, labels, pd.DataFrame({"id": ids, "class": ["a", "unclassified", "b"]}), {"b": "#010203"}, "s"
    )
    for known in (None, object_uuids(ids, "s")):
        found = read_geojson(path, labels.shape, known)
        np.testing.assert_array_equal(painted(found.outlines, labels.shape), labels)
        assert not found.skipped
        names = {1: "a", 7: None, 2**32 - 1: "b"}
        assert all(outline.kind == names[outline.id] for outline in found.outlines)
        colours = {"a": (128, 128, 128), "b": (1, 2, 3)}
        assert all(kind.colour == colours[kind.name] for kind in found.classes)


def test_ids_survive_what_qupath_does(tmp_path: Path) -> None:
    known = object_uuids([3, 4, 5, 2**24 + 1, 2**24 + 2], "slide")
    random = str(uuid.uuid4())
    documents = [
        (feature(square(0, 0)) | {"id": object_uuid(3, "slide").upper()}, 3),  # its measurements deleted
        (feature(square(20, 0), measurements={"NucSeg id": 4.0}) | {"id": random}, 4),  # made anew
        (feature(square(40, 0), measurements=[{"name": "NucSeg id", "value": 5}]), 5),  # no UUID at all
        (feature(square(60, 0), id=object_uuid(2**24 + 1, "slide"), measurements={"NucSeg id": 2.0**24}), 2**24 + 1),
        (feature(square(80, 0), measurements={"NucSeg id": 4}), None),  # a duplicate of one above
        (feature(square(100, 0), measurements={"NucSeg id": 3}) | {"id": object_uuid(3, "other")}, None),
        (feature(square(120, 0), measurements={"NucSeg id": 99}) | {"id": random}, None),  # never heard of
        (feature(square(400, 0), measurements={"NucSeg id": 2**24 + 2}), None),  # of float32: may be that of + 1 or + 3
        *((feature(square(140 + 20 * k, 0), measurements={"NucSeg id": bad}), None)
          for k, bad in enumerate((None, True, "4", 4.5, -4, 0, 1e300, float("nan"), float("inf")))),
    ]  # fmt: skip
    found = read(tmp_path, [document for document, _ in documents], known)
    assert [outline.id for outline in found.outlines] == [id_ for _, id_ in documents]
    assert found.notes == {
        "with the id of a nucleus": 4,
        "with the id of one before, taken as new": 1,
        "with an id of no nucleus here, taken as new": 3,
    }
    assert not found.skipped


def test_faults_lose_nothing_else(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    corner = [[1, 1], [9, 1], [9, 9]]
    point = {"type": "Point", "coordinates": [1, 2]}
    documents: list[Any] = [
        feature(square(100, 100), classification={"name": "a", "color": [1, 2, 3]}),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [20, 20], [20, 0], [0, 20], [0, 0]]]}),  # a bow-tie
        feature(square(495, 395)),
        feature({"type": "Polygon", "coordinates": [[*corner, [nan, 5]]]}),
        feature({"type": "Polygon", "coordinates": [[*corner, [inf, 5]]]}),
        feature({"type": "Polygon", "coordinates": [[*corner, [None, 5]]]}),
        feature({"type": "Polygon", "coordinates": [[*corner, [{}, 5]]]}),
        feature({"type": "Polygon", "coordinates": [[*corner, [5]]]}),
        feature({"type": "Polygon", "coordinates": [[*corner, [10**400, 5]]]}),
        feature({"type": "Polygon", "coordinates": [[[1, 1], [9, 9], [1, 1]]]}),
        feature({"type": "Polygon", "coordinates": []}),
        feature({"type": "Polygon", "coordinates": [[[1.6, 1.6], [1.9, 1.6], [1.9, 1.9]]]}),
        feature({"type": "Polygon", "coordinates": [[[1, 1], [5, 5], [9, 9]]]}),
        feature(square(1000, 20)),
        feature(square(1e300, 20)),
        feature(square(0, 0, 200)),
        feature({"type": "MultiPoint", "coordinates": [[5, 6], [nan, 1], ["x", 1], [-3, 1], 7, [5, 6, 0]]}),
        feature({"type": "GeometryCollection", "geometries": [square(30, 30), point]}),
        feature({"type": "MultiPolygon", "coordinates": [[[*corner, [1, 1, 0]]], []]}),
        feature({"type": "Curve"}),
        feature({"type": "LineString", "coordinates": [[0, 0], [1, 1]]}),
        feature({"type": 3}),
        feature("a geometry"),
        feature({"type": "Polygon", "coordinates": "x"}),
        feature(None),
        {"type": "Feature", "geometry": square(60, 60)},
        7,
        None,
    ]  # fmt: skip
    found = read(tmp_path, documents)
    assert [outline.box for outline in found.outlines] == [
        Box(100, 110, 100, 110),
        Box(0, 20, 0, 20),
        Box(395, 400, 495, 500),
        Box(30, 40, 30, 40),
        Box(1, 9, 1, 9),
        Box(60, 70, 60, 70),
    ]
    assert found.points.tolist() == [[5.5, 4.5], [5.5, 4.5], [1.5, 0.5]]
    assert found.notes == {
        "crossing themselves, filled by the even-odd rule": 1,
        "cut at the edge of the image": 1,
    }
    assert found.skipped == {
        "with coordinates that are no numbers": 6 + 3,
        "with fewer than 3 corners": 2,
        "too small to hold the centre of a pixel": 2,
        "outside of the image": 2 + 1,
        "too large for a nucleus": 1,
        "without a shape": 2,
        "neither area nor point": 1,
        "not to be understood": 5,
    }
    assert len(documents) == len(found.outlines) + sum(found.skipped.values()) - 4 + 1


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "id": st.none() | st.integers() | st.text(),
                "geometry": st.none() | st.text() | st.fixed_dictionaries(
                    {"type": st.sampled_from(TYPES)},
                    optional={
                        "coordinates": st.recursive(
                            st.floats() | st.none() | st.text(max_size=2), lambda inner: st.lists(inner, max_size=4)
                        ),
                        "geometries": st.lists(st.none() | st.integers(), max_size=2),
                    },
                ),
                "properties": st.none() | st.dictionaries(
                    st.sampled_from(["objectType", "classification", "measurements", "childObjects", "type", "id"]),
                    st.none() | st.integers() | st.lists(st.none()) | st.dictionaries(
                        st.sampled_from(["name", "names", "color", "colorRGB", "parentClass", "NucSeg id"]),
                        st.none() | st.floats() | st.text() | st.lists(st.floats() | st.text()),
                    ),
                ),
            },
        ),
        max_size=3,
    )
)  # fmt: skip
def test_no_feature_raises_anything_but_a_told_error(
    tmp_path_factory: pytest.TempPathFactory, items: list
) -> None:
    good = [feature(square(20 * k, 20)) for k in range(12)]
    found = read(tmp_path_factory.getbasetemp(), [*good, *items], {})
    assert len(found.outlines) >= len(good)


@pytest.mark.parametrize(
    ("scale", "shift", "match"),
    [
        (4.0, 0, r"30 of 36 objects in .* lie outside of the image of 500 x 400 pixels \(x from 80 to 1136"),
        (1.0, 5000, "36 of 36 objects"),
        (1 / 16, 0, "median length of 0.875 pixels or 0.219 um"),
        (0.25, 0, "median length of 3.5 pixels or 0.875 um"),
        (1e-4, 0, "too small for nuclei"),
        (-1.0, 0, "lie outside"),
    ],
)
def test_another_unit_is_told(tmp_path: Path, scale: float, shift: float, match: str) -> None:
    places = [(20 + 50 * (k % 6), 20 + 50 * (k // 6)) for k in range(36)]
    good = [feature(square(x, y, 14)) for x, y in places]
    assert len(read(tmp_path, good, mpp=0.25).outlines) == 36
    bad = [feature(square(x * scale + shift, y * scale, 14 * scale)) for x, y in places]
    with pytest.raises(NucSegError, match=match) as caught:
        read(tmp_path, bad, mpp=0.25)
    assert "File > Export objects as GeoJSON" in str(caught.value)
    with pytest.raises(NucSegError, match="outside of the image"):
        read(tmp_path, [feature({"type": "Point", "coordinates": [x + 700, y]}) for x, y in places])


def test_the_limit_of_area(tmp_path: Path) -> None:
    documents = [feature(square(0, 0, 60)), feature(square(100, 0, 70)), feature(square(200, 0, 130))]
    assert len(read(tmp_path, documents).outlines) == 3
    assert len(read(tmp_path, documents, mpp=0.5).outlines) == 2
    assert len(read(tmp_path, documents, mpp=0.5, max_area_um2=1000).outlines) == 1
    sliver = {"type": "Polygon", "coordinates": [[[0, 0], [1999, 1999], [2000, 1999]]]}
    assert read(tmp_path, feature(sliver), shape=(2000, 2000)).skipped == {"too large for a nucleus": 1}
    eight = {"type": "Polygon", "coordinates": [[[0, 0], [400, 400], [400, 0], [0, 400]]]}
    assert read(tmp_path, feature(eight)).skipped == {"too large for a nucleus": 1}
    own = [feature(square(0, 0, 300), measurements={"NucSeg id": 3})]
    assert len(read(tmp_path, own).outlines) == 1


def test_no_nuclei(tmp_path: Path) -> None:
    found = read(tmp_path, {"type": "FeatureCollection", "features": []})
    assert (found.outlines, found.points.shape, found.point_kinds, found.classes) == ([], (0, 2), (), ())
    assert found.summary() == "Read 0 shapes and 0 points; left out none."


def test_progress_and_cancel(tmp_path: Path) -> None:
    documents = [feature(square(20 * (k % 20), 20 * (k % 15))) for k in range(3000)]
    fractions: list[float] = []
    read(tmp_path, documents, progress=fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert len(fractions) >= 6

    class Cancelled(Exception):
        pass

    def cancel(fraction: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        read(tmp_path, documents, progress=cancel)


def test_many_points_and_many_corners_take_bounded_time(tmp_path: Path) -> None:
    """A million points in 20 s is the aim; a tenth of it here, and a polygon of many corners."""
    point = {"type": "Point", "coordinates": [12345, 7]}
    text = json.dumps(feature(point, objectType="annotation") | {"id": str(uuid.uuid4())})
    document = "[" + ",".join(text.replace("12345", f"{k % 500}.25") for k in range(100_000)) + "]"
    start = time.perf_counter()
    assert len(read(tmp_path, document).points) == 100_000
    assert time.perf_counter() - start < 8
    turn = np.linspace(0, 2 * np.pi, 200_000)
    ring = np.stack([250 + 60 * np.cos(turn), 200 + 60 * np.sin(turn)], axis=1).tolist()
    start = time.perf_counter()
    (outline,) = read(tmp_path, feature({"type": "Polygon", "coordinates": [ring]})).outlines
    assert outline.mask.sum() == pytest.approx(np.pi * 60**2, rel=0.01)
    assert time.perf_counter() - start < 8


def test_a_tile_of_nuclei_is_read_fast(tmp_path: Path) -> None:
    y, x = np.mgrid[:512, :1024]
    disc = (y % 16 - 8) ** 2 + (x % 16 - 8) ** 2 < 49
    labels = np.where(disc, (y // 16) * 64 + x // 16 + 1, 0).astype(np.uint32)
    ids = np.unique(labels)[1:]
    write_geojson(tmp_path / "n.geojson", labels, pd.DataFrame({"id": ids}), namespace="s")
    read_geojson(tmp_path / "n.geojson", labels.shape)  # compiles
    start = time.perf_counter()
    found = read_geojson(tmp_path / "n.geojson", labels.shape, object_uuids(ids, "s"), mpp=0.25)
    assert time.perf_counter() - start < 2
    np.testing.assert_array_equal(painted(found.outlines, labels.shape), labels)


PREDICTED = {"NucSeg state": "predicted"}


@pytest.mark.parametrize(
    ("kind", "measured", "metadata", "untouched"),
    [
        ("a", {"prob_a": 0.75, "prob_b": 0.25}, PREDICTED, True),
        ("b", {"prob_a": 0.75, "prob_b": 0.25}, PREDICTED, False),  # given another class in QuPath
        (None, {"prob_a": 0.75, "prob_b": 0.25}, PREDICTED, False),  # or robbed of its class
        (None, {}, PREDICTED, True),  # of a model without classes
        ("a", {}, PREDICTED, False),  # where the class is a person's
        ("a", {"prob_a": 0.75}, {"NucSeg state": "drawn"}, False),
        ("a", {"prob_a": 0.75}, {}, False),  # QuPath 0.4 drops the state
    ],
)
def test_a_prediction_is_what_nobody_can_have_touched(tmp_path, kind, measured, metadata, untouched):
    own = {"measurements": {"NucSeg id": 3, "score": 0.5, **measured}, "metadata": metadata}
    if kind is not None:
        own["classification"] = {"name": kind}
    item = feature(square(0, 0), objectType="detection", **own) | {"id": object_uuid(3, "slide")}
    (found,) = read(tmp_path, [item], object_uuids([3], "slide")).predictions
    assert found == ({"score": 0.5, **measured} if untouched else None)


def test_a_measurement_whose_name_is_no_word_is_passed_over(tmp_path):
    listed = [{"name": [1], "value": 1}, {"name": "NucSeg id", "value": 3}]
    found = read(tmp_path, [feature(square(0, 0), measurements=listed)], object_uuids([3], "slide"))
    assert [outline.id for outline in found.outlines] == [3]
