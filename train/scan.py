"""What a data set holds, without its pixels: sizes, and a table of the nuclei, found once per set.

Finding out means to read every label image. Of large sets the result is kept beside the splits (``.scan-<split>.npz``),
so that a training starts in seconds; it is found again where a file has changed.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_nucseg.core import _target_kernels as kernels
from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import replacing
from napari_nucseg.io.slide import read_image
from train.readers.files import LABELS, read_labels

log = logging.getLogger(__name__)

_LARGE_ID = 1 << 20  # larger ids are numbered anew, since tables have a row for every id
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
KEPT_FROM = 50_000_000
"""Pixels of a split from which the result is kept on disk; smaller ones are looked through in a second or two."""


@dataclass(frozen=True)
class ImageFiles:
    """Files of one image; `labels` is None where nobody annotated it, `types` where it has no classes."""

    image: Path
    labels: Path | None = None
    types: Path | None = None

    @property
    def name(self) -> str:
        """Of the image."""
        return self.image.stem


@dataclass(frozen=True)
class Found:
    """What one image holds, classes as the set numbers them.

    Attributes
    ----------
    shape : (2,) int64
        Rows and columns.
    diameter : (1,) float64
        Median equivalent diameter of the nuclei in pixels, NaN without nuclei.
    points : (n, 2) int32
        Centroid (row, column) of every nucleus, rounded, in ascending order of the ids.
    votes : (m, 3) int32
        Nucleus (its row in `points`), class of the set, pixels; empty where the image has no classes.
    """

    shape: NDArray[np.int64]
    diameter: NDArray[np.float64]
    points: NDArray[np.int32]
    votes: NDArray[np.int32]

    def nuclei(self, lookup: NDArray[np.uint8] | None) -> NDArray[np.int64]:
        """Return row, column and class of every nucleus: the commonest known one of its pixels, 0 if unknown.

        Parameters
        ----------
        lookup : (256,) uint8 or None
            From the set's classes to those to learn; None knows no class.
        """
        known = np.zeros(len(self.points), np.int64)
        if lookup is not None and len(self.votes):
            nucleus, kind, pixels = self.votes.T
            votes = np.zeros((len(self.points), 256), np.int64)
            np.add.at(votes, (nucleus, lookup[kind]), pixels)
            votes[:, [0, IGNORE]] = 0
            known = np.where(votes.max(1) > 0, votes.argmax(1), 0)
        return np.column_stack([self.points.astype(np.int64), known])


def list_files(folder: Path, labelled: bool = True) -> list[ImageFiles]:
    """Return the files of a split, sorted by name.

    Parameters
    ----------
    folder
        Of the split; ``images`` and ``instances`` lie in it.
    labelled
        Whether there must be labels; else they are left alone.

    Raises
    ------
    NucSegError
        The folder does not have the layout, an image has no labels, or two have one name.
    """
    if not (folder / "images").is_dir():
        layout = "<set>/<split>/images and instances" if labelled else "<set>/train/images, or <set>/images"
        raise NucSegError(f"'{folder / 'images'}' does not exist; a data set is {layout}.")
    labels, types = (_labels_in(folder / kind) for kind in ("instances", "types"))
    out: dict[str, ImageFiles] = {}
    for path in _files_in(folder / "images"):
        if path.stem in out:
            raise NucSegError(
                f"'{path}' has the name of '{out[path.stem].image.name}'; keep one image per name."
            )
        if not labelled:
            out[path.stem] = ImageFiles(path)
        elif path.stem in labels:
            out[path.stem] = ImageFiles(path, labels[path.stem], types.get(path.stem))
        else:
            raise NucSegError(
                f"'{path}' has no labels '{folder / 'instances' / path.stem}.png'; add them, take it out, or say "
                "labelled=false of the set if nobody annotated it (for train.distill)."
            )
    return [out[name] for name in sorted(out)]


def scan(files: Sequence[ImageFiles], keep: Path | None = None) -> list[Found]:
    """Find out what images hold, from what is kept of an earlier time if no file has changed.

    Parameters
    ----------
    files
        In the order of the result.
    keep
        File for the result, written where the images are many.

    Raises
    ------
    NucSegError
        Labels or types can't be read, or differ in size from their image.
    """
    stamp = _stamp(files) if keep is not None and keep.is_file() else ""
    if stamp and keep is not None and (known := _load(keep, stamp)) is not None:
        return known
    # decoding holds no GIL
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        found = list(pool.map(look, files))
    if keep is not None and sum(int(f.shape.prod()) for f in found) >= KEPT_FROM:
        _save(keep, stamp or _stamp(files), found)
    return found


def look(files: ImageFiles) -> Found:
    """Find out what one image holds.

    Raises
    ------
    NucSegError
        As `scan`.
    """
    shape = _shape_of(files.image)
    labels = np.zeros(shape, np.int32) if files.labels is None else read_labels(files.labels)
    types = None if files.types is None else read_labels(files.types)
    for array, path in ((labels, files.labels), (types, files.types)):
        if array is not None and array.shape != shape:
            raise NucSegError(
                f"'{path}' is of {array.shape[1]} x {array.shape[0]} pixels but its image of {shape[1]} x {shape[0]}; "
                "pair files of one download."
            )
    if labels.max(initial=0) > _LARGE_ID:
        labels = np.unique(labels, return_inverse=True)[1].reshape(shape).astype(np.int32) + (
            labels.min() > 0
        )
    sums = kernels.moments(labels, int(labels.max(initial=0)))
    ids = np.flatnonzero(sums[:, 0])
    area = sums[ids, 0]
    points = np.rint(sums[ids, 1:] / area[:, None]).astype(np.int32)
    votes = np.zeros((0, 3), np.int32)
    if types is not None:
        if types.max(initial=0) > IGNORE:
            raise NucSegError(
                f"'{files.types}' has class {types.max()}, but classes lie in 0..255; save it with 8 bit."
            )
        inside = labels > 0
        pixels = np.bincount(labels[inside] * 256 + types[inside])
        pairs = np.flatnonzero(pixels)
        votes = np.stack([np.searchsorted(ids, pairs // 256), pairs % 256, pixels[pairs]], 1).astype(np.int32)
    diameter = 2 * np.sqrt(np.median(area) / np.pi) if len(ids) else np.nan
    return Found(np.array(shape, np.int64), np.array([diameter], np.float64), points, votes)


def _files_in(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    # hidden files are the droppings of file managers, such as ._NAME.png
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))


def _labels_in(folder: Path) -> dict[str, Path]:
    """Return the label images of a folder by the stem of their names; no JPEG, which would change the ids."""
    found = sorted(_files_in(folder, LABELS), key=lambda p: LABELS.index(p.suffix.lower()), reverse=True)
    return {path.stem: path for path in found}


def _shape_of(path: Path) -> tuple[int, int]:
    """Return rows and columns from the head of an image."""
    try:
        if path.suffix.lower() in {".tif", ".tiff"}:
            with read_image(path) as slide:
                return slide.shape[0], slide.shape[1]
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise NucSegError(f"'{path}' can't be read ({reason}); copy or export it again.") from error


def _stamp(files: Sequence[ImageFiles]) -> str:
    """Return a text that changes with the names, sizes and times of the files."""
    digest = hashlib.sha256(b"1")  # the version of the kept form
    for entry in files:
        for path in (entry.image, entry.labels, entry.types):
            if path is not None:
                info = path.stat()
                digest.update(f"{path.parent.name}/{path.name} {info.st_size} {info.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _save(path: Path, stamp: str, found: Sequence[Found]) -> None:
    arrays: dict[str, NDArray] = {"stamp": np.array(stamp)}
    for item in fields(Found):
        parts = [getattr(f, item.name) for f in found]
        arrays[item.name] = np.concatenate(parts)
        arrays[f"{item.name}_n"] = np.array([len(p) for p in parts])
    try:
        with replacing(path) as draft, draft.open("wb") as handle:
            np.savez(handle, allow_pickle=False, **arrays)
    except NucSegError as error:
        log.info("%s; the set is looked through at every start.", error)


def _load(path: Path, stamp: str) -> list[Found] | None:
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["stamp"]) != stamp:
                return None
            columns = [
                np.split(kept[item.name], np.cumsum(kept[f"{item.name}_n"])[:-1]) for item in fields(Found)
            ]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        log.info("'%s' can't be used (%s); the set is looked through again.", path, error)
        return None
    return [Found(*row) for row in zip(*columns, strict=True)]
