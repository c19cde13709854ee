"""One rule for turning pixels into RGB, decided once for an image and then applied to every part of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MIN_SIDE = 16
"""Smallest accepted height and width in pixels: below it no nucleus fits."""

Alpha = Literal["straight", "premultiplied", "ignored"]
Values = Literal["uint8", "0..255", "0..65535", "0..1"]
Range = tuple[float, float]

_ROUNDING = 1e-6  # float images resampled in 32 bits overshoot [0, 1] by this much
_DARKEST_BYTE_PEAK = 16.0  # a float image on the 0..255 scale has a brighter pixel than this
_BAND_PIXELS = 16 * 2**20


@dataclass(frozen=True)
class PixelRule:
    """How the values and axes of one image become RGB bytes.

    Parameters
    ----------
    axes
        One letter per axis of the array: ``Y``, ``X``, optionally ``C``; any other is an axis of length 1.
    channels
        1 (grey, replicated to RGB), 3 (RGB) or 4 (RGB and alpha).
    values
        Scale of the stored values; ``"uint8"`` needs no conversion.
    alpha
        What the fourth channel means. ``"straight"`` and ``"premultiplied"`` are laid over white, the colour
        of empty glass; ``"ignored"`` drops it.
    """

    axes: str
    channels: int
    values: Values
    alpha: Alpha = "straight"

    def spatial_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return (height, width) of an array of this `shape`."""
        return shape[self.axes.index("Y")], shape[self.axes.index("X")]

    def index(self, y0: int, y1: int, x0: int, x1: int) -> tuple[slice | int, ...]:
        """Return the index that cuts rows y0..y1 and columns x0..x1 (all channels) from the array."""
        cut: dict[str, slice] = {"Y": slice(y0, y1), "X": slice(x0, x1), "C": slice(None)}
        return tuple(cut.get(axis, 0) for axis in self.axes)

    def apply(self, block: NDArray[Any]) -> NDArray[np.uint8]:
        """Convert a block cut with `index`.

        Parameters
        ----------
        block
            (h, w), (h, w, C) or (C, h, w) of the image's dtype.

        Returns
        -------
        ndarray
            (h, w, 3) uint8; `block` itself, not a copy, where it already is that.

        Raises
        ------
        NucSegError
            A value contradicts the rule that was decided for the whole image.
        """
        kept = "".join(axis for axis in self.axes if axis in "YXC")
        if kept == "YX":
            block = block[:, :, None]
        elif kept == "CYX":
            block = np.ascontiguousarray(np.moveaxis(block, 0, -1))
        bytes_ = self._to_bytes(block)
        if self.channels == 1:
            return np.repeat(bytes_, 3, axis=2)
        if self.channels == 4:
            return _flatten_alpha(bytes_, self.alpha)
        return bytes_

    def _to_bytes(self, block: NDArray[Any]) -> NDArray[np.uint8]:
        if self.values == "uint8":
            return block
        if self.values == "0..65535":
            return ((block.astype(np.uint32) + 128) // 257).astype(np.uint8)
        top = 1.0 if self.values == "0..1" else 255.0
        slack = _ROUNDING if block.dtype.kind == "f" else 0.0
        if block.size and not (block.min() >= -slack and block.max() <= top + slack):
            raise NucSegError(
                f"a part of the image holds values from {block.min():g} to {block.max():g}, outside the "
                f"range {self.values} of the whole; convert it to 8-bit RGB first"
            )
        if block.dtype.kind != "f":
            return block.astype(np.uint8)
        scaled = block.astype(np.float32) * np.float32(255.0 / top)
        return np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8)


def as_rgb(array: Any, axes: str | None = None) -> NDArray[np.uint8]:
    """Normalise any unambiguous image to 8-bit RGB.

    Parameters
    ----------
    array
        One of: RGB or RGBA ``(H, W, 3 | 4)``, the same with the channels first, or grey ``(H, W)``, which is
        replicated into three equal channels. Alpha is laid over white. Values:

        - uint8: as they are;
        - uint16: 0..65535 where the brightest pixel needs all 16 bits (32768 or more), 0..255 where no pixel
          exceeds 255; anything between may be 10-, 12- or 14-bit data and is refused;
        - float: 0..1 where no pixel exceeds 1, 0..255 where the brightest lies in 16..255; otherwise refused,
          as are negative, infinite and NaN values;
        - other integers: only 0..255.
    axes
        What each axis is, such as ``"YXC"``, ``"CYX"`` or ``"ZYX"`` (axes other than Y, X and C, or S for C,
        must have length 1). Guessed from the shape where that is unambiguous.

    Returns
    -------
    ndarray
        (H, W, 3) uint8, sharing the memory of the input where it already is that.

    Raises
    ------
    NucSegError
        The array is ambiguous, has too many or too few pixels to be one image, or a dtype that no image has.
    """
    array = as_arraylike(array)
    rule = decide_rule(array.shape, array.dtype, axes, lambda found: value_range(array, found))
    height, width = rule.spatial_shape(array.shape)
    return rule.apply(np.asarray(array[rule.index(0, height, 0, width)]))


def as_arraylike(array: Any) -> Any:
    """Return `array` if it can be sliced lazily (numpy, dask, zarr ...), else a numpy array of it."""
    try:
        np.dtype(array.dtype)
        tuple(array.shape)
    except (AttributeError, TypeError):
        return np.asarray(array)
    return array


