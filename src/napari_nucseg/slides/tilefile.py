"""One finished tile as bytes: a header in JSON, compressed labels and columns, and a checksum. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.tiling import Box
from napari_nucseg.inference import Tile

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

MAGIC = b"NSTILE01"
_DIGEST = 16
_LEVEL = 1  # of zstd: five times as fast as the level that libraries take by default, and labels shrink by it as well
_SMALL = 2**16


class DamagedTile(Exception):
    """The bytes are not those that were written."""


def pack(tile: Tile, notes: dict[str, Any]) -> bytes:
    """Return a tile as bytes.

    Parameters
    ----------
    tile : Tile
    notes : dict
        Kept with it; whatever JSON can say.
    """
    import imagecodecs

    nuclei = tile.nuclei
    small = len(nuclei) == 0 or int(nuclei["id"].max()) < _SMALL
    labels = np.ascontiguousarray(tile.labels, np.uint16 if small else np.uint32)
    table = io.BytesIO()
    columns: list[dict[str, Any]] = []
    for name in nuclei.columns:
        values = nuclei[name].to_numpy()
        column: dict[str, Any] = {"name": str(name)}
        if values.dtype.kind not in "biuf":
            words, values = np.unique(values.astype(str), return_inverse=True)
            column["words"] = words.tolist()
            values = values.astype(np.uint16)
        np.save(table, values, allow_pickle=False)
        columns.append(column)
    box = tile.box
    header = {
        "index": list(tile.index),
        "box": [box.y0, box.y1, box.x0, box.x1],
        "labels": [labels.dtype.str, *labels.shape],
        "rows": len(nuclei),
        "columns": columns,
        "notes": notes,
    }
    parts = [
        json.dumps(header, separators=(",", ":")).encode(),
        imagecodecs.zstd_encode(labels.tobytes(), level=_LEVEL) if labels.size else b"",
        imagecodecs.zstd_encode(table.getvalue(), level=_LEVEL),
    ]
    sizes = np.array([len(part) for part in parts], "<u8").tobytes()
    body = b"".join([MAGIC, sizes, *parts])
    return body + hashlib.blake2b(body, digest_size=_DIGEST).digest()


def _sections(data: bytes) -> list[memoryview]:
    """Return header, labels and table, after checking that all of them are as written."""
    start = len(MAGIC) + 24
    body = memoryview(data)[:-_DIGEST]
    if len(data) < start + _DIGEST or data[: len(MAGIC)] != MAGIC:
        raise DamagedTile("it is no tile")
    if hashlib.blake2b(body, digest_size=_DIGEST).digest() != data[-_DIGEST:]:
        raise DamagedTile("its checksum is another")
    parts = []
    for size in np.frombuffer(body[len(MAGIC) : start], "<u8").tolist():
        parts.append(body[start : start + size])
        start += size
    return parts


def read_header(data: bytes) -> dict[str, Any]:
    """Return the header of a tile (index, rows, notes ...), its checksum checked; `DamagedTile` if it is not whole."""
    header: dict[str, Any] = json.loads(bytes(_sections(data)[0]))
    return header


def unpack(data: bytes) -> tuple[Tile, dict[str, Any]]:
    """Return the tile and the notes that `pack` was given.

    Raises
    ------
    DamagedTile
        The bytes are not those that were written.
    """
    import imagecodecs

    first, second, third = _sections(data)
    header = json.loads(bytes(first))
    dtype, height, width = header["labels"]
    labels: NDArray[np.uint32] = np.zeros((height, width), np.uint32)
    if labels.size:
        flat = np.frombuffer(imagecodecs.zstd_decode(bytes(second)), dtype)
        labels = flat.reshape(height, width).astype(np.uint32)
    table = _table(io.BytesIO(imagecodecs.zstd_decode(bytes(third))), header["columns"])
    row, column = header["index"]
    return Tile((row, column), Box(*header["box"]), labels, table), header["notes"]


def _table(stream: io.BytesIO, columns: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    data: dict[str, Any] = {}
    for column in columns:
        values = np.load(stream, allow_pickle=False)
        if (words := column.get("words")) is not None:
            values = np.array(words, object)[values] if words else np.array([], object)
        data[column["name"]] = values
    return pd.DataFrame(data)
