"""The journal of a session: one JSON object a line, each with a checksum, so that a torn last line is known.

Large changes go over several lines, so that no line holds up the other threads for long; they count once the last
of their lines is there.
"""

from __future__ import annotations

import json
import os
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.nuclei import Change, NucleusClass
from napari_nucseg.io.session_files import WAY_OUT, SessionDamaged, SessionGone, reason, sync
from napari_nucseg.io.session_format import classes_document, parse_classes
from napari_nucseg.io.session_runs import runs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_RUNS, _RECORDS = 20_000, 2_000  # most of them in a line
_CRC = b',"crc":"'
_TAIL = len(_CRC) + len('01234567"}\n')
_FIELDS = ("id", "y", "x", "kind", "score", "state", "origin", "locked", "typed", "floor", "area")


@dataclass(frozen=True)
class Entry:
    """A change as the journal holds it.

    Attributes
    ----------
    runs : int64 (n, 3)
        First flat index, number of pixels, label.
    rows : int64 (r,)
    records : structured (r,)
    classes : tuple of NucleusClass or None
        All the classes from now on, if they have changed.
    """

    runs: NDArray[np.int64]
    rows: NDArray[np.int64]
    records: NDArray[Any]
    classes: tuple[NucleusClass, ...] | None = None

    @classmethod
    def of(cls, change: Change) -> Entry:
        """Return that of a change."""
        return cls(runs_of(change.pixels, change.values), change.rows, change.records)

    @classmethod
    def of_classes(cls, classes: tuple[NucleusClass, ...], dtype: np.dtype[Any]) -> Entry:
        """Return one that sets nothing but the classes."""
        return cls(np.zeros((0, 3), np.int64), np.zeros(0, np.int64), np.zeros(0, dtype), classes)

    def lines(self, number: int, name: str = "") -> Iterator[bytes]:
        """Yield its lines; `number` counts the entries of the session."""
        count = max(1, -(-len(self.runs) // _RUNS), -(-len(self.rows) // _RECORDS))
        for part in range(count):
            content: dict[str, Any] = {"n": number, "name": name}
            if count > 1:
                content["part"] = [part + 1, count]
            if self.classes is not None:
                content["classes"] = classes_document(self.classes)
            content["runs"] = self.runs[part * _RUNS : (part + 1) * _RUNS].tolist()
            places = slice(part * _RECORDS, (part + 1) * _RECORDS)
            content["rows"] = self.rows[places].tolist()
            content["records"] = _plain(self.records[places])
            yield _seal(content)


@dataclass(frozen=True)
class Content:
    """What a journal holds.

    Attributes
    ----------
    entries : list of Entry
        Up to the first bad line.
    size : int
        Bytes of those entries.
    lost : int
        Good lines behind a bad one; 0 where only the end is torn.
    """

    entries: list[Entry]
    size: int
    lost: int


class Journal:
    """A journal being written. Its content counts up to `size`; what a failed append leaves behind is cut off.

    Parameters
    ----------
    path : Path
        Made if `size` is 0.
    size : int
        Bytes that count; what follows is cut off.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path, self.size = path, size
        self._handle = os.open(
            path, os.O_RDWR | getattr(os, "O_BINARY", 0) | (0 if size else os.O_CREAT), 0o666
        )
        self._torn = True
        try:
            self._mend()
            sync(path.parent)
        except OSError:
            os.close(self._handle)
            raise

    def append(self, data: bytes) -> None:
        """Write lines and wait until they are on the disk; after an error none of them counts.

        Raises
        ------
        OSError
            They can't be written.
        SessionGone
            The file is no longer where it was.
        """
        self.check()
        self._mend()
        self._torn = True
        write_fully(self._handle, data)
        os.fsync(self._handle)
        self._torn = False
        self.size += len(data)

    def check(self) -> None:
        """Make sure that the file still is where it was; writing to a deleted one would raise nothing.

        Raises
        ------
        SessionGone
            It is not.
        """
        try:
            same = os.path.samestat(os.stat(self.path), os.fstat(self._handle))
        except OSError:
            same = False
        if not same:
            raise SessionGone(f"{self.path.parent} has vanished; bring it back or choose another folder")

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            os.close(self._handle)

    def _mend(self) -> None:
        if self._torn:
            if os.fstat(self._handle).st_size < self.size:
                raise OSError(f"{self.path.name} has lost its end")
            os.ftruncate(self._handle, self.size)
            os.lseek(self._handle, self.size, os.SEEK_SET)
            os.fsync(self._handle)
            self._torn = False


def check_entry(entry: Entry, pixels: int, rows: int, last_id: int) -> None:
    """Make sure that a change fits an image of so many pixels and a table of so many rows, the last of that id.

    Raises
    ------
    SessionDamaged
        It does not.
    """
    runs = entry.runs
    if len(runs) and (runs[:, 0].min() < 0 or (runs[:, 0] + runs[:, 1]).max() > pixels):
        raise SessionDamaged(f"A change sets pixels outside the {pixels} of the image{WAY_OUT}")
    if len(entry.rows) != len(entry.records) or (entry.rows < 0).any():
        raise SessionDamaged(f"A change sets {len(entry.records)} records in rows {entry.rows}{WAY_OUT}")
    new = entry.rows >= rows
    # ids ascend, so a row that was left out still has an id to itself
    if (entry.records["id"][new] <= last_id + (entry.rows[new] - rows)).any():
        raise SessionDamaged(f"A change sets records {entry.rows[new]} behind {rows} known ones{WAY_OUT}")


def write_fully(handle: int, data: bytes) -> None:
    """Write all of the bytes; a full disk may take a part first."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def read_journal(path: Path, first: int, dtype: np.dtype[Any]) -> Content:
    """Read a journal up to its first bad line.

    Parameters
    ----------
    path
        The file.
    first
        Number of its first entry.
    dtype
        Of the records.

    Raises
    ------
    SessionDamaged
        It is missing.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SessionDamaged(f"{path} can't be read ({reason(error)}){WAY_OUT}") from error
    entries: list[Entry] = []
    parts: list[Entry] = []
    good = position = 0
    while position < len(data):
        end = data.find(b"\n", position) + 1 or len(data)
        content = _unseal(data[position:end])
        if content is None or not _follows(content, first + len(entries), len(parts)):
            lost = sum(_unseal(line) is not None for line in data[end:].splitlines(keepends=True))
            return Content(entries, good, lost)
        parts.append(_entry(content, dtype))
        position = end
        if len(parts) == content.get("part", [1, 1])[1]:
            entries.append(_joined(parts))
            parts, good = [], position
    return Content(entries, good, 0)


def _follows(content: dict[str, Any], number: int, part: int) -> bool:
    return content["n"] == number and content.get("part", [1, 1])[0] == part + 1


def _joined(parts: list[Entry]) -> Entry:
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        runs=np.concatenate([p.runs for p in parts]),
        rows=np.concatenate([p.rows for p in parts]),
        records=np.concatenate([p.records for p in parts]),
    )


def _seal(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()[:-1]
    return text + _CRC + b'%08x"}\n' % zlib.crc32(text)


def _unseal(line: bytes) -> dict[str, Any] | None:
    text, tail = line[:-_TAIL], line[-_TAIL:]
    if tail != _CRC + b'%08x"}\n' % zlib.crc32(text):
        return None
    content: dict[str, Any] = json.loads(text + b"}")
    return content


def _plain(records: NDArray[Any]) -> list[list[Any]]:
    """Return records as JSON holds them: the fields in order, then the probabilities; NaN as null."""
    fields = [records[name].tolist() for name in _FIELDS]
    fields += [records["prob"][:, k].tolist() for k in range(records.dtype["prob"].shape[0])]
    return [[None if v != v else v for v in row] for row in zip(*fields, strict=True)]


def _entry(content: dict[str, Any], dtype: np.dtype[Any]) -> Entry:
    plain = content["records"]
    records = np.zeros(len(plain), dtype)
    if plain:
        fields = [
            np.array([np.nan if v is None else v for v in column]) for column in zip(*plain, strict=True)
        ]
        for name, values in zip(_FIELDS, fields, strict=False):
            records[name] = values
        for k, values in enumerate(fields[len(_FIELDS) :]):
            records["prob"][:, k] = values
    classes = content.get("classes")
    return Entry(
        np.array(content["runs"], np.int64).reshape(-1, 3),
        np.array(content["rows"], np.int64),
        records,
        None if classes is None else parse_classes(classes),
    )
