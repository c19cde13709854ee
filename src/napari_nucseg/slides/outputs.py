"""The result files of a slide, all of them written in a stream."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_nucseg.errors import NucSegError
from napari_nucseg.inference import no_nuclei
from napari_nucseg.io import export
from napari_nucseg.io.export import write_labels
from napari_nucseg.io.geojson import GeoJsonWriter
from napari_nucseg.io.omezarr import LabelPyramid, open_labels
from napari_nucseg.io.tables import TableWriter
from napari_nucseg.slides.store import cannot_write, discard

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from napari_nucseg.core.tiling import Box, Index

FORMATS = {**export.FORMATS, "zarr": "labels.zarr", "parquet": "nuclei.parquet"}
"""Formats of results, and how the names of their files end."""

TABLES = ("csv", "parquet")
SUMMARY, TISSUE = "summary.json", "tissue.png"
PARTS = "geojson"
"""How the name of the folder ends that takes the place of one GeoJSON where there are too many nuclei for one."""


def names_of(stem: str, formats: Iterable[str]) -> list[str]:
    """Return the names of the files of some formats."""
    return [f"{stem}_{FORMATS[name]}" for name in formats]


def older_names(stem: str, formats: Iterable[str]) -> list[str]:
    """Return all the names that results of some formats may have had in an earlier run."""
    also = [f"{stem}_{PARTS}"] if "geojson" in formats else []
    return [*names_of(stem, formats), *also, f"{stem}_{TISSUE}"]


@dataclass(frozen=True)
class Canvas:
    """What the labels are of.

    Attributes
    ----------
    shape : (int, int)
        Level 0.
    mpp : float
    classes : tuple of str
    colours : dict
        Class name to RGB.
    """

    shape: tuple[int, int]
    mpp: float
    classes: tuple[str, ...]
    colours: Mapping[str, Sequence[int]]


class Outputs:
    """Writers of all the formats that are wanted, fed tile by tile; a context manager, which an error leaves clean.

    Parameters
    ----------
    folder : path
        Where the files are made.
    stem : str
        Name of the image.
    formats : tuple of str
        Of `FORMATS`.
    canvas : Canvas
    bounds : dict
        Where every tile may paint, in level-0 pixels.

    Raises
    ------
    NucSegError
        A format needs what is not installed.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        formats: tuple[str, ...],
        canvas: Canvas,
        bounds: Mapping[Hashable, Box],
    ) -> None:
        self._folder, self._stem, self._formats, self._canvas = folder, stem, formats, canvas
        self._stack = ExitStack()
        self._labels: LabelPyramid | None = None
        self._tables: TableWriter | None = None
        self._outlines: GeoJsonWriter | None = None
        try:
            self._open(bounds)
        except BaseException:
            self.abort()
            raise

    def _open(self, bounds: Mapping[Hashable, Box]) -> None:
        folder, stem, formats, canvas = self._folder, self._stem, self._formats, self._canvas
        if tables := tuple(name for name in TABLES if name in formats):
            self._tables = TableWriter(folder, stem, tables, like=no_nuclei(canvas.classes))
            self._stack.callback(self._tables.abort)
        if "geojson" in formats:
            path = folder / f"{stem}_{FORMATS['geojson']}"
            self._outlines = GeoJsonWriter(path, canvas.colours, stem)
            self._stack.callback(self._outlines.abort)
        if {"zarr", "tif"} & set(formats):
            # of a TIFF the tiles come in raster order, those of a slide do not: it is copied from the pyramid
            self._pyramid = folder / f"{stem}_{FORMATS['zarr']}"
            self._labels = LabelPyramid(self._pyramid, canvas.shape, canvas.mpp)
            self._stack.callback(self._labels.abort)
            self._labels.expect(bounds)

    def add(self, index: Index, box: Box, labels: NDArray[np.uint32], nuclei: pd.DataFrame) -> None:
        """Write a tile.

        Parameters
        ----------
        index : Index
        box : Box
            Where `labels` lies.
        labels, nuclei
            With their final ids.
        """
        with _told(self._folder):
            if self._tables is not None:
                self._tables.add(nuclei)
            if self._outlines is not None and len(nuclei):
                self._outlines.add(labels, (box.y0, box.x0), nuclei)
            if self._labels is not None:
                self._labels.paint(index, box, labels)

    def leave_out(self, index: Index) -> None:
        """Say that a tile does not come."""
        if self._labels is not None:
            with _told(self._folder):
                self._labels.done(index)

    def close(self) -> None:
        """Complete all files.

        Raises
        ------
        NucSegError
            One cannot be written.
        """
        with _told(self._folder):
            self._close()

    def _close(self) -> None:
        for writer in (self._tables, self._outlines, self._labels):
            if writer is not None:
                writer.close()
        self._stack.pop_all()
        if "tif" in self._formats:
            path = self._folder / f"{self._stem}_{FORMATS['tif']}"
            write_labels(path, open_labels(self._pyramid)[0], self._canvas.mpp)
            if "zarr" not in self._formats:
                discard(self._pyramid)

    def abort(self) -> None:
        """Remove what was written."""
        self._stack.close()


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Add to what a writer says of a full disk that the tiles are kept, and what to do then."""
    try:
        yield
    except NucSegError as error:
        if isinstance(error.__cause__, OSError):
            raise cannot_write(folder, error.__cause__) from error
        raise


def parquet_is_there() -> bool:
    """Return whether Parquet can be written here."""
    import importlib.util

    return importlib.util.find_spec("pyarrow") is not None


def check_formats(formats: Iterable[str]) -> None:
    """Raise `NucSegError` where a format is not known, or needs what is not installed."""
    for name in formats:
        if name not in FORMATS:
            raise NucSegError(f"'{name}' is no format to save; choose of {', '.join(FORMATS)}.")
        if name == "parquet" and not parquet_is_there():
            raise NucSegError(
                "Parquet needs pyarrow, which is not installed; pip install pyarrow, or leave out parquet."
            )
