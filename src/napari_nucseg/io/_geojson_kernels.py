"""Compiled loop that writes nuclei as GeoJSON features."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_nucseg.io._outline_kernels import Tracing, part_of, room_for, trace
from napari_nucseg.io._text_kernels import ZERO, Fields, inner, put_bytes, put_digits, put_fields

_HEAD = np.frombuffer(b',\n{"type":"Feature","id":"', np.uint8)
_POLYGON = np.frombuffer(b'","geometry":{"type":"Polygon","coordinates":[', np.uint8)
_PARTS = np.frombuffer(b'","geometry":{"type":"MultiPolygon","coordinates":[', np.uint8)
_PROPERTIES = np.frombuffer(b']},"properties":{"objectType":"detection"', np.uint8)
_TAIL = np.frombuffer(b"}}", np.uint8)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_OPEN, _CLOSE, _COMMA = 91, 93, 44
_FRAME_BYTES = 256
_CORNER_BYTES = 26


@njit(cache=True, nogil=True)
def put_features(
    out: NDArray[np.uint8],
    labels: NDArray[np.uint32],
    origin: tuple[int, int],
    ids: NDArray[np.int64],
    boxes: NDArray[np.int64],
    digests: NDArray[np.uint8],
    fields: Fields,
    width: int,
    first: int,
) -> tuple[int, int]:  # pragma: no cover - compiled
    """Write the nuclei from row `first` on until the text is full, each with a comma and a line feed before it.

    Parameters
    ----------
    out
        Text.
    labels
        (h, w); every nucleus is whole, and lies in its box.
    origin
        Row and column of the first pixel of `labels` in the image.
    ids : (n,)
    boxes : (n, 4)
        First row, end row, first column, end column in `labels`; not empty.
    digests : (n, 20)
        SHA-1 of namespace and id, which make the UUIDs (RFC 9562, version 5).
    fields
        The properties behind the object's type.
    width
        Bytes that the fields of a row take at most.
    first
        Row to begin with.

    Returns
    -------
    int, int
        Bytes written, and the first row that found no room.
    """
    at = ZERO
    space = room_for(at, at)
    for row in range(first, len(ids)):
        box = boxes[row]
        height, across = box[1] - box[0], box[3] - box[2]
        if (height + 2) * (across + 2) > len(space.mask) or (height + 1) * (across + 1) > len(space.place):
            space = room_for(height, across)
        rings = trace(labels, ids[row], box, space)
        need = _FRAME_BYTES + width + _CORNER_BYTES * (space.ends[rings - 1] + 2 * rings)
        if at + need > len(out):
            return at, row
        at = _put_all(out, at, _HEAD)
        at = _put_uuid(out, at, digests[row])
        at = _put_geometry(out, at, space, rings, origin[0] + box[0], origin[1] + box[2])
        at = _put_all(out, at, _PROPERTIES)
        at = put_fields(out, at, fields, row, False)
        at = _put_all(out, at, _TAIL)
    return at, len(ids)


@inner
def _put_all(
    out: NDArray[np.uint8], at: int, source: NDArray[np.uint8]
) -> int:  # pragma: no cover - compiled
    return put_bytes(out, at, source, ZERO, len(source))


@inner
def _put_uuid(
    out: NDArray[np.uint8], at: int, digest: NDArray[np.uint8]
) -> int:  # pragma: no cover - compiled
    for k in range(16):
        byte = digest[k]
        if k == 6:
            byte = byte & 0x0F | 0x50
        elif k == 8:
            byte = byte & 0x3F | 0x80
        if k == 4 or k == 6 or k == 8 or k == 10:
            out[at] = 45
            at += 1
        out[at], out[at + 1] = _HEX[byte >> 4], _HEX[byte & 15]
        at += 2
    return at


@inner
def _put_geometry(
    out: NDArray[np.uint8], at: int, space: Tracing, rings: int, row: int, column: int
) -> int:  # pragma: no cover - compiled
    """Write the parts in raster order of their first pixels, each as its outer ring and then its holes."""
    parts = 0
    for ring in range(rings):
        parts += space.areas[ring] > 0
    at = _put_all(out, at, _POLYGON if parts == 1 else _PARTS)
    for outer in range(rings):
        if space.areas[outer] < 0:
            continue
        if parts > 1:
            out[at] = _OPEN
            at += 1
        at = _put_ring(out, at, space, outer, row, column)
        for ring in range(rings):
            if space.areas[ring] < 0 and (parts == 1 or part_of(space, rings, ring) == outer):
                at = _put_ring(out, at, space, ring, row, column)
        at -= 1  # the comma
        if parts > 1:
            out[at], out[at + 1] = _CLOSE, _COMMA
            at += 2
    return at - 1 if parts > 1 else at


@inner
def _put_ring(
    out: NDArray[np.uint8], at: int, space: Tracing, ring: int, row: int, column: int
) -> int:  # pragma: no cover - compiled
    """Write a closed ring and a comma."""
    first, last = space.ends[ring - 1] if ring else 0, space.ends[ring]
    out[at] = _OPEN
    at += 1
    for k in range(first, last + 1):
        corner = space.corners[k if k < last else first]
        out[at] = _OPEN
        at = put_digits(out, at + 1, column + corner[0])
        out[at] = _COMMA
        at = put_digits(out, at + 1, row + corner[1])
        out[at], out[at + 1] = _CLOSE, _COMMA
        at += 2
    out[at - 1], out[at] = _CLOSE, _COMMA
    return at + 1
