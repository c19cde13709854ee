"""A region of a file equals the same part of the whole image, whatever the file looks like inside."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_nucseg.errors import NucSegError
from napari_nucseg.io import tiff
from napari_nucseg.io.slide import ArraySource, ImageSource, Mpp, SlideImage, as_source, read_image
from tests.io.make_slides import halved, picture, write_pyramid, write_svs

if TYPE_CHECKING:
    from pathlib import Path

RELAXED = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_whole_levels(variant: tuple[Path, list[np.ndarray]]) -> None:
    path, levels = variant
    with read_image(path) as slide:
        assert isinstance(slide, ImageSource)
        assert slide.level_shapes == tuple(level.shape[:2] for level in levels)
        for index, level in enumerate(levels):
            height, width = level.shape[:2]
            np.testing.assert_array_equal(slide.read(0, height, 0, width, index), level)


@RELAXED
@given(data=st.data())
def test_a_region_equals_a_slice_of_the_whole(
    variant: tuple[Path, list[np.ndarray]], data: st.DataObject
) -> None:
    path, levels = variant
    index = data.draw(st.integers(0, len(levels) - 1))
    height, width = levels[index].shape[:2]
    y0, y1 = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    x0, x1 = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    with read_image(path) as slide:
        np.testing.assert_array_equal(slide.read(y0, y1, x0, x1, index), levels[index][y0:y1, x0:x1])
        np.testing.assert_array_equal(slide.levels[index][y0:y1, x0:x1], levels[index][y0:y1, x0:x1])


def test_jpeg_tiles_are_converted_to_rgb(tmp_path: Path) -> None:
    rgb = picture()
    for name, options in {
        "ycbcr": {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 95}},
        "rgb": {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"outcolorspace": "rgb"}},
    }.items():
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, rgb, tile=(64, 64), metadata=None, **options)
        with read_image(path) as slide:
            error = np.abs(slide.read(0, 300, 0, 401).astype(int) - rgb)
            np.testing.assert_array_equal(
                slide.read(50, 140, 60, 401), slide.read(0, 300, 0, 401)[50:140, 60:]
            )
        assert error.mean() < 4, name


def test_svs_ignores_label_macro_and_thumbnail(tmp_path: Path) -> None:
    levels = halved(picture(), 1)
    with read_image(write_svs(tmp_path / "s.svs", levels)) as slide:
        assert slide.level_shapes == ((300, 401), (150, 201))
        assert slide.mpp == Mpp(0.252, "Aperio header")
        assert np.abs(slide.read(0, 300, 0, 401).astype(int) - levels[0]).mean() < 6


def test_only_the_tiles_of_a_region_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pyramid(tmp_path / "p.tif", [picture(2048, 2048)])
    decoded: list[int] = []
    put = tiff.TileCache.put
    monkeypatch.setattr(
        tiff.TileCache, "put", lambda self, key, value: decoded.append(key[1]) or put(self, key, value)
    )
    with read_image(path) as slide:
        decoded.clear()
        slide.read(1000, 1090, 70, 120)
        assert sorted(decoded) == [15 * 32 + 1, 16 * 32 + 1, 17 * 32 + 1]
        slide.read(1000, 1090, 70, 120)
        assert len(decoded) == 3


@pytest.mark.parametrize("tile", [256, 512])
def test_overlapping_windows_in_raster_order_decode_every_tile_once(tmp_path: Path, tile: int) -> None:
    image = picture(3000, 5000)
    path = write_pyramid(tmp_path / "p.tif", [image], tile=(tile, tile), compression="jpeg")
    with read_image(path) as slide:
        tiles = -(-3000 // tile) * -(-5000 // tile)
        for y in range(0, 3000, 848):
            for x in range(0, 5000, 848):
                slide.read(max(0, y - 176), min(3000, y + 1024), max(0, x - 176), min(5000, x + 1024))
        cache = slide._pixels._cache  # type: ignore[union-attr]
        assert tiles <= cache.misses <= tiles + 1  # one more: the first is looked at when the file is opened
        assert cache.hits > tiles // 2


def test_one_bad_corner_keeps_no_file_from_being_opened(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "p.tif", [picture()], compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[0], tif.pages[0].databytecounts[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    with read_image(path) as slide:
        np.testing.assert_array_equal(slide.read(64, 300, 0, 401), picture()[64:])


def test_the_cache_keeps_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "CACHE_BYTES", 5 * 64 * 64 * 3)
    path = write_pyramid(tmp_path / "p.tif", [picture()])
    with read_image(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 300, 0, 401), picture())
        cache = slide._pixels._cache  # type: ignore[union-attr]
        assert len(cache) == 5
        assert cache.size == sum(item.nbytes for item in cache._items.values())


def test_threads_read_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "CACHE_BYTES", 1)
    image = picture()
    barrier = threading.Barrier(4)
    with read_image(write_pyramid(tmp_path / "p.tif", [image])) as slide:

        def work(seed: int) -> bool:
            rng = np.random.default_rng(seed)
            barrier.wait()
            regions = [
                (*sorted(rng.integers(0, 300, 2)), *sorted(rng.integers(0, 400, 2))) for _ in range(40)
            ]
            return all((slide.read(a, b, c, d) == image[a:b, c:d]).all() for a, b, c, d in regions)

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))


def test_empty_tiles_show_the_glass(tmp_path: Path) -> None:
    def tiles() -> object:
        yield from [np.full((64, 64, 3), 9, np.uint8), None, None, np.full((64, 64, 3), 7, np.uint8)]

    path = tmp_path / "sparse.tif"
    tifffile.imwrite(path, tiles(), shape=(128, 128, 3), dtype=np.uint8, tile=(64, 64), photometric="rgb")
    with read_image(path) as slide:
        whole = slide.read(0, 128, 0, 128)
    assert np.unique(whole[:64, :64]).tolist() == [9]
    assert np.unique(whole[:64, 64:]).tolist() == [255]
    assert np.unique(whole[64:, 64:]).tolist() == [7]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_pictures(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture()).save(path, **({"quality": 95} if suffix == ".jpg" else {}))
    with read_image(path) as slide:
        assert slide.shape == (300, 401)
        assert np.abs(slide.read(0, 300, 0, 401).astype(int) - picture()).mean() < (
            3 if suffix == ".jpg" else 0.01
        )


def test_picture_modes(tmp_path: Path) -> None:
    rgb = Image.fromarray(picture())
    grey = np.asarray(rgb.convert("L"))
    rgb.convert("L").save(tmp_path / "l.png")
    rgb.convert("RGBA").save(tmp_path / "rgba.png")
    rgb.quantize(64).save(tmp_path / "p.png")
    rgb.convert("LA").save(tmp_path / "la.png")
    for name in ("l", "la"):
        out = read_image(tmp_path / f"{name}.png").read(0, 300, 0, 401)
        np.testing.assert_array_equal(out, np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png").read(0, 300, 0, 401), picture())
    palette = np.asarray(rgb.quantize(64).convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "p.png").read(0, 300, 0, 401), palette)


def test_as_source_takes_what_holds_an_image(tmp_path: Path) -> None:
    image = picture()
    path = write_pyramid(tmp_path / "p.tif", halved(image, 1))
    slide = read_image(path)
    for given_, levels in (
        (image, 1), (da.from_array(image), 1), (halved(image, 2), 3), (path, 2), (str(path), 2), (slide, 2),
        (slide.levels, 2), (ArraySource([image]), 1), (image.tolist(), 1),
    ):  # fmt: skip
        source = as_source(given_, mpp=0.5)
        assert source.mpp == Mpp(0.5, "stated by the user")
        assert len(source.level_shapes) == levels
        np.testing.assert_array_equal(source.read(3, 9, 5, 50), image[3:9, 5:50])
    assert slide.mpp.value is None
    assert as_source(slide) is slide
    assert as_source(slide.levels) is slide
    for levels_ in ([image, image], [image, image[::2, ::2, 0]], []):
        with pytest.raises(NucSegError):
            as_source(levels_)


def test_level_arrays_slice_like_numpy(tmp_path: Path) -> None:
    image = picture()
    with read_image(write_pyramid(tmp_path / "p.tif", [image])) as slide:
        array = slide.levels[0]
        assert (array.shape, array.ndim, array.dtype) == (image.shape, 3, np.uint8)
        for key in (
            np.s_[5], np.s_[-1], np.s_[5, 7], np.s_[5, 7, 1], np.s_[..., 0], np.s_[::3, ::-2],
            np.s_[10:2:-3, 4:9], np.s_[9:3], np.s_[:, 5, ...], np.s_[...], np.s_[290:900, -20:],
        ):  # fmt: skip
            np.testing.assert_array_equal(array[key], image[key])
        np.testing.assert_array_equal(np.asarray(array), image)
        with pytest.raises(IndexError):
            array[300]


def test_regions_outside_and_closed_files_are_refused(tmp_path: Path) -> None:
    slide = read_image(write_pyramid(tmp_path / "p.tif", [picture()]))
    for region in ((-1, 5, 0, 5), (0, 301, 0, 5), (5, 4, 0, 5), (0, 5, 0, 402)):
        with pytest.raises(NucSegError, match="do not lie in level 0"):
            slide.read(*region)
    with pytest.raises(NucSegError, match="no level 1"):
        slide.read(0, 5, 0, 5, 1)
    slide.close()
    slide.close()
    with pytest.raises(NucSegError, match="has been closed"):
        slide.read(0, 5, 0, 5)


def test_names(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.b.ome.tif", [picture()], metadata={"axes": "YXS"})
    with read_image(path) as slide:
        assert slide.name == "a.b"
        assert "401 x 300 px" in repr(slide)


@pytest.mark.parametrize(
    ("name", "mpp", "levels"),
    [("CMU-1-Small-Region.svs", 0.499, 1), ("HE_example.tif", 0.5001, 1), ("small_HE_levels.tiff", None, 4)],
)
def test_real_slides(shared: Path, name: str, mpp: float | None, levels: int) -> None:
    path = shared / "wsi" / name
    with read_image(path) as slide:
        assert isinstance(slide, SlideImage)
        assert slide.mpp.value == (None if mpp is None else pytest.approx(mpp, abs=1e-4))
        assert len(slide.level_shapes) == levels
        for index, (height, width) in enumerate(slide.level_shapes):
            whole = tifffile.imread(path, series=0, level=index)
            y0, y1, x0, x1 = height // 3, height // 2, width // 4, width
            np.testing.assert_array_equal(slide.read(y0, y1, x0, x1, index), whole[y0:y1, x0:x1])


def test_ycbcr_without_jpeg_is_converted(tmp_path: Path) -> None:
    stored = np.asarray(Image.fromarray(picture()).convert("YCbCr"))
    path = tmp_path / "y.tif"
    tifffile.imwrite(path, stored, photometric="ycbcr", subsampling=(1, 1), compression="zlib", metadata=None)
    with read_image(path) as slide:
        assert np.abs(slide.read(0, 300, 0, 401).astype(int) - picture()).max() <= 4  # rounded twice


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("unassalpha", [127 + 50, 127 + 20, 127]),
        ("assocalpha", [227, 167, 127]),
        ("unspecified", [100, 40, 0]),
    ],
)
def test_what_a_fourth_channel_means(tmp_path: Path, extra: str, expected: list[int]) -> None:
    path = tmp_path / "a.tif"
    pixels = np.full((20, 20, 4), (100, 40, 0, 128), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=[extra], metadata=None)
    with read_image(path) as slide:
        assert slide.read(0, 20, 0, 20)[5, 5].tolist() == expected
