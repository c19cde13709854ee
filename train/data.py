"""Annotated images: the folder layout, class merging, splits by image, and random crops for training.

A data set is a folder ``<set>/<split>/{images,instances,types}/NAME.*`` with a ``dataset.json`` beside the
splits (mpp, classes, licence) and optionally an ``index.csv`` that gives the mpp per image.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError


@dataclass(frozen=True)
class SetConfig:
    """One data set of the training mix.

    Parameters
    ----------
    weight : float
        Share of the crops that are drawn from this set (relative to the others).
    held_out : tuple of str
        Names, or beginnings of names, of the training images kept for validation.
    mpp : float, optional
        Stated resolution, where the set gives none.
    mpp_from_size : float, optional
        Median nucleus diameter in micrometres from which the resolution of each image is estimated, for sets
        of unknown and mixed magnification.
    merge : str, optional
        Name of a class merge in ``dataset.json`` (such as ``merge_pannuke``).
    labelled : bool
        False for images without labels, in ``<set>/train/images`` or ``<set>/images``: only a teacher can teach
        with them.
    """

    weight: float = 1.0
    held_out: tuple[str, ...] = ()
    mpp: float | None = None
    mpp_from_size: float | None = None
    merge: str | None = None
    labelled: bool = True


@dataclass(frozen=True)
class AnnotatedImage:
    """One image with its truth, in memory.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    labels : uint16 or int32 (H, W), 0 = background
    types : uint8 (H, W) or None
        0 background, 1..C class, `IGNORE` unknown; None where the set has no classes.
    mpp : float
    """

    dataset: str
    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.integer]
    types: NDArray[np.uint8] | None
    mpp: float
    nuclei: NDArray[np.int64]
    """(n, 3): row, column and class (0 unknown) of every nucleus."""
    labelled: bool = True
    """False if the truth is not known; `labels` are all 0 then."""


def class_lookup(meta: dict[str, Any], merge: str | None, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the table from a set's class numbers to 1..C of `classes` (unmapped ones become `IGNORE`)."""
    names = meta["classes"]
    table = np.full(256, IGNORE, np.uint8)
    table[0] = 0
    groups = meta.get(merge) if merge else {name: [name] for name in names}
    if groups is None:
        known = ", ".join(k for k in meta if k.startswith("merge_"))
        raise NucSegError(f"Class merge '{merge}' is not in dataset.json; there are: {known}.")
    for group, members in groups.items():
        if group in classes:
            for member in members:
                table[names.index(member)] = classes.index(group) + 1
    return table


def _read_index(folder: Path) -> dict[str, float]:
    path = folder / "index.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    column = next(k for k in rows[0] if k.startswith("mpp"))
    return {row["name"]: float(row[column]) for row in rows}


def median_diameter(labels: NDArray[np.integer]) -> float:
    """Return the median equivalent diameter of the nuclei in pixels."""
    areas = np.unique(labels[labels > 0], return_counts=True)[1]
    return float(2 * np.sqrt(np.median(areas) / np.pi)) if areas.size else float("nan")


def nucleus_classes(
    labels: NDArray[np.integer], types: NDArray[np.uint8] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the centroid (row, col) of every nucleus and its class: the commonest known one of its pixels.

    Returns
    -------
    points : (n, 2) float64, in ascending order of the ids
    classes : (n,) int64, 0 where the class is not known
    """
    rows, cols = np.nonzero(labels)
    ids, index = np.unique(labels[rows, cols], return_inverse=True)
    n = len(ids)
    area = np.maximum(np.bincount(index, minlength=n), 1)
    points = np.stack([np.bincount(index, axis, n) / area for axis in (rows, cols)], axis=1)
    if types is None:
        return points, np.zeros(n, np.int64)
    votes = np.zeros((n, 256), np.int64)
    np.add.at(votes, (index, types[rows, cols]), 1)
    votes[:, [0, IGNORE]] = 0
    return points, np.where(votes.max(1) > 0, votes.argmax(1), 0)


def image_names(folder: Path, split: str = ".") -> list[str]:
    """Return the names of a split, sorted; `NucSegError` if the folder does not have the layout."""
    images = folder / split / "images"
    if not images.is_dir():
        raise NucSegError(f"'{images}' does not exist; a data set is <set>/<split>/images and instances.")
    return sorted(p.stem for p in images.iterdir() if p.suffix.lower() in {".png", ".jpg", ".tif", ".tiff"})


def _split_folder(folder: Path, split: str, config: SetConfig) -> Path:
    """Return the folder of a split; a set without labels need not have any splits."""
    plain = not config.labelled and not (folder / split / "images").is_dir()
    return folder if plain else folder / split


def _unlabelled(
    folder: Path, name: str, image: NDArray[np.uint8], config: SetConfig, meta: dict[str, Any]
) -> AnnotatedImage:
    """Return an image without truth."""
    mpp = _read_index(folder).get(name) or config.mpp or meta.get("mpp")
    if mpp is None:
        raise NucSegError(
            f"Resolution of '{folder.name}/{name}' is unknown; set data.sets.{folder.name}.mpp."
        )
    blank = np.zeros(image.shape[:2], np.int32)
    return AnnotatedImage(
        folder.name, name, image, blank, None, float(mpp), np.zeros((0, 3), np.int64), False
    )


def load_image(
    folder: Path, split: str, name: str, config: SetConfig, classes: tuple[str, ...]
) -> AnnotatedImage:
    """Read one image with its truth; classes are mapped to positions in `classes`."""
    meta = json.loads((folder / "dataset.json").read_text())
    path = next((_split_folder(folder, split, config) / "images").glob(f"{name}.*"))
    image = np.asarray(Image.open(path).convert("RGB"))
    if not config.labelled:
        return _unlabelled(folder, name, image, config, meta)
    labels = np.asarray(Image.open(folder / split / "instances" / f"{name}.png")).astype(np.int32)
    types = None
    types_path = folder / split / "types" / f"{name}.png"
    if types_path.exists() and classes:
        types = class_lookup(meta, config.merge, classes)[np.asarray(Image.open(types_path))]
    points, known = nucleus_classes(labels, types)
    nuclei = np.column_stack([np.rint(points).astype(np.int64), known])
    mpp = _read_index(folder).get(name) or config.mpp or meta.get("mpp")
    if mpp is None and config.mpp_from_size:
        mpp = config.mpp_from_size / median_diameter(labels)
    if mpp is None or not np.isfinite(mpp):
        raise NucSegError(
            f"Resolution of '{folder.name}/{name}' is unknown; set data.sets.{folder.name}.mpp."
        )
    return AnnotatedImage(folder.name, name, image, labels, types, float(mpp), nuclei)


def load_split(
    root: Path, sets: dict[str, SetConfig], classes: tuple[str, ...], held_out: bool
) -> list[AnnotatedImage]:
    """Read the training images of every set, or those held out of them for validation."""
    out = []
    for key, config in sets.items():
        out += [
            load_image(root / key, "train", name, config, classes)
            for name in image_names(_split_folder(root / key, "train", config))
            if name.startswith(config.held_out or ("\0",)) == held_out
        ]
    if not out:
        raise NucSegError(f"No {'validation' if held_out else 'training'} image in '{root}'; see data.sets.")
    return out
