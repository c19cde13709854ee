import multiprocessing
import pickle

import numpy as np
import pytest
from PIL import Image

from napari_nucseg.errors import NucSegError
from train.pixels import Pixels, PixelStore, read_image
from train.scan import ImageFiles, look

SHAPES = [(20, 30), (7, 5), (64, 64), (1, 1)]


class Reader:
    """Makes pixels that tell which image they are of, and counts."""

    def __init__(self):
        self.calls = []

    def __call__(self, position):
        self.calls.append(position)
        shape = SHAPES[position]
        rng = np.random.default_rng(position)
        labels = rng.integers(0, 70_000 if position == 2 else 60_000, shape)
        labels = labels.astype(np.int32 if position == 2 else np.uint16)
        types = rng.integers(0, 6, shape).astype(np.uint8) if position % 2 else None
        return Pixels(rng.integers(0, 256, (*shape, 3), np.uint8), labels, types)


def same(a, b):
    pairs = ((a.image, b.image), (a.labels, b.labels), (a.types, b.types))
    return all((x is None) == (y is None) and np.array_equal(x, y) for x, y in pairs if x is not y)


@pytest.mark.parametrize("limit", [0, 100, 5000, 1 << 20])
def test_what_is_kept_is_what_was_read_whatever_the_limit(limit):
    store = PixelStore(Reader(), SHAPES, limit)
    for position in [0, 1, 2, 3, 2, 0, 3, 1, 1]:
        found = store[position]
        assert same(found, Reader()(position))
        assert found.labels.dtype == Reader()(position).labels.dtype
    assert store.kept <= limit


def test_each_image_is_read_once_where_all_fit_and_the_limit_holds_where_not():
    reader = Reader()
    store = PixelStore(reader, SHAPES, 1 << 20)
    for _ in range(3):
        for position in range(4):
            assert not store[position].image.flags.writeable
    assert reader.calls == [0, 1, 2, 3]
    reader.calls.clear()
    small = PixelStore(reader, SHAPES, 4000)  # 0, 1 and 3 fit, 2 does not
    for _ in range(3):
        for position in range(4):
            small[position]
    assert sorted(reader.calls) == [0, 1, 2, 2, 2, 3]
    assert small.kept <= 4000


def test_forked_processes_share_what_any_of_them_read():
    reader = Reader()
    store = PixelStore(reader, SHAPES, 1 << 20)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=lambda: [store[p] for p in range(4)])
    child.start()
    child.join()
    assert child.exitcode == 0
    assert all(same(store[p], Reader()(p)) for p in range(4))
    assert reader.calls == []  # of this process


def test_a_spawned_process_begins_with_an_empty_memory_of_its_own():
    store = PixelStore(Reader(), SHAPES, 1 << 20)
    store[2]
    other = pickle.loads(pickle.dumps(store))
    assert other.kept == 0
    assert same(other[2], store[2])
    assert other.kept > 0


def test_a_picture_too_large_for_its_reader_is_named(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    for read in (read_image, lambda path: look(ImageFiles(path))):
        with pytest.raises(NucSegError, match=r"a\.png' can't be read \(Image size \(1600 pixels\)"):
            read(tmp_path / "a.png")


def test_a_damaged_image_is_named(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((50, 50, 3), np.uint8) + 7).save(path)
    assert (read_image(path) == 7).all()
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(NucSegError, match=r"a\.png"):
        read_image(path)


def test_an_image_that_changed_its_size_is_told():
    with pytest.raises(NucSegError, match="changed"):
        PixelStore(Reader(), [(20, 31)], 0)[0]
