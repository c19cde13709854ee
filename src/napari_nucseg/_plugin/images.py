"""What the panel needs to know of an image layer: its pixels, its resolution, its place in the world."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Iterable
from typing import Any

import numpy as np
from napari.layers import Image
from napari.utils.transforms import Affine

from napari_nucseg._plugin.levels import real_levels
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.image import decide_rule
from napari_nucseg.io.mpp import Mpp

log = logging.getLogger(__name__)

STATED = "napari_nucseg_stated_mpp"
"""Key of a layer's metadata under which the figure typed by the user is kept."""

FILE_MPP = "napari_nucseg_file_mpp"
"""Key of a layer's metadata for what the file of a layer says that another reader has opened."""

REVIEW_MPP = "napari_nucseg_review_mpp"
"""Key of a layer's metadata for the resolution at which a saved review of it was made."""

IMAGE_ID = "napari_nucseg_image_id"
"""Key of a layer's metadata that ties its results to it, whatever the layers are renamed to."""


def image_layers(layers: Iterable[Any]) -> list[Image]:
    """Return the Image layers of a viewer, the topmost first."""
    return [layer for layer in reversed(list(layers)) if isinstance(layer, Image)]


def pixels_of(layer: Image) -> Any:
    """Return an image layer's array, or the list of arrays of a multiscale one."""
    return real_levels(layer.data) if layer.multiscale else layer.data


def axes_of(layer: Image) -> str | None:
    """Return the axes where the layer knows them better than the shape of its array tells."""
    return "YXC" if layer.rgb else None


def why_no_image(layer: Image) -> str | None:
    """Return why the shape of a layer is not that of one image, None where it is; no pixel is read."""
    first = layer.data[0] if layer.multiscale else layer.data
    try:
        decide_rule(first.shape, np.uint8, axes_of(layer), lambda _: (0.0, 255.0))
    except NucSegError as error:
        if layer.ndim == 2:
            return str(error)
        return (
            f"This is a stack: choose one plane of {tuple(first.shape)}, such as with Split Stack in the "
            "menu of the layer."
        )
    return None


def level0_shape(layer: Image) -> tuple[int, int]:
    """Return (height, width) in level-0 pixels; rows and columns are the last axes of the layer."""
    first = layer.data[0] if layer.multiscale else layer.data
    height, width = first.shape[-3:-1] if layer.rgb else first.shape[-2:]
    return int(height), int(width)


def image_id(layer: Image) -> str:
    """Return the mark that ties results to this layer, made at the first call."""
    mark: str = layer.metadata.setdefault(IMAGE_ID, uuid.uuid4().hex)
    return mark


def placed(layer: Any, offset: tuple[float, float], step: tuple[float, float]) -> dict[str, Any]:
    """Return the transform of a 2-D layer with other pixels on a layer.

    Parameters
    ----------
    layer : Layer
    offset : (row, column)
        Where the centre of its first pixel lies, in pixels of `layer`.
    step : (rows, columns)
        Size of its pixels.
    """
    scale, translate = np.asarray(layer.scale[-2:], float), np.asarray(layer.translate[-2:], float)
    linear = Affine(scale=scale, rotate=layer.rotate[-2:, -2:], shear=layer.shear[-1:], ndim=2)
    moved = translate + np.asarray(linear(np.asarray(offset, float)))
    return {**placement(layer), "scale": tuple(scale * step), "translate": tuple(moved)}


def placement(layer: Any, place: Box | None = None) -> dict[str, Any]:
    """Return the transform of a layer's rows and columns, as keyword arguments of a 2-D layer.

    Parameters
    ----------
    layer : Layer
    place : Box, optional
        Part of the layer, in its pixels, that the new layer is to lie on.
    """
    scale, translate = np.asarray(layer.scale[-2:], float), np.asarray(layer.translate[-2:], float)
    if place is not None:
        linear = Affine(scale=scale, rotate=layer.rotate[-2:, -2:], shear=layer.shear[-1:], ndim=2)
        translate = translate + np.asarray(linear(np.array([place.y0, place.x0], float)))
    return {
        "scale": tuple(scale),
        "translate": tuple(translate),
        "rotate": layer.rotate[-2:, -2:],
        "shear": layer.shear[-1:],
        "affine": layer.affine.affine_matrix[-3:, -3:],
        "units": tuple(layer.units[-2:]),
    }


def mpp_of(layer: Image) -> Mpp:
    """Return the resolution to use for a layer: what the user stated, else what its file or scale says."""
    stated = layer.metadata.get(STATED)
    return read_mpp(layer) if stated is None else Mpp.stated(stated)


def state_mpp(layer: Image, value: float | None) -> None:
    """Remember the user's figure for a layer; None goes back to what the file says.

    Raises
    ------
    NucSegError
        The figure is no resolution at which nuclei can be seen.
    """
    if value is None:
        layer.metadata.pop(STATED, None)
    else:
        layer.metadata[STATED] = Mpp.stated(value).value


def read_mpp(layer: Image) -> Mpp:
    """Return what the reader of a layer, else its scale in units of length, says of its resolution."""
    known = layer.metadata.get("napari_nucseg")
    known = known if isinstance(known, dict) else {}
    source = str(known.get("mpp_source") or "unknown")
    if known.get("mpp") is not None:
        try:
            return Mpp.stated(known["mpp"], source if source != "unknown" else "layer metadata")
        except NucSegError as error:
            return Mpp(None, f"unknown ({error})")
    found = _from_scale(layer) or layer.metadata.get(FILE_MPP) or Mpp(None, source)
    return layer.metadata.get(REVIEW_MPP, found) if found.value is None else found


def file_to_ask(layer: Image) -> str | None:
    """Return the path of a layer that says nothing of its resolution and whose file was not yet asked."""
    told = "napari_nucseg" in layer.metadata or FILE_MPP in layer.metadata or _from_scale(layer) is not None
    return None if told or not layer.source.path else str(layer.source.path)


def file_mpp(path: str, shape: tuple[int, int]) -> Mpp:
    """Return what a file says of its resolution; unknown where it can't be read or is not of this shape.

    Parameters
    ----------
    path
    shape
        (height, width) in level-0 pixels of the layer, which may show another part or level of the file.
    """
    from napari_nucseg.io.slide import read_image

    try:
        with read_image(path) as slide:
            return slide.mpp if slide.shape == shape else Mpp()
    except Exception:  # nobody has asked for this file to be read
        log.debug("no resolution in %s", path, exc_info=True)
        return Mpp()


def _from_scale(layer: Image) -> Mpp | None:
    sizes = [_micrometres(s, u) for s, u in zip(layer.scale[-2:], layer.units[-2:], strict=True)]
    if any(math.isnan(size) for size in sizes):
        return None
    return Mpp.found(sizes[1], sizes[0], "layer scale")


def _micrometres(size: float, unit: Any) -> float:
    """Convert a length; NaN where the unit, such as napari's default "pixel", is none of length."""
    try:
        return abs(float((float(size) * unit).to("micrometer").magnitude))
    except (AttributeError, TypeError, ValueError):  # pint's DimensionalityError is a TypeError
        return math.nan
