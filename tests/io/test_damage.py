"""A damaged place becomes glass and is named; the rest is as in the sound file, whatever the windows."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.damage import Damage, Tolerant
from napari_nucseg.io.slide import ImageSource, as_source, read_image
from tests.io.make_slides import halved, picture, write_pyramid

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = np.minimum(picture(700, 900), 254)


def damage_tile(path: Path, number: int, page: int = 0) -> Path:
    with tifffile.TiffFile(path) as tif:
        at = tif.series[0].levels[page].pages[0]
        offset, count = at.dataoffsets[number], at.databytecounts[number]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    return path


class Holed:
    """A source in memory with single pixels that can't be read, and no tiles of its own."""

    def __init__(self, image, holes):
        self._inner, self._holes = as_source([image, image[::2, ::2]], 0.25), holes
        self.mpp, self.shape, self.level_shapes = self._inner.mpp, self._inner.shape, self._inner.level_shapes

    def read(self, y0, y1, x0, x1, level=0):
        if level == 0 and any(y0 <= y < y1 and x0 <= x < x1 for y, x in self._holes):
            raise OSError("no such sector")
        return self._inner.read(y0, y1, x0, x1, level)


def test_sound_sources_are_read_as_they_are(tmp_path: Path):
    with read_image(write_pyramid(tmp_path / "a.tif", halved(IMAGE, 1))) as slide:
        source = Tolerant(slide)
        assert isinstance(source, ImageSource)
        assert source.level_shapes == slide.level_shapes
        for level in (0, 1):
            np.testing.assert_array_equal(source.read(3, 90, 5, 300, level), slide.read(3, 90, 5, 300, level))
        assert source.read(5, 5, 0, 10).shape == (0, 10, 3)
        assert source.damages == []
        with pytest.raises(NucSegError, match="do not lie in level 0"):
            source.read(0, 701, 0, 5)
        assert as_source(source, 0.3).mpp.value == 0.3


@pytest.mark.parametrize("compression", ["jpeg", "zlib"])
def test_one_damaged_tile_is_glass_and_named_once(tmp_path: Path, compression: str):
    sound = read_image(write_pyramid(tmp_path / "a.tif", halved(IMAGE, 1), compression=compression))
    path = damage_tile(write_pyramid(tmp_path / "b.tif", halved(IMAGE, 1), compression=compression), 17)
    place = Box(64, 128, 128, 192)  # 15 tiles a row
    expected = sound.read(0, 700, 0, 900)
    expected[place.slices] = 255
    with read_image(path) as slide:
        source = Tolerant(slide)
        np.testing.assert_array_equal(source.read(0, 700, 0, 900), expected)
        np.testing.assert_array_equal(source.read(100, 300, 150, 160), expected[100:300, 150:160])
        assert [(d.level, d.box) for d in source.damages] == [(0, place)]
        assert "tile 17 of level 0 is damaged" in source.damages[0].reason
        np.testing.assert_array_equal(source.read(0, 350, 0, 450, 1), sound.read(0, 350, 0, 450, 1))
        assert len(source.damages) == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_windows_and_their_order_change_nothing(seed: int):
    rng = np.random.default_rng(seed)
    holes = [(int(rng.integers(700)), int(rng.integers(900))) for _ in range(2)]
    expected = IMAGE.copy()
    places = {(y // 256, x // 256) for y, x in holes}
    for row, column in places:
        expected[row * 256 : row * 256 + 256, column * 256 : column * 256 + 256] = 255
    source = Tolerant(Holed(IMAGE, holes))
    for _ in range(12):
        y0, y1 = sorted(rng.integers(0, 701, 2).tolist())
        x0, x1 = sorted(rng.integers(0, 901, 2).tolist())
        np.testing.assert_array_equal(source.read(y0, y1, x0, x1), expected[y0:y1, x0:x1])
    source.read(0, 700, 0, 900)
    assert [d.box for d in source.damages] == [
        Box(r * 256, min(r * 256 + 256, 700), c * 256, min(c * 256 + 256, 900)) for r, c in sorted(places)
    ]


def test_a_read_that_fails_once_is_no_damage():
    class Moody(Holed):
        failures = 0

        def read(self, *region):
            self.failures += 1
            if self.failures % 2:
                raise TimeoutError("the network was slow")
            return super().read(*region)

    source = Tolerant(Moody(IMAGE, []))
    np.testing.assert_array_equal(source.read(10, 600, 20, 800), IMAGE[10:600, 20:800])
    assert source.damages == []


def test_threads_find_the_same(tmp_path: Path):
    path = write_pyramid(tmp_path / "a.tif", [IMAGE])
    for number in (0, 40, 41, 90):
        damage_tile(path, number)
    with read_image(path) as slide:
        alone, shared = Tolerant(slide), Tolerant(slide)
        expected = alone.read(0, 700, 0, 900)
        barrier = threading.Barrier(4)

        def work(seed: int) -> bool:
            rng = np.random.default_rng(seed)
            barrier.wait()
            boxes = [(*sorted(rng.integers(0, 701, 2)), *sorted(rng.integers(0, 901, 2))) for _ in range(15)]
            return all((shared.read(a, b, c, d) == expected[a:b, c:d]).all() for a, b, c, d in boxes)

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))
        shared.read(0, 700, 0, 900)
        assert shared.damages == alone.damages
        assert len(alone.damages) == 4
        assert all(isinstance(damage, Damage) for damage in alone.damages)


def test_too_much_damage_is_refused(tmp_path: Path):
    path = write_pyramid(tmp_path / "a.tif", [IMAGE])  # 165 tiles
    for number in range(0, 160, 9):
        damage_tile(path, number)
    with read_image(path) as slide, pytest.raises(NucSegError, match=r"a\.tif can't be read: 17 of the 165"):
        Tolerant(slide).read(0, 700, 0, 900)
    with pytest.raises(NucSegError, match="1 of the 1 parts of level 0 are damaged"):
        Tolerant(Holed(IMAGE[:200, :200], [(5, 5)])).read(0, 9, 0, 9)


def test_a_file_that_changes_or_goes_is_no_damage(tmp_path: Path):
    path = damage_tile(write_pyramid(tmp_path / "a.tif", [IMAGE]), 3)
    with read_image(path) as slide:
        source = Tolerant(slide)
        assert (source.read(0, 64, 192, 256) == 255).all()
        with path.open("ab") as file:
            file.write(b"more")
        damage_tile(path, 30)
        with pytest.raises(NucSegError, match=r"a\.tif was changed while it was being read"):
            source.read(128, 192, 0, 64)
        path.unlink()
        with pytest.raises(NucSegError, match=r"a\.tif has gone while it was being read"):
            source.read(128, 192, 0, 64)
    with pytest.raises(NucSegError, match="has been closed"):
        source.read(0, 10, 0, 10)
    assert len(source.damages) == 1
