"""Slides that are damaged in places: what can't be read becomes glass, and is told."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import check_region

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_nucseg.io.slide import ImageSource, Mpp

PIECE = 256
"""Side of the parts in which a damaged place is read, where the file does not say how it is cut."""
MOST = 0.05
"""Share of a level above which its pieces are no local damage any more."""
FEW = 16
"""So many damaged pieces are local damage in a level of any size, unless nothing of it can be read."""

_GLASS = 255
_Key = tuple[int, int, int]  # level, row and column of a piece


@dataclass(frozen=True)
class Damage:
    """A place that can't be read.

    Parameters
    ----------
    level : int
    box : Box
        In pixels of the level.
    reason : str
        One sentence.
    """

    level: int
    box: Box
    reason: str


class Tolerant:
    """A source whose damaged places are read as white glass, and noted.

    A read that fails is tried once more, then done piece by piece: by the tiles of the file, or by
    aligned squares of `PIECE` pixels of the level. Whether a pixel becomes glass depends on its piece alone, never on
    the window in which it was read. Safe in several threads.

    Parameters
    ----------
    source
        Any image source.

    Raises
    ------
    NucSegError
        From `read`: the file has gone or was changed, or more is damaged than a local defect explains.
    """

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self.mpp: Mpp = source.mpp
        self._lock = threading.Lock()
        self._bad: dict[_Key, Damage] = {}
        self._levels: set[int] = set()  # with damage
        path = getattr(source, "path", None)
        self._path = Path(path) if isinstance(path, str | os.PathLike) else None
        self._stamp = _stamp(self._path)

    @property
    def path(self) -> Path | None:
        """File of the source, None where it has none."""
        return self._path

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of level 0."""
        return self.source.shape

    @property
    def level_shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every level."""
        return self.source.level_shapes

    @property
    def damages(self) -> list[Damage]:
        """Places that could not be read so far, each once, by level, row and column."""
        with self._lock:
            return [self._bad[key] for key in sorted(self._bad)]

    def check(self) -> None:
        """Raise `NucSegError` where the file has gone or was changed: what was read is then not to be trusted."""
        stamp = _stamp(self._path)
        if self._path is not None and (stamp is None or stamp != self._stamp):
            what = "has gone" if stamp is None else "was changed"
            raise NucSegError(
                f"{self._path} {what} while it was being read; put the original back and start again"
            )

    def read(self, y0: int, y1: int, x0: int, x1: int, level: int = 0) -> NDArray[np.uint8]:
        """See `ImageSource.read`; what can't be read is white."""
        check_region(self.level_shapes, y0, y1, x0, x1, level)
        box = Box(y0, y1, x0, x1)
        if y0 == y1 or x0 == x1:
            return np.zeros((*box.shape, 3), np.uint8)
        exact = self._tile(level) is not None
        # without tiles of the file a window could be read although a piece that it cuts can't: so it reads whole pieces
        wide = box if exact else self._pieces_around(box, level)
        pixels = None if self._known_bad(wide, level) else self._attempt(wide, level)
        if isinstance(pixels, np.ndarray):
            rows, columns = box.relative(wide).slices
            return pixels[rows, columns]
        return self._piecewise(box, level)

    def _attempt(self, box: Box, level: int) -> NDArray[np.uint8] | str:
        """Read a box, at most twice; or return in a sentence why that fails."""
        reason = ""
        for _ in range(2):
            try:
                return self.source.read(box.y0, box.y1, box.x0, box.x1, level)
            except MemoryError:
                raise
            except Exception as error:  # the exception types of codecs and file systems are legion
                self._check_source(error)
                reason = " ".join(str(error).split()) or type(error).__name__
        return reason

    def _piecewise(self, box: Box, level: int) -> NDArray[np.uint8]:
        out = np.full((*box.shape, 3), _GLASS, np.uint8)
        for key, piece in self._pieces(box, level):
            if key in self._bad:
                continue
            pixels = self._attempt(piece, level)
            if isinstance(pixels, str):
                self._note(key, piece, pixels)
                continue
            shared = piece.cut(box)
            if shared is not None:
                out[shared.relative(box).slices] = pixels[shared.relative(piece).slices]
        return out

    def _note(self, key: _Key, piece: Box, reason: str) -> None:
        level = key[0]
        with self._lock:
            self._bad[key] = Damage(level, piece, reason)
            self._levels.add(level)
            bad = sum(k[0] == level for k in self._bad)
        tall, wide = self._piece_shape(level)
        height, width = self.level_shapes[level]
        total = -(-height // tall) * -(-width // wide)
        if bad >= total or bad > max(FEW, MOST * total):
            name = self._path.name if self._path else "the image"
            raise NucSegError(
                f"{name} can't be read: {bad} of the {total} parts of level {level} are damaged ({reason}); "
                "copy or export it again"
            )

    def _known_bad(self, box: Box, level: int) -> bool:
        """Whether a box holds a piece that is known to be damaged."""
        if level not in self._levels:
            return False
        return any(key in self._bad for key, _ in self._pieces(box, level))

    def _tile(self, level: int) -> tuple[int, int] | None:
        ask = getattr(self.source, "tile_shape", None)
        return ask(level) if ask is not None else None

    def _piece_shape(self, level: int) -> tuple[int, int]:
        return self._tile(level) or (PIECE, PIECE)

    def _pieces(self, box: Box, level: int) -> Iterator[tuple[_Key, Box]]:
        """Yield the pieces of a level that touch a box."""
        tall, wide = self._piece_shape(level)
        height, width = self.level_shapes[level]
        for row in range(box.y0 // tall, -(-box.y1 // tall)):
            for column in range(box.x0 // wide, -(-box.x1 // wide)):
                y, x = row * tall, column * wide
                yield (level, row, column), Box(y, min(y + tall, height), x, min(x + wide, width))

    def _pieces_around(self, box: Box, level: int) -> Box:
        tall, wide = self._piece_shape(level)
        height, width = self.level_shapes[level]
        return Box(
            box.y0 // tall * tall,
            min(-(-box.y1 // tall) * tall, height),
            box.x0 // wide * wide,
            min(-(-box.x1 // wide) * wide, width),
        )

    def _check_source(self, error: Exception) -> None:
        """Raise where the whole source is gone, which no piecewise reading mends."""
        if getattr(self.source, "closed", False):
            raise error
        try:
            self.check()
        except NucSegError as reason:
            raise reason from error


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """Return size and time of change of a file, None where there is none."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return (0, 0) if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)
