"""Checks of the classes of training data: numbers without a name, sets and classes from which nothing is learnt."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

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


def warn_of_unlearnt(
    train: Sequence[Known], classes: Sequence[str], names: Mapping[str, Sequence[str]]
) -> None:
    """Log which sets with classes have none of those to learn, and which classes no set has.

    Parameters
    ----------
    train
        Images to train on.
    classes
        To learn.
    names
        Classes of every set by its key, the background first.
    """
    counts = dict.fromkeys((k.key for k in train if k.lookup is not None), 0)
    totals = np.zeros(len(classes) + 1, np.int64)
    for known in train:
        found = known.found.nuclei(known.lookup)[:, 2]
        totals += np.bincount(found, minlength=len(classes) + 1)
        if known.lookup is not None:
            counts[known.key] += int((found > 0).sum())
    for key in (key for key, count in counts.items() if not count):
        log.warning(
            "%s: no nucleus is of a class to learn (%s; the set has %s); name them alike, or see data.class_map.",
            key,
            ", ".join(classes),
            ", ".join(names[key][1:]) or "no names for its classes",
        )
    missing = [name for name, count in zip(classes, totals[1:], strict=True) if not count]
    if missing and counts:
        log.warning("No training nucleus is of the class %s: it can't be learnt.", " or ".join(missing))
