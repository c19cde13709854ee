"""CoNIC: ``images.npy`` (N, 256, 256, 3), ``labels.npy`` (N, 256, 256, 2), ``counts.csv`` and ``patch_info.csv``.

The patches of Lizard at 20x. Graham S et al., CoNIC Challenge, Medical Image Analysis 92 (2024); Graham S et al.,
Lizard, ICCV Workshops (2021).
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError
from train.readers.files import as_ids, open_npy
from train.readers.pannuke import as_uint8
from train.readers.record import About, Entry, Raw, ReadOptions, Source, distinct, safe_name

CLASSES: tuple[str, ...] = ("neutrophil", "epithelial", "lymphocyte", "plasma", "eosinophil", "connective")
"""Of the values 1..6 in channel 1 of the labels; channel 0 has the ids."""
MPP = 0.5
ABOUT = About(
    "CoNIC / Lizard (Graham et al. 2021)",
    "CC BY-NC-SA 4.0",
    "Graham S et al., Lizard, ICCV Workshops (2021); CoNIC Challenge, Medical Image Analysis 92 (2024)",
)


def matches(path: Path) -> bool:
    """Whether there are ``images.npy`` and ``labels.npy`` side by side."""
    return any(images.with_name("labels.npy").is_file() for images in path.rglob("images.npy"))


def open_source(path: Path, options: ReadOptions) -> Source:
    """List the patches of the one set below a folder; pixels stay on disk.

    Raises
    ------
    NucSegError
        An array is damaged, or the arrays and tables disagree in the number of patches.
    """
    del options
    images_path, *more = (p for p in sorted(path.rglob("images.npy")) if p.with_name("labels.npy").is_file())
    problems = tuple(f"'{p}' is a second set, left out; prepare it by itself." for p in more)
    patches = _open(images_path)
    names = _patch_names(images_path.with_name("patch_info.csv"), patches.count)
    entries = distinct(
        Entry(safe_name(name), f"{patches.labels_path}[{i}]", _slide(name)) for i, name in enumerate(names)
    )
    index = {entry.name: i for i, entry in enumerate(entries)}
    return Source(
        "conic", entries, lambda e: patches.read(index[e.name], e.where), ABOUT, CLASSES, problems,
        patches.remarks,
    )  # fmt: skip


@dataclass(frozen=True)
class _Patches:
    """The arrays are mapped anew for every patch, or all that was read would count as memory in use."""

    count: int
    counts: NDArray[np.int64] | None
    images_path: Path
    labels_path: Path
    remarks: tuple[str, ...]

    def read(self, index: int, where: str) -> Raw:
        image = as_uint8(np.array(open_npy(self.images_path)[index]), f"{self.images_path}[{index}]")
        both = np.array(open_npy(self.labels_path)[index])
        labels, kinds = as_ids(both[..., 0], where), as_ids(both[..., 1], where)
        if kinds.max() > len(CLASSES):
            raise NucSegError(f"'{where}' has class {kinds.max()}, but CoNIC's are 1..{len(CLASSES)}.")
        types = np.where(labels > 0, kinds, 0).astype(np.uint8)
        notes = {"nuclei fewer than counts.csv states": self._missing(index, labels, types)}
        kept = {text: count for text, count in notes.items() if count}
        return Raw(image, labels, types, CLASSES, MPP, "as published (20x)", kept)

    def _missing(self, index: int, labels: NDArray[np.int32], types: NDArray[np.uint8]) -> int:
        """Count nuclei that the table has and the labels have not.

        The table leaves out nuclei at the margin, whose centres lie outside the middle 224 x 224 pixels; so it
        may state fewer, never more.
        """
        if self.counts is None:
            return 0
        pairs = np.unique(np.stack([labels[labels > 0], types[labels > 0]]), axis=1)
        found = np.bincount(pairs[1], minlength=len(CLASSES) + 1)[1 : len(CLASSES) + 1]
        return int(np.maximum(self.counts[index] - found, 0).sum())


def _open(images_path: Path) -> _Patches:
    labels_path = images_path.with_name("labels.npy")
    images, labels = open_npy(images_path), open_npy(labels_path)
    if images.ndim != 4 or images.shape[3] != 3:
        raise NucSegError(f"'{images_path}' has the shape {images.shape}, but CoNIC's is (N, 256, 256, 3).")
    if labels.ndim != 4 or labels.shape[3] != 2:
        raise NucSegError(f"'{labels_path}' has the shape {labels.shape}, but CoNIC's is (N, 256, 256, 2).")
    if images.shape[:3] != labels.shape[:3]:
        raise NucSegError(
            f"'{labels_path}' has {labels.shape[:3]} labels but '{images_path}' {images.shape[:3]} images; "
            "take both from one download."
        )
    counts_path = images_path.with_name("counts.csv")
    remarks: tuple[str, ...] = ()
    counts = None
    try:
        counts = _read_counts(counts_path, len(images))
    except NucSegError as error:
        remarks = (f"{error} The labels are taken without that check.",)
    return _Patches(len(images), counts, images_path, labels_path, remarks)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            return list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NucSegError(f"'{path}' can't be read ({error}); download it again.") from error


def _read_counts(path: Path, n: int) -> NDArray[np.int64] | None:
    if not path.exists():
        return None
    rows = _rows(path)
    if len(rows) != n:
        raise NucSegError(f"'{path}' has {len(rows)} rows for {n} images; take both from one download.")
    try:
        return np.array([[int(float(row[name])) for name in CLASSES] for row in rows], np.int64).reshape(
            n, -1
        )
    except (KeyError, TypeError, ValueError) as error:
        raise NucSegError(f"'{path}' lacks the columns {', '.join(CLASSES)} or numbers in them.") from error


def _patch_names(path: Path, n: int) -> list[str]:
    if not path.exists():
        return [f"conic_{i:05d}" for i in range(n)]
    rows = _rows(path)
    names = [str(next(iter(row.values())) or f"conic_{i:05d}") for i, row in enumerate(rows)]
    if len(names) != n:
        raise NucSegError(f"'{path}' names {len(names)} patches for {n} images; take both from one download.")
    return names


def _slide(name: str) -> str | None:
    """Return "consep_1" of the patch "consep_1-0003": patches of one image overlap, so they stay together."""
    found = re.fullmatch(r"(.+)-\d+", name)
    return found[1] if found else None
