"""What every reader of a published format gives: a list of names, and one annotated image at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Entry:
    """One image that a source can read; listing it opens no pixels.

    Attributes
    ----------
    name : str
        Unique in the source; letters, digits, hyphens and underscores only.
    where : str
        The file (and place in it) for messages.
    group : str or None
        The patient or slide, where the published form says it.
    split : str or None
        The published split or fold ("train", "fold2"), None where there is none.
    organ : str or None
    fold : str or None
        The published fold of an image that already lies in a split.
    """

    name: str
    where: str
    group: str | None = None
    split: str | None = None
    organ: str | None = None
    fold: str | None = None


@dataclass(frozen=True)
class Raw:
    """One image with its annotation as the source has it.

    Attributes
    ----------
    image : uint8 (H, W, 3)
        RGB.
    labels : int32 (H, W) or None
        0 = background, any ids; None where nobody annotated the image.
    types : uint8 (H, W) or None
        0 background, 1..C position in `classes` plus 1, `napari_nucseg.core.targets.IGNORE` unknown; None where
        the image has no classes.
    classes : tuple of str
    mpp : float or None
        Micrometres per pixel.
    mpp_source : str
        Where that comes from.
    notes : mapping
        What the reader left out or decided -> how often.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32] | None
    types: NDArray[np.uint8] | None = None
    classes: tuple[str, ...] = ()
    mpp: float | None = None
    mpp_source: str = "unknown"
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """What is to be known of a published set."""

    title: str = ""
    licence: str = ""
    cite: str = ""


@dataclass(frozen=True)
class Source:
    """An opened data set.

    Attributes
    ----------
    format : str
        Name in `train.readers.FORMATS`.
    entries : tuple of Entry
    read : callable
        From an entry to its `Raw`; raises `NucSegError` in one sentence where that image can't be had.
    classes : tuple of str or None
        Class names, where they are known before anything is read.
    problems : tuple of str
        Files that can't be used at all, one sentence each.
    remarks : tuple of str
        What else was noticed while listing.
    merges : mapping
        ``merge_*`` tables that the set brings along.
    labelled : bool
        Whether anybody annotated the images.
    """

    format: str
    entries: tuple[Entry, ...]
    read: Callable[[Entry], Raw]
    about: About = field(default_factory=About)
    classes: tuple[str, ...] | None = None
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    merges: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)
    labelled: bool = True

    @property
    def names(self) -> list[str]:
        """Names of the images, in order."""
        return [entry.name for entry in self.entries]


@dataclass(frozen=True)
class ReadOptions:
    """Choices that only some formats know.

    Attributes
    ----------
    nuclei : {"all", "reviewed"}
        Of a review session: every nucleus there is, or those a person has dealt with.
    """

    nuclei: str = "all"


def safe_name(text: str) -> str:
    """Return a name that is good for a file anywhere: dots, spaces and the like become underscores."""
    return re.sub(r"[^\w-]+", "_", text).strip("_") or "image"


def distinct(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Make names unique, whatever the case of letters, by adding -2, -3 ... to the later ones."""
    taken: set[str] = set()
    out = []
    for entry in entries:
        name, count = entry.name, 1
        while name.casefold() in taken:
            count += 1
            name = f"{entry.name}-{count}"
        taken.add(name.casefold())
        out.append(entry if name == entry.name else replace(entry, name=name))
    return tuple(out)


_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
_SPLITS |= {"test": "test", "testing": "test"}


def split_in(path: Path, root: Path) -> str | None:
    """Return "train", "val" or "test" if a folder below `root` on the way to a file is called so, the innermost."""
    for folder in reversed(path.relative_to(root).parts[:-1]):
        for word in re.split(r"[^a-z]+", folder.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return None
