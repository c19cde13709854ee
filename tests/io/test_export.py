"""What is written can be read again: by tifffile, pandas, and as QuPath reads GeoJSON."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile
from shapely.geometry import shape

from napari_nucseg.errors import NucSegError
from napari_nucseg.io import export
from napari_nucseg.io.atomic import replacing
from napari_nucseg.io.export import save_results, write_csv, write_geojson, write_labels
from napari_nucseg.io.slide import Mpp, read_image

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {"neoplastic": (255, 0, 0), "inflammatory": "#22dd4d"}


def table(ids: list[int], **columns: object) -> pd.DataFrame:
    count = len(ids)
    frame = {
        "id": np.array(ids, np.uint32),
        "centre_y": np.linspace(0.5, 123456.75, count),
        "centre_x": 2.25,
        "class": ["neoplastic", "inflammatory", "unheard of"][:count] if count <= 3 else "neoplastic",
        "score": 0.875,
        "area_um2": 1.5,
        "solidity": [np.nan, *[1.0] * (count - 1)],
    }
    return pd.DataFrame({**frame, **columns})


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((300, 530), np.uint32)
    labels[3:9, 4:10] = 2
    labels[5, 6] = 0  # a hole
    labels[250:262, 250:262] = 2**32 - 1
    labels[299, 529] = 7
    labels[297, 529] = 7  # two parts
    return labels


def test_labels_are_tiled_deflated_and_scaled(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    write_labels(path, labels, Mpp(0.25, "OME-XML"))
    np.testing.assert_array_equal(tifffile.imread(path), labels)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        assert (page.dtype, page.tile, page.compression.name) == (np.uint32, (256, 256), "ADOBE_DEFLATE")
        assert page.tags["ResolutionUnit"].value.name == "CENTIMETER"
        numerator, denominator = page.tags["XResolution"].value
        assert numerator / denominator == pytest.approx(40000)
        assert page.description == ""
    assert path.stat().st_size < labels.nbytes / 50


def test_labels_of_other_integers_and_without_mpp(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    for dtype in (np.int64, np.uint64, np.uint8):
        write_labels(path, labels.astype(dtype))
        np.testing.assert_array_equal(tifffile.imread(path), labels.astype(dtype))
    with tifffile.TiffFile(path) as tif:
        assert "ResolutionUnit" not in tif.pages[0].tags or tif.pages[0].tags["ResolutionUnit"].value != 3


def test_labels_from_tiles(tmp_path: Path, labels: np.ndarray) -> None:
    tiles = [labels[y : y + 256, x : x + 256] for y in (0, 256) for x in (0, 256, 512)]
    path = tmp_path / "a.tif"
    write_labels(path, iter(tiles), 0.5, shape=labels.shape)
    np.testing.assert_array_equal(tifffile.imread(path), labels)
    path.unlink()
    for wrong in (tiles[:-1], [*tiles, tiles[0]], [labels]):
        with pytest.raises(NucSegError, match="tiles"):
            write_labels(path, iter(wrong), 0.5, shape=labels.shape)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "labels_",
    [
        np.full((20, 20), -1),
        np.full((20, 20), 2**32),
        np.zeros((20, 20)),
        np.zeros((2, 20, 20), int),
        np.zeros((0, 5), int),
    ],
)
def test_unfit_labels_are_refused_and_leave_nothing(tmp_path: Path, labels_: np.ndarray) -> None:
    with pytest.raises(NucSegError, match="can't be saved"):
        write_labels(tmp_path / "a.tif", labels_)
    assert list(tmp_path.iterdir()) == []


def test_csv_round_trip(tmp_path: Path) -> None:
    nuclei = table([1, 5, 2**32 - 1], **{"class": ["a, b", 'with "quotes"', "Lymphozyt äöü"]})
    write_csv(tmp_path / "n.csv", nuclei)
    again = pd.read_csv(tmp_path / "n.csv")
    pd.testing.assert_frame_equal(again, nuclei, check_dtype=False, rtol=1e-7)
    write_csv(tmp_path / "n.csv", nuclei[:0])
    assert list(pd.read_csv(tmp_path / "n.csv").columns) == list(nuclei.columns)


def test_geojson_has_what_qupath_asks_for(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "n.geojson"
    nuclei = table([2, 2**32 - 1, 7])
    write_geojson(path, labels, nuclei, COLOURS, namespace="slide 1")
    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert document["type"] == "FeatureCollection"
    assert len(document["features"]) == 3
    for feature, row, colour in zip(
        document["features"], nuclei.itertuples(), ([255, 0, 0], [0x22, 0xDD, 0x4D], [128] * 3), strict=True
    ):
        assert feature["type"] == "Feature"
        assert uuid.UUID(feature["id"]).version == 5
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        assert properties["classification"] == {"name": nuclei["class"][row.Index], "color": colour}
        measured = properties["measurements"]
        assert measured["NucSeg id"] == row.id
        assert measured["score"] == 0.875
        assert measured["centre_y"] == row.centre_y
        assert ("solidity" in measured) == np.isfinite(row.solidity)
        geometry = shape(feature["geometry"])
        assert geometry.is_valid
        assert geometry.area == (labels == row.id).sum()
    kinds = [feature["geometry"]["type"] for feature in document["features"]]
    assert kinds == ["Polygon", "Polygon", "MultiPolygon"]
    assert shape(document["features"][0]["geometry"]).bounds == (4, 3, 10, 9)


def test_uuids_are_stable_and_differ_between_images(tmp_path: Path, labels: np.ndarray) -> None:
    def uuids(namespace: str, order: list[int]) -> dict[int, str]:
        write_geojson(tmp_path / "n.geojson", labels, table(order), namespace=namespace)
        found = json.loads((tmp_path / "n.geojson").read_text())["features"]
        return {f["properties"]["measurements"]["NucSeg id"]: f["id"] for f in found}

    first = uuids("a", [2, 7, 2**32 - 1])
    assert uuids("a", [7, 2]).items() <= first.items()
    assert not set(uuids("b", [2, 7]).values()) & set(first.values())


def test_geojson_without_nuclei_classes_or_pixels(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "n.geojson"
    write_geojson(path, labels, table([2])[:0])
    assert json.loads(path.read_text()) == {"type": "FeatureCollection", "features": []}
    write_geojson(path, labels, table([2, 3])[["id"]])
    (feature,) = json.loads(path.read_text())["features"]
    assert "classification" not in feature["properties"]
    assert feature["properties"]["measurements"] == {"NucSeg id": 2}


def test_geojson_refuses_double_ids_and_bad_colours(tmp_path: Path, labels: np.ndarray) -> None:
    with pytest.raises(NucSegError, match="two rows"):
        write_geojson(tmp_path / "n.geojson", labels, table([2, 2]))
    for colour in ((1, 2), (1, 2, 300), "red", "#12345"):
        with pytest.raises(NucSegError, match="is no colour"):
            write_geojson(tmp_path / "n.geojson", labels, table([2]), {"a": colour})
    assert list(tmp_path.iterdir()) == []


def test_geojson_of_a_synthetic_tile_is_written_fast(tmp_path: Path) -> None:
    """100,000 nuclei in 20 s is the aim; a fifth of a tenth of it here, with room for a busy machine."""
    y, x = np.mgrid[:1024, :1024]
    disc = (y % 16 - 8) ** 2 + (x % 16 - 8) ** 2 < 49
    labels = np.where(disc, (y // 16) * 64 + x // 16 + 1, 0).astype(np.uint32)
    ids = np.unique(labels)[1:].tolist()
    write_geojson(tmp_path / "warm.geojson", labels, table(ids[:3]))
    start = time.perf_counter()
    write_geojson(tmp_path / "n.geojson", labels, table(ids), COLOURS)
    assert time.perf_counter() - start < 10
    assert len(json.loads((tmp_path / "n.geojson").read_text())["features"]) == 4096


def test_a_crash_keeps_the_older_file(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n.geojson"
    path.write_text("older")
    monkeypatch.setattr("napari_nucseg.io.geojson.make_fields", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_geojson(path, labels, table([2]))
    assert path.read_text() == "older"
    assert [item.name for item in tmp_path.iterdir()] == ["n.geojson"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(NucSegError, match="can't be written"),
        replacing(tmp_path / "file" / "a.csv") as draft,
    ):
        draft.write_text("never")
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(NucSegError, match=r"a\.csv can't be written"):
        write_csv(tmp_path / "a.csv", table([1]))


def test_save_results(tmp_path: Path, labels: np.ndarray) -> None:
    nuclei = table([2, 2**32 - 1, 7])
    paths = save_results(tmp_path / "new" / "folder", "case 1", labels, nuclei, 0.5, COLOURS)
    assert [path.name for path in paths] == [
        "case 1_instances.tif",
        "case 1_nuclei.csv",
        "case 1_nuclei.geojson",
    ]
    assert sorted(paths[0].parent.iterdir()) == sorted(paths)
    (only,) = save_results(tmp_path, "b", labels, nuclei, formats=["csv"])
    assert only == tmp_path / "b_nuclei.csv"
    for formats in (["csv", "xml"], []):
        with pytest.raises(NucSegError, match="no format to save"):
            save_results(tmp_path / "never", "b", labels, nuclei, formats=formats)
    assert not (tmp_path / "never").exists()


def test_the_label_image_says_its_mpp_when_read_again(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.tif", np.full((40, 40), 200), 0.499)
    with read_image(tmp_path / "a.tif") as slide:
        assert slide.mpp.value == pytest.approx(0.499, rel=1e-6)


def test_bigtiff_for_large_images(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_CLASSIC_LIMIT", 1000)
    write_labels(tmp_path / "a.tif", labels)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), labels)
