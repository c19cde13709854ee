"""Going on from a trained student instead of from chance: with few images of one's own, by far the better beginning."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.checkpoint import load_student
from napari_nucseg.models.registry import Model, find_model
from napari_nucseg.models.student import Student

if TYPE_CHECKING:
    from train.fit import FitConfig

log = logging.getLogger(__name__)
Config = TypeVar("Config", bound="FitConfig")


def begun(config: Config) -> tuple[Config, Model | None]:
    """Return the settings of a run in the shape of the model it begins with, and that model if there is one.

    Raises
    ------
    NucSegError
        There is no such model, it sees another resolution, or maps are to be left out.
    """
    if not config.begin:
        return config, None
    known = Path(config.begin)
    model = find_model(known if known.is_dir() else config.begin)
    card, layout = model.card, model.card.layout
    if not math.isclose(card.mpp, config.crop.mpp, rel_tol=0.01):
        raise NucSegError(
            f"Model '{config.begin}' sees {card.mpp} um/px, the run {config.crop.mpp}; set crop.mpp={card.mpp}."
        )
    if config.model.without:
        raise NucSegError(f"begin='{config.begin}' goes with every map; leave out model.without.")
    shape = {name: tuple(card.network[name]) for name in ("widths", "blocks", "decoder_blocks")}
    own = dataclasses.replace(config.model, **shape, angles=layout.angles, mean=card.mean, std=card.std)
    return dataclasses.replace(config, model=own), model


def take_weights(student: Student, classes: tuple[str, ...], model: Model) -> tuple[str, ...]:
    """Load the weights of a model into a student of its shape, whatever the classes of the two.

    What the head says of a class goes to the class of the same name; one that the model does not know keeps the chance
    it began with.

    Parameters
    ----------
    student : Student
        Changed in place.
    classes : tuple of str
        Of the student.
    model : Model

    Returns
    -------
    tuple of str
        Classes that begin with chance.
    """
    theirs, known = load_student(model), model.card.classes
    state, own = theirs.state_dict(), student.state_dict()
    if classes != known:
        rows = _rows(student.config.layout, classes, theirs.config.layout, known)
        for name in ("head.1.weight", "head.1.bias"):
            mixed = own[name].clone()
            for mine, other in rows:
                mixed[mine] = state[name][other]
            state[name] = mixed
    student.load_state_dict(state)
    fresh = tuple(name for name in classes if name not in known)
    said = f"; learnt anew: {', '.join(fresh)}" if fresh else ""
    log.info("begins with %s%s", model, said)
    return fresh


def _rows(
    mine: MapLayout, classes: tuple[str, ...], theirs: MapLayout, known: tuple[str, ...]
) -> list[tuple[slice, slice]]:
    """Return which outputs of the head go where; each channel has four, for the sub-pixels."""

    def four(channel: int) -> slice:
        return slice(4 * channel, 4 * channel + 4)

    alike = range(mine.type.start + 1)  # every map before the classes, and the background of these
    pairs = [(four(k), four(k)) for k in alike]
    for k, name in enumerate(classes, start=1):
        if name in known:
            pairs.append((four(mine.type.start + k), four(theirs.type.start + 1 + known.index(name))))
    return pairs


def fingerprint(model: Model | None) -> dict[str, str]:
    """Return what makes a run that begins with a model another one than a run that does not."""
    return {} if model is None else {"begins with": model.card.sha256}
