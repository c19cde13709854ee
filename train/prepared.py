"""Writing of the folder layout that training reads, one image at a time."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.errors import NucSegError
from train.splits import NAMES as SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from train.checks import Checked
    from train.readers import Entry, Source

_COLUMNS = ("split", "name", "mpp", "group", "organ", "published", "nuclei", "mpp_source", "source")
_COMPRESSION = 3  # lossless at any level; the highest cost ten times the time for a tenth of the size


@dataclass(frozen=True)
class Row:
    """What is known of one written image.

    Attributes
    ----------
    counts : tuple of int
        Nuclei per class, as many classes as were known when it was written.
    unknown : int
        Nuclei without a class.
    warnings : tuple of str
    notes : mapping
        As of `train.checks.Checked`.
    """

    name: str
    split: str
    group: str
    organ: str | None
    published: str | None
    where: str
    shape: tuple[int, int]
    mpp: float
    mpp_source: str
    nuclei: int
    counts: tuple[int, ...]
    unknown: int
    diameter_um: float
    digest: str
    warnings: tuple[str, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


class SetWriter:
    """Writes a data set; ``dataset.json`` comes last, so that a folder without it is known to be incomplete.

    Parameters
    ----------
    folder
        New or empty.

    Raises
    ------
    NucSegError
        There is something in the folder already.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise NucSegError(f"'{folder}' is not an empty folder; choose another for --out, or empty it.")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.rows: list[Row] = []

    def add(self, entry: Entry, split: str, group: str, item: Checked) -> Row:
        """Write an image with its labels and types, and return what is known of it."""
        self._save(split, "images", entry.name, item.image)
        if item.labels is not None:
            self._save(split, "instances", entry.name, item.labels)
        if item.types is not None:
            self._save(split, "types", entry.name, item.types)
        row = Row(
            entry.name, split, group, entry.organ, entry.fold or entry.split, entry.where,
            item.image.shape[:2], item.mpp, item.mpp_source, item.nuclei, tuple(item.counts.tolist()),
            item.unknown, item.diameter_um, item.digest, item.warnings, item.notes,
        )  # fmt: skip
        self.rows.append(row)
        return row

    def finish(self, source: Source, classes: Sequence[str], merges: Mapping[str, Any]) -> None:
        """Write ``index.csv``, ``splits.csv`` and ``dataset.json``."""
        with (self.folder / "index.csv").open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(_COLUMNS)
            for row in self.rows:
                fold = "" if row.published in SPLITS else row.published or ""  # folders tell train, val, test
                place = (row.split, row.name, f"{row.mpp:.6g}", row.group, row.organ or "", fold)
                writer.writerow([*place, row.nuclei, row.mpp_source, Path(row.where).name])
        with (self.folder / "splits.csv").open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(("name", "split", "patient"))
            writer.writerows((row.name, row.split, row.group) for row in self.rows)
        resolutions = {round(row.mpp, 6) for row in self.rows}
        meta = {
            "title": source.about.title or self.folder.name,
            "organs": ", ".join(sorted({row.organ for row in self.rows if row.organ})),
            "mpp": resolutions.pop() if len(resolutions) == 1 else None,
            "classes": ["background", *classes] if classes else [],
            "licence": source.about.licence,
            "cite": source.about.cite,
            "note": f"made by train.prepare from the format {source.format}; index.csv gives mpp per image",
            **merges,
        }
        text = json.dumps(meta, indent=1, ensure_ascii=False) + "\n"
        (self.folder / "dataset.json").write_text(text, encoding="utf-8")

    def abandon(self) -> None:
        """Remove the folder, where nothing was written."""
        if not self.rows and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _save(self, split: str, kind: str, name: str, array: np.ndarray) -> None:
        from PIL import Image

        folder = self.folder / split / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / f"{name}.png", compress_level=_COMPRESSION)
