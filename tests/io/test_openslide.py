"""What is read through OpenSlide is what tifffile reads, also after an error, and is told where it can't be."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_nucseg.errors import NucSegError
from napari_nucseg.io import openslide as module
from napari_nucseg.io import slide
from napari_nucseg.io.damage import Tolerant
from napari_nucseg.io.openslide import OpenSlidePyramid
from napari_nucseg.io.slide import read_image
from napari_nucseg.io.tiff import TiffPyramid
from tests.io.make_slides import halved, picture, write_pyramid, write_svs

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("openslide")


def write_flat(path: Path, levels: list[np.ndarray], **options) -> Path:
    """A pyramid with its levels one page after the other, as OpenSlide wants it."""
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib", "metadata": None, **options}
    with tifffile.TiffWriter(path) as tif:
        for k, level in enumerate(levels):
            tif.write(level, subfiletype=int(k > 0), **options)
    return path


def both(path: Path):
    return read_image(path, reader="tifffile"), read_image(path, reader="openslide")


def test_the_real_slide_is_the_same_through_both(shared: Path):
    ours, theirs = both(shared / "wsi" / "CMU-1-Small-Region.svs")
    assert isinstance(ours._pixels, TiffPyramid)
    assert isinstance(theirs._pixels, OpenSlidePyramid)
    assert ours.level_shapes == theirs.level_shapes
    assert ours.mpp.value == theirs.mpp.value == 0.499
    height, width = ours.shape
    np.testing.assert_array_equal(ours.read(0, height, 0, width), theirs.read(0, height, 0, width))
    np.testing.assert_array_equal(ours.read(1000, 1300, 701, 907), theirs.read(1000, 1300, 701, 907))
    theirs.close()
    with pytest.raises(NucSegError, match="open it again"):
        theirs.read(0, 10, 0, 10)


@pytest.mark.parametrize("sampling", [(1, 1), (2, 1), (2, 2)])
def test_chroma_is_spread_alike_by_both_decoders(tmp_path: Path, sampling: tuple[int, int]):
    rng = np.random.default_rng(1)
    image = np.clip(picture(500, 700).astype(int) + rng.normal(0, 25, (500, 700, 3)), 0, 255).astype(np.uint8)
    path = write_flat(
        tmp_path / "a.tif", [image], compression="jpeg", compressionargs={"level": 80}, subsampling=sampling
    )
    ours, theirs = both(path)
    difference = np.abs(ours.read(0, 500, 0, 700).astype(int) - theirs.read(0, 500, 0, 700))
    assert difference.max() <= 1, (difference.max(), difference.mean())


def test_a_slide_of_the_scanner_is_the_same_through_both(tmp_path: Path):
    levels = halved(picture(600, 800), 1)
    ours, theirs = both(write_svs(tmp_path / "s.svs", levels))
    assert ours.level_shapes == theirs.level_shapes == ((600, 800), (300, 400))
    assert ours.mpp.value == theirs.mpp.value == 0.252
    for level, (height, width) in enumerate(ours.level_shapes):
        a, b = (s.read(0, height, 0, width, level).astype(int) for s in (ours, theirs))
        assert np.abs(a - b).max() <= 1


def test_levels_that_do_not_divide_are_read_alike_in_every_window(tmp_path: Path):
    rng = np.random.default_rng(0)
    levels = [picture(2001, 2403), picture(500, 600)]
    ours, theirs = both(write_flat(tmp_path / "a.tif", levels))
    whole = theirs.read(0, 500, 0, 600, 1)
    difference = np.abs(whole.astype(int) - ours.read(0, 500, 0, 600, 1))  # OpenSlide interpolates
    assert difference.mean() < 1
    assert difference[:-1, :-1, :2].max() <= 8  # smooth
    for _ in range(20):
        (y0, y1), (x0, x1) = sorted(rng.integers(0, 501, 2)), sorted(rng.integers(0, 601, 2))
        np.testing.assert_array_equal(theirs.read(y0, y1, x0, x1, 1), whole[y0:y1, x0:x1])


def test_a_damaged_tile_costs_its_place_only(tmp_path: Path):
    image = np.minimum(picture(900, 1100), 250)
    sound = read_image(write_flat(tmp_path / "a.tif", [image], compression="jpeg"), reader="openslide")
    path = shutil.copy(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[6], tif.pages[0].databytecounts[6]
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    expected = sound.read(0, 900, 0, 1100)
    expected[256:512, 256:512] = 255
    with read_image(path, reader="openslide") as opened:
        with pytest.raises(NucSegError, match=r"b\.tif cannot be read in row 1, column 1"):
            opened.read(0, 900, 0, 1100)
        np.testing.assert_array_equal(opened.read(512, 900, 0, 1100), expected[512:])
        source = Tolerant(opened)
        np.testing.assert_array_equal(source.read(0, 900, 0, 1100), expected)
        assert [(d.box.y0, d.box.x0) for d in source.damages] == [(256, 256)]
        barrier = threading.Barrier(3)

        def work(_: int) -> bool:
            fresh = Tolerant(opened)
            barrier.wait()
            return bool((fresh.read(100, 900, 50, 1100) == expected[100:, 50:]).all())

        with ThreadPoolExecutor(3) as pool:
            assert all(pool.map(work, range(3)))


def test_auto_goes_to_openslide_where_tifffile_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_svs(tmp_path / "s.svs", halved(picture(600, 800), 1))
    assert isinstance(read_image(path)._pixels, TiffPyramid)

    def refuse(self, path):
        raise NucSegError("no such codec")

    monkeypatch.setattr(TiffPyramid, "__init__", refuse)
    assert isinstance(read_image(path)._pixels, OpenSlidePyramid)
    with pytest.raises(NucSegError, match="no such codec"):
        read_image(path, reader="tifffile")
    other = tmp_path / "x.tif"
    other.write_bytes(b"nothing")
    with pytest.raises(NucSegError, match="no such codec"):  # the first refusal is told
        read_image(other)


def test_auto_goes_to_openslide_where_tifffile_reads_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_svs(tmp_path / "s.svs", halved(picture(600, 800), 1))
    monkeypatch.setattr(TiffPyramid, "complete", False)
    assert isinstance(read_image(path)._pixels, OpenSlidePyramid)
    assert isinstance(read_image(path, reader="tifffile")._pixels, TiffPyramid)
    monkeypatch.setitem(sys.modules, "openslide", None)
    assert isinstance(read_image(path)._pixels, TiffPyramid)


def test_a_truncated_file_is_not_handed_on(tmp_path: Path):
    path = write_flat(tmp_path / "s.tif", [picture(600, 800)])
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(NucSegError, match="truncated"):
        read_image(path)


def test_readers_are_checked(tmp_path: Path):
    path = write_pyramid(tmp_path / "p.tif", [picture()])
    with pytest.raises(NucSegError, match="no reader 'vips'"):
        read_image(path, reader="vips")
    bare = tmp_path / "x.tif"
    tifffile.imwrite(bare, picture(), photometric="rgb")  # in strips, which OpenSlide does not read
    with pytest.raises(NucSegError, match="cannot be read as a slide"):
        read_image(bare, reader="openslide")


def test_folders_stand_for_the_slide_that_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = []

    class Fake:
        level_shapes, mpp = ((10, 10),), slide.Mpp()

        def __init__(self, path):
            opened.append(path)

    monkeypatch.setattr(module, "OpenSlidePyramid", Fake)
    data = tmp_path / "a"
    data.mkdir()
    (tmp_path / "a.mrxs").write_text("x")
    (data / "Slidedat.ini").write_text("x")
    (data / "Data0000.dat").write_text("x")
    read_image(data)
    read_image(tmp_path)
    series = tmp_path / "series"
    series.mkdir()
    for name in ("1.dcm", "2.dcm", ".hidden"):
        (series / name).write_text("x")
    read_image(series)
    assert opened == [tmp_path / "a.mrxs", tmp_path / "a.mrxs", series / "1.dcm"]
    (tmp_path / "b.mrxs").write_text("x")
    with pytest.raises(NucSegError, match="is a folder, not an image"):
        read_image(tmp_path)


def test_opening_is_instant(shared: Path):
    for reader in ("tifffile", "openslide"):
        start = time.perf_counter()
        read_image(shared / "wsi" / "CMU-1-Small-Region.svs", reader=reader).close()
        assert time.perf_counter() - start < 0.2


def test_broken_slides_are_told_in_one_sentence(tmp_path: Path):
    path = tmp_path / "slide.mrxs"
    path.write_text("no slide")
    with pytest.raises(NucSegError, match=r"slide\.mrxs cannot be read as a slide"):
        read_image(path)


def test_a_missing_openslide_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    path = tmp_path / "slide.mrxs"
    path.write_text("no slide")
    with pytest.raises(NucSegError, match="pip install openslide-python"):
        read_image(path)
    assert ".mrxs" in slide.EXTENSIONS
