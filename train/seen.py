"""Which images a model was trained with, as far as its settings tell: figures on them say little of new ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.registry import find_model
from train.config import from_mapping
from train.data_config import SetConfig
from train.listing import Listed, divide

_SOURCES = ("teacher", "begin")
"""Settings that name a model from which another one learnt."""


def settings_of(what: Path | str) -> Mapping[str, Any]:
    """Return the settings that a run, a checkpoint of one or a model was trained with; none if they are not known."""
    path = Path(what)
    file = (path.parent if path.suffix == ".pt" else path) / "config.json"
    try:
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
        else:
            found = find_model(str(what)).card.training.get("config")
    except (OSError, ValueError, NucSegError):
        return {}
    return found if isinstance(found, Mapping) else {}


def trained_on(settings: Mapping[str, Any], folder: Path) -> set[tuple[str, str]] | None:
    """Return (split, name) of the images of a data set that a training used, also by way of its teacher.

    Parameters
    ----------
    settings
        Of the training, as a run folder or the card of a model keeps them.
    folder
        The data set; a set of the training is known by the name of its folder.

    Returns
    -------
    set of (str, str) or None
        None if nothing is known of the training.
    """
    data = settings.get("data")
    if not isinstance(data, Mapping):
        return None
    out: set[tuple[str, str]] = set()
    own = (data.get("sets") or {}).get(folder.name)
    if own is not None:
        try:
            kept, _ = divide(folder, from_mapping(SetConfig, own))
        except NucSegError:  # other splits than it had at the time, or settings of another version
            return None
        out |= places(kept)
    for source in (settings.get(key) for key in _SOURCES):
        if isinstance(source, str) and source:  # a teacher's own run describes its network by that key
            out |= trained_on(settings_of(source), folder) or set()
    return out


def places(items: Iterable[Listed]) -> set[tuple[str, str]]:
    """Return the split and name of images."""
    return {(item.split, item.name) for item in items}
