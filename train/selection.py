"""Choose what to evaluate: images of a data set or a folder, and the classes in which to compare."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import Mpp
from train.class_map import ClassMap
from train.config import TRAINING, from_mapping, of_command
from train.data import DataConfig, SetConfig
from train.listing import Listed, list_set, read_table
from train.scan import list_files
from train.scores import OWN, Scheme
from train.truth import Selection

TO_CONSEP4 = {
    "neoplastic": "epithelial",
    "epithelial": "epithelial",
    "inflammatory": "inflammatory",
    "connective": "spindle",
    "other": "miscellaneous",
}
"""From the classes of PanNuke, which the shipped model has, to the four in which results on CoNSeP are published."""


@dataclass(frozen=True)
class Wanted:
    """Which images to choose, and what is known of them besides their files.

    Parameters
    ----------
    folder, split
        A data set in the layout of `train.data` and one of its splits, or a plain folder that holds ``images`` and
        ``instances`` itself, and no split.
    held_out
        A training configuration, or the folder of a run: only the images that it keeps for validation.
    limit
        Only so many, the first by name.
    classes
        Names of the classes 1, 2 ... of a folder without ``dataset.json``.
    class_map
        From the set's classes to the model's.
    mpp
        Micrometres per pixel of all images, whatever the set says.
    """

    folder: Path
    split: str = ""
    held_out: Path | None = None
    limit: int | None = None
    classes: tuple[str, ...] = ()
    class_map: Path | None = None
    mpp: float | None = None


def select(wanted: Wanted) -> Selection:
    """Choose images.

    Raises
    ------
    NucSegError
        There is no such set or split, or nothing is chosen.
    """
    folder, split = wanted.folder.resolve(), wanted.split
    if not folder.is_dir():
        raise NucSegError(f"'{folder}' is not a folder; {_near(folder)}")
    config, class_map = SetConfig(), wanted.class_map
    if wanted.held_out is not None:
        training = training_data(wanted.held_out)
        if folder.name not in training.sets:
            known = ", ".join(training.sets) or "none"
            raise NucSegError(f"'{wanted.held_out}' has no data set '{folder.name}'; it has {known}.")
        config, class_map = training.sets[folder.name], class_map or training.class_map
        items = [item for item in list_set(folder, config)[1] if split in ("", item.split)]
        what = f"{folder.name}/validation"
    else:
        items, what = _of_split(folder, split), f"{folder.name}/{split}".rstrip("/")
    total = len(items)
    if wanted.limit is not None:
        items = items[: max(0, wanted.limit)]
        what += f" (first {len(items)} of {total})"
    if not items:
        raise NucSegError(f"No image of '{folder}' is chosen; see --split, --held-out and --limit.")
    mpp = None if wanted.mpp is None else Mpp.stated(wanted.mpp).value
    loaded = ClassMap.load(class_map) if class_map is not None else None
    return Selection(folder, tuple(items), config, what, wanted.classes, loaded, mpp)


def _near(folder: Path) -> str:
    """Return which data set beside a folder that is not there may be meant."""
    beside = [path.parent.name for path in folder.parent.glob("*/dataset.json")]
    near = difflib.get_close_matches(folder.name, beside, 1)
    return f"did you mean '{near[0]}'?" if near else "name that of a data set, see train.prepare."


def _of_split(folder: Path, split: str) -> list[Listed]:
    """List the images of a split, or of a plain folder, with their rows of ``index.csv``."""
    _check_layout(folder, split)
    rows = read_table(folder / "index.csv")
    by_name = {row["name"]: row for row in rows if (row.get("split") or split) == split}
    return [Listed(split, files, by_name.get(files.name, {})) for files in list_files(folder / split)]


def _check_layout(folder: Path, split: str) -> None:
    """Raise where the folder is neither a plain one nor a data set with this split."""
    plain = (folder / "images").is_dir()
    splits = sorted(p.name for p in folder.iterdir() if (p / "images").is_dir())
    if not plain and not splits:
        raise NucSegError(
            f"'{folder}' is not a data set: it holds neither images and instances nor splits that do; "
            "see train.prepare."
        )
    if not plain and not split:
        raise NucSegError(f"'{folder}' has splits; choose one with --split: {', '.join(splits)}.")
    if split and split not in splits:
        known = f"there are {', '.join(splits)}" if splits else "it is a plain folder, leave --split out"
        raise NucSegError(f"'{folder}' has no split '{split}'; {known}.")


def training_data(path: Path) -> DataConfig:
    """Return what a training configuration, or the one kept in a run folder, says of its data.

    Raises
    ------
    NucSegError
        It can't be read, says nothing of data, or serves several commands that divide the data differently.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise NucSegError(f"Config '{file}' cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise NucSegError(f"Config '{file}' is damaged ({error}); mend it.") from error
    own = {command: of_command(content, command).get("data") for command in TRAINING}
    found = {c: from_mapping(DataConfig, data, "data.") for c, data in own.items() if isinstance(data, dict)}
    if not found:
        raise NucSegError(f"Config '{file}' has no table [data]; give one of a training.")
    return _agreed(found, file)


