"""Which images a model was trained with, as far as its settings tell: figures on them say little of new ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.registry import find_model
from train.config import from_mapping
from train.data_config import SetConfig
from train.listing import Listed, divide
from train.report import counted

if TYPE_CHECKING:
    from train.truth import Selection

_SOURCES = ("teacher", "ensemble", "begin")
"""Settings that name a model from which another one learnt, or several."""


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
    """Return (split, name) of the images of a data set that a training used, also by way of its teachers.

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
    for named in (settings.get(key) for key in _SOURCES):
        for source in named if isinstance(named, list | tuple) else (named,):
            if isinstance(source, str) and source:  # a teacher's own run describes its network by that key
                out |= trained_on(settings_of(source), folder) or set()
    return out


def tuned_on(training: Mapping[str, Any], folder: Path) -> set[tuple[str, str]]:
    """Return (split, name) of the images of a data set on which the thresholds of a model were chosen.

    Parameters
    ----------
    training
        What the card of the model says of its training.
    folder
        The data set, known by the name of its folder.
    """
    chosen = training.get("thresholds")
    images = chosen.get("images") if isinstance(chosen, Mapping) else None
    named = images.get(folder.name) if isinstance(images, Mapping) else None
    return {(str(split), str(name)) for split, name in named or ()}


def known_images(
    name: str, training: Mapping[str, Any], chosen: Selection, unsure: bool
) -> tuple[dict[str, int | None], list[str]]:
    """Count the chosen images that a model was made with, and say so.

    Parameters
    ----------
    name, training
        Of the model, and what its card says of its training.
    chosen
        What it is scored on.
    unsure
        Whether they may well be training images where nothing tells.

    Returns
    -------
    counts : dict
        ``trained_on`` (None if nothing tells) and ``thresholds_chosen_on``.
    told : list of str
        What a reader of the figures must know.
    """
    number, own = len(chosen.items), places(chosen.items)
    seen = trained_on(training.get("config") or {}, chosen.folder)
    count, told = None if seen is None else len(seen & own), []
    if count:
        told.append(
            f"The training of {name}, or of what it learnt from, had {_some(count, number)}: the figures tell little "
            "of new images."
        )
    elif count is None and unsure:
        told.append(f"These may be training images of {name}, learnt by heart (see --held-out).")
    tuned = len(tuned_on(training, chosen.folder) & own)
    if tuned:
        told.append(
            f"The thresholds of {name} were chosen on {_some(tuned, number)}, which flatters it here, also beside a "
            "model whose thresholds were not."
        )
    return {"trained_on": count, "thresholds_chosen_on": tuned}, told


def _some(part: int, whole: int) -> str:
    if part < whole:
        return f"{part:,} of these {counted(whole, 'image')}"
    return "this very image" if whole == 1 else f"these very {counted(whole, 'image')}"


def places(items: Iterable[Listed]) -> set[tuple[str, str]]:
    """Return the split and name of images."""
    return {(item.split, item.name) for item in items}
