"""Nuclei as GeoJSON for QuPath, written while they come in."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import Draft, Writer, remove, told
from napari_nucseg.io.polygons import as_labels, band_rows, bounding_boxes
from napari_nucseg.io.text import Column, Texts, column_of, make_fields, row_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import BinaryIO

    import pandas as pd
    from numpy.typing import NDArray

ID_MEASUREMENT = "NucSeg id"
"""The measurement that carries the nucleus' id through QuPath and back."""

STATE, ORIGIN = "NucSeg state", "NucSeg origin"
"""Metadata of an object that tell of its review; QuPath shows them, and keeps them from 0.5 on."""

NO_CLASS = "unclassified"
"""Stands for no class in tables; objects in QuPath then have none."""

PART_NUCLEI = 500_000
"""More than these make several files: QuPath reads a file as a whole, and half a million nuclei are some 500 MB."""

_METADATA = {"state": STATE, "origin": ORIGIN}
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://napari-hub.org/plugins/napari-nucseg")
_NO_COLOUR = (128, 128, 128)
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
        self._shades = {name: _rgb(colour) for name, colour in (colours or {}).items()}
        self._hash = hashlib.sha1(_NAMESPACE.bytes + f"{namespace}/".encode(), usedforsecurity=False)
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
        fields = make_fields(self._columns(nuclei), len(nuclei))
        self._put(
            labels,
            (int(origin[0]), int(origin[1])),
            ids,
            boxes,
            self._digests(ids),
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

    def _columns(self, nuclei: pd.DataFrame) -> list[tuple[bytes, Column]]:
        """Return the properties of nuclei: class, measurements and metadata."""
        columns: list[tuple[bytes, Column]] = []
        if "class" in nuclei:
            columns.append((b"", column_of(nuclei["class"].astype(object), self._classification)))
        columns.append(
            (f',"measurements":{{{_text(ID_MEASUREMENT)}:'.encode(), nuclei["id"].to_numpy(np.int64))
        )
        names = [name for name in nuclei.select_dtypes("number") if name != "id" and name not in _METADATA]
        columns += [
            (f",{_text(str(name))}:".encode(), column_of(nuclei[name], _number, finite=True))
            for name in names
        ]
        columns.append((b"}", _metadata(nuclei)))
        return columns

    def _classification(self, name: Any) -> bytes:
        if not isinstance(name, str) or not name or name == NO_CLASS:
            return b""
        shade = {"name": name, "color": list(self._shades.get(name, _NO_COLOUR))}
        return f',"classification":{_text(shade)}'.encode()

    def _digests(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        digests = bytearray()
        for id_ in ids.tolist():
            one = self._hash.copy()
            one.update(b"%d" % id_)
            digests += one.digest()
        return np.frombuffer(digests, np.uint8).reshape(-1, 20)

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
        ``state`` and ``origin``, which become the metadata `STATE` and `ORIGIN`; every other numeric column
        becomes a measurement of its name, with eight significant digits (figures that aren't finite are left
        out). Rows whose id isn't in `labels` are skipped.
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


def object_uuid(id_: int, namespace: str) -> str:
    """Return the UUID that the object of a nucleus has in QuPath; see `write_geojson`."""
    return str(uuid.uuid5(_NAMESPACE, f"{namespace}/{id_}"))


def object_uuids(ids: Iterable[int], namespace: str) -> dict[str, int]:
    """Return the id of every nucleus under the UUID of its object: what `read_geojson` knows nuclei by."""
    return {object_uuid(id_, namespace): id_ for id_ in map(int, ids)}


def _check_ids(nuclei: pd.DataFrame) -> None:
    if nuclei["id"].duplicated().any():
        raise NucSegError("a nucleus id stands in two rows of the table; give every nucleus an id of its own")


def _metadata(nuclei: pd.DataFrame) -> Texts:
    """Return the words about every row's review."""
    import pandas as pd

    names = [name for name in _METADATA if name in nuclei]
    words = [nuclei[name].astype(object).to_numpy() for name in names]
    codes, pairs = pd.factorize(pd.Series(list(zip(*words, strict=True)))) if names else (None, [()])
    texts = []
    for pair in pairs:
        known = zip(names, pair, strict=True)
        said = {_METADATA[name]: word for name, word in known if isinstance(word, str) and word}
        texts.append(f',"metadata":{_text(said)}'.encode() if said else b"")
    return Texts(np.zeros(len(nuclei), np.int64) if codes is None else codes.astype(np.int64), texts)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _number(value: Any) -> bytes:
    return str(value).encode()


def _rgb(colour: Sequence[int] | str) -> tuple[int, int, int]:
    try:
        parts = (
            bytes.fromhex(colour.removeprefix("#")) if isinstance(colour, str) else bytes(map(int, colour))
        )
        red, green, blue = parts
    except (TypeError, ValueError):
        raise NucSegError(f"{colour!r} is no colour; give (r, g, b) in 0..255 or '#rrggbb'") from None
    return red, green, blue
