"""Which images of a data set are trained on, which validate, and what its tables say of them."""

from __future__ import annotations

import csv
import difflib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg.errors import NucSegError
from train.readers.record import Entry
from train.scan import ImageFiles, list_files
from train.splits import TCGA, SplitConfig, plan

if TYPE_CHECKING:
    from train.data import SetConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """One image of a data set.

    Attributes
    ----------
    split : str
        Folder that it lies in; "" if the set has no splits.
    files : ImageFiles
    row : mapping
        What ``index.csv`` and the table of splits say.
    patient : str
        Its name where nothing else is known.
    """

    split: str
    files: ImageFiles
    row: Mapping[str, str] = field(default_factory=dict)
    patient: str = ""

    @property
    def name(self) -> str:
        """Of the image."""
        return self.files.name

    @property
    def stated_mpp(self) -> str:
        """Micrometres per pixel as ``index.csv`` has it, "" if it has none."""
        return next((v or "" for k, v in self.row.items() if k and k.startswith("mpp")), "")


def read_meta(folder: Path, labelled: bool = True) -> dict[str, Any]:
    """Return what ``dataset.json`` of a set says; nothing if there is none and the set has no labels.

    Raises
    ------
    NucSegError
        It's missing, or no table in JSON.
    """
    path = folder / "dataset.json"
    if not labelled and not path.exists():
        return {}
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NucSegError(
            f"'{folder}' is no data set: dataset.json can't be read ({error.strerror}); see train.prepare."
        ) from error
    except ValueError as error:
        raise NucSegError(f"'{path}' is not valid JSON ({error}); mend it.") from error
    if not isinstance(meta, dict):
        raise NucSegError(f"'{path}' holds no table of names and values; see docs/training.md.")
    return meta


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file that have a name; none if there is no such file.

    Raises
    ------
    NucSegError
        It can't be read, or has no column ``name``.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            if "name" not in (reader.fieldnames or ()):
                raise NucSegError(f"'{path}' has no column 'name'; its first line must name the columns.")
            return [row for row in reader if row["name"]]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NucSegError(f"'{path}' can't be read ({error}); mend it.") from error


def list_set(folder: Path, config: SetConfig) -> tuple[list[Listed], list[Listed]]:
    """Divide a set, see `divide`; patients on both sides are warned of."""
    kept, validation = divide(folder, config)
    _warn_of_leaks(folder.name, kept, validation)
    return kept, validation


def divide(folder: Path, config: SetConfig) -> tuple[list[Listed], list[Listed]]:
    """Divide the images of a set into those to train on and those to validate with; the others are not opened.

    Raises
    ------
    NucSegError
        The folder does not have the layout, or a split or image that is asked for does not exist.
    """
    index = {(row.get("split") or "", row["name"]): row for row in read_table(folder / "index.csv")}
    sides = _given_sides(folder, config, index)
    train, validation = (_in_order(side) for side in sides)
    held = _held_out(folder.name, train, config)
    kept = [item for item in train if (item.split, item.name) not in held]
    moved = [item for item in train if (item.split, item.name) in held]
    return kept, _in_order([*validation, *moved])


def _given_sides(
    folder: Path, config: SetConfig, index: Mapping[tuple[str, str], dict[str, str]]
) -> tuple[list[Listed], list[Listed]]:
    """Return the images of the splits that the settings name for training and validation."""
    if not config.labelled and not any((folder / s / "images").is_dir() for s in config.train):
        return [Listed("", f, index.get(("", f.name), {}), f.name) for f in list_files(folder, False)], []
    wanted = frozenset((*config.train, *config.validation))
    labels = _Labels.of(folder, config, index)
    _check_splits(folder, config, labels.known)
    sides: dict[str, list[Listed]] = {name: [] for name in wanted}
    for split in labels.folders:
        for files in list_files(folder / split, config.labelled) if labels.may_hold(split, wanted) else ():
            label, row = labels.look_up(split, files.name, wanted)
            if label in wanted:
                sides[label].append(Listed(split, files, row, _patient(files.name, row, config.patient)))
    if labels.table is not None:
        _check_unique(folder / str(config.splits), sides)
    return [i for name in config.train for i in sides[name]], [
        i for name in config.validation for i in sides[name]
    ]


