"""Which part of an image to segment, from the view or from drawn shapes, in level-0 pixels of the image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Shapes
from numpy.typing import NDArray

from napari_nucseg._plugin.images import level0_shape
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError

Polygon = NDArray[np.float64]

AREAL = ("rectangle", "ellipse", "polygon")
"""Kinds of shapes that enclose an area."""

_ELLIPSE_VERTICES = 64


@dataclass(frozen=True)
class Area:
    """Part of an image to segment.

    Attributes
    ----------
    box : Box or None
        None stands for the whole image.
    polygons : tuple of (n, 2) arrays
        Rows and columns of the vertices; nuclei centred in one of them are wanted.
    title : str
        For the user.
    """

    box: Box | None = None
    polygons: tuple[Polygon, ...] = ()
    title: str = "whole image"

    @property
    def extent(self) -> Box | None:
        """The box around all of it, which may reach beyond the image; None for the whole image."""
        if not self.polygons:
            return self.box
        points = np.concatenate(self.polygons)
        low, high = np.floor(points.min(0)).astype(int), np.ceil(points.max(0)).astype(int) + 1
        return Box(int(low[0]), int(high[0]), int(low[1]), int(high[1]))

    def within(self, place: Box | None) -> Area:
        """Return this part of an image in pixels of a place of that image."""
        if place is None:
            return self
        box = None if self.box is None else self.box.relative(place)
        moved = tuple(polygon - (place.y0, place.x0) for polygon in self.polygons)
        return Area(box, moved, self.title)


def view_area(viewer: Any, image: Image) -> Area:
    """Return what the canvas shows of an image.

    Raises
    ------
    NucSegError
        The viewer is in 3-D, or shows nothing of the image.
    """
    if viewer.dims.ndisplay != 2:
        raise NucSegError("The viewer is in 3-D; switch to 2-D to segment the current view.")
    height, width = level0_shape(image)
    low, high = _view_bounds(viewer, image)
    y0, x0 = np.floor(low + 0.5).astype(int)
    y1, x1 = np.ceil(high + 0.5).astype(int)
    box = Box(int(y0), int(y1), int(x0), int(x1)).cut(Box(0, height, 0, width))
    if box is None:
        raise NucSegError(f"The view shows nothing of '{image.name}'; move it over the image.")
    return Area(box, (), "current view")


def _view_bounds(viewer: Any, image: Image) -> tuple[Polygon, Polygon]:
    """Return the corners of the view in level-0 pixels, not cut to the image."""
    canvas = getattr(viewer, "canvas", None)
    if canvas is None:  # napari before 0.9: the part of the layer that was drawn last
        factor = image.downsample_factors[image.data_level] if image.multiscale else np.ones(image.ndim)
        corners = image.corner_pixels * factor
        return corners[0, -2:], corners[1, -2:]
    camera = viewer.scene.camera
    half = np.array(canvas.size, float) / camera.zoom / 2
    centre = np.array(camera.center[-2:], float)
    points = []
    for side in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        world = np.array(viewer.dims.point, float)
        world[list(viewer.dims.displayed[-2:])] = centre + half * side
        points.append(np.array(image.world_to_data(world))[-2:])
    return np.min(points, axis=0), np.max(points, axis=0)


def shapes_area(layers: Iterable[Any], image: Image) -> Area:
    """Return the area of the selected shapes, or of all visible ones where none is selected.

    Parameters
    ----------
    layers : of the viewer
    image : Image
        In whose level-0 pixels the polygons come.

    Raises
    ------
    NucSegError
        There are no shapes that enclose an area.
    """
    drawn = [layer for layer in layers if isinstance(layer, Shapes) and layer.visible]
    chosen = [(layer, k) for layer in drawn for k in sorted(layer.selected_data) if _is_areal(layer, k)]
    title = "selected shape"
    if not chosen:
        chosen = [(layer, k) for layer in drawn for k in range(layer.nshapes) if _is_areal(layer, k)]
        title = "drawn shape"
    if not chosen:
        raise NucSegError(
            "There is no shape to segment in; add a Shapes layer and draw a rectangle, an ellipse or a polygon."
        )
    polygons = tuple(_polygon(layer, k, image) for layer, k in chosen)
    return Area(None, polygons, f"{len(chosen)} {title}{'s' if len(chosen) > 1 else ''}")


def _is_areal(layer: Shapes, index: int) -> bool:
    return layer.shape_type[index] in AREAL


def _polygon(layer: Shapes, index: int, image: Image) -> Polygon:
    vertices = np.asarray(layer.data[index], float)
    if layer.shape_type[index] == "ellipse":  # given by the corners of the rectangle around it
        centre = vertices.mean(0)
        first, second = (vertices[1] - vertices[0]) / 2, (vertices[3] - vertices[0]) / 2
        angle = np.linspace(0, 2 * np.pi, _ELLIPSE_VERTICES, endpoint=False)[:, None]
        vertices = centre + np.cos(angle) * first + np.sin(angle) * second
    return np.array([image.world_to_data(layer.data_to_world(v))[-2:] for v in vertices], float)
