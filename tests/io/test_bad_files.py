"""Every file that can't be used is refused in one sentence that names it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import read_image
from tests.io.make_slides import halved, picture, write_pyramid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RGB = picture(100, 120)


def _cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _image(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def _tiff(path: Path, pixels: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, pixels, **options)
    return path


def _two_sizes(path: Path) -> Path:
    with tifffile.TiffWriter(path) as tif:
        tif.write(RGB, photometric="rgb", metadata=None)
        tif.write(RGB[:50, :70].copy(), photometric="rgb", metadata=None)
    return path


def _cmyk(path: Path) -> Path:
    Image.fromarray(RGB).convert("CMYK").save(path)
    return path


def _animation(path: Path) -> Path:
    Image.fromarray(RGB).save(path, save_all=True, append_images=[Image.fromarray(RGB[::-1])])
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


GREY = RGB[..., 0].copy()
STACK = np.stack([GREY] * 3)
PIXEL = np.zeros((1, 1, 3), np.uint8)
INK = np.dstack([RGB, RGB[..., :1]])
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda p: p / "no.png", "does not exist"),
    "folder": (lambda p: _folder(p / "f.tif"), "is a folder"),
    "empty file": (lambda p: _write(p / "e.tif", b""), "is empty"),
    "extension": (lambda p: _write(p / "a.txt", b"x"), "the extension must be"),
    "no extension": (lambda p: _write(p / "a", b"x"), "the extension must be"),
    "text as tif": (lambda p: _write(p / "t.tif", b"hello, world\n" * 9), "not a TIFF file"),
    "text as png": (lambda p: _write(p / "t.png", b"hello, world\n" * 9), "cannot identify"),
    "noise as svs": (lambda p: _write(p / "b.svs", np.random.default_rng(1).bytes(1001)), "not a TIFF file"),
    "TIFF header only": (lambda p: _write(p / "h.tif", b"II*\0\x08\0\0\0"), "can't be"),
    "head of a slide": (
        lambda p: _write(p / "h.svs", b"II*\0" + (9000).to_bytes(4, "little") + bytes(4000)),
        "damaged or not wholly copied; copy the file again",
    ),
    "truncated png": (lambda p: _cut(_image(p / "c.png", RGB), 0.6), "can't be read"),
    "truncated jpeg": (lambda p: _cut(_image(p / "c.jpg", RGB), 0.6), "truncated"),
    "truncated bmp": (lambda p: _cut(_image(p / "c.bmp", RGB), 0.6), "truncated"),
    "truncated tiff": (lambda p: _cut(_tiff(p / "c.tif", RGB), 0.6), "truncated"),
    "truncated pyramid": (lambda p: _cut(write_pyramid(p / "c.tif", halved(RGB, 1)), 0.6), "can't|truncated"),
    "one pixel png": (lambda p: _image(p / "1.png", PIXEL), "too small"),
    "one pixel tiff": (lambda p: _tiff(p / "1.tif", PIXEL, photometric="rgb"), "too small"),
    "3 grey pages": (lambda p: _tiff(p / "s.tif", STACK, photometric="minisblack"), "holds 3 pages"),
    "3 RGB pages": (lambda p: _tiff(p / "s.tif", np.stack([RGB] * 3), photometric="rgb"), "holds 3 pages"),
    "imagej": (lambda p: _tiff(p / "s.tif", STACK, imagej=True, metadata={"axes": "ZYX"}), "holds 3 pages"),
    "ome stack": (lambda p: _tiff(p / "s.ome.tif", STACK, metadata={"axes": "ZYX"}), "holds 3 pages"),
    "two sizes": (lambda p: _two_sizes(p / "2.tif"), "holds 2 pages"),
    "cmyk tiff": (lambda p: _tiff(p / "k.tif", INK, photometric="separated"), "SEPARATED"),
    "cmyk jpeg": (lambda p: _cmyk(p / "k.jpg"), "CMYK"),
    "bilevel": (lambda p: _tiff(p / "b.tif", GREY > 99), "dtype bool"),
    "12 bits": (lambda p: _tiff(p / "w.tif", RGB.astype("u2") * 16, photometric="rgb"), "white level"),
    "NaN": (lambda p: _tiff(p / "n.tif", np.full((99, 99), np.nan, np.float32)), "NaN"),
    "two channels": (
        lambda p: _tiff(p / "2.tif", RGB[..., :2].copy(), planarconfig="contig", photometric="minisblack"),
        "2 channels",
    ),
    "animation": (lambda p: _animation(p / "a.png"), "2 frames"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    make, pattern = BAD[name]
    path = make(tmp_path)
    with pytest.raises(NucSegError, match=pattern) as error:
        read_image(path)
    sentence = str(error.value)
    assert path.name in sentence
    assert "\n" not in sentence
    assert not re.search(r"\. [A-Z]", sentence)
    assert len(sentence) < 330


@pytest.mark.parametrize("compression", ["zlib", "jpeg", "lzw"])
def test_a_damaged_tile_names_the_file(tmp_path: Path, compression: str) -> None:
    path = write_pyramid(tmp_path / "d.tif", [picture()], compression=compression)
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[8], tif.pages[0].databytecounts[8]
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    with read_image(path) as slide:
        slide.read(0, 64, 0, 401)
        with pytest.raises(NucSegError, match=r"d\.tif can't be read: tile 8 of level 0 is damaged"):
            slide.read(64, 128, 0, 401)


def test_a_damaged_file_is_closed_again(tmp_path: Path) -> None:
    path = _tiff(tmp_path / "s.tif", STACK, photometric="minisblack")
    with pytest.raises(NucSegError):
        read_image(path)
    path.unlink()


def test_the_real_broken_slide(shared: Path) -> None:
    with pytest.raises(NucSegError, match=r"broken\.svs can't be read"):
        read_image(shared / "wsi" / "broken.svs")
