"""One level of a slide as an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_nucseg.io.slide import ImageSource


class SlideLevel:
    """One level of a slide with numpy's shape, dtype and basic slicing, read when sliced."""

    ndim = 3
    dtype = np.dtype(np.uint8)

    def __init__(self, source: ImageSource, level: int) -> None:
        self.source = source
        self.level = level
        self.shape = (*source.level_shapes[level], 3)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys = (*keys[:at], *[slice(None)] * (self.ndim + 1 - len(keys)), *keys[at + 1 :])
        keys = keys + (slice(None),) * (self.ndim - len(keys))
        (y0, y1, rows), (x0, x1, columns) = (
            _span(k, n) for k, n in zip(keys[:2], self.shape[:2], strict=True)
        )
        return self.source.read(y0, y1, x0, x1, self.level)[rows, columns, keys[2]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)


def _span(key: Any, length: int) -> tuple[int, int, Any]:
    """Return (start, stop) to read for one index, and the index of the wanted part in what was read."""
    if not isinstance(key, slice):
        at = int(key) + (length if key < 0 else 0)
        if not 0 <= at < length:
            raise IndexError(f"index {key} lies outside an axis of length {length}")
        return at, at + 1, 0
    wanted = range(length)[key]
    if not wanted:
        return 0, 0, slice(None)
    low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
    return low, high + 1, slice(None, None, wanted.step)
