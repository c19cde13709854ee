"""OME-Zarr folders of every kind give the pixels and the resolution that were written."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.damage import Tolerant
from napari_nucseg.io.slide import ImageSource, Mpp, read_image
from tests.io.make_slides import halved, picture

if TYPE_CHECKING:
    from pathlib import Path

LEVELS = halved(picture(), 2)
UNITS = {"t": None, "c": None, "z": "micrometer", "y": "micrometer", "x": "micrometer"}


def write_zarr(
    path: Path,
    levels: list[np.ndarray] = LEVELS,
    axes: str = "tczyx",
    version: str = "0.4",
    *,
    scale: float = 0.25,
    units: dict[str, str | None] = UNITS,
    chunk: int = 64,
    **more: Any,
) -> Path:
    """Write a pyramid of (H, W, 3) or (H, W) levels."""
    zarr_format = 2 if version == "0.4" else 3
    group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    datasets = []
    for k, level in enumerate(levels):
        order = [("yxc".index(a) if a in "yxc"[: level.ndim] else None) for a in axes]
        data = np.transpose(level, [o for o in order if o is not None])
        data = data[tuple(slice(None) if o is not None else None for o in order)]
        chunks = tuple(min(chunk, n) if a in "yx" else 1 for a, n in zip(axes, data.shape, strict=True))
        keys = {"name": "v2" if zarr_format == 2 else "default", "separator": "/"}
        array = group.create_array(
            str(k), shape=data.shape, chunks=chunks, dtype=data.dtype, chunk_key_encoding=keys
        )
        array[:] = data
        factor = [scale * 2**k if a in "yx" else 1.0 for a in axes]
        datasets.append({"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": factor}]})
    named = [{"name": a, **({"unit": units[a]} if units.get(a) else {})} for a in axes]
    multiscales = [{"version": version, "axes": named, "datasets": datasets, **more}]
    group.attrs.update(
        {"multiscales": multiscales}
        if zarr_format == 2
        else {"ome": {"version": "0.5", "multiscales": multiscales}}
    )
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tczyx", "cyx", "czyx", "yxc"])
def test_every_form_gives_its_pixels(tmp_path: Path, axes: str, version: str):
    with read_image(write_zarr(tmp_path / "a.zarr", axes=axes, version=version)) as slide:
        assert isinstance(slide, ImageSource)
        assert slide.level_shapes == ((300, 401), (150, 201), (75, 101))
        assert slide.mpp == Mpp(0.25, "OME-Zarr")
        assert slide.is_rgb
        assert slide.name == "a"
        for index, level in enumerate(LEVELS):
            np.testing.assert_array_equal(slide.read(0, *level.shape[:1], 0, level.shape[1], index), level)
        np.testing.assert_array_equal(slide.levels[1][5:90:3, 7:], LEVELS[1][5:90:3, 7:])


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_a_region_equals_a_slice_of_the_whole(tmp_path: Path, seed: int):
    rng = np.random.default_rng(seed)
    path = tmp_path / f"{seed}.zarr"
    with read_image(write_zarr(path, chunk=int(rng.integers(20, 400)))) as slide:
        for _ in range(5):
            k = int(rng.integers(3))
            height, width = LEVELS[k].shape[:2]
            (y0, y1), (x0, x1) = sorted(rng.integers(0, height + 1, 2)), sorted(rng.integers(0, width + 1, 2))
            np.testing.assert_array_equal(slide.read(y0, y1, x0, x1, k), LEVELS[k][y0:y1, x0:x1])
    shutil.rmtree(path)


def test_grey_16_bits_and_plain_arrays(tmp_path: Path):
    grey = LEVELS[0][..., 0]
    with read_image(write_zarr(tmp_path / "g.zarr", [grey], "tzyx")) as slide:
        assert not slide.is_rgb
        np.testing.assert_array_equal(slide.read(0, 300, 0, 401), np.repeat(grey[..., None], 3, axis=2))
    deep = LEVELS[0].astype(np.uint16) * 257
    deep[0, 0] = 65535
    with read_image(write_zarr(tmp_path / "d.zarr", [deep], "cyx")) as slide:
        np.testing.assert_array_equal(slide.read(1, 300, 0, 401), LEVELS[0][1:])
    plain = zarr.create_array(str(tmp_path / "p.zarr"), data=LEVELS[0], chunks=(100, 100, 3))
    assert plain.shape == (300, 401, 3)
    with read_image(tmp_path / "p.zarr") as slide:
        assert slide.mpp.value is None
        np.testing.assert_array_equal(slide.read(3, 200, 0, 401), LEVELS[0][3:200])


@pytest.mark.parametrize(
    ("unit", "scale", "mpp"),
    [
        ("micrometer", 0.5, 0.5),
        ("nanometer", 250.0, 0.25),
        ("millimeter", 2.5e-4, 0.25),
        ("meter", 5e-7, 0.5),
    ],
)
def test_the_resolution_is_read_in_its_unit(tmp_path: Path, unit: str, scale: float, mpp: float):
    units = dict.fromkeys("yx", unit)
    slide = read_image(write_zarr(tmp_path / "a.zarr", scale=scale, units=units))
    assert slide.mpp.value == pytest.approx(mpp)


def test_a_scale_of_the_whole_multiplies_that_of_the_level(tmp_path: Path):
    whole = [{"type": "scale", "scale": [1, 1, 1, 0.5, 0.5]}]
    slide = read_image(write_zarr(tmp_path / "a.zarr", scale=1.0, coordinateTransformations=whole))
    assert slide.mpp.value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("units", "scale", "why"),
    [({}, 0.25, "no unit"), ({"y": "pixel", "x": "pixel"}, 1.0, "in pixel"), (UNITS, 40.0, "no scan")],
)
def test_a_resolution_that_is_none_is_unknown(tmp_path: Path, units: dict, scale: float, why: str):
    slide = read_image(write_zarr(tmp_path / "a.zarr", units=units, scale=scale))
    assert slide.mpp.value is None
    assert why in slide.mpp.source


def test_bioformats2raw_gives_the_largest_image(tmp_path: Path):
    root = tmp_path / "b.zarr"
    zarr.open_group(str(root), mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    write_zarr(root / "0", [LEVELS[2]])
    write_zarr(root / "1")
    with read_image(root) as slide:
        np.testing.assert_array_equal(slide.read(0, 300, 0, 401), LEVELS[0])
        assert slide.name == "b"


def test_every_chunk_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reads = []
    get = zarr.Array.__getitem__
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda self, key: reads.append(key) or get(self, key))
    image = picture(1500, 1500)
    with read_image(write_zarr(tmp_path / "a.zarr", [image], chunk=256)) as slide:
        assert reads == []  # opening reads no pixel
        for y in range(0, 1500, 500):
            for x in range(0, 1500, 500):
                y0, y1, x0, x1 = max(0, y - 90), min(1500, y + 590), max(0, x - 90), min(1500, x + 590)
                np.testing.assert_array_equal(slide.read(y0, y1, x0, x1), image[y0:y1, x0:x1])
        assert len(reads) == 36
        assert slide.tile_shape(0) == (256, 256)


def test_threads_read_the_same_pixels(tmp_path: Path):
    with read_image(write_zarr(tmp_path / "a.zarr")) as slide:
        barrier = threading.Barrier(4)

        def work(seed: int) -> bool:
            rng = np.random.default_rng(seed)
            barrier.wait()
            boxes = [(*sorted(rng.integers(0, 301, 2)), *sorted(rng.integers(0, 402, 2))) for _ in range(10)]
            return all((slide.read(a, b, c, d) == LEVELS[0][a:b, c:d]).all() for a, b, c, d in boxes)

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))


def test_a_damaged_chunk_costs_its_place_only(tmp_path: Path):
    image = picture(700, 600)
    path = write_zarr(tmp_path / "a.zarr", [image], chunk=256)
    chunk = path / "0" / "0" / "1" / "0" / "1" / "1"  # green, rows and columns 256..511
    assert chunk.is_file()
    chunk.write_bytes(b"\xff" * 999)
    with read_image(path) as slide:
        source = Tolerant(slide)
        expected = image.copy()
        expected[256:512, 256:512] = 255
        np.testing.assert_array_equal(source.read(0, 700, 0, 600), expected)
        assert len(source.damages) == 1
        with pytest.raises(NucSegError, match=r"a\.zarr can't be read: a chunk in rows 256"):
            slide.read(0, 700, 0, 600)


def test_a_folder_that_goes_is_told(tmp_path: Path):
    path = write_zarr(tmp_path / "a.zarr")
    slide = read_image(path)
    shutil.rmtree(path)
    for source in (slide, Tolerant(slide)):
        with pytest.raises(NucSegError, match="has gone while it was being read"):
            source.read(0, 100, 0, 100)
    slide.close()
    with pytest.raises(NucSegError, match="has been closed"):
        slide.read(0, 10, 0, 10)


def _attributes(path: Path, change: Any) -> None:
    file = path / ".zattrs"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


BAD = {
    "empty": (lambda p: p.mkdir(), "no image in the OME-Zarr format"),
    "labels": (lambda p: _attributes(write_zarr(p), lambda a: a.update({"image-label": {}})), "holds labels"),
    "no datasets": (lambda p: _attributes(write_zarr(p), lambda a: a["multiscales"][0].pop("datasets")), "no datasets"),
    "level gone": (lambda p: shutil.rmtree(write_zarr(p) / "1"), "incomplete"),
    "garbage": (lambda p: (write_zarr(p) / ".zattrs").write_text("{"), ".zattrs is damaged"),
    "no object": (lambda p: (write_zarr(p) / ".zattrs").write_text("[]"), "holds no attributes"),
    "long axes": (lambda p: _attributes(write_zarr(p), lambda a: a["multiscales"][0]["axes"].pop()), "has axes"),
    "time": (lambda p: zarr.create_array(str(p), data=np.zeros((5, 2, 40, 40), np.uint8)), "not clearly one image"),
    "two channels": (lambda p: write_zarr(p, [LEVELS[0][..., :2]], "cyx"), "2 channels"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refused_in_one_sentence(tmp_path: Path, name: str):
    make, pattern = BAD[name]
    path = tmp_path / "bad.zarr"
    make(path)
    with pytest.raises(NucSegError, match=pattern) as error:
        read_image(path)
    assert "bad.zarr" in str(error.value)
    assert "\n" not in str(error.value)


def test_another_reader_is_refused(tmp_path: Path):
    with pytest.raises(NucSegError, match="openslide does not read"):
        read_image(write_zarr(tmp_path / "a.zarr"), reader="openslide")
