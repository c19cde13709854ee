"""Writing of results: label TIFF, table, GeoJSON."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import replacing
from napari_nucseg.io.geojson import write_geojson
from napari_nucseg.io.mpp import Mpp
from napari_nucseg.io.polygons import row_bands
from napari_nucseg.io.tables import write_csv

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["FORMATS", "save_results", "write_csv", "write_geojson", "write_labels"]

FORMATS = {"tif": "instances.tif", "csv": "nuclei.csv", "geojson": "nuclei.geojson"}
"""Formats of `save_results`, and how the names of their files end."""

TILE = 256
_CLASSIC_LIMIT = 2**31  # uncompressed bytes; well below the 4 GiB that a classic TIFF can address
_CENTIMETRE = 3


def write_labels(
    path: str | Path,
    labels: Any,
    mpp: Mpp | float | None = None,
    *,
    shape: tuple[int, int] | None = None,
) -> None:
    """Write instances as a tiled, deflated TIFF of uint32, with the resolution in pixels per centimetre.

    Parameters
    ----------
    path
        File to write; it appears only when it is complete.
    labels
        (H, W) integers from 0 to 2**32 - 1; anything with numpy's slicing, which is read in bands of 256
        rows. With `shape`: an iterable of the image's tiles of 256 x 256 (smaller ones at the right and
        bottom edges are padded with 0), from left to right and from top to bottom.
    mpp
        Micrometres per pixel; None leaves the resolution out.
    shape
        (H, W), only where `labels` are tiles.

    Raises
    ------
    NucSegError
        The labels aren't 2-D integers in range, the tiles don't fit the shape, or the file can't be written.
    """
    import tifffile

    # chained, since tifffile closes a generator that is handed to it bare, before the check for a tile too many
    tiles = itertools.chain(_checked_tiles(labels, shape) if shape is not None else _cut_tiles(labels))
    height, width = shape if shape is not None else labels.shape
    value = mpp.value if isinstance(mpp, Mpp) else mpp
    options: dict[str, Any] = {}
    if value:
        options = {"resolution": (1e4 / value, 1e4 / value), "resolutionunit": _CENTIMETRE}
    with replacing(path) as draft:
        tifffile.imwrite(
            draft,
            tiles,
            shape=(height, width),
            dtype=np.uint32,
            tile=(TILE, TILE),
            compression="zlib",
            photometric="minisblack",
            bigtiff=height * width * 4 > _CLASSIC_LIMIT,
            software="napari-nucseg",
            metadata=None,
            maxworkers=1,
            **options,
        )
        next(tiles, None)


def save_results(
    folder: str | Path,
    stem: str,
    labels: Any,
    nuclei: pd.DataFrame,
    mpp: Mpp | float | None = None,
    colours: Mapping[str, Sequence[int] | str] | None = None,
    formats: Iterable[str] = tuple(FORMATS),
) -> list[Path]:
    """Write the results of one image.

    Parameters
    ----------
    folder
        Made where it is missing.
    stem
        Name of the image; it also makes the UUIDs of the GeoJSON objects.
    labels
        (H, W) integers, 0 = background.
    nuclei
        One row per nucleus.
    mpp
        Micrometres per pixel of `labels`.
    colours
        Class name -> (r, g, b) or "#rrggbb".
    formats
        Some of `FORMATS`.

    Returns
    -------
    list of Path
        ``<stem>_instances.tif``, ``<stem>_nuclei.csv``, ``<stem>_nuclei.geojson``, as far as asked for, in
        the order of `formats`.

    Raises
    ------
    NucSegError
        An unknown format (before anything is written), or a file can't be written.
    """
    wanted = list(dict.fromkeys(formats))
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown or not wanted:
        raise NucSegError(
            f"{', '.join(unknown) or 'nothing'} is no format to save; choose of {', '.join(FORMATS)}"
        )
    paths = []
    for name in wanted:
        path = Path(folder) / f"{stem}_{FORMATS[name]}"
        if name == "tif":
            write_labels(path, labels, mpp)
        elif name == "csv":
            write_csv(path, nuclei)
        else:
            write_geojson(path, labels, nuclei, colours, namespace=stem)
        paths.append(path)
    return paths


def _cut_tiles(labels: Any) -> Iterator[NDArray[np.uint32]]:
    shape, dtype = tuple(labels.shape), np.dtype(labels.dtype)
    if len(shape) != 2 or dtype.kind not in "ui" or 0 in shape:
        raise NucSegError(f"labels of shape {shape} and dtype {dtype} can't be saved; give (H, W) integers")
    return (
        _tile(band[:, x0 : x0 + TILE])
        for _, band in row_bands(labels, TILE)
        for x0 in range(0, shape[1], TILE)
    )


def _checked_tiles(tiles: Iterable[Any], shape: tuple[int, int]) -> Iterator[NDArray[np.uint32]]:
    expected = -(-shape[0] // TILE) * -(-shape[1] // TILE)
    count = 0
    for tile in tiles:
        count += 1
        if tile.ndim != 2 or max(tile.shape) > TILE or count > expected:
            break
        yield _tile(tile)
    else:
        if count == expected:
            return
    raise NucSegError(
        f"{count} tiles do not make an image of shape {shape}; it has {expected} of {TILE} x {TILE}"
    )


def _tile(part: NDArray[Any]) -> NDArray[np.uint32]:
    if part.dtype != np.uint32 and part.size and (part.min() < 0 or part.max() > 2**32 - 1):
        raise NucSegError(
            f"labels from {part.min()} to {part.max()} can't be saved; ids lie in 1..{2**32 - 1}"
        )
    padded = np.zeros((TILE, TILE), np.uint32)
    padded[: part.shape[0], : part.shape[1]] = part
    return padded
