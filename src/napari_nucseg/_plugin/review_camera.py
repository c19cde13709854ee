"""Where the canvas looks: at one nucleus, and which pixels it shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_nucseg.core.tiling import Box

SPAN_UM = 80.0
"""Width of the view around a nucleus where the user's own zoom does not show it well."""

TYPICAL_UM2 = 50.0
"""Area of a nucleus, for one that was rejected and has none."""

SMALLEST, LARGEST = 0.03, 0.5
"""Share of the canvas, in length, that a nucleus takes up for the user's zoom to be kept."""

MARGIN = 0.5
"""Widening of the view on each side within which points are shown too, in units of its size."""


def go_to(viewer: Any, labels: Any, centre: tuple[float, float], area: int, mpp: float) -> None:
    """Move the camera to a nucleus, and zoom only where it is seen too small or too large.

    Parameters
    ----------
    viewer : napari.Viewer
    labels : Labels
        On whose grid the nucleus lies.
    centre : (row, column)
    area : int
        Pixels of the nucleus; 0 if it was rejected.
    mpp : float
        Micrometres per pixel.
    """
    if viewer.dims.ndisplay != 2:
        return
    camera, canvas = viewer.scene.camera, np.array(viewer.canvas.size, float)
    pixel = float(abs(np.asarray(labels.scale)[-1]))  # in units of the world
    diameter = 2 * ((area or TYPICAL_UM2 / mpp**2) / np.pi) ** 0.5 * pixel * camera.zoom  # on the canvas
    share = diameter / canvas.min()
    world = labels.data_to_world(centre)
    camera.center = (*camera.center[:-2], float(world[-2]), float(world[-1]))
    if not SMALLEST <= share <= LARGEST:
        camera.zoom = float(canvas.min() / (SPAN_UM / mpp * pixel))


def view_box(viewer: Any, labels: Any) -> Box | None:
    """Return the pixels of the labels that the canvas shows, with a margin; None where that is not known."""
    if viewer.dims.ndisplay != 2:
        return None
    camera, canvas = viewer.scene.camera, np.array(viewer.canvas.size, float)
    if canvas.min() <= 0 or camera.zoom <= 0:
        return None
    half = canvas / camera.zoom / 2 * (1 + MARGIN)
    centre = np.array(camera.center[-2:], float)
    corners = [
        np.asarray(labels.world_to_data(centre + half * side))[-2:]
        for side in ((-1, -1), (-1, 1), (1, -1), (1, 1))
    ]
    low, high = np.floor(np.min(corners, axis=0)), np.ceil(np.max(corners, axis=0))
    return Box(int(low[0]), int(high[0]) + 1, int(low[1]), int(high[1]) + 1)
