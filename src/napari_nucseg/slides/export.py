"""GeoJSON of a slide's result as it is now, written anew after a review."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.tiling import Box
from napari_nucseg.io.geojson import GeoJsonWriter

if TYPE_CHECKING:
    from napari_nucseg.slides.result import SlideResult

TILE, REACH = 2048, 256


def export_geojson(result: SlideResult, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write ``<name>_nuclei.geojson`` from the labels and the table of a slide, tile by tile.

    Parameters
    ----------
    progress : callable (done, total), optional
        Nuclei; an error that it raises ends the export, and an older file stays.

    Returns
    -------
    Path
        The file, or the folder of its parts.
    """
    import pandas as pd

    height, width = result.shape
    table: Any = result.table.read(result.table.columns)
    row, col = (table[name].to_numpy().astype(np.int64) // TILE for name in ("centre_y", "centre_x"))
    across = -(-width // TILE)
    order = np.argsort(row * across + col, kind="stable")
    cells = (row * across + col)[order]
    path = result.folder / f"{result.name}_nuclei.geojson"
    with GeoJsonWriter(path, result.colours, result.name) as out:
        done = 0
        for cell in np.unique(cells).tolist():
            first, last = np.searchsorted(cells, [cell, cell + 1])
            rows: pd.DataFrame = table.iloc[order[first:last]].reset_index(drop=True)
            y, x = cell // across * TILE, cell % across * TILE
            box = Box(y, min(y + TILE, height), x, min(x + TILE, width)).grown(REACH, result.shape)
            labels = np.ascontiguousarray(result.levels[0][box.slices], np.uint32)
            labels[~np.isin(labels, rows["id"].to_numpy())] = 0
            out.add(labels, (box.y0, box.x0), rows)
            done += len(rows)
            if progress is not None:
                progress(done, len(table))
        written = out.close()
    result.up_to_date()
    return written[0] if len(written) == 1 else written[0].parent
