"""Colours of labels and of centres, by class or by instance, with classes hidden."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap, label_colormap
from numpy.typing import NDArray
from pydantic import PrivateAttr

BY_CLASS, BY_INSTANCE = "class", "instance"

UNKNOWN = (1.0, 1.0, 1.0, 1.0)
"""Colour of a label without a class, such as one painted by hand."""

NO_CLASS = "unclassified"
"""Name under which nuclei without a class are listed and hidden."""

_CLEAR = np.zeros(4)

MARK = (0.0, 1.0, 1.0, 1.0)
"""Colour of the outline of a selected nucleus: on no slide, and of no class, is anything like it."""

# What stands in the texture: nothing, a nucleus of unknown class, one that is selected, and from `_FIRST` on
# classes or hues.
_NOTHING, _UNKNOWN, _MARKED, _FIRST = 0, 1, 2, 3
_MOST = 250
"""Classes that have a colour of their own in a texture of 8 bits; further ones share them."""
_HUES = 48
_PIECE = 1 << 22


@dataclass(frozen=True)
class Look:
    """How results are shown.

    Attributes
    ----------
    by : {"class", "instance"}
    hidden : frozenset of str
        Classes not shown.
    outlines : bool
        Outlines in place of filled labels.
    """

    by: str = BY_CLASS
    hidden: frozenset[str] = field(default_factory=frozenset)
    outlines: bool = True


def rgba(colours: Mapping[str, Sequence[int]], names: Collection[str]) -> NDArray[np.float64]:
    """Return the colours of the named classes, (n, 4) in 0..1; white for an unknown class."""
    known = {name: (*(c / 255 for c in rgb), 1.0) for name, rgb in colours.items()}
    return np.array([known.get(name, UNKNOWN) for name in names], float).reshape(-1, 4)


class NucleusColormap(DirectLabelColormap):
    """A colormap of labels that looks the class of an id up in an array.

    napari's own direct colormap holds a dictionary of all ids, which is built anew for every id that is added. Here
    an edit writes a few bytes, and only the pixels of that nucleus are mapped again; hiding a class changes one
    colour of the palette and no pixel at all.
    """

    _kinds: NDArray[np.int16] = PrivateAttr(default_factory=lambda: np.full(1024, -1, np.int16))
    _slots: NDArray[np.uint8] = PrivateAttr(default_factory=lambda: np.full(1024, _UNKNOWN, np.uint8))
    _palette: NDArray[np.float32] = PrivateAttr(default_factory=lambda: np.zeros((_FIRST, 4), np.float32))
    _names: tuple[str, ...] = PrivateAttr(default=())
    _look: Look = PrivateAttr(default_factory=Look)
    _marked: NDArray[np.int64] = PrivateAttr(default_factory=lambda: np.zeros(0, np.int64))

    def __init__(self, **data: Any) -> None:
        data.setdefault("color_dict", {None: np.array(UNKNOWN), 0: _CLEAR})
        super().__init__(**data)
        self._slots[0] = _NOTHING
        self.set_look(Look(), {}, ())

    @property
    def look(self) -> Look:
        """How the nuclei are shown."""
        return self._look

    def set_look(self, look: Look, colours: Mapping[str, Sequence[int]], names: Sequence[str]) -> bool:
        """Show in another look, or with other classes.

        Parameters
        ----------
        look : Look
        colours
            Class -> RGB, 0..255.
        names
            Classes in the order of their indices.

        Returns
        -------
        bool
            Whether pixels have to be mapped again; if not, a new palette is all that is needed.
        """
        before, self._look = self._look, look
        self._names = tuple(names)
        if look.by == BY_INSTANCE:
            hues = np.asarray(label_colormap(_HUES + 1, background_value=0).colors)[1:]
        else:
            hues = rgba(colours, names[:_MOST])
            hues[[name in look.hidden for name in names[:_MOST]]] = 0
        unknown = _CLEAR if NO_CLASS in look.hidden else UNKNOWN
        self._palette = np.vstack([_CLEAR, unknown, MARK, hues]).astype(np.float32)
        # What a class shows as is in the palette, except where nuclei are coloured one by one.
        changed = before.by != look.by or (look.by == BY_INSTANCE and before.hidden != look.hidden)
        if changed:
            known = np.arange(1, len(self._kinds) - 1)
            self._slots[1:-1] = self._slot(known, self._kinds[known])
        elif before.outlines != look.outlines:  # filled nuclei are not marked: their class is to be seen
            self._slots[self._marked] = self._slot(self._marked, self._kinds[self._marked])
        return changed

    def set_marked(self, ids: Sequence[int]) -> list[int]:
        """Set which nuclei are selected; return those that look otherwise than before."""
        before, self._marked = self._marked, np.array(sorted(ids), np.int64)
        changed = np.setxor1d(before, self._marked)
        if len(changed):
            self._make_room(int(changed[-1]))
            self._slots[changed] = self._slot(changed, self._kinds[changed])
        return changed.tolist() if self._look.outlines else []

    def set_kinds(self, ids: NDArray[np.integer], kinds: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Set the classes of nuclei: the index of each, -1 if unknown; return which are others than before."""
        if not len(ids):
            return np.zeros(0, np.bool_)
        self._make_room(int(ids.max()))
        changed: NDArray[np.bool_] = self._kinds[ids] != kinds
        self._kinds[ids] = kinds
        self._slots[ids] = self._slot(ids, kinds)
        return changed

    def _make_room(self, most: int) -> None:
        size = len(self._slots)
        if most + 1 < size:  # the last place stands for all that lies beyond
            return
        more = max(2 * size, most + 2) - size
        self._kinds = np.concatenate([self._kinds, np.full(more, -1, np.int16)])
        self._slots = np.concatenate([self._slots, np.full(more, _UNKNOWN, np.uint8)])
        if self._look.by == BY_INSTANCE:
            new = np.arange(size - 1, size + more - 1)
            self._slots[new] = self._slot(new, self._kinds[new])

    def _slot(self, ids: NDArray[np.integer], kinds: NDArray[np.integer]) -> NDArray[np.integer]:
        if self._look.by == BY_CLASS:
            slots = np.where(kinds < 0, _UNKNOWN, _FIRST + kinds % _MOST)
        else:
            names = (*self._names, NO_CLASS)  # the index -1 is the last
            hidden = np.array([name in self._look.hidden for name in names])
            gone = hidden[np.where(kinds < len(self._names), kinds, -1)]
            slots = np.where(gone, _NOTHING, _FIRST + (np.asarray(ids, np.int64) - 1) % _HUES)
        if len(self._marked) and self._look.outlines:
            slots = np.where(np.isin(ids, self._marked), _MARKED, slots)
        return slots

    def _data_to_texture(self, values: Any) -> Any:
        """Map labels to what stands in the texture."""
        if values.dtype.itemsize <= 2:
            return super()._data_to_texture(values)
        if self.use_selection:
            return np.asarray(values == self.selection).astype(np.uint8)[()]
        if not isinstance(values, np.ndarray) or values.size <= _PIECE:
            return self._slots.take(values, mode="clip")
        out = np.empty(values.shape, np.uint8)
        step = max(1, _PIECE * len(values) // values.size)  # take() works with 8 bytes for each pixel
        for start in range(0, len(values), step):
            part = slice(start, start + step)
            self._slots.take(values[part], mode="clip", out=out[part])
        return out

    def _values_mapping_to_minimum_values_set(
        self, apply_selection: bool = True
    ) -> tuple[dict[int | None, int], dict[int, NDArray[Any]]]:
        """Return the palette, as napari's texture wants it; there is no dictionary of ids."""
        if self.use_selection and apply_selection:
            return {}, {0: _CLEAR, 1: self.map(int(self.selection))}
        return {}, dict(enumerate(self._palette))

    def _selection_as_minimum_dtype(self, dtype: Any) -> int:
        return 1

    @property
    def _num_unique_colors(self) -> int:
        return len(self._palette)

    def map(self, values: Any) -> Any:
        """Return the colours of labels, (..., 4)."""
        values = np.asarray(values)
        colours = self._palette[self._slots.take(values, mode="clip")]
        if self.use_selection:
            colours = np.where((values == self.selection)[..., None], colours, np.float32(0))
        return colours
