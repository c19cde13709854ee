"""Training, validation and test images, divided by patient."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from train.readers import Entry

TCGA = r"TCGA-\w{2}-\w{4}"
"""A patient in a name by the barcodes of The Cancer Genome Atlas."""
NAMES = ("train", "val", "test")
PUBLISHED = {
    "train": "train",
    "val": "val",
    "test": "test",
    "fold1": "train",
    "fold2": "val",
    "fold3": "test",
}


@dataclass(frozen=True)
class SplitConfig:
    """How images are divided.

    Parameters
    ----------
    val_fraction, test_fraction : float
        Share of the images to hold out for validation and test, where the published form holds out none of its own.
    pattern : str
        Regular expression that finds the patient in a name: its first group, or all that it matches. Where
        neither this nor the set itself tells the patient, every image counts as one.
    seed : int
        Of the choice. A patient's place in the order depends on seed and name only, so that few patients change
        sides when images are added.
    published : dict of str to str
        Published split or fold -> "train", "val" or "test"; what is not named keeps its default (PanNuke's folds
        1, 2, 3 are these in order).
    default : str
        Split of images whose published form says none: "train", which is then divided, "val" or "test".
    """

    val_fraction: float = 0.15
    test_fraction: float = 0.0
    pattern: str = TCGA
    seed: int = 0
    published: dict[str, str] = field(default_factory=dict)
    default: str = "train"


@dataclass(frozen=True)
class Plan:
    """Where every image goes.

    Attributes
    ----------
    splits, groups : dict
        Name of the image -> split; -> patient.
    remarks : tuple of str
        What the user should know, such as patients on both sides.
    """

    splits: Mapping[str, str]
    groups: Mapping[str, str]
    remarks: tuple[str, ...]


def plan(entries: Sequence[Entry], config: SplitConfig) -> Plan:
    """Divide images by patient.

    Raises
    ------
    NucSegError
        A fraction, split or pattern is impossible.
    """
    _check(config)
    groups, unknown = _groups(entries, config)
    published = PUBLISHED | config.published
    splits = {
        e.name: config.published.get(e.fold or "") or published.get(e.split or "", config.default)
        for e in entries
    }
    remarks = [
        f"The published split '{name}' is none of train, val, test; it goes to {config.default} (see 'published')."
        for name in sorted({e.split for e in entries if e.split and e.split not in published})
    ]
    given = set(splits.values())
    for side, fraction in (("test", config.test_fraction), ("val", config.val_fraction)):
        if fraction > 0 and side not in given:
            chosen = _choose(splits, groups, fraction, config.seed)
            splits |= {name: side for name in splits if groups[name] in chosen}
            if not chosen and "train" in given:
                remarks.append(_nothing_held_out(side, sum(split == "train" for split in splits.values())))
    if unknown and len(entries) > 1 and (config.val_fraction or config.test_fraction):
        images = "1 image, which" if unknown == 1 else f"{unknown:,} images, each of which"
        remarks.append(f"No patient is known for {images} counts as its own.")
    return Plan(splits, groups, (*remarks, *_leaks(splits, groups)))


def _nothing_held_out(side: str, images: int) -> str:
    """Tell why none of so many training images is on another side."""
    if images == 1:
        return (
            f"No {side} image could be held out of a single training image; at least two images are needed."
        )
    return (
        f"No {side} image could be held out: all training images are of one patient; see --group, or name some by "
        "held_out in the training."
    )


def _groups(entries: Sequence[Entry], config: SplitConfig) -> tuple[dict[str, str], int]:
    """Return the patient of every image, and of how many it isn't known."""
    expression = re.compile(config.pattern)
    groups, unknown = {}, 0
    for entry in entries:
        found = expression.search(entry.name)
        patient = (found[1] if expression.groups else found[0]) if found else None
        unknown += not (patient or entry.group)
        groups[entry.name] = patient or entry.group or entry.name
    if config.pattern != TCGA and not any(expression.search(entry.name) for entry in entries):
        raise NucSegError(
            f"Pattern '{config.pattern}' matches none of the names such as '{entries[0].name}'; see --group."
        )
    return groups, unknown


def _choose(splits: Mapping[str, str], groups: Mapping[str, str], fraction: float, seed: int) -> set[str]:
    """Return patients with about a fraction of the training images, at least one and never all of them."""
    sizes = Counter(groups[name] for name, split in splits.items() if split == "train")
    elsewhere = {groups[name] for name, split in splits.items() if split != "train"}
    order = sorted(set(sizes) - elsewhere, key=lambda g: hashlib.sha256(f"{seed}:{g}".encode()).digest())
    if len(sizes) < 2:
        return set()
    wanted, chosen, count = fraction * sizes.total(), set[str](), 0
    for group in order:
        closer = abs(count + sizes[group] - wanted) < abs(count - wanted)
        if closer and len(chosen) < len(sizes) - 1:
            chosen.add(group)
            count += sizes[group]
    # where every patient has more than is wanted, the smallest of them
    return chosen or set(sorted(order, key=lambda group: sizes[group])[:1])


def _leaks(splits: Mapping[str, str], groups: Mapping[str, str]) -> list[str]:
    sides: dict[str, set[str]] = defaultdict(set)
    for name, split in splits.items():
        sides[groups[name]].add(split)
    both = {group: found for group, found in sides.items() if len(found) > 1}
    if not both:
        return []
    first = next(iter(both))
    return [
        f"{len(both)} patients, such as '{first}', are in several splits ({', '.join(sorted(both[first]))}) as "
        "published; figures on them flatter the model."
    ]


def _check(config: SplitConfig) -> None:
    for name in ("val_fraction", "test_fraction"):
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise NucSegError(f"{name}={value} is no share; it must be at least 0 and below 1.")
    if config.val_fraction + config.test_fraction >= 1:
        raise NucSegError(
            f"val_fraction + test_fraction = {config.val_fraction + config.test_fraction:g} leaves nothing to "
            "train on; their sum must be below 1."
        )
    for split in (config.default, *config.published.values()):
        if split not in NAMES:
            raise NucSegError(f"Split '{split}' is not known; it must be train, val or test.")
    try:
        re.compile(config.pattern)
    except re.error as error:
        raise NucSegError(f"Pattern '{config.pattern}' is no regular expression ({error}).") from error
