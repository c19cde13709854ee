"""Nuclei as GeoJSON for QuPath, written while they come in."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import Draft, Writer, remove, told
from napari_nucseg.io.geojson_objects import properties, rgb, uuid_digests
from napari_nucseg.io.polygons import as_labels, band_rows, bounding_boxes
from napari_nucseg.io.text import make_fields, row_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import BinaryIO

    import pandas as pd
    from numpy.typing import NDArray

PART_NUCLEI = 500_000
"""More than these make several files: QuPath reads a file as a whole, and half a million nuclei are some 500 MB."""

_BUFFER = 2**22


class GeoJsonWriter(Writer):
    """Writes nuclei tile by tile as detections that QuPath (0.4 or newer) imports, classes and measurements included.

    Parameters
    ----------
    path : path
        File to write. When more nuclei come than one part holds, there is a folder of parts instead:
        ``<name>_geojson/part-0001.geojson`` and so on for ``<name>_nuclei.geojson``.
    colours : mapping, optional
        Class name -> (r, g, b) in 0..255, or "#rrggbb"; classes without one are grey.
    namespace : str
        Makes the objects' UUIDs: the same namespace and id give the same UUID, so that the objects of a
        second export of an image are known to be those of the first. The image's name is a good one.
    part_nuclei : int or None
        A new part begins with the table that would make the last one larger than this; None for one file.

    Raises
    ------
    NucSegError
        A colour is no colour, or (from every method) the file can't be written.
    """

    def __init__(
        self,
        path: str | Path,
        colours: Mapping[str, Sequence[int] | str] | None = None,
        namespace: str = "",
        *,
        part_nuclei: int | None = PART_NUCLEI,
    ) -> None:
        self.path = Path(path)
        self.folder = self.path.with_name(f"{self.path.stem.removesuffix('_nuclei')}_geojson")
        self._shades = {name: rgb(colour) for name, colour in (colours or {}).items()}
        self._namespace = namespace
        self._part_nuclei = part_nuclei
        self._buffer = np.empty(_BUFFER, np.uint8)
        self._file: BinaryIO | None = None
        self._parts = self._count = 0
        with told(self.path):
            self._draft = Draft(self.folder)  # of the parts, even if it is only one in the end
            try:
                self._draft.path.mkdir()
                self._begin_part()
            except BaseException:
                self._drop()
                raise

    def add(self, labels: Any, origin: tuple[int, int], nuclei: pd.DataFrame) -> None:
        """Write the nuclei of a tile.

        Parameters
        ----------
        labels
            (h, w) integers, 0 = background, in which every nucleus is whole.
        origin
            Row and column of the first pixel of `labels` in the image.
        nuclei
            See `write_geojson`.

        Raises
        ------
        NucSegError
            An id stands in two rows of the table.
        """
        _check_ids(nuclei)
        part = as_labels(labels)
        self.add_boxed(part, origin, nuclei, bounding_boxes(part, nuclei["id"].to_numpy()))

    def add_boxed(
        self,
        labels: NDArray[np.uint32],
        origin: tuple[int, int],
        nuclei: pd.DataFrame,
        boxes: NDArray[np.int64],
    ) -> None:
        """Write nuclei that are known to lie in `boxes` of `labels`, as `bounding_boxes` finds them."""
        there = boxes[:, 1] > 0
        if not there.all():
            nuclei, boxes = nuclei[there], boxes[there]
        if not len(nuclei):
            return
        if self._part_nuclei is not None and self._count and self._count + len(nuclei) > self._part_nuclei:
            self._end_part()
            self._begin_part()
        ids = nuclei["id"].to_numpy(np.int64)
        fields = make_fields(properties(nuclei, self._shades), len(nuclei))
        self._put(
            labels,
            (int(origin[0]), int(origin[1])),
            ids,
            boxes,
            uuid_digests(ids, self._namespace),
            fields,
            row_bytes(fields),
        )

    def _put(
        self, labels: NDArray[np.uint32], origin: tuple[int, int], ids: NDArray[np.int64], *rest: Any
    ) -> None:
        from napari_nucseg.io._geojson_kernels import put_features

        row = 0
        with told(self.path):
            while row < len(ids):
                size, then = put_features(self._buffer, labels, origin, ids, *rest, row)
                if then == row:
                    self._buffer = np.empty(2 * len(self._buffer), np.uint8)
                    continue
                text = self._buffer[0 if self._count else 1 : size]  # the first has no comma before it
                self._opened.write(text.data)
                self._count += then - row
                row = then

    @property
    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("the writer is closed")
        return self._file

    def _begin_part(self) -> None:
        self._parts += 1
        self._count = 0
        with told(self.path):
            self._file = (self._draft.path / f"part-{self._parts:04}.geojson").open("wb")
            self._file.write(b'{"type":"FeatureCollection","features":[')

    def _end_part(self) -> None:
        with told(self.path):
            self._opened.write(b"\n]}\n")
            self._opened.close()

    def _finish(self) -> list[Path]:
        self._end_part()
        with told(self.path):
            if self._parts > 1:
                self._draft.commit()
                remove(self.path)
                return [self.folder]
            os.replace(self._draft.path / "part-0001.geojson", self.path)
        for older in self.folder.glob("part-*.geojson"):
            remove(older)
        with suppress(OSError):
            self.folder.rmdir()
        return [self.path]

    def _drop(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
        self._draft.discard()


def write_geojson(
    path: str | Path,
    labels: Any,
    nuclei: pd.DataFrame,
    colours: Mapping[str, Sequence[int] | str] | None = None,
    namespace: str = "",
) -> None:
    """Write nuclei as detections that QuPath (0.4 or newer) imports with their classes and measurements.

    The labels are read in bands of rows, and the file appears only when it is complete.

    Parameters
    ----------
    path
        File to write.
    labels
        (H, W) integers, 0 = background; anything with numpy's slicing.
    nuclei
        One row per nucleus: column ``id``, optionally ``class`` (`NO_CLASS` for none), and of a review
        ``state`` and ``origin``, which become the metadata `STATE` and `ORIGIN` (all are predicted with a ``score``
        and without ``state``); every other numeric column becomes a measurement of its name, with eight significant
        digits (figures that aren't finite are left out). Rows whose id isn't in `labels` are skipped.
    colours, namespace
        See `GeoJsonWriter`.

    Notes
    -----
    Outlines run along pixel edges in pixels of level 0, x to the right and y down: the pixel at (row,
    column) is the square from (column, row) to (column + 1, row + 1). Features are in the order of the
    table, in an image of more than 16 million pixels in that of the rows of pixels.

    Raises
    ------
    NucSegError
        An id stands in two rows, a colour is no colour, or the file can't be written.
    """
    with GeoJsonWriter(path, colours, namespace, part_nuclei=None) as writer:
        _check_ids(nuclei)
        boxes = bounding_boxes(labels, nuclei["id"].to_numpy())
        height, rows = labels.shape[0], band_rows(labels.shape[1])
        for y0 in range(0, height, rows):
            begins = (boxes[:, 0] >= y0) & (boxes[:, 0] < y0 + rows) & (boxes[:, 1] > 0)
            if begins.any():
                offset = np.array([y0, y0, 0, 0], np.int64)
                band = as_labels(labels[y0 : boxes[begins, 1].max()])
                writer.add_boxed(band, (y0, 0), nuclei[begins], boxes[begins] - offset)


def _check_ids(nuclei: pd.DataFrame) -> None:
    if nuclei["id"].duplicated().any():
        raise NucSegError("a nucleus id stands in two rows of the table; give every nucleus an id of its own")
