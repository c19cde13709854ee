"""The network's answer for an image, kept in blocks so that later edits need no network.

Blocks are dropped, the longest unused first, once they take more than a given memory: whoever needs them again has
them computed again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.decode import Fields
from napari_nucseg.core.tiling import Box

BLOCK = 256
"""Side of a block in pixels of the model's resolution."""

Index = tuple[int, int]


@dataclass
class _Block:
    fields: Fields
    known: NDArray[np.bool_] | None
    """Which pixels are filled; None once all are."""


class FieldCache:
    """Fields of an image as far as they are known. May be filled in one thread and read in another.

    Parameters
    ----------
    shape : (int, int)
        Of the image at the model's resolution.
    n_classes : int
        Of the model.
    max_bytes : int
        Memory to take at most.
    """

    def __init__(self, shape: tuple[int, int], n_classes: int, max_bytes: int = 2 * 2**30) -> None:
        self.shape, self.n_classes = shape, n_classes
        self._most = max(4, max_bytes // (BLOCK * BLOCK * (6 + n_classes)))
        self._blocks: OrderedDict[Index, _Block] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, box: Box, fields: Fields) -> None:
        """Keep a copy of the fields of a box."""
        with self._lock:
            for index in self._indices(box):
                whole = self._box(index)
                shared = whole.cut(box)
                if shared is None:
                    continue
                block = self._blocks.get(index)
                if block is None:
                    block = _Block(Fields.empty(whole.shape, self.n_classes), np.zeros(whole.shape, np.bool_))
                    self._blocks[index] = block
                where = shared.relative(whole).slices
                block.fields.paste(fields.crop(*shared.relative(box).slices), *where)
                if block.known is not None:
                    block.known[where] = True
                    if block.known.all():
                        block.known = None
                self._blocks.move_to_end(index)
            while len(self._blocks) > self._most:
                self._blocks.popitem(last=False)

    def missing(self, box: Box) -> Box | None:
        """Return the box around the blocks that are not wholly known and touch `box`; None if all is known."""
        with self._lock:
            gaps = [self._box(i) for i in self._indices(box) if not self._is_known(i)]
        if not gaps:
            return None
        return Box(
            min(g.y0 for g in gaps), max(g.y1 for g in gaps), min(g.x0 for g in gaps), max(g.x1 for g in gaps)
        )

    def gather(self, box: Box) -> Fields | None:
        """Return the fields of a box, a copy; None if a part of them is not known."""
        out = Fields.empty(box.shape, self.n_classes)
        with self._lock:
            for index in self._indices(box):
                if not self._is_known(index):
                    return None
                self._blocks.move_to_end(index)
                whole = self._box(index)
                shared = whole.cut(box)
                if shared is not None:
                    part = self._blocks[index].fields.crop(*shared.relative(whole).slices)
                    out.paste(part, *shared.relative(box).slices)
        return out

    def _is_known(self, index: Index) -> bool:
        block = self._blocks.get(index)
        return block is not None and block.known is None

    def _indices(self, box: Box) -> list[Index]:
        rows = range(max(0, box.y0) // BLOCK, -(-min(box.y1, self.shape[0]) // BLOCK))
        cols = range(max(0, box.x0) // BLOCK, -(-min(box.x1, self.shape[1]) // BLOCK))
        return [(r, c) for r in rows for c in cols]

    def _box(self, index: Index) -> Box:
        y, x = index[0] * BLOCK, index[1] * BLOCK
        return Box(y, min(y + BLOCK, self.shape[0]), x, min(x + BLOCK, self.shape[1]))
