"""Outlines painted one after another into a label image."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from napari_nucseg.core.targets import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HIDDEN = "nuclei wholly beneath others, left out"
OVERLAPPING = "nuclei that overlap one before, which keeps the pixels"


class Canvas:
    """Paints nuclei; a pixel stays with the first that claims it, as in the organisers' conversion of MoNuSeg.

    Parameters
    ----------
    shape
        (rows, columns) of the image.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.labels = np.zeros(shape, np.int32)
        self.kinds: list[str | None] = []
        self.notes: Counter[str] = Counter()

    def add(self, row: int, column: int, mask: NDArray[np.bool_], kind: str | None) -> None:
        """Paint a mask whose first pixel lies at (row, column) as the next nucleus."""
        part = self.labels[row : row + mask.shape[0], column : column + mask.shape[1]]
        free = mask & (part == 0)
        if not free.any():
            self.notes[HIDDEN] += 1
            return
        self.notes[OVERLAPPING] += int((free != mask).any())
        self.kinds.append(kind)
        part[free] = len(self.kinds)

    def types(self) -> tuple[NDArray[np.uint8] | None, tuple[str, ...]]:
        """Return the class of every pixel and the class names, (None, ()) where no nucleus has a class."""
        return types_of(self.labels, self.kinds)

    def counted(self) -> dict[str, int]:
        """Return the notes that happened."""
        return {text: count for text, count in self.notes.items() if count}


def types_of(
    labels: NDArray[np.int32], kinds: Sequence[str | None]
) -> tuple[NDArray[np.uint8] | None, tuple[str, ...]]:
    """Return the class of every pixel from the class name of each nucleus 1..n, and the names in sorted order.

    Returns
    -------
    types : uint8 (H, W) or None
        0 background, 1..C, `IGNORE` where the nucleus has no class; None where none has.
    classes : tuple of str
    """
    classes = tuple(sorted({kind for kind in kinds if kind is not None}))
    if not classes:
        return None, ()
    table = np.zeros(len(kinds) + 1, np.uint8)
    table[1:] = [IGNORE if kind is None else classes.index(kind) + 1 for kind in kinds]
    return table[labels], classes
