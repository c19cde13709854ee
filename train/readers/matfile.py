"""Arrays of numbers in Matlab files of version 5 to 7, read such that no damage can do more than raise.

The form is MathWorks' "MAT-File Format"; SciPy's reader crashes the whole process on some damaged files, which would
end a conversion of thousands of images.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Type of an element -> numpy dtype."""
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""Class of a matrix -> numpy dtype; text, cells, structures and sparse matrices are others."""
_COMPLEX = 0x0800
_MOST_BYTES = 2**31


def read_numbers(path: Path) -> dict[str, NDArray[Any]]:
    """Read all real arrays of numbers of a Matlab file; text, cells, structures and sparse matrices are passed over.

    Raises
    ------
    NucSegError
        It can't be read, is damaged, or not of version 5 to 7 (7.3 is another format).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NucSegError(f"'{path}' can't be read ({error.strerror}); copy it again.") from error
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise NucSegError(f"'{path}' is no Matlab file of version 5 to 7; save it with -v7.")
    if struct.unpack(order + "H", content[124:126])[0] != 0x0100:
        raise NucSegError(f"'{path}' is in Matlab's format 7.3; save it with -v7.")
    try:
        return dict(_matrices(memoryview(content)[_HEADER:], order))
    except (ValueError, struct.error, zlib.error, UnicodeDecodeError) as error:
        raise NucSegError(f"'{path}' is a damaged Matlab file ({error}); download it again.") from error


def _matrices(data: memoryview, order: str) -> Iterator[tuple[str, NDArray[Any]]]:
    for kind, body in _elements(data, order):
        if kind == _COMPRESSED:
            unpacked = zlib.decompressobj()
            inner = unpacked.decompress(body, _MOST_BYTES)
            if not unpacked.eof:
                raise ValueError("compressed data are cut short")
            yield from _matrices(memoryview(inner), order)
        elif kind == _MATRIX:
            found = _matrix(body, order)
            if found is not None:
                yield found
        else:
            raise ValueError(f"element of type {kind}")


def _matrix(body: memoryview, order: str) -> tuple[str, NDArray[Any]] | None:
    parts = _elements(body, order)
    flags = _part(parts, 6, "flags")
    if len(flags) < 8:
        raise ValueError("flags cut short")
    word = struct.unpack(order + "I", flags[:4])[0]
    kind = _CLASSES.get(word & 0xFF)
    if kind is None or word & _COMPLEX:
        return None
    shape = np.frombuffer(_part(parts, 5, "size"), order + "i4").astype(np.int64).tolist()
    name = bytes(_part(parts, 1, "name")).decode("ascii")
    stored, values = next(parts, (0, memoryview(b"")))
    if stored not in _STORED or min(shape, default=-1) < 0:
        raise ValueError(f"array '{name}' of stored type {stored} and size {shape}")
    dtype = np.dtype(order + _STORED[stored])
    if math.prod(shape) * dtype.itemsize != len(values):
        raise ValueError(f"array '{name}' of size {shape} has {len(values)} bytes")
    return name, np.frombuffer(values, dtype).reshape(shape, order="F").astype(kind)


def _part(parts: Iterator[tuple[int, memoryview]], wanted: int, what: str) -> memoryview:
    kind, body = next(parts, (0, memoryview(b"")))
    if kind != wanted:
        raise ValueError(f"no {what} of an array")
    return body


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Walk type and content of the elements one after another."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack(order + "II", data[at : at + 8])
        if kind >> 16:  # up to four bytes stand in the tag itself
            kind, size, start, following = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if size > 4:
                raise ValueError(f"small element of {size} bytes")
        else:
            start = at + 8
            following = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data):
            raise ValueError(f"{start + size} bytes are needed and {len(data)} there")
        yield kind, data[start : start + size]
        at = following
