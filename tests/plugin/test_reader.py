"""Slides open in napari as lazy RGB pyramids with their scale."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_nucseg._plugin import levels, reader
from napari_nucseg._plugin.images import pixels_of
from napari_nucseg._plugin.levels import Overview, ViewLevel, pooled, real_levels
from napari_nucseg._plugin.levels import levels_of as levels_of_slide
from napari_nucseg._plugin.reader import get_reader, read_slide
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp
from napari_nucseg.io.slide import as_source, read_image

if TYPE_CHECKING:
    from collections.abc import Callable

APERIO = "Aperio Image Library v12\r\n1x1 [0,0 1x1] (64x64) JPEG/RGB Q=70|AppMag = 40|MPP = 0.2500|Left = 3"


def levels_of(height: int = 256, width: int = 384, count: int = 3) -> list[np.ndarray]:
    """Left half red, right half green."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 220
    image[:, width // 2 :, 1] = 220
    return [np.ascontiguousarray(image[:: 2**i, :: 2**i]) for i in range(count)]


def write(path: Path, levels: list[np.ndarray], description: str | None = None, **options: Any) -> str:
    with tifffile.TiffWriter(path) as tif:
        common = {"tile": (64, 64), "compression": "zlib", "photometric": "rgb", "metadata": None}
        for index, level in enumerate(levels):
            text = description if index == 0 or description is None else "Aperio Image Library\r\nlevel"
            tif.write(level, description=text, **{**common, **options})
    return str(path)


@pytest.fixture
def svs(tmp_path: Path) -> str:
    # the second page of Aperio's files is a thumbnail
    full, *lower = levels_of()
    return write(tmp_path / "case 7.svs", [full, np.ascontiguousarray(full[::5, ::5]), *lower], APERIO)


def test_the_layer_of_a_slide(svs: str) -> None:
    assert get_reader(svs) is read_slide
    ((data, options, kind),) = read_slide(svs)
    assert kind == "image"
    assert [level.shape for level in data] == [level.shape for level in levels_of()]
    assert all(isinstance(level, ViewLevel) and level.dtype == np.uint8 for level in data)
    for level, expected in zip(data, levels_of(), strict=True):
        np.testing.assert_array_equal(level, expected)
    assert options == {
        "multiscale": True,
        "rgb": True,
        "name": "case 7",
        "scale": (0.25, 0.25),
        "units": ("um", "um"),
        "metadata": {"napari_nucseg": {"path": svs, "mpp": 0.25, "mpp_source": "Aperio header"}},
    }


def test_an_unknown_mpp_leaves_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "p.tif", levels_of())
    ((_, options, _),) = read_slide(path)
    assert "scale" not in options
    assert "units" not in options
    assert options["metadata"]["napari_nucseg"] == {"path": path, "mpp": None, "mpp_source": "unknown"}


def test_one_level_is_loaded_or_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (image,) = levels_of(count=1)
    path = write(tmp_path / "one.tif", [image], resolution=(40000, 40000), resolutionunit=3)
    ((data, options, _),) = read_slide(path)
    assert isinstance(data, np.ndarray)
    np.testing.assert_array_equal(data, image)
    assert options["multiscale"] is False
    assert options["scale"] == pytest.approx((0.25, 0.25))
    monkeypatch.setattr(reader, "_WHOLE_PIXELS", 10)
    ((data, options, _),) = read_slide(path)
    assert isinstance(data, ViewLevel)
    assert options["multiscale"] is False
    np.testing.assert_array_equal(data, image)


