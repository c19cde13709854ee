"""Drawing no more of a Labels layer than has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.tiling import Box

if TYPE_CHECKING:
    from napari.layers import Labels


CELL, REACH = 512, 96
"""Squares of pixels that are drawn in one go, and how far a nucleus reaches out of the one its centre lies in."""


def draw(labels: Labels, box: Box) -> None:
    """Draw a part of a layer whose pixels were written, or are of another colour now, and that part alone.

    napari has no public way to do so; this is what its brush does once it has written. Where napari shows no
    plain 2-D slice of the pixels, the part is drawn at the next full update.
    """
    shown = labels._slice.image
    if labels._slice_input.ndisplay != 2 or not np.shares_memory(shown.raw, labels.data):
        return
    if labels.contour == 0:
        part = tuple(box.slices[axis] for axis in labels._slice_input.displayed)
        shown.view[part] = labels.colormap._data_to_texture(shown.raw[part])
    labels._accumulate_updated_slice(box.slices)
    labels._partial_labels_refresh()


def draw_around(labels: Labels, centres: NDArray[np.float64]) -> None:
    """Draw what lies around (n, 2) centres, those near one another in one go."""
    whole = labels.data.shape
    cells = np.unique((centres // CELL).astype(np.int64), axis=0)
    if len(cells) * (CELL + 2 * REACH) ** 2 > labels.data.size:
        redraw(labels)
        return
    for y, x in cells.tolist():
        cell = Box(y * CELL, (y + 1) * CELL, x * CELL, (x + 1) * CELL)
        draw(labels, cell.grown(REACH, whole))


def draw_palette(labels: Labels) -> None:
    """Draw a layer whose colormap has another palette, while every pixel stands for the same entry of it."""
    labels._selected_color = labels.get_color(labels.selected_label)
    labels.events.colormap()
    labels.events.selected_label()
    labels._update_thumbnail()


def box_of(labels: NDArray[np.uint32], id_: int, centre: tuple[float, float], area: int) -> Box | None:
    """Return the box around one nucleus, None if none of its pixels is found near its centre.

    Parameters
    ----------
    labels : uint32 (H, W)
    id_ : int
    centre : (row, column)
        In a pixel of the nucleus, of which all are connected.
    area : int
        Its pixels.
    """
    whole = Box(0, labels.shape[0], 0, labels.shape[1])
    reach = int(area**0.5) + 2
    y, x = (int(np.floor(c + 0.5)) for c in centre)
    while True:
        window = Box(y - reach, y + reach + 1, x - reach, x + reach + 1).cut(whole)
        if window is None:
            return None
        mask = labels[window.slices] == id_
        found = _bounds(mask, window)
        if found is None or window == whole or not _touches(found, window, whole):
            return found
        reach *= 2


def _bounds(mask: NDArray[np.bool_], window: Box) -> Box | None:
    rows, cols = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not rows.size:
        return None
    y, x = window.y0, window.x0
    return Box(y + int(rows[0]), y + int(rows[-1]) + 1, x + int(cols[0]), x + int(cols[-1]) + 1)


def _touches(found: Box, window: Box, whole: Box) -> bool:
    """Return whether the box found ends at the window's edge, and may go on beyond it."""
    return bool(
        (found.y0 == window.y0 > whole.y0)
        or (found.y1 == window.y1 < whole.y1)
        or (found.x0 == window.x0 > whole.x0)
        or (found.x1 == window.x1 < whole.x1)
    )


def quick_contours(labels: Labels) -> None:
    """Have a layer's outlines found by a compiled loop; napari's filters take some 5 s for 100 megapixels."""
    if "_calculate_contour" in vars(labels):  # done already
        return

    def contours(raw: NDArray[np.uint32], part: tuple[slice, slice]) -> NDArray[np.uint32] | None:
        if labels.contour < 1 or raw.ndim != 2:
            return original(raw, part)
        from napari_nucseg._plugin.contour_kernel import outlines

        rows, cols = part
        return outlines(raw, rows.start, rows.stop, cols.start, cols.stop, int(labels.contour))

    original = labels._calculate_contour
    labels._calculate_contour = contours


def redraw(layer: Any) -> None:
    """Draw a whole layer anew; of a multiscale one napari has the coarsest level in memory, which is read again."""
    forget = getattr(layer, "_reset_thumbnail_level_data", None)
    if layer.multiscale and forget is not None:
        forget()
    layer.refresh(extent=False)
