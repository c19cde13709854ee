"""The features of a GeoJSON file one after the other, in bounded memory however long the file is."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GEOMETRIES = frozenset(
    ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection")
)

_PIECE = 2**20
_NEAR_THE_END = 2**16
_LONGEST_STRING = 2**24
_NUMBER_TAIL = 2
_BLANK = re.compile(r"[ \t\r\n]*")
_UNREADABLE = (
    OSError,
    EOFError,
    UnicodeError,
    zlib.error,
    zipfile.BadZipFile,
    RuntimeError,
    NotImplementedError,
)
_RULE = "in QuPath, File > Export objects as GeoJSON writes such a file"


class FeatureStream:
    """Features of a GeoJSON file: of a FeatureCollection, a bare list, one Feature or one geometry.

    Plain text in UTF-8 or UTF-16, or compressed as .gz or as the .zip that QuPath offers to write.

    Parameters
    ----------
    path
        File to read.

    Attributes
    ----------
    fraction : float
        How much of the file has been read, 0..1.

    Raises
    ------
    NucSegError
        While iterating: the file can't be read, is cut short, or is neither JSON nor GeoJSON.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.fraction = 0.0

    def __iter__(self) -> Iterator[Any]:
        count = 0
        try:
            with contextlib.ExitStack() as stack:
                read = _opened(stack, self._path, self._tell)
                for feature in _features(_Window(read)):
                    yield feature
                    count += 1
        except _NotJSON as error:
            raise NucSegError(
                f"{self._path} is cut short or no JSON: after {count} objects, at character {error.place}, "
                f"{error.reason}; export it once more ({_RULE})"
            ) from error
        except _NotGeoJSON as error:
            raise NucSegError(f"{self._path} is JSON but no GeoJSON ({error}); {_RULE}") from error
        except _UNREADABLE as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NucSegError(
                f"{self._path} can't be read ({reason}); choose a GeoJSON file, {_RULE}"
            ) from error

    def _tell(self, fraction: float) -> None:
        self.fraction = fraction


class _NotJSON(Exception):
    def __init__(self, reason: str, place: int) -> None:
        super().__init__(reason)
        self.reason, self.place = reason, place


class _NotGeoJSON(Exception):
    pass


def _opened(
    stack: contextlib.ExitStack, path: Path, tell: Callable[[float], None]
) -> Callable[[int], tuple[str, bool]]:
    """Return what reads about n more characters, and whether these were the last."""
    file = stack.enter_context(path.open("rb"))
    size = max(path.stat().st_size, 1)
    head = file.read(4)
    file.seek(0)
    source: IO[bytes] = file
    if head.startswith(b"\x1f\x8b"):
        source = cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=file)))
    elif head == b"PK\x03\x04":
        archive = stack.enter_context(zipfile.ZipFile(file))
        source = stack.enter_context(archive.open(_member(archive)))
    start = source.read(2)
    utf16 = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    decoder = codecs.getincrementaldecoder("utf-16" if utf16 else "utf-8-sig")()
    pending = [start]

    def read(count: int) -> tuple[str, bool]:
        raw = source.read(count)
        text = decoder.decode(pending.pop() + raw if pending else raw, final=not raw)
        tell(min(file.tell() / size, 1.0))
        return text, not raw

    return read


def _member(archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if name.lower().endswith((".geojson", ".json"))]
    if len(names) != 1:
        raise OSError(f"it holds {len(names)} GeoJSON files and has to hold one")
    return names[0]


def _features(text: _Window) -> Iterator[Any]:
    first = text.peek()
    if first == "[":
        yield from _elements(text)
    elif first == "{":
        yield from _of_object(text)
    else:
        text.value()
        raise _NotGeoJSON("it is a single value")
    if text.peek():
        raise text.broken("something follows the end")


def _of_object(text: _Window) -> Iterator[Any]:
    """Yield the features of a collection, or the one that the object is."""
    text.take("{")
    members: dict[str, Any] = {}
    found = False
    more = text.peek() != "}"
    while more:
        name = text.value()
        if not isinstance(name, str):
            raise text.broken("a name is missing")
        text.take(":")
        if name == "features" and text.peek() == "[":
            found = True
            yield from _elements(text)
        else:
            members[name] = text.value()
        more = text.peek() == ","
        if more:
            text.take(",")
    text.take("}")
    if found:
        return
    kind = members.get("type")
    if kind == "Feature" or "geometry" in members:
        yield members
    elif isinstance(kind, str) and kind in GEOMETRIES:
        yield {"type": "Feature", "geometry": members}
    else:
        raise _NotGeoJSON('it has no "features"')


def _elements(text: _Window) -> Iterator[Any]:
    text.take("[")
    more = text.peek() != "]"
    while more:
        yield text.value()
        more = text.peek() == ","
        if more:
            text.take(",")
    text.take("]")


class _Window:
    """The piece of a JSON text that is being decoded."""

    def __init__(self, read: Callable[[int], tuple[str, bool]]) -> None:
        self._read = read
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._before = 0
        self._ended = False

    def peek(self) -> str:
        """Return the next character that is no blank, or nothing at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow():
                return ""

    def take(self, character: str) -> None:
        """Step over the next character, which has to be this one."""
        if self.peek() != character:
            raise self.broken(f"{character!r} is missing")
        self._at += 1

    def value(self) -> Any:
        """Decode the value that comes next."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not (self._may_go_on(error) and self._grow()):
                    raise self.broken(error.msg, error.pos) from None
            except (RecursionError, ValueError) as error:
                reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
                raise self.broken(reason) from None
            else:
                # a number near the window's end may go on behind it: 1 of 12, of 1.2, of 1e-2
                if end + _NUMBER_TAIL < len(self._text) or not self._grow():
                    self._at = end
                    return value

    def broken(self, reason: str, at: int | None = None) -> _NotJSON:
        """Return the error of the place reached."""
        return _NotJSON(reason[:1].lower() + reason[1:], self._before + (self._at if at is None else at))

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Tell a value that the window's end cuts from one that is wrong, lest all of a large file be read."""
        margin = _LONGEST_STRING if error.msg.startswith("Unterminated") else _NEAR_THE_END
        return error.pos > len(self._text) - margin

    def _grow(self) -> bool:
        """Read on, as much as is left at least: so a value of any length is decoded in linear time."""
        if self._ended:
            return False
        rest = self._text[self._at :]
        piece, self._ended = self._read(max(_PIECE, len(rest)))
        self._before += self._at
        self._text, self._at = rest + piece, 0
        return True
