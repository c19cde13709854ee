"""A pyramid painted tile by tile, in any order, is the one that slicing the whole labels gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io import canvases
from napari_nucseg.io.omezarr import LabelPyramid, open_labels

if TYPE_CHECKING:
    from pathlib import Path


def some_labels(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    for id_ in range(1, shape[0] * shape[1] // 60):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        spot = labels[y : y + 6, x : x + 6]
        spot[spot == 0] = id_ if id_ % 7 else 2**32 - id_
    return labels


def tiles_of(labels: np.ndarray, size: int) -> dict[tuple[int, int], tuple[Box, np.ndarray]]:
    """Cut labels so that every tile holds the whole of the nuclei whose first pixel lies in it."""
    flat = labels.ravel()
    ids, first = np.unique(flat, return_index=True)
    tiles = {}
    for y in range(0, labels.shape[0], size):
        for x in range(0, labels.shape[1], size):
            rows, cols = np.divmod(first, labels.shape[1])
            own = ids[(rows // size == y // size) & (cols // size == x // size) & (ids > 0)]
            box = Box(y, y + size, x, x + size).grown(8, labels.shape)
            tiles[y, x] = box, np.where(np.isin(labels[box.slices], own), labels[box.slices], 0)
    return tiles


def write(path: Path, labels: np.ndarray, size: int, order: list | None = None, **options: object) -> None:
    tiles = tiles_of(labels, size)
    with LabelPyramid(path, labels.shape, 0.5, **options) as pyramid:
        pyramid.expect({key: box for key, (box, _) in tiles.items()})
        for key in order or tiles:
            pyramid.paint(key, *tiles[key])


def check(path: Path, labels: np.ndarray) -> None:
    expected = labels
    for level in open_labels(path):
        np.testing.assert_array_equal(level[:], expected)
        expected = expected[::2, ::2]


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    chunk=st.sampled_from([2, 8, 16, 64]),
    size=st.integers(8, 50),
    held=st.sampled_from([1, 2**20]),
    data=st.data(),
)
def test_any_order_of_tiles(
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    chunk: int,
    size: int,
    held: int,
    data: st.DataObject,
) -> None:
    labels = some_labels((height, width))
    order = data.draw(st.permutations(list(tiles_of(labels, size))))
    path = tmp_path_factory.mktemp("any") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvases, "_HELD_BYTES", held)  # 1: four canvases, the others wait compressed
        write(path, labels, size, order, chunk=chunk)
    check(path, labels)
    assert max(open_labels(path)[-1].shape) <= chunk


def test_metadata_is_that_of_a_label_image_of_ngff(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", some_labels((100, 70)), 40, chunk=32)
    attributes = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())
    (image,) = attributes["multiscales"]
    assert attributes["image-label"] == {"version": "0.4"}
    assert image["version"] == "0.4"
    assert image["axes"] == [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scales = [d["coordinateTransformations"] for d in image["datasets"]]
    assert scales == [[{"type": "scale", "scale": [s, s]}] for s in (0.5, 1.0, 2.0)]
    array = zarr.open_array(str(tmp_path / "a.zarr" / "1"), mode="r")
    assert (array.shape, array.chunks, array.dtype) == ((50, 35), (32, 32), np.uint32)
    assert array.metadata.zarr_format == 2
    assert (tmp_path / "a.zarr" / "0" / "1" / "0").is_file()  # "/" between the indices


def test_each_chunk_is_written_once_as_soon_as_it_can_be_and_empty_ones_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = some_labels((64, 64))
    labels[32:, :32] = 0
    written = []
    write_ = LabelPyramid._write
    monkeypatch.setattr(
        LabelPyramid,
        "_write",
        lambda self, place, canvas: (written.append(place), write_(self, place, canvas)),
    )
    tiles = tiles_of(labels, 16)
    with LabelPyramid(tmp_path / "a.zarr", (64, 64), chunk=16) as pyramid:
        pyramid.expect({key: box for key, (box, _) in tiles.items()})
        for key in list(tiles)[:12]:
            pyramid.paint(key, *tiles[key])
        assert (0, 0, 0) in written
        assert (1, 0, 0) in written  # its four chunks, and the tiles around them, are done
        for key in list(tiles)[12:]:
            pyramid.done(key)
    assert len(set(written)) == len(written)
    assert (0, 1, 1) in written
    assert not [place for place in written if place[0] == 0 and place[1] >= 2 and place[2] < 2]


def test_few_canvases_are_in_memory_at_a_time(tmp_path: Path) -> None:
    labels = some_labels((256, 256))
    tiles = tiles_of(labels, 48)
    most = 0
    with LabelPyramid(tmp_path / "a.zarr", labels.shape, chunk=16) as pyramid:
        pyramid.expect({key: box for key, (box, _) in tiles.items()})
        for key, tile in tiles.items():
            pyramid.paint(key, *tile)
            most = max(most, len(pyramid._canvases._arrays) + len(pyramid._canvases._parked))
    assert most < 0.35 * 256  # of all the chunks of level 0: two rows of tiles, and the levels above


def test_tiles_left_over_paint_nothing(tmp_path: Path) -> None:
    labels = some_labels((60, 60))
    tiles = tiles_of(labels, 30)
    with LabelPyramid(tmp_path / "a.zarr", labels.shape, chunk=16) as pyramid:
        pyramid.expect({key: box for key, (box, _) in tiles.items()})
        for key in list(tiles)[:2]:
            pyramid.paint(key, *tiles[key])
    expected = np.zeros_like(labels)
    for key in list(tiles)[:2]:
        box, part = tiles[key]
        expected[box.slices] |= part
    check(tmp_path / "a.zarr", expected)


def test_nothing_expected_is_an_image_without_nuclei(tmp_path: Path) -> None:
    with LabelPyramid(tmp_path / "a.zarr", (50, 60), chunk=16):
        pass
    assert not open_labels(tmp_path / "a.zarr")[0][:].any()


def test_an_older_folder_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    older, newer = some_labels((60, 60)), some_labels((80, 40), 1)
    write(path, older, 30, chunk=16)
    tiles = tiles_of(newer, 30)

    def broken() -> None:
        with LabelPyramid(path, newer.shape, chunk=16) as pyramid:
            pyramid.expect({key: box for key, (box, _) in tiles.items()})
            pyramid.paint((0, 0), *tiles[0, 0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    check(path, older)
    assert [item.name for item in tmp_path.iterdir()] == ["a.zarr"]
    write(path, newer, 30, chunk=16)
    check(path, newer)
    assert [item.name for item in tmp_path.iterdir()] == ["a.zarr"]


def test_what_is_not_due_is_refused(tmp_path: Path) -> None:
    ones = np.ones((10, 10), np.uint32)
    with LabelPyramid(tmp_path / "a.zarr", (50, 60), chunk=16) as pyramid:
        pyramid.expect({"a": Box(0, 20, 0, 20)})
        for key, box in (("b", Box(0, 10, 0, 10)), ("a", Box(15, 25, 0, 10)), ("a", Box(0, 10, 0, 12))):
            with pytest.raises(NucSegError, match="isn't due there"):
                pyramid.paint(key, box, ones)
        pyramid.paint("a", Box(0, 10, 0, 10), ones)
        with pytest.raises(NucSegError, match="isn't due there"):
            pyramid.paint("a", Box(0, 10, 0, 10), ones)
    with pytest.raises(NucSegError, match="even chunk size"):
        LabelPyramid(tmp_path / "b.zarr", (50, 60), chunk=15)


def test_folders_that_are_no_labels_are_refused(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "image.zarr"), shape=(5, 5), dtype="u1", chunks=(5, 5), zarr_format=2)
    (tmp_path / "empty.zarr").mkdir()
    for name in ("image.zarr", "empty.zarr", "missing.zarr"):
        with pytest.raises(NucSegError, match="no OME-Zarr image"):
            open_labels(tmp_path / name)
    group = zarr.create_group(
        str(tmp_path / "rgb.zarr"), zarr_format=2, attributes={"multiscales": [{"datasets": [{"path": "0"}]}]}
    )
    group.create_array("0", shape=(3, 5, 5), dtype="u1", chunks=(3, 5, 5))
    with pytest.raises(NucSegError, match="labels are"):
        open_labels(tmp_path / "rgb.zarr")