@dataclass(frozen=True)
class _Labels:
    """To which split images belong.

    Attributes
    ----------
    folders : tuple of str
        Of the set.
    index : mapping
        Rows of ``index.csv`` by split and name.
    folds : mapping
        Published folds by split and name. A fold that is called like a folder is none: what was moved out of a
        published "train" stays out.
    table : mapping or None
        Rows by name, which stand in for the folders.
    """

    folders: tuple[str, ...]
    index: Mapping[tuple[str, str], dict[str, str]]
    folds: Mapping[tuple[str, str], str]
    table: Mapping[str, dict[str, str]] | None

    @classmethod
    def of(cls, folder: Path, config: SetConfig, index: Mapping[tuple[str, str], dict[str, str]]) -> _Labels:
        folders = tuple(sorted(p.name for p in folder.iterdir() if (p / "images").is_dir()))
        folds = {key: row.get("published") or "" for key, row in index.items()}
        folds = {key: fold for key, fold in folds.items() if fold not in folders}
        if config.splits is None:
            return cls(folders, index, folds, None)
        table = {row["name"]: row for row in read_table(folder / config.splits)}
        if not table:
            raise NucSegError(
                f"'{folder / config.splits}' names no image; see data.sets.{folder.name}.splits."
            )
        return cls(folders, index, folds, table)

    @property
    def known(self) -> set[str]:
        if self.table is not None:
            return {row.get("split") or "" for row in self.table.values()} - {""}
        return {*self.folders, *self.folds.values()} - {""}

    def may_hold(self, split: str, wanted: Set[str]) -> bool:
        """Whether a folder may hold images of splits; where not, it need not even be in order."""
        folds = {fold for (s, _), fold in self.folds.items() if s in (split, "")}
        return self.table is not None or bool(wanted & {split, *folds})

    def look_up(self, split: str, name: str, wanted: Set[str]) -> tuple[str, dict[str, str]]:
        """Return the split of an image, and what the tables say of it."""
        row = {**self.index.get(("", name), {}), **self.index.get((split, name), {})}
        if self.table is None:
            fold = self.folds.get((split, name), self.folds.get(("", name), ""))
            return (split if split in wanted else fold), row
        own = {k: v for k, v in self.table.get(name, {}).items() if k and v}
        return own.get("split", ""), row | own


def _check_unique(table: Path, sides: Mapping[str, Sequence[Listed]]) -> None:
    seen: dict[str, str] = {}
    for item in (i for items in sides.values() for i in items):
        if item.name in seen:
            raise NucSegError(
                f"'{table}' names '{item.name}', which is both in {seen[item.name]} and in {item.split}; "
                "give every image its own name."
            )
        seen[item.name] = item.split


def _check_splits(folder: Path, config: SetConfig, known: set[str]) -> None:
    if {*config.train} & {*config.validation}:
        both = sorted({*config.train} & {*config.validation})[0]
        raise NucSegError(
            f"data.sets.{folder.name} has '{both}' in train and validation; give it to one of them."
        )
    asked = [*config.train, *(v for v in config.validation if config.validation != ("val",))]
    for name in asked:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = (
                f"did you mean '{near[0]}'?"
                if near
                else f"the set has {', '.join(sorted(known)) or 'no splits'}."
            )
            raise NucSegError(f"'{folder / name / 'images'}' does not exist, nor such a fold; {hint}")


def _patient(name: str, row: Mapping[str, str], pattern: str | None) -> str:
    """Return the patient of an image: by a stated pattern, else by the tables, else by a TCGA barcode, else itself."""
    given = row.get("patient") or row.get("group")
    try:
        found = re.search(pattern or TCGA, name) if pattern or not given else None
    except re.error as error:
        raise NucSegError(
            f"data.sets...patient='{pattern}' is no regular expression ({error}); try '^[^_]+'."
        ) from error
    if found is None:
        return given or name
    return found[1] if found.re.groups else found[0]


def _held_out(key: str, train: Sequence[Listed], config: SetConfig) -> set[tuple[str, str]]:
    """Return (split, name) of the training images to hold out: those named, and a share of the patients."""
    held: set[tuple[str, str]] = set()
    for begin in config.held_out:
        found = {(i.split, i.name) for i in train if i.name.startswith(begin) or i.patient == begin}
        if not found:
            near = difflib.get_close_matches(begin, [i.name for i in train], 1)
            hint = f"did you mean '{near[0]}'?" if near else "see the names in its folder images."
            raise NucSegError(
                f"held_out names '{begin}', with which no training image of '{key}' begins, nor is it a patient; {hint}"
            )
        held |= found
    rest = [i for i in train if (i.split, i.name) not in held]
    if config.val_fraction and rest:
        # numbers for names: the patients are known here and need not be found in them
        entries = [Entry(str(n), str(i.files.image), i.patient) for n, i in enumerate(rest)]
        sides = plan(entries, SplitConfig(val_fraction=config.val_fraction)).splits
        if "val" not in sides.values():
            if len(rest) == 1:
                raise NucSegError(
                    f"data.sets.{key}.val_fraction={config.val_fraction:g} can hold nothing out of a single image; at "
                    "least two images are needed."
                )
            raise NucSegError(
                f"data.sets.{key}.val_fraction={config.val_fraction:g} can hold nothing out, since patients stay whole "
                f"and all training images are of '{rest[0].patient}'; name images by held_out, or tell patients apart "
                f"by a regular expression, data.sets.{key}.patient."
            )
        held |= {(i.split, i.name) for n, i in enumerate(rest) if sides[str(n)] == "val"}
    return held


def _warn_of_leaks(key: str, train: Iterable[Listed], validation: Iterable[Listed]) -> None:
    both = {i.patient for i in train} & {i.patient for i in validation}
    if both:
        log.warning(
            "%s: %d patients, such as '%s', are both in training and validation, which flatters the figures.",
            key,
            len(both),
            sorted(both)[0],
        )


def _in_order(items: Iterable[Listed]) -> list[Listed]:
    return sorted(items, key=lambda item: (item.split, item.name))
