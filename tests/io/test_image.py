"""Every accepted form of an image becomes the same RGB; every doubtful one is refused in one sentence."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.image import as_rgb
from napari_nucseg.io.slide import ArraySource

RNG = np.random.default_rng(5)
RGB = RNG.integers(0, 256, (20, 30, 3), np.uint8)
RGB[0, 0], RGB[0, 1] = 255, 0


def test_rgb_is_returned_without_a_copy() -> None:
    out = as_rgb(RGB)
    assert out.shape == RGB.shape
    assert np.shares_memory(out, RGB)


@pytest.mark.parametrize(
    "image",
    [
        RGB.transpose(2, 0, 1),
        RGB.astype(np.uint16),
        RGB.astype(np.uint16) * 257,
        RGB.astype(">u2") * 257,
        RGB.astype(np.int64),
        RGB.astype(np.float32),
        RGB.astype(np.float64) / 255,
        (RGB / 255).astype(np.float16),
        np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)]),
        np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)]).transpose(2, 0, 1),
        RGB.tolist(),
    ],
    ids=[
        "CYX",
        "8 in 16 bits",
        "16 bits",
        "big endian",
        "int64",
        "0..255",
        "0..1",
        "half",
        "RGBA",
        "CYXA",
        "list",
    ],
)
def test_every_form_gives_the_same_pixels(image: np.ndarray) -> None:
    out = as_rgb(image)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, RGB)


@pytest.mark.parametrize("image", [RGB[..., 0], RGB[..., :1], RGB[None, ..., 0]])
def test_grey_is_replicated(image: np.ndarray) -> None:
    np.testing.assert_array_equal(as_rgb(image), np.repeat(RGB[..., :1], 3, axis=2))


def test_alpha_is_laid_over_white() -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[0, 0, 3], rgba[0, 1, 3] = 255, 128
    out = as_rgb(rgba)
    assert out[0, 0].tolist() == [200, 0, 0]
    assert out[1, 1].tolist() == [255, 255, 255]
    assert out[0, 1].tolist() == [round((200 * 128 + 255 * 127) / 255), 127, 127]


def test_named_axes_settle_what_the_shape_leaves_open() -> None:
    np.testing.assert_array_equal(as_rgb(RGB[None, None], axes="TZYXS"), RGB)
    np.testing.assert_array_equal(as_rgb(RGB.transpose(2, 0, 1)[None, :, None], axes="tczyx"), RGB)
    for axes in ("YX", "XYC", "YCX", "ZYX", "YXQ"):
        with pytest.raises(NucSegError, match="axes"):
            as_rgb(RGB, axes=axes)


REFUSED = {
    "both ends look like channels": np.zeros((3, 3, 3), np.uint8),
    "3 x W x 4": np.zeros((3, 40, 4), np.uint8),
    "five planes": np.zeros((5, 40, 40), np.uint8),
    "two channels": np.zeros((40, 40, 2), np.uint8),
    "4-D": np.zeros((1, 40, 40, 3), np.uint8),
    "1-D": np.zeros(40, np.uint8),
    "scalar": np.uint8(3),
    "empty": np.zeros((0, 40, 3), np.uint8),
    "one pixel": np.zeros((1, 1), np.uint8),
    "too small": np.zeros((15, 200, 3), np.uint8),
    "bool": np.zeros((40, 40), bool),
    "complex": np.zeros((40, 40), complex),
    "text": np.full((40, 40), "a"),
    "objects": np.full((40, 40), None),
    "12 bits": np.full((40, 40, 3), 4095, np.uint16),
    "just above 8 bits": np.full((40, 40, 3), 256, np.uint16),
    "int16": np.full((40, 40, 3), 32767, np.int16),
    "int32 in 16 bits": np.full((40, 40, 3), 65535, np.int32),
    "negative": np.full((40, 40, 3), -1, np.int16),
    "negative float": np.full((40, 40, 3), -0.1),
    "NaN": np.full((40, 40, 3), np.nan),
    "one NaN": np.where(np.arange(4800).reshape(40, 40, 3) == 77, np.nan, 0.5),
    "inf": np.full((40, 40, 3), np.inf),
    "float between the scales": np.full((40, 40, 3), 1.5),
    "float above 255": np.full((40, 40, 3), 256.0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(NucSegError) as error:
        as_rgb(REFUSED[name])
    sentence = str(error.value)
    assert "\n" not in sentence
    assert 30 < len(sentence) < 300
    assert ". " not in sentence


def test_float_rounding_beyond_one_is_forgiven() -> None:
    image = np.full((16, 16, 3), 1.0 + 5e-7)
    image[0] = -5e-7
    assert as_rgb(image)[1, 0, 0] == 255
    assert as_rgb(image)[0, 0, 0] == 0


@given(st.integers(0, 34), st.integers(0, 34), st.integers(0, 39), st.integers(0, 39), st.sampled_from("ufd"))
def test_a_tile_follows_the_rule_of_the_whole_image(y0: int, y1: int, x0: int, x1: int, kind: str) -> None:
    """A dark tile of a 16-bit or float image must not be stretched by its own maximum."""
    ramp = np.linspace(0, 1, 34 * 39 * 3).reshape(34, 39, 3)
    image = {"u": (ramp * 65535).astype(np.uint16), "f": ramp.astype(np.float32), "d": ramp * 255.0}[kind]
    y0, y1, x0, x1 = *sorted((min(y0, 34), min(y1, 34))), *sorted((x0, x1))
    source = ArraySource([image])
    np.testing.assert_array_equal(source.read(y0, y1, x0, x1), as_rgb(image)[y0:y1, x0:x1])


def test_lazy_arrays_are_read_only_where_asked() -> None:
    asked: list[int] = []

    def block(image: np.ndarray, block_info: dict | None = None) -> np.ndarray:
        if block_info:
            asked.append(block_info[0]["chunk-location"][0])
        return image

    lazy = da.from_array(np.tile(RGB, (10, 1, 1)), chunks=(20, 30, 3)).map_blocks(block, dtype=np.uint8)
    source = ArraySource([lazy])
    np.testing.assert_array_equal(source.read(25, 35, 2, 9), RGB[5:15, 2:9])
    assert set(asked) == {1}


def test_a_tile_that_contradicts_the_rule_is_refused() -> None:
    fine = np.full((64, 64, 3), 200, np.uint16)
    fine[40, 40] = 300
    source = ArraySource([fine, fine[::2, ::2][:20, :20]])
    assert (source.read(0, 32, 0, 32) == 200).all()
    with pytest.raises(NucSegError, match=r"outside the range 0\.\.255"):
        source.read(32, 64, 32, 64)