def overview_of(path: str, height: int, width: int) -> Overview:
    seen = np.zeros((height, width, 3), np.uint8)
    seen[: height // 2] = (200, 40, 90)
    seen[:, width // 2 :] //= 2
    write(Path(path), [seen], tile=(256, 256))
    return Overview(read_image(path))


def test_a_file_without_coarse_levels_gets_an_overview(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "OVERVIEW_PIXELS", 300_000)
    overview = overview_of(str(tmp_path / "flat.tif"), 1030, 2050)
    shapes = [level.shape for level in overview.levels]
    assert shapes == [(258, 513, 3)]
    assert not overview.complete
    picture = overview.levels[0][:]
    assert overview.complete
    assert picture[5, 5].tolist() == [200, 40, 90]
    assert picture[5, 500].tolist() == [100, 20, 45]
    assert picture[250, 5].tolist() == [0, 0, 0]
    assert real_levels([*levels_of_slide(read_image(tmp_path / "flat.tif")), *overview.levels])[0].shape == (
        1030,
        2050,
        3,
    )


def test_a_large_overview_comes_in_the_background(
    make_napari_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "AT_ONCE", 0)
    monkeypatch.setattr(reader, "_WHOLE_PIXELS", 10)
    path = str(tmp_path / "flat.tif")
    overview_of(path, 1030, 2050)
    viewer = make_napari_viewer(show=True)
    (layer,) = viewer.open(path, plugin="napari-nucseg")
    assert layer.multiscale
    assert layer.data[0].shape == (1030, 2050, 3)
    # levels that were made to be looked at are none of the image's
    assert as_source(pixels_of(layer), mpp=0.25).level_shapes == ((1030, 2050),)
    qtbot.waitUntil(lambda: layer.data[1]._overview.complete, timeout=5000)

    def shown() -> bool:
        return bool(layer._slice.thumbnail.raw[5, 5, 0] == 200)

    qtbot.waitUntil(shown, timeout=5000)


@pytest.mark.parametrize("step", [2, 3, 16, 64])
def test_pooled_is_the_mean(step: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (130, 77, 3)).astype(np.uint8)
    pixels[:] = pixels[0, 0]
    out = pooled(pixels, step)
    assert out.shape == (-(-130 // step), -(-77 // step), 3)
    assert (out == pixels[0, 0]).all()


class Counted:
    """A slide of 100,000 x 90,000 pixels that counts what is read of it."""

    name, path, mpp = "big", Path("big.svs"), Mpp.stated(0.25)
    level_shapes = ((100_000, 90_000), (25_000, 22_500), (6_250, 5_625), (1_563, 1_407))
    shape = level_shapes[0]

    def __init__(self) -> None:
        self.read_pixels = [0, 0, 0, 0]

    def read(self, y0: int, y1: int, x0: int, x1: int, level: int = 0) -> np.ndarray:
        self.read_pixels[level] += (y1 - y0) * (x1 - x0)
        return np.full((y1 - y0, x1 - x0, 3), 230, np.uint8)


def test_a_whole_slide_opens_at_once_and_is_read_where_it_is_seen(
    make_napari_viewer: Callable[..., Any], qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = Counted()
    monkeypatch.setattr(reader, "read_image", lambda _path: slide)
    monkeypatch.setattr(reader, "_holds_labels", lambda _path: False)
    viewer = make_napari_viewer(show=True)
    began = time.perf_counter()
    ((data, options, _),) = read_slide("big.svs")
    layer = viewer.add_image(data, **options)
    assert time.perf_counter() - began < 1.5  # most of it is napari's, for any layer
    viewer.reset_view()
    qtbot.wait(100)
    assert slide.read_pixels[:3] == [0, 0, 0]  # the whole is seen: no more than the coarsest level
    viewer.scene.camera.zoom = 4.0  # a pixel of level 0 is a pixel of the screen
    qtbot.wait(200)
    canvas = np.prod(np.array(viewer.canvas.size) + 2 * levels.CHUNK)
    assert 0 < slide.read_pixels[0] <= 4 * canvas
    assert layer.data_level == 0


def test_what_is_left_to_other_readers(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.TIF", levels_of(count=1))
    for path in (str(tmp_path / "no.tif"), str(tmp_path / "no.svs"), "a.png", [plain], str(tmp_path)):
        assert get_reader(path) is None
    assert get_reader(plain) is read_slide


def test_label_images_open_as_labels(tmp_path: Path) -> None:
    labels = np.zeros((40, 50), np.uint32)
    labels[3:9, 4:9] = 7
    known = {"resolution": (40000, 40000), "resolutionunit": 3}
    for name, dtype, options in (
        ("a_instances.tif", np.uint32, known),
        ("numbers.tif", np.int32, {}),
        ("b_instances.tif", np.uint8, {"compression": "zlib"}),
    ):
        tifffile.imwrite(tmp_path / name, labels.astype(dtype), **options)
        ((data, about, kind),) = read_slide(str(tmp_path / name))
        assert kind == "labels"
        np.testing.assert_array_equal(data, labels)
        assert about["name"] == name[:-4]
        assert about.get("scale") == (pytest.approx((0.25, 0.25)) if options == known else None)
        assert "metadata" not in about


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "scale"),
    [
        ((5, 40, 50), np.uint8, {}, (1, 0.25, 0.25)),
        ((40, 50), np.float32, {}, (0.25, 0.25)),
        ((6, 40, 50, 3), np.uint8, {"photometric": "rgb"}, (1, 0.25, 0.25)),
        ((5, 40, 50), np.float32, {"ome": True, "metadata": {"axes": "CYX"}}, (1, 0.25, 0.25)),
    ],
)
def test_other_tiffs_open_as_they_are(
    make_napari_viewer: Callable[..., Any],
    tmp_path: Path,
    shape: tuple[int, ...],
    dtype: Any,
    options: dict[str, Any],
    scale: tuple[float, ...],
) -> None:
    values = np.linspace(0, 200, int(np.prod(shape))).reshape(shape).astype(dtype) - (dtype == np.float32)
    path = tmp_path / "other.tif"
    tifffile.imwrite(path, values, resolution=(40000, 40000), resolutionunit=3, **options)
    (layer,) = make_napari_viewer().open(path, plugin="napari-nucseg")
    np.testing.assert_array_equal(layer.data, values)
    assert type(layer).__name__ == "Image"
    assert layer.rgb == (shape[-1] == 3)
    assert tuple(layer.scale) == pytest.approx(scale)
    assert layer.metadata["napari_nucseg"]["mpp"] == pytest.approx(0.25)


@pytest.mark.parametrize("name", ["b.svs", "b.tif", "b_instances.tif"])
def test_a_damaged_slide_says_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"nonsense" * 99)
    read = get_reader(str(path))
    assert read is not None
    with pytest.raises(NucSegError, match=r"b\w*\.\w+ can't be read"):
        read(str(path))


@pytest.mark.parametrize("name", ["cut_instances.tif", "cut.tif"])
def test_a_tiff_that_was_cut_short_says_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    planes = 1 if "instances" in name else 4
    noise = np.random.default_rng(0).integers(0, 9999, (planes, 64, 64)).astype(np.uint32)
    tifffile.imwrite(path, noise.squeeze(), photometric="minisblack")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(NucSegError, match=rf"{name} can't be read: .*copy or export the file again"):
        read_slide(str(path))


def test_napari_shows_the_slide(make_napari_viewer: Callable[..., Any], svs: str) -> None:
    viewer = make_napari_viewer(show=True)
    (layer,) = viewer.open(svs, plugin="napari-nucseg")
    assert layer.multiscale
    assert layer.rgb
    assert layer.name == "case 7"
    assert tuple(layer.scale) == (0.25, 0.25)
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
    assert layer.extent.world[1] == pytest.approx([64, 96], abs=0.5)
    assert layer.metadata["napari_nucseg"]["mpp"] == 0.25
    source = as_source(layer.data, mpp=0.25)
    np.testing.assert_array_equal(source.read(10, 30, 150, 250), levels_of()[0][10:30, 150:250])
    assert len(source.level_shapes) == 3
    viewer.reset_view()
    shot = viewer.screenshot(canvas_only=True, flash=False)
    height, width = shot.shape[:2]
    left, right = shot[height // 2, width // 2 - 30, :3], shot[height // 2, width // 2 + 30, :3]
    assert left[0] > 150 > 60 > left[1]
    assert right[1] > 150 > 60 > right[0]


def test_a_real_slide(shared: Path) -> None:
    path = str(shared / "wsi" / "CMU-1-Small-Region.svs")
    read = get_reader(path)
    assert read is not None
    ((data, options, _),) = read(path)
    assert data.shape == (2967, 2220, 3)
    assert options["scale"] == (0.499, 0.499)
    assert get_reader(str(shared / "wsi" / "small_HE_levels.tiff")) is read_slide
    assert get_reader(str(shared / "wsi" / "HE_example.tif")) is read_slide
