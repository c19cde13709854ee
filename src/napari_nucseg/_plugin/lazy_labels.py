"""Labels of a whole slide as napari shows them: chunks come from the disk in threads, and the window never waits."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.tiling import Box

log = logging.getLogger(__name__)

CACHE_BYTES = 384 * 2**20
PATIENCE = 0.015
"""Seconds that the thread of the window waits for chunks; those that come later are drawn when they are there."""

THREADS = 2

Key = tuple[int, int, int]


class LabelStore:
    """The chunks of all levels, as far as they were read.

    Parameters
    ----------
    levels : sequence of arrays
        (H, W) with ``chunks``, the largest first, each half of the one before.

    Attributes
    ----------
    arrived : callable () or None
        Called in another thread when a chunk has come that holds something.
    arrivals : int
        Such chunks so far.
    """

    def __init__(self, levels: Any) -> None:
        self._arrays = list(levels)
        self._cache: OrderedDict[Key, NDArray[np.uint32] | None] = OrderedDict()
        self._bytes = 0
        self._coming: dict[Key, Future[Any]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, "nucseg-labels")
        self._version = 0
        self.arrivals = 0
        self._hidden: tuple[Box, NDArray[np.uint32]] | None = None
        self.arrived: Callable[[], None] | None = None
        self.levels = [
            LazyLevel(self, k, array, k == len(self._arrays) - 1) for k, array in enumerate(self._arrays)
        ]

    @property
    def is_idle(self) -> bool:
        """Whether no chunk is on its way."""
        with self._lock:
            return not self._coming

    def hide(self, place: Box | None, but: Any = ()) -> None:
        """Show nothing in a place of level 0, but some nuclei; None shows everything again."""
        self._hidden = None if place is None else (place, np.unique(np.asarray(but, np.uint32)))

    def forget(self, levels: Any = None) -> None:
        """Read everything anew, of the given arrays if there are any."""
        with self._lock:
            self._version += 1
            self._cache.clear()
            self._bytes = 0
            for future in self._coming.values():
                future.cancel()
            self._coming.clear()
            if levels is not None:
                self._arrays = list(levels)

    def close(self) -> None:
        """Read no more."""
        self.arrived = None
        self._pool.shutdown(wait=False, cancel_futures=True)

    def read(self, level: int, box: Box, patience: float | None) -> NDArray[np.uint32]:
        """Return the labels of a box; zeros for chunks that are not there within some seconds, if not None."""
        tall, wide = self._arrays[level].chunks
        out = np.zeros(box.shape, np.uint32)
        keys = [
            (level, r, c)
            for r in range(box.y0 // tall, -(-box.y1 // tall))
            for c in range(box.x0 // wide, -(-box.x1 // wide))
        ]
        if patience is None:  # at once, not behind all that was asked for before
            for key in keys:
                self._read_now(key)
        else:
            futures = [future for future in map(self._request, keys) if future is not None]
            if futures:
                wait(futures, patience)
        for key in keys:
            with self._lock:
                chunk = self._cache.get(key)
            if chunk is None:
                continue
            y, x = key[1] * tall, key[2] * wide
            where = Box(y, y + chunk.shape[0], x, x + chunk.shape[1])
            shared = where.cut(box)
            if shared is not None:
                out[shared.relative(box).slices] = chunk[shared.relative(where).slices]
        self._mask(out, level, box)
        return out

    def _request(self, key: Key) -> Future[Any] | None:
        """Have a chunk read; None where it is there."""
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return None
            if key not in self._coming:
                try:
                    self._coming[key] = self._pool.submit(self._load, key, self._version)
                except RuntimeError:  # closed
                    return None
            return self._coming[key]

    def _read_now(self, key: Key) -> None:
        with self._lock:
            known, version = key in self._cache, self._version
            if known:
                self._cache.move_to_end(key)
        if not known:
            self._load(key, version)

    def _load(self, key: Key, version: int) -> None:
        level, row, col = key
        array = self._arrays[level]
        tall, wide = array.chunks
        try:
            chunk = np.asarray(array[row * tall : (row + 1) * tall, col * wide : (col + 1) * wide])
        except Exception:  # what can't be read is shown as nothing
            log.warning("A part of the labels can't be read", exc_info=True)
            chunk = np.zeros((0, 0), np.uint32)
        known = chunk.astype(np.uint32, copy=False) if chunk.any() else None
        with self._lock:
            if version == self._version:
                self._coming.pop(key, None)
            if version == self._version and key not in self._cache:
                self.arrivals += known is not None
                self._cache[key] = known
                self._bytes += 0 if known is None else known.nbytes
                while self._bytes > CACHE_BYTES and len(self._cache) > 1:
                    old = self._cache.popitem(last=False)[1]
                    self._bytes -= 0 if old is None else old.nbytes
        tell = self.arrived
        if known is not None and tell is not None:
            tell()

    def _mask(self, labels: NDArray[np.uint32], level: int, box: Box) -> None:
        if self._hidden is None:
            return
        place, but = self._hidden
        step = 1 << level
        here = Box(-(-place.y0 // step), -(-place.y1 // step), -(-place.x0 // step), -(-place.x1 // step))
        shared = here.cut(box)
        if shared is not None:
            part = labels[shared.relative(box).slices]
            part[~np.isin(part, but)] = 0


class LazyLevel:
    """One level of a `LabelStore`, with numpy's shape, dtype and slicing."""

    ndim = 2
    dtype = np.dtype(np.uint32)

    def __init__(self, store: LabelStore, level: int, array: Any, is_coarsest: bool) -> None:
        self.is_coarsest = is_coarsest
        self.store, self._level = store, level
        self.shape = tuple(int(n) for n in array.shape)
        self.chunks = tuple(min(c, n) for c, n in zip(array.chunks, self.shape, strict=True))
        self.size = int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: Any) -> NDArray[np.uint32]:
        keys = key if isinstance(key, tuple) else (key,)
        keys = tuple(k for k in keys if k is not Ellipsis)
        keys += (slice(None),) * (2 - len(keys))
        spans, rest = zip(*(_span(k, n) for k, n in zip(keys, self.shape, strict=True)), strict=True)
        box = Box(spans[0][0], spans[0][1], spans[1][0], spans[1][1])
        # napari keeps what it gets of the coarsest level, so that is never empty for now
        waits = self.is_coarsest or threading.current_thread() is not threading.main_thread()
        return self.store.read(self._level, box, None if waits else PATIENCE)[rest]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self.store.read(self._level, Box(0, self.shape[0], 0, self.shape[1]), None)
        return whole if dtype is None else whole.astype(dtype)


def _span(key: Any, length: int) -> tuple[tuple[int, int], Any]:
    """Return (start, stop) to read for an index, and the index of what is wanted in what was read."""
    if not isinstance(key, slice):
        at = int(key) + (length if key < 0 else 0)
        if not 0 <= at < length:
            raise IndexError(f"index {key} lies outside an axis of length {length}")
        return (at, at + 1), 0
    start, stop, step = key.indices(length)
    if step < 0:
        raise IndexError("labels of a slide are read forwards")
    return (start, max(start, stop)), slice(None, None, step)