def _agreed(found: Mapping[str, DataConfig], file: Path) -> DataConfig:
    """Return what all commands of a file say of the data, with the sets of any; raise where they say different things.

    An image that one of them holds out may be a training image of another.
    """
    (first, data), *others = found.items()
    sets = dict(data.sets)
    for command, other in others:
        if replace(other, sets={}, cache_gb=data.cache_gb) != replace(data, sets={}):
            raise NucSegError(
                f"Config '{file}' tells {first} and {command} different things of the data; give the folder of the run."
            )
        for key, settings in other.sets.items():
            if replace(sets.setdefault(key, settings), weight=settings.weight) != settings:
                raise NucSegError(
                    f"Config '{file}' divides '{key}' differently for {first} and {command}; give the folder of a run."
                )
    return replace(data, sets=sets)


def schemes_for(chosen: Selection, classes: tuple[str, ...], merge: str | None = None) -> list[Scheme]:
    """Return the ways to compare classes on a set: the model's own, and CoNSeP's four where the set has them.

    Parameters
    ----------
    chosen
        The images.
    classes
        Of the model.
    merge
        Name in ``dataset.json`` of the merge that brings the truth into them; by default the one of the training
        configuration, or that which has most of the classes.

    Raises
    ------
    NucSegError
        There is no such merge.
    """
    if not chosen.typed:
        return []
    meta, same = chosen.meta, {name: name for name in classes}
    merges: dict[str, Mapping[str, list[str]]] = {k: v for k, v in meta.items() if k.startswith("merge_")}
    wanted = merge or chosen.config.merge
    if wanted is not None and wanted not in merges:
        raise NucSegError(
            f"Class merge '{wanted}' is not in dataset.json; there are: {', '.join(merges) or 'none'}."
        )
    if wanted is None and chosen.class_map is None:
        wanted = _best_merge(meta["classes"], merges, classes)
    known = merges[wanted] if wanted else chosen.class_map.classes if chosen.class_map else meta["classes"]
    schemes = [Scheme(OWN, classes, same, wanted)] if set(known) & set(classes) else []
    if "merge_consep4" in merges and set(classes) <= set(TO_CONSEP4):
        four = ("inflammatory", "epithelial", "spindle", "miscellaneous")
        schemes.append(Scheme("consep4", four, TO_CONSEP4, "merge_consep4"))
    return schemes


def _best_merge(
    own: list[str], merges: Mapping[str, Mapping[str, list[str]]], classes: tuple[str, ...]
) -> str | None:
    """Return the merge whose groups share most names with `classes`; None where the set's own classes share more.

    A merge wins a tie: someone wrote it down for that purpose.
    """
    shared = {name: len(set(groups) & set(classes)) for name, groups in merges.items()}
    best = max(shared, key=lambda name: shared[name], default=None)
    if best is None or shared[best] < len(set(own) & set(classes)):
        return None
    return best if shared[best] else None
