"""Pixels of annotated images: read when they are asked for, and kept as far as a limit of memory allows."""

from __future__ import annotations

import mmap
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import get_worker_info

from napari_nucseg.errors import NucSegError
from train.readers.files import read_rgb

_ALIGN = 64


@dataclass(frozen=True)
class Pixels:
    """What is painted of one image.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    labels : uint16 or int32 (H, W), 0 = background
    types : uint8 (H, W) or None
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.integer]
    types: NDArray[np.uint8] | None


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a PNG, JPEG or TIFF as uint8 (H, W, 3) RGB.

    Raises
    ------
    NucSegError
        It can't be read.
    """
    if path.suffix.lower() in {".tif", ".tiff"}:
        return read_rgb(path)[0]
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise NucSegError(f"'{path}' can't be read ({reason}); copy or export it again.") from error


class PixelStore:
    """The pixels of many images, in memory that forked processes share, up to a limit.

    What is read once stays, as long as there is room; what doesn't fit is read anew each time. Nothing is ever
    thrown out for something newer: where crops are drawn at random no order of eviction would hit more often,
    and in passes over all images in turn "the least recently used" would never hit at all.

    Loader workers that are forked share one memory, whoever reads an image first. Where they are spawned (Windows,
    macOS), each keeps its own part of the limit.

    Parameters
    ----------
    read
        From the position of an image to its pixels; must be picklable for spawned workers.
    shapes
        (rows, columns) of every image.
    limit
        In bytes, of all processes of this machine together (`torchrun` tells how many there are).
    """

    def __init__(self, read: Callable[[int], Pixels], shapes: Sequence[tuple[int, int]], limit: int) -> None:
        self._read, self._shapes = read, shapes
        most = sum(_bytes_of(h * w, 4, True) for h, w in shapes)
        self._size = min(most, max(0, limit) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        self._last: tuple[int, Pixels] | None = None
        self._memory: _Shared | None = _Shared(self._size, len(shapes))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the memory behind: it cannot be sent to a spawned process."""
        return self.__dict__ | {"_memory": None, "_last": None}

    def __len__(self) -> int:
        return len(self._shapes)

    @property
    def kept(self) -> int:
        """Bytes in use."""
        return self._shared.used

    @property
    def _shared(self) -> _Shared:
        if self._memory is None:
            info = get_worker_info()
            self._memory = _Shared(self._size // (info.num_workers if info else 1), len(self._shapes))
        return self._memory

    def __getitem__(self, position: int) -> Pixels:
        """Return the pixels of an image; they are read-only."""
        if self._last is not None and self._last[0] == position:
            return self._last[1]
        shape = self._shapes[position]
        pixels = self._shared.get(position, shape)
        if pixels is None:
            pixels = self._read(position)
            if pixels.image.shape[:2] != shape:
                raise NucSegError(f"Image {position} has changed its size since it was listed; start again.")
            pixels = self._shared.put(position, pixels) or pixels
        self._last = (position, pixels)
        return pixels


def _bytes_of(area: int, label_bytes: int, typed: bool) -> int:
    return -(-area * (3 + label_bytes + typed) // _ALIGN) * _ALIGN


_LABEL_TYPES = (np.uint16, np.int32)


class _Shared:
    """Anonymous memory that is inherited by forked processes, with a table of what lies where."""

    def __init__(self, size: int, count: int) -> None:
        # the system gives pages as they are first written, so an empty store takes none
        self._memory = mmap.mmap(-1, max(size, 1))
        self._table = np.frombuffer(mmap.mmap(-1, 16 * (count + 1)), np.int64).reshape(count + 1, 2)
        """Per image: offset + 1 (0 = absent, -1 = being written) and kind; the last row holds the end."""
        self._lock = multiprocessing.Lock()
        self._size = size

    @property
    def used(self) -> int:
        return int(self._table[-1, 0])

    def get(self, position: int, shape: tuple[int, int]) -> Pixels | None:
        # the lock orders the reading of the pixels after their writing on any processor
        with self._lock:
            offset, kind = (int(v) for v in self._table[position])
        return self._views(offset - 1, kind, shape) if offset > 0 else None

    def put(self, position: int, pixels: Pixels) -> Pixels | None:
        """Copy pixels into the memory and return them there; None if there is no room, or another is at it."""
        shape = (pixels.image.shape[0], pixels.image.shape[1])
        small = pixels.labels.dtype == np.uint16
        kind = 2 * (pixels.types is not None) + (not small)
        size = _bytes_of(shape[0] * shape[1], 2 if small else 4, pixels.types is not None)
        with self._lock:
            start = int(self._table[-1, 0])
            if self._table[position, 0] != 0 or start + size > self._size:
                return None
            self._table[position, 0] = -1
            self._table[-1, 0] = start + size
        there = self._views(start, kind, shape, writeable=True)
        there.image[...], there.labels[...] = pixels.image, pixels.labels
        if there.types is not None and pixels.types is not None:
            there.types[...] = pixels.types
        with self._lock:
            self._table[position] = start + 1, kind
        return self._views(start, kind, shape)

    def _views(self, start: int, kind: int, shape: tuple[int, int], writeable: bool = False) -> Pixels:
        area, label_type = shape[0] * shape[1], np.dtype(_LABEL_TYPES[kind % 2])

        def view(dtype: Any, at: int, form: tuple[int, ...]) -> Any:
            array = np.frombuffer(self._memory, dtype, int(np.prod(form)), at).reshape(form)
            array.flags.writeable = writeable
            return array

        # labels first, for their alignment
        labels = view(label_type, start, shape)
        image = view(np.uint8, start + label_type.itemsize * area, (*shape, 3))
        types = view(np.uint8, start + (label_type.itemsize + 3) * area, shape) if kind >= 2 else None
        return Pixels(image, labels, types)
