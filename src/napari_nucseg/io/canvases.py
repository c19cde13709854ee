"""Chunks of labels in work: what tiles are painted on before it is written."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

Place = tuple[int, int, int]
"""Level, row and column of a chunk."""

LEVEL = 2
"""Of zlib, the one compression that every reader of Zarr 2 knows (QuPath's lacks zstd). Of zlib-ng's levels it is as
fast as 1 on labels, and packs them twice as tightly."""

_HELD_BYTES = 128 * 2**20
_SPARE = 8


class Canvases:
    """Chunks in work: the ones used last as arrays, the others compressed."""

    def __init__(self, chunk: int) -> None:
        self._shape, self._held = (chunk, chunk), max(4, _HELD_BYTES // (chunk * chunk * 4))
        self._arrays: OrderedDict[Place, NDArray[np.uint32]] = OrderedDict()
        self._parked: dict[Place, bytes] = {}
        self._blank: list[NDArray[np.uint32]] = []  # wiping costs a third of what fresh memory costs

    def take(self, place: Place) -> NDArray[np.uint32]:
        """Return a canvas to paint on at once, empty at first."""
        canvas = self.pop(place)
        if canvas is None:
            canvas = self._blank.pop() if self._blank else np.zeros(self._shape, np.uint32)
        self._arrays[place] = canvas
        if len(self._arrays) > self._held:
            self._park(*self._arrays.popitem(last=False))
        return canvas

    def pop(self, place: Place) -> NDArray[np.uint32] | None:
        """Return a canvas and forget it; None if it is empty."""
        canvas = self._arrays.pop(place, None)
        if canvas is None and place in self._parked:
            data = zlib.decompress(self._parked.pop(place), bufsize=self._shape[0] ** 2 * 4)
            canvas = np.frombuffer(bytearray(data), np.uint32).reshape(self._shape)
        return canvas

    def give_back(self, canvas: NDArray[np.uint32]) -> None:
        """Take a canvas that was popped and is used no more."""
        if len(self._blank) < _SPARE:
            canvas.fill(0)
            self._blank.append(canvas)

    def clear(self) -> None:
        """Forget all."""
        self._arrays.clear()
        self._parked.clear()
        self._blank.clear()

    def _park(self, place: Place, canvas: NDArray[np.uint32]) -> None:
        self._parked[place] = compressed(canvas)
        self.give_back(canvas)


def compressed(canvas: NDArray[np.uint32]) -> bytes:
    """Return a chunk as it lies in a file."""
    import imagecodecs

    data: Any = np.ascontiguousarray(canvas, "<u4")
    if imagecodecs.ZLIBNG.available:
        return bytes(imagecodecs.zlibng_encode(data, level=LEVEL))
    return zlib.compress(data, 1)


@njit(cache=True, nogil=True)
def holds_any(
    labels: NDArray[np.uint32], y0: int, y1: int, x0: int, x1: int
) -> bool:  # pragma: no cover - compiled
    """Return whether labels[y0:y1, x0:x1] has a pixel that isn't 0."""
    for r in range(y0, y1):
        for c in range(x0, x1):
            if labels[r, c]:
                return True
    return False


@njit(cache=True, nogil=True)
def overlay(
    canvas: NDArray[np.uint32], y: int, x: int, labels: NDArray[np.uint32], y0: int, y1: int, x0: int, x1: int
) -> None:  # pragma: no cover - compiled
    """Set the pixels that aren't 0 of labels[y0:y1, x0:x1] in the canvas from (y, x) on."""
    for r in range(y1 - y0):
        target, source = canvas[y + r, x : x + x1 - x0], labels[y0 + r, x0:x1]
        for c in range(x1 - x0):
            target[c] = source[c] if source[c] else target[c]
