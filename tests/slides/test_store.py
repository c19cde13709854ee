"""Finished tiles on disk."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.inference import Tile, no_nuclei
from napari_nucseg.slides import store as store_module
from napari_nucseg.slides.store import TileStore, fingerprint, identity
from napari_nucseg.slides.tilefile import DamagedTile, pack, unpack


def make_tile(n, shape=(40, 50), index=(1, 2), seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n + 1, shape, dtype=np.uint32)
    table = pd.DataFrame(
        {
            "id": np.arange(1, n + 1, dtype=np.uint32),
            "centre_y": rng.random(n),
            "class": np.array([f"kind {k % 3} µ" for k in range(n)], object),
            "score": rng.random(n).astype(np.float32),
        }
    )
    return Tile(index, Box(7, 7 + shape[0], 3, 3 + shape[1]), labels, table)


def same(a, b):
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.labels.dtype == b.labels.dtype == np.uint32
    assert (a.index, a.box) == (b.index, b.box)
    pd.testing.assert_frame_equal(a.nuclei, b.nuclei)
    return True


@given(
    n=st.sampled_from([0, 1, 7, 300, 70_000]),
    height=st.integers(0, 60),
    width=st.integers(0, 60),
    seed=st.integers(0, 5),
)
@settings(max_examples=30, deadline=None)
def test_a_tile_comes_back_as_it_went(n, height, width, seed):
    tile = make_tile(n, (height, width), seed=seed)
    again, notes = unpack(pack(tile, {"damaged": [[0, 1, 2, 3, 4, "why"]]}))
    assert same(tile, again)
    assert notes == {"damaged": [[0, 1, 2, 3, 4, "why"]]}


def test_the_empty_table_of_a_slide_keeps_its_columns():
    tile = Tile((0, 0), Box(0, 0, 0, 0), np.zeros((0, 0), np.uint32), no_nuclei(("a", "b")))
    assert same(tile, unpack(pack(tile, {}))[0])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_change_of_a_byte_and_any_cut_is_noticed(data):
    whole = pack(make_tile(5), {})
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    for bad in (bytes(changed), whole[:at]):
        with pytest.raises(DamagedTile):
            unpack(bad)


def test_damaged_and_foreign_files_count_as_missing(tmp_path):
    store = TileStore(tmp_path / "tiles")
    assert store.finished([(0, 0)]) == {}
    for k in range(4):
        store.put(make_tile(k, index=(0, k)), {"k": k})
    assert store.finished([(0, k) for k in range(5)]) == {(0, k): (k, {"k": k}) for k in range(4)}
    cut = store.path((0, 1))
    cut.write_bytes(cut.read_bytes()[:-1])
    store.path((0, 2)).write_bytes(store.path((0, 3)).read_bytes())  # a tile of another place
    assert set(store.finished([(0, k) for k in range(5)])) == {(0, 0), (0, 3)}
    assert store.get((0, 1)) is None
    assert store.get((0, 2)) is None
    assert same(store.get((0, 3))[0], make_tile(3, index=(0, 3)))


def test_nothing_half_written_remains_when_the_disk_is_full(tmp_path, monkeypatch):
    store = TileStore(tmp_path)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.os, "replace", full)
    with pytest.raises(NucSegError, match=r"No space left on device.*kept.*repeat") as error:
        store.put(make_tile(3))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_large_tile_costs_little_time(tmp_path):
    """Blobs like nuclei: 1,700 pixels a side, 2,000 of them."""
    labels = np.zeros((1700, 1700), np.uint32)
    for k in range(2000):
        y, x = divmod(k, 50)
        labels[y * 42 : y * 42 + 25, x * 34 : x * 34 + 22] = k + 1
    tile = make_tile(2000)
    tile = Tile(tile.index, Box(0, 1700, 0, 1700), labels, tile.nuclei)
    pack(tile, {})
    took = []
    for _ in range(7):
        began = time.process_time()
        data = pack(tile, {})
        took.append(time.process_time() - began)
    assert len(data) < 400_000
    assert min(took) < 0.06  # 15 ms on a free machine


def test_the_fingerprint_tells_settings_apart():
    facts = {"mpp": 0.25, "grid": (1, 2), "box": Box(0, 1, 2, 3)}
    assert fingerprint(facts) == fingerprint(dict(reversed(facts.items())))
    others = [{**facts, "mpp": 0.5}, {**facts, "box": Box(0, 1, 2, 4)}, {**facts, "more": 1}]
    assert len({fingerprint(f) for f in [facts, *others]}) == 4


def test_an_image_that_was_changed_has_another_identity(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"abc")
    first = identity(path)
    assert identity(path) == first
    path.write_bytes(b"abcd")
    assert identity(path) != first
    mrxs = tmp_path / "b.mrxs"
    mrxs.write_bytes(b"x")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "Data0001.dat").write_bytes(b"y")
    before = identity(mrxs)
    (tmp_path / "b" / "Data0001.dat").write_bytes(b"yy")
    assert identity(mrxs) != before
    path.unlink()
    with pytest.raises(NucSegError, match="cannot be read any more"):
        identity(path)
