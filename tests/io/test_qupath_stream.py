"""GeoJSON is read feature by feature; whatever else a file is, is told in one sentence."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_nucseg.errors import NucSegError
from napari_nucseg.io import qupath_stream
from napari_nucseg.io.qupath_stream import FeatureStream

if TYPE_CHECKING:
    from pathlib import Path

POINT = {"type": "Point", "coordinates": [1.25, 2]}
FEATURES = [
    {"type": "Feature", "geometry": POINT, "properties": {"name": 'a "}],{[ \\ ü \n'}},
    {"type": "Feature", "geometry": None, "id": "-1"},
    {"type": "Feature", "geometry": POINT, "properties": {"measurements": {"a": 1e300}}},
]
COLLECTION = {
    "type": "FeatureCollection",
    "crs": {"x": ["features", []]},
    "features": FEATURES,
    "bbox": [1, 2],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def written(folder: Path, data: str | bytes, name: str = "a.geojson") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize(
    ("document", "features"),
    [
        (COLLECTION, FEATURES),
        (FEATURES, FEATURES),
        (FEATURES[0], FEATURES[:1]),
        (POINT, [{"type": "Feature", "geometry": POINT}]),
        ({"type": "FeatureCollection", "features": []}, []),
        ({"features": FEATURES}, FEATURES),
        ([], []),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_all_the_forms(tmp_path: Path, document: object, features: list, indent: int | None) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert list(FeatureStream(written(tmp_path, text.encode(encoding)))) == features
    stream = FeatureStream(written(tmp_path, gzip.compress(text.encode()), "a.geojson.gz"))
    assert list(stream) == features
    assert stream.fraction == 1
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("case/a.geojson", text)
    assert list(FeatureStream(tmp_path / "a.zip")) == features


@settings(deadline=None, max_examples=60)
@example([0.0, 12, 1.5e-07, -1e300, "a\\", True], 1)
@given(st.lists(JSON, max_size=4), st.integers(1, 7))
def test_pieces_of_any_size(tmp_path_factory: pytest.TempPathFactory, values: list, piece: int) -> None:
    path = tmp_path_factory.mktemp("s") / "a.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qupath_stream, "_PIECE", piece)
        for document in (values, {"type": "FeatureCollection", "features": values}):
            written(path.parent, json.dumps(document, ensure_ascii=False), path.name)
            assert list(FeatureStream(path)) == values


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_file_cut_anywhere_is_told(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    text = json.dumps(COLLECTION)
    end = data.draw(st.integers(0, len(text) - 1))
    path = written(tmp_path_factory.mktemp("s"), text[:end])
    with pytest.raises(NucSegError, match="cut short or no JSON") if end else pytest.raises(NucSegError):
        list(FeatureStream(path))


def test_the_place_of_a_cut_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(FEATURES)[:-3])
    with pytest.raises(
        NucSegError, match=r"a\.geojson is cut short or no JSON: after 2 objects, at character \d+"
    ):
        list(FeatureStream(path))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "cut short or no JSON"),
        (b" \n ", "cut short or no JSON"),
        (b"id,y,x\n1,2,3\n", "no JSON"),
        (b"<html>", "no JSON"),
        (b"42", "no GeoJSON"),
        (b'{"a": 1}', "no GeoJSON"),
        (b'{"type": "Topology", "objects": {}}', "no GeoJSON"),
        (b'{"features": [] "a": 1}', "no JSON"),
        (b"{1: 2}", "no JSON"),
        (b"[] []", "something follows"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" + b"9" * 5000 + b"]", "no JSON"),
        (b"\xff\xd8\xff\xe0 a picture", "can't be read"),
        (b'["\xff"]', "can't be read"),
        (b"\x1f\x8b", "can't be read"),
        (gzip.compress(json.dumps(FEATURES * 99).encode())[:-60], "can't be read"),
        (b"PK\x03\x04 no archive", "can't be read"),
    ],
)
def test_no_geojson(tmp_path: Path, data: bytes, match: str) -> None:
    with pytest.raises(NucSegError, match=match) as caught:
        list(FeatureStream(written(tmp_path, data)))
    assert "a.geojson" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_a_folder_and_an_archive_of_two(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.geojson", "[]")
        archive.writestr("b.json", "[]")
    for path, match in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "can't be read"),
        (tmp_path / "a.zip", "2 Geo"),
    ):
        with pytest.raises(NucSegError, match=match):
            list(FeatureStream(path))


def test_a_long_file_needs_little_memory(tmp_path: Path) -> None:
    one = json.dumps({"type": "Feature", "geometry": POINT, "properties": {"name": "x" * 400}})
    path = written(tmp_path, "[" + ",".join([one] * 20_000) + "]")
    assert path.stat().st_size > 10_000_000
    tracemalloc.start()
    assert sum(1 for _ in FeatureStream(path)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_wrong_character_ends_the_reading_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, '[{"a": 1}, {"b": }' + '{"type": "Feature"},\n' * 400_000)
    stream = FeatureStream(path)
    with pytest.raises(NucSegError, match="after 1 objects"):
        list(stream)
    assert stream.fraction < 0.3


def test_one_long_value_takes_linear_time(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps([{"c": [[0.123456789, 1.123456789]] * 400_000}]))
    start = time.perf_counter()
    (feature,) = FeatureStream(path)
    assert len(feature["c"]) == 400_000
    assert time.perf_counter() - start < 8


def test_what_the_consumer_raises_goes_through(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(COLLECTION))

    def consume() -> None:
        for _ in FeatureStream(path):
            raise OSError("the consumer's own")

    with pytest.raises(OSError, match="the consumer's own"):
        consume()