def decide_rule(
    shape: tuple[int, ...],
    dtype: Any,
    axes: str | None,
    measure: Callable[[PixelRule], Range],
    alpha: Alpha = "straight",
) -> PixelRule:
    """Decide once how an image becomes RGB: from its metadata and, unless it is 8-bit, its value range.

    Parameters
    ----------
    shape, dtype
        Of the whole image.
    axes
        See `as_rgb`.
    measure
        Called with a provisional rule when the dtype alone doesn't settle the scale; returns (minimum,
        maximum) of the image, NaN where a pixel is NaN.
    alpha
        What a fourth channel means.

    Raises
    ------
    NucSegError
        See `as_rgb`.
    """
    shape = tuple(int(n) for n in shape)
    found = _given_axes(shape, axes) if axes else _guessed_axes(shape)
    channels = shape[found.index("C")] if "C" in found else 1
    if channels not in (1, 3, 4):
        raise NucSegError(
            f"an image of shape {shape} has {channels} channels, not 1 (grey), 3 (RGB) or 4 (RGBA); "
            "choose one plane or three channels of it first"
        )
    kind = np.dtype(dtype)
    if kind == np.uint8:
        rule = PixelRule(found, channels, "uint8", alpha)
    elif kind.kind not in "uif":
        raise NucSegError(
            f"an array of dtype {kind} is no image; give values of 8 bits (0..255), 16 bits or floats in 0..1"
        )
    else:
        rule = PixelRule(found, channels, "0..255", alpha)
    height, width = rule.spatial_shape(shape)
    if min(height, width) < MIN_SIDE:
        raise NucSegError(
            f"an image of shape {shape} is {width} x {height} pixels, too small to hold a nucleus; "
            f"give one of at least {MIN_SIDE} x {MIN_SIDE} pixels"
        )
    if rule.values == "uint8":
        return rule
    return PixelRule(found, channels, _scale(kind, *measure(rule)), alpha)


def value_range(array: Any, rule: PixelRule) -> Range:
    """Return (minimum, maximum) of a lazy array, read in bands of rows: it never lies in memory whole."""
    height, width = rule.spatial_shape(array.shape)
    rows = max(1, _BAND_PIXELS // width)
    blocks = (
        np.asarray(array[rule.index(y, min(y + rows, height), 0, width)]) for y in range(0, height, rows)
    )
    ranges = [(float(block.min()), float(block.max())) for block in blocks]
    low, high = np.asarray(ranges).T
    return float(low.min()), float(high.max())


def _guessed_axes(shape: tuple[int, ...]) -> str:
    if 0 in shape:
        raise NucSegError(
            f"an array of shape {shape} holds no pixel; give an image of at least {MIN_SIDE} x {MIN_SIDE}"
        )
    if len(shape) == 2:
        return "YX"
    if len(shape) == 3:
        first, last = shape[0] in (1, 3, 4), shape[2] in (1, 3, 4)
        if last and not first:
            return "YXC"
        if first and not last:
            return "CYX"
    raise NucSegError(
        f"an array of shape {shape} is not clearly one image; give (H, W, 3) RGB, (H, W, 4) RGBA, (H, W) "
        "grey or (3, H, W), choose one plane of a stack, or name the axes"
    )


def _given_axes(shape: tuple[int, ...], axes: str) -> str:
    found = axes.upper().replace("S", "C")
    order = "".join(axis for axis in found if axis in "YXC")
    others = [n for axis, n in zip(found, shape, strict=False) if axis not in "YXC"]
    if len(found) != len(shape) or order not in ("YX", "YXC", "CYX") or any(n != 1 for n in others):
        raise NucSegError(
            f"the axes {axes!r} do not describe one image of shape {shape}; name one letter per axis, "
            "Y before X, C before or after both, and every other axis of length 1"
        )
    if 0 in shape:
        raise NucSegError(
            f"an array of shape {shape} holds no pixel; give an image of at least {MIN_SIDE} x {MIN_SIDE}"
        )
    return found


def _scale(dtype: np.dtype[Any], low: float, high: float) -> Values:
    """Name the scale of the values, or refuse where more than one is possible."""
    if not (np.isfinite(low) and np.isfinite(high)):
        raise NucSegError(
            "the image holds NaN or infinite values; replace them or convert it to 8-bit RGB first"
        )
    if low < (-_ROUNDING if dtype.kind == "f" else 0.0):
        raise NucSegError(f"the image holds negative values (down to {low:g}); convert it to 8-bit RGB first")
    if dtype.kind == "f":
        if high <= 1.0 + _ROUNDING:
            return "0..1"
        if _DARKEST_BYTE_PEAK <= high <= 255.0 + _ROUNDING:
            return "0..255"
        rule = "floats must span 0..1 or 0..255"
    else:
        if high <= 255:
            return "0..255"
        if dtype.kind == "u" and dtype.itemsize == 2 and high >= 2**15:
            return "0..65535"
        rule = (
            "16-bit images must use all 16 bits, other integers 0..255"
            if dtype.itemsize == 2
            else "integers must lie in 0..255"
        )
    raise NucSegError(
        f"the brightest value of the {dtype} image is {high:g}, which leaves its white level open: {rule}; "
        "convert it to 8-bit RGB first"
    )


def _flatten_alpha(rgba: NDArray[np.uint8], alpha: Alpha) -> NDArray[np.uint8]:
    colour, opacity = rgba[..., :3], rgba[..., 3:]
    if alpha == "ignored" or bool((opacity == 255).all()):
        return np.ascontiguousarray(colour)
    white = 255 - opacity.astype(np.uint16)
    if alpha == "premultiplied":
        return np.minimum(colour + white, 255).astype(np.uint8)
    blended = colour.astype(np.uint32) * opacity + 255 * white.astype(np.uint32)
    return ((blended + 127) // 255).astype(np.uint8)
