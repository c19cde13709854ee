"""Our own layout: ``<set>/<split>/{images,instances,types}/NAME.*`` with ``dataset.json`` and ``index.csv``.

Of images that nobody annotated, both tables, ``<split>`` and even ``images`` may be missing.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import EXTENSIONS
from train.readers.files import LABELS, check_same_size, read_labels, read_rgb
from train.readers.record import About, Entry, Raw, ReadOptions, Source, distinct, safe_name


def matches(path: Path) -> bool:
    """Whether splits with images and instances lie in a folder."""
    return bool(_splits(path))


def holds_images(path: Path) -> bool:
    """Whether images lie in a folder, in ``images`` in it, or in the ``images`` of splits."""
    return any(_images(folder) for folder, _ in _image_folders(path))


def open_source(path: Path, options: ReadOptions) -> Source:
    """List the images of all splits.

    Raises
    ------
    NucSegError
        ``dataset.json`` or ``index.csv`` can't be read.
    """
    del options
    return _open(path, [(split / "images", split.name) for split in _splits(path)], labelled=True)


def open_unlabelled(path: Path, options: ReadOptions) -> Source:
    """List images that nobody annotated, or whose annotation is not to be used; see `open_source`."""
    del options
    return _open(path, _image_folders(path), labelled=False)


def _open(path: Path, folders: Sequence[tuple[Path, str | None]], labelled: bool) -> Source:
    meta, index = _meta(path), _index(path)
    names = tuple(str(c) for c in meta.get("classes") or ())[1:] if labelled else ()
    found: list[tuple[Entry, Path]] = []
    for folder, split in folders:
        for image in _images(folder):
            row = index.get((split or "", image.stem)) or index.get(("", image.stem)) or {}
            group = row.get("group") or row.get("patient") or None
            organ = row.get("organ") or row.get("tissue") or None
            fold = row.get("published") or None
            found.append((Entry(safe_name(image.stem), str(image), group, split, organ, fold), image))
    entries = distinct(entry for entry, _ in found)
    places = {e.name: image for e, (_, image) in zip(entries, found, strict=True)}
    about = About(str(meta.get("title", path.name)), str(meta.get("licence", "")), str(meta.get("cite", "")))
    reader = _Reader(labelled, names, places, lambda image: _mpp(index, meta, image))
    merges = {k: v for k, v in meta.items() if k.startswith("merge_") and isinstance(v, Mapping)}
    form = "folder" if labelled else "unlabelled"
    return Source(
        form, entries, reader.read, about, names, merges=merges if labelled else {}, labelled=labelled
    )


@dataclass(frozen=True)
class _Reader:
    labelled: bool
    classes: tuple[str, ...]
    places: dict[str, Path]
    mpp: Callable[[Path], tuple[float | None, str]]

    def read(self, entry: Entry) -> Raw:
        path = self.places[entry.name]
        split = path.parent.parent
        labels_path = _beside(split / "instances", path.stem)
        if self.labelled and labels_path is None:
            raise NucSegError(f"'{path}' has no labels '{split / 'instances' / path.stem}.png'; add them.")
        image, stated = read_rgb(path)
        mpp, source = self.mpp(path)
        if mpp is None:
            mpp, source = stated.value, stated.source
        if labels_path is None or not self.labelled:
            return Raw(image, None, None, (), mpp, source)
        labels = read_labels(labels_path)
        check_same_size(image, labels, str(labels_path))
        types_path = _beside(split / "types", path.stem)
        types = None if types_path is None else self._types(types_path, labels)
        return Raw(image, labels, types, self.classes if types is not None else (), mpp, source)

    def _types(self, path: Path, labels: NDArray[np.int32]) -> NDArray[np.uint8]:
        kinds = read_labels(path)
        check_same_size(kinds, labels, str(path))
        bad = kinds[(kinds > len(self.classes)) & (kinds != IGNORE)]
        if bad.size:
            raise NucSegError(
                f"'{path}' has class {bad[0]}, but dataset.json names {len(self.classes)}; name all in its 'classes'."
            )
        return np.where(labels > 0, kinds, 0).astype(np.uint8)


def _image_folders(path: Path) -> list[tuple[Path, str | None]]:
    """Return folders with images and the splits that they are: those of splits, else ``images``, else the folder."""
    if not path.is_dir():
        return []
    splits = sorted(p for p in path.iterdir() if (p / "images").is_dir())
    if splits:
        return [(split / "images", split.name) for split in splits]
    return [(path / "images" if (path / "images").is_dir() else path, None)]


def _images(folder: Path) -> list[Path]:
    # hidden files are the droppings of file managers
    found = (p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())
    return sorted(p for p in found if not p.name.startswith("."))


def _splits(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if (p / "images").is_dir() and (p / "instances").is_dir())


def _meta(path: Path) -> dict[str, Any]:
    file = path / "dataset.json"
    if not file.exists():
        return {}
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NucSegError(f"'{file}' can't be read ({error}); mend it.") from error
    if not isinstance(meta, dict):
        raise NucSegError(f"'{file}' holds no table of names and values; see docs/training.md.")
    return meta


def _index(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    file = path / "index.csv"
    if not file.exists():
        return {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NucSegError(f"'{file}' can't be read ({error}); mend it.") from error
    return {(row.get("split") or "", row["name"]): row for row in rows if row.get("name")}


def _mpp(
    index: Mapping[tuple[str, str], Mapping[str, str]], meta: Mapping[str, Any], image: Path
) -> tuple[float | None, str]:
    row = index.get((image.parent.parent.name, image.stem)) or index.get(("", image.stem)) or {}
    column = next((k for k in row if k and k.startswith("mpp")), None)
    text = row.get(column, "") if column else meta.get("mpp")
    if text in (None, ""):
        return None, "unknown"
    try:
        return float(text), f"index.csv ({column})" if column else "dataset.json"
    except (TypeError, ValueError) as error:
        raise NucSegError(f"'{text}' is stated as mpp of '{image}', which is no number; mend it.") from error


def _beside(folder: Path, stem: str) -> Path | None:
    return next((p for s in LABELS if (p := folder / f"{stem}{s}").is_file()), None)
