"""Decoded tiles of an open file: the most recently used ones, and windows put together of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray

CACHE_BYTES = 128 * 2**20
"""Decoded tiles kept per open file: enough that windows in raster order, some 2400 px high over a block of 16,000 px,
decode each tile of 256 px once, and some of 512 px a second time."""


class TileCache:
    """The most recently used decoded tiles, up to a number of bytes; safe in several threads.

    Parameters
    ----------
    limit
        Bytes kept; one tile is kept even where it alone is larger.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.hits, self.misses = 0, 0
        self.size = 0
        self._limit = limit
        self._lock = threading.Lock()
        self._items: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Hashable) -> NDArray[Any] | None:
        """Return a tile, None if it is not here."""
        with self._lock:
            known = self._items.get(key)
            if known is None:
                self.misses += 1
            else:
                self.hits += 1
                self._items.move_to_end(key)
            return known

    def put(self, key: Hashable, tile: NDArray[Any]) -> None:
        """Keep a tile, and forget those that were not used for the longest time."""
        with self._lock:
            if key in self._items:
                return
            self._items[key] = tile
            self.size += tile.nbytes
            while self.size > self._limit and len(self._items) > 1:
                self.size -= self._items.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget all tiles."""
        with self._lock:
            self._items.clear()
            self.size = 0


def assemble(
    out: NDArray[Any],
    corner: tuple[int, int],
    tile: tuple[int, int],
    load: Callable[[int, int], NDArray[Any] | None],
) -> None:
    """Fill a window with the tiles that touch it.

    Parameters
    ----------
    out
        (h, w, samples), changed in place.
    corner
        Row and column of the image at which it begins.
    tile
        Height and width of a tile; the first one begins at the image's corner.
    load
        Called with row and column of a tile in the grid; returns (rows, columns, samples), at least the part that
        lies in the image, or None to leave the window as it is there.
    """
    (y0, x0), (tall, wide) = corner, tile
    y1, x1 = y0 + out.shape[0], x0 + out.shape[1]
    for row in range(y0 // tall, -(-y1 // tall)):
        top = row * tall
        a, b = max(y0, top), min(y1, top + tall)
        for column in range(x0 // wide, -(-x1 // wide)):
            pixels = load(row, column)
            if pixels is not None:
                left = column * wide
                c, d = max(x0, left), min(x1, left + wide)
                out[a - y0 : b - y0, c - x0 : d - x0] = pixels[a - top : b - top, c - left : d - left]
