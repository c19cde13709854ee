"""Checks of the classes of training data: numbers without a name, sets and classes from which nothing is learnt."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError
from train.annotated import Known
from train.scan import Found

log = logging.getLogger(__name__)


def check_numbers(found: Found, types: Path, names: Sequence[str]) -> None:
    """Raise `NucSegError` where types have a number that is no position in `names` (nor 255, the unknown).

    Such nuclei would silently count as of unknown class, in all the set if it is numbered from another start.
    """
    numbers = found.votes[:, 1]
    bad = numbers[(numbers >= len(names)) & (numbers != IGNORE)]
    if len(names) > 1 and bad.size:
        raise NucSegError(
            f"'{types}' has class {bad.max()}, but the last of 'classes' in dataset.json is {len(names) - 1} "
            f"({names[-1]}); name all of them."
        )


def check_classes(
    sides: tuple[Sequence[Known], Sequence[Known]],
    classes: Sequence[str],
    names: Mapping[str, Sequence[str]],
    mapped: Set[str],
) -> None:
    """Log which sets have none of the classes to learn, which classes nobody has, and which validation lacks.

    Parameters
    ----------
    sides
        Images to train on and to validate with.
    classes
        To learn.
    names
        Classes of every set by its key, the background first.
    mapped
        Keys of the sets whose classes are renamed, by a merge or a class map.

    Raises
    ------
    NucSegError
        A class that nobody has is spelt nearly like one of the data, or no class to learn is among the data's.
    """
    found, validated = (_count(side, classes) for side in sides)
    typed = list(dict.fromkeys(k.key for k in sides[0] if k.lookup is not None))
    missing = [name for name, count in zip(classes, found.sum(0), strict=True) if not count]
    own = {
        key: [name for name in names[key][1:] if name not in classes] for key in typed if key not in mapped
    }
    _check_spelling(missing, own)
    nothing = [key for key in typed if not found[[k.key == key for k in sides[0]]].any()]
    for key in nothing:
        text = (
            f"{key}: no nucleus is of a class to learn ({', '.join(classes)}; the set has "
            f"{', '.join(names[key][1:]) or 'no names for its classes'}); name them alike in data.classes, or see "
            "data.class_map."
        )
        if nothing == typed and key not in mapped:
            raise NucSegError(text)
        log.warning(text)
    if missing and typed:
        log.warning(
            "No training nucleus is of the class %s: it can't be learnt. %s",
            " or ".join(missing),
            _way_out([name for others in own.values() for name in others]),
        )
    learnt = [name for name, count in zip(classes, found.sum(0), strict=True) if count]
    lacking = [name for name in learnt if not validated.sum(0)[classes.index(name)]]
    if lacking:
        log.warning(
            "No validation nucleus is of the class %s: its figures, and means over classes, say little; see held_out.",
            " or ".join(lacking),
        )


def _count(side: Sequence[Known], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the nuclei of every class to learn in every image: (images, classes)."""
    counts = [np.bincount(k.found.nuclei(k.lookup)[:, 2], minlength=len(classes) + 1)[1:] for k in side]
    return np.array(counts, np.int64).reshape(len(side), len(classes))


def _way_out(others: Sequence[str]) -> str:
    """Say what to do about classes that nobody has, where the data have these others."""
    if not others:
        return "Leave it out of the classes to learn."
    found = ", ".join(dict.fromkeys(others))
    return (
        f"The data also have {found}: say by a class map (data.class_map) which of them become which, or name those "
        "to learn in data.classes."
    )


def _check_spelling(missing: Sequence[str], names: Mapping[str, Sequence[str]]) -> None:
    """Raise `NucSegError` for a class to learn that is spelt nearly like one of a set that is not learnt."""
    there = {name.casefold(): (name, key) for key, others in names.items() for name in others}
    for name in missing:
        near = difflib.get_close_matches(name.casefold(), there, 1, 0.8)
        if near:
            said, key = there[near[0]]
            raise NucSegError(
                f"No training nucleus is of the class '{name}' of data.classes; did you mean '{said}', as in the set "
                f"'{key}'?"
            )
