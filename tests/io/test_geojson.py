"""What the export says of a review, and by what its objects are known again."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import zarr

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.geojson import GeoJsonWriter, write_geojson
from napari_nucseg.io.geojson_objects import NO_CLASS, object_uuid, object_uuids
from napari_nucseg.io.tables import write_csv

if TYPE_CHECKING:
    from pathlib import Path

LABELS = np.array([[1, 1, 0, 2], [1, 0, 0, 2], [0, 3, 3, 3]], np.uint32)


def exported(folder: Path, **columns: object) -> list[dict]:
    write_geojson(
        folder / "n.geojson", LABELS, pd.DataFrame({"id": [1, 2, 3], **columns}), namespace="case 7"
    )
    return json.loads((folder / "n.geojson").read_text(encoding="utf-8"))["features"]


def test_state_and_origin_are_metadata(tmp_path: Path) -> None:
    first, second, third = exported(
        tmp_path, state=["accepted", "drawn", None], origin=["model", "brush", ""], score=[0.5, np.nan, 1]
    )
    assert first["properties"]["metadata"] == {"NucSeg state": "accepted", "NucSeg origin": "model"}
    assert second["properties"]["metadata"] == {"NucSeg state": "drawn", "NucSeg origin": "brush"}
    assert "metadata" not in third["properties"]
    assert first["properties"]["measurements"] == {"NucSeg id": 1, "score": 0.5}
    assert second["properties"]["measurements"] == {"NucSeg id": 2}
    assert all("metadata" not in feature["properties"] for feature in exported(tmp_path))


def test_nuclei_of_a_run_are_said_to_be_predicted(tmp_path: Path) -> None:
    found = exported(tmp_path, score=[0.5, 0.75, 1])
    assert [feature["properties"]["metadata"] for feature in found] == [{"NucSeg state": "predicted"}] * 3


def test_state_as_a_category_is_metadata_all_the_same(tmp_path: Path) -> None:
    (first, *_) = exported(tmp_path, state=pd.Categorical(["edited", "predicted", "drawn"]))
    assert first["properties"]["metadata"] == {"NucSeg state": "edited"}


def test_no_class_is_none_in_qupath(tmp_path: Path) -> None:
    classes = ["a", NO_CLASS, None]
    kinds = [
        feature["properties"].get("classification") for feature in exported(tmp_path, **{"class": classes})
    ]
    assert kinds == [{"name": "a", "color": [128, 128, 128]}, None, None]


def test_objects_are_known_by_their_uuid(tmp_path: Path) -> None:
    known = object_uuids(np.array([1, 2, 3], np.uint32), "case 7")
    assert [known[feature["id"]] for feature in exported(tmp_path)] == [1, 2, 3]
    assert object_uuid(2, "case 7") in known
    assert object_uuid(2, "case 8") not in known
    assert uuid.UUID(object_uuid(2, "")).version == 5
    # a change here would cut every file exported so far from its nuclei
    assert object_uuid(1, "case 1") == "d55621f2-f228-5f23-97d6-403ab45bab3f"


def tiles(count: int, seed: int = 0) -> list[tuple[np.ndarray, tuple[int, int], pd.DataFrame]]:
    """Tiles of twelve nuclei each, beside each other."""
    rng = np.random.default_rng(seed)
    made = []
    for tile in range(count):
        labels = np.zeros((30, 40), np.uint32)
        ids = 12 * tile + np.arange(1, 13)
        for k, id_ in enumerate(ids.tolist()):
            labels[
                k // 4 * 10 : k // 4 * 10 + rng.integers(3, 9), k % 4 * 10 : k % 4 * 10 + rng.integers(3, 9)
            ] = id_
        table = pd.DataFrame({"id": ids, "class": rng.choice(["a", NO_CLASS], 12), "score": rng.random(12)})
        made.append((labels, (100, 40 * tile), table))
    return made


def whole_of(made: list) -> tuple[np.ndarray, pd.DataFrame]:
    labels = np.zeros((130, 40 * len(made)), np.uint32)
    labels[100:] = np.concatenate([part for part, _, _ in made], axis=1)
    return labels, pd.concat([table for _, _, table in made], ignore_index=True)


def test_tiles_make_the_file_that_the_whole_makes(tmp_path: Path) -> None:
    made = tiles(5)
    with GeoJsonWriter(tmp_path / "t.geojson", {"a": "#ff0000"}, "case 7") as writer:
        for tile in made:
            writer.add(*tile)
        assert writer.close() == [tmp_path / "t.geojson"]
    write_geojson(tmp_path / "w.geojson", *whole_of(made), {"a": (255, 0, 0)}, "case 7")
    assert (tmp_path / "t.geojson").read_bytes() == (tmp_path / "w.geojson").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_lazy_labels_are_read_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, table = whole_of(tiles(3))
    write_geojson(tmp_path / "whole.geojson", labels, table)
    monkeypatch.setattr("napari_nucseg.io.polygons._BAND_PIXELS", 5 * labels.shape[1])
    stored = zarr.create_array(str(tmp_path / "a.zarr"), shape=labels.shape, dtype="i8", chunks=(16, 16))
    stored[:] = labels
    write_geojson(tmp_path / "bands.geojson", stored, table)

    def by_id(name: str) -> dict[str, dict]:
        return {f["id"]: f for f in json.loads((tmp_path / name).read_text())["features"]}

    assert by_id("bands.geojson") == by_id("whole.geojson")


def test_a_text_that_is_longer_than_the_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = whole_of(tiles(3))
    write_geojson(tmp_path / "a.geojson", *made)
    monkeypatch.setattr("napari_nucseg.io.geojson._BUFFER", 50)
    write_geojson(tmp_path / "b.geojson", *made)
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_many_nuclei_make_parts(tmp_path: Path) -> None:
    made = tiles(5)
    path = tmp_path / "case 7_nuclei.geojson"
    write_geojson(path, *whole_of(made), namespace="case 7")
    older = json.loads(path.read_text())["features"]

    def write(part_nuclei: int | None) -> list[Path]:
        with GeoJsonWriter(path, None, "case 7", part_nuclei=part_nuclei) as writer:
            for tile in made:
                writer.add(*tile)
            return writer.close()

    for part_nuclei, parts in ((12, 5), (30, 3), (1, 5)):
        assert write(part_nuclei) == [tmp_path / "case 7_geojson"]
        assert list(tmp_path.iterdir()) == [tmp_path / "case 7_geojson"]
        files = sorted((tmp_path / "case 7_geojson").iterdir())
        assert [file.name for file in files] == [f"part-{k:04}.geojson" for k in range(1, parts + 1)]
        features = [f for file in files for f in json.loads(file.read_text())["features"]]
        assert features == older
    assert write(60) == [path]
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(path.read_text())["features"] == older


def test_an_error_leaves_older_files(tmp_path: Path) -> None:
    path = tmp_path / "case 7_nuclei.geojson"
    path.write_text("older")

    def broken() -> None:
        with GeoJsonWriter(path, part_nuclei=12) as writer:
            for tile in tiles(2):
                writer.add(*tile)
            writer.add(*tiles(1)[0][:2], pd.DataFrame({"id": [1, 1]}))

    with pytest.raises(NucSegError, match="two rows"):
        broken()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "older"


def test_figures_are_those_of_the_csv(tmp_path: Path) -> None:
    columns = {
        "mass": [1e-300, 1.5, np.inf],
        "count": np.array([2**60, 3, -4]),
        "n": pd.array([1, None, 2], "Int64"),
    }
    features = exported(tmp_path, **columns, area=[123456.789012, 1e-7, 1e21])
    measured = [feature["properties"]["measurements"] for feature in features]
    assert measured == [
        {"NucSeg id": 1, "mass": 1e-300, "count": 2**60, "n": 1, "area": 123456.79},
        {"NucSeg id": 2, "mass": 1.5, "count": 3, "area": 1e-7},
        {"NucSeg id": 3, "count": -4, "n": 2, "area": 1e21},
    ]
    write_csv(tmp_path / "n.csv", pd.DataFrame({"area": [123456.789012]}))
    assert (tmp_path / "n.csv").read_text() == "area\n123456.79\n"


def test_names_are_written_as_json_wants_them(tmp_path: Path) -> None:
    name = 'Lymphozyt "äöü" \\ \n'
    first, *_ = exported(tmp_path, **{"class": [name] * 3, name: [1.0, 2, 3]})
    assert first["properties"]["classification"]["name"] == name
    assert first["properties"]["measurements"][name] == 1
