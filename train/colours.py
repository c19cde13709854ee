"""The colour of every class, the same on contact sheets and in the models that are made of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from napari_nucseg.core.nuclei import CLASS_COLOURS
from napari_nucseg.models.card import Colour
from napari_nucseg.models.registry import find_model


def class_colours(classes: Sequence[str], given: Mapping[str, Colour] | None = None) -> dict[str, Colour]:
    """Return a colour for every class: the given one, else the shipped model's of that name, else a spare one."""
    shipped = find_model().card.colours
    out = {name: (given or {}).get(name) or shipped.get(name) for name in classes}
    spare = itertools.cycle([c for c in CLASS_COLOURS if c not in out.values()] or CLASS_COLOURS)
    return {name: colour or next(spare) for name, colour in out.items()}
