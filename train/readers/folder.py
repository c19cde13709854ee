"""Our own layout: ``<set>/<split>/{images,instances,types}/NAME.*`` with ``dataset.json`` and ``index.csv``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
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


def open_source(path: Path, options: ReadOptions) -> Source:
    """List the images of all splits.

    Raises
    ------
    NucSegError
        ``dataset.json`` or ``index.csv`` can't be read.
    """
    del options
    meta, index = _meta(path), _index(path)
    names = tuple(str(c) for c in meta.get("classes") or ())[1:]
    found: list[tuple[Entry, Path]] = []
    for split in _splits(path):
        for image in sorted((split / "images").iterdir()):
            if image.suffix.lower() in EXTENSIONS and not image.name.startswith("."):
                row = index.get((split.name, image.stem)) or index.get(("", image.stem)) or {}
                group = row.get("group") or row.get("patient") or None
                organ = row.get("organ") or row.get("tissue") or None
                fold = row.get("published") or None
                entry = Entry(safe_name(image.stem), str(image), group, split.name, organ, fold)
                found.append((entry, image))
    entries = distinct(entry for entry, _ in found)
    places = {e.name: image for e, (_, image) in zip(entries, found, strict=True)}
    about = About(str(meta.get("title", path.name)), str(meta.get("licence", "")), str(meta.get("cite", "")))
    reader = _Reader(path, names, places, lambda image: _mpp(index, meta, image))
    merges = {k: v for k, v in meta.items() if k.startswith("merge_") and isinstance(v, Mapping)}
    return Source("folder", entries, reader.read, about, names, merges=merges)


@dataclass(frozen=True)
class _Reader:
    root: Path
    classes: tuple[str, ...]
    places: dict[str, Path]
    mpp: Callable[[Path], tuple[float | None, str]]

    def read(self, entry: Entry) -> Raw:
        path = self.places[entry.name]
        split = path.parent.parent
        labels_path = _beside(split / "instances", path.stem)
        if labels_path is None:
            raise NucSegError(f"'{path}' has no labels '{split / 'instances' / path.stem}.png'; add them.")
        image, stated = read_rgb(path)
        labels = read_labels(labels_path)
        check_same_size(image, labels, str(labels_path))
        mpp, source = self.mpp(path)
        if mpp is None:
            mpp, source = stated.value, stated.source
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
