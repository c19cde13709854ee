"""Colours of labels and of centres, by class or by instance, with classes hidden."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BY_CLASS, BY_INSTANCE = "class", "instance"

UNKNOWN = (1.0, 1.0, 1.0, 1.0)
"""Colour of a label without a class, such as one painted by hand."""

_CLEAR = np.zeros(4)


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


def labels_colormap(
    look: Look, ids: NDArray[np.integer], names: Sequence[str], colours: Mapping[str, Sequence[int]]
) -> Any:
    """Return napari's colormap for labels.

    Parameters
    ----------
    ids, names
        Id and class of every nucleus.
    colours
        Class -> RGB, 0..255.

    Notes
    -----
    By instance with all classes shown this is napari's cyclic map, which needs no table of ids.
    """
    from napari.utils.colormaps import DirectLabelColormap, label_colormap

    cyclic = label_colormap(49, background_value=0)
    if look.by == BY_INSTANCE and not look.hidden:
        return cyclic
    if look.by == BY_INSTANCE:
        own = list(np.asarray(cyclic.map(np.asarray(ids, np.int64)), float).reshape(-1, 4))
    else:
        kinds = sorted(set(names))
        palette = dict(zip(kinds, rgba(colours, kinds), strict=True))
        own = [palette[name] for name in names]
    table: dict[int | None, Any] = {None: np.array(UNKNOWN), 0: _CLEAR}
    for id_, name, colour in zip(ids.tolist(), names, own, strict=True):
        table[id_] = _CLEAR if name in look.hidden else colour
    return DirectLabelColormap(color_dict=table, background_value=0)
