"""What the export says of a review, and by what its objects are known again."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_nucseg.io.geojson import NO_CLASS, object_uuid, object_uuids, write_geojson

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
