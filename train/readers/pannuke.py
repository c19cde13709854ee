"""PanNuke: per fold ``images.npy`` (N, 256, 256, 3), ``masks.npy`` (N, 256, 256, 6) and ``types.npy`` (N,).

Gamper J et al., PanNuke Dataset Extension, Insights and Baselines, arXiv:2003.10778 (2020).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError
from train.readers.files import as_ids, open_npy
from train.readers.record import About, Entry, Raw, ReadOptions, Source, safe_name

CLASSES: tuple[str, ...] = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
"""Of the channels 0..4; channel 5 is the background."""
MPP = 0.25
ABOUT = About(
    "PanNuke (Gamper et al. 2020)",
    "CC BY-NC-SA 4.0",
    "Gamper J et al., arXiv:2003.10778 (2020)",
)


def matches(path: Path) -> bool:
    """Whether there is an ``images.npy`` with masks of six channels, or ones that can't be opened."""
    return any(_masks_of(images, path).is_file() for images in path.rglob("images.npy"))


def open_source(path: Path, options: ReadOptions) -> Source:
    """List the images of all folds below a folder; pixels stay on disk."""
    del options
    folds: dict[str, _Fold] = {}
    problems, entries, remarks = [], [], []
    for images in sorted(path.rglob("images.npy")):
        try:
            fold = _open_fold(images, path)
        except NucSegError as error:
            problems.append(str(error))
            continue
        key = fold.key if fold.key not in folds else f"{fold.key}-{len(folds) + 1}"
        folds[key] = fold
        if fold.organs is None:
            where = images.with_name("types.npy")
            remarks.append(
                f"'{where}' is missing, so that nobody knows the tissues, nor their mean in train.evaluate."
            )
        entries += [
            Entry(f"{key}_{i:05d}", f"{fold.masks_path}[{i}]", None, fold.key, fold.organ(i))
            for i in range(fold.count)
        ]

    def read(entry: Entry) -> Raw:
        key, _, index = entry.name.rpartition("_")
        return folds[key].read(int(index), entry.where)

    return Source("pannuke", tuple(entries), read, ABOUT, CLASSES, tuple(problems), tuple(remarks))


@dataclass(frozen=True)
class _Fold:
    """The arrays are mapped anew for every image, or all that was read would count as memory in use."""

    key: str
    count: int
    organs: NDArray[Any] | None
    images_path: Path
    masks_path: Path

    def organ(self, index: int) -> str | None:
        if self.organs is None:
            return None
        name = self.organs[index]
        return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)

    def read(self, index: int, where: str) -> Raw:
        image = as_uint8(np.array(open_npy(self.images_path)[index]), f"{self.images_path}[{index}]")
        labels, types, notes = merge_channels(np.array(open_npy(self.masks_path)[index]), where)
        return Raw(image, labels, types, CLASSES, MPP, "as published (40x)", notes)


def as_uint8(image: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """Return an image of 8-bit values, which PanNuke stores as float64.

    Raises
    ------
    NucSegError
        Values outside 0..255, or scaled to 0..1.
    """
    if image.dtype == np.uint8:
        return image.astype(np.uint8)
    least, most = float(image.min()), float(image.max())
    if not (least >= 0 and most <= 255):
        raise NucSegError(
            f"'{where}' has values from {least:g} to {most:g}, but published images have 0..255."
        )
    if 0 < most <= 1:
        raise NucSegError(f"'{where}' is scaled to 0..{most:g}, but published images have 0..255.")
    return np.rint(image).astype(np.uint8)


def merge_channels(
    masks: NDArray[Any], where: str
) -> tuple[NDArray[np.int32], NDArray[np.uint8], dict[str, int]]:
    """Put the instances of the five class channels into one label image.

    Where channels overlap the later one has the pixel, as in the published evaluation. An id that two channels
    share stands for two nuclei.

    Parameters
    ----------
    masks : (H, W, 6)
    where : str
        For messages.

    Returns
    -------
    labels : int32 (H, W), 1..n by channel, then id
    types : uint8 (H, W), channel plus 1
    notes : dict
    """
    labels = np.zeros(masks.shape[:2], np.int32)
    types = np.zeros(masks.shape[:2], np.uint8)
    notes: Counter[str] = Counter()
    for channel in range(len(CLASSES)):
        ids = as_ids(np.ascontiguousarray(masks[..., channel]), f"{where} channel {channel}")
        inside = ids > 0
        notes["pixels in two class channels, given to the later"] += int((inside & (labels > 0)).sum())
        known, position = np.unique(ids[inside], return_inverse=True)
        labels[inside] = position + 1 + int(labels.max())
        types[inside] = channel + 1
        notes["ids"] += len(known)
    claimed = int(((labels > 0) & (masks[..., 5] > 0)).sum())
    if claimed > 0.01 * labels.size:
        notes["pixels of nuclei that the background channel claims too"] += claimed
    there, position = np.unique(labels, return_inverse=True)
    notes["nuclei wholly beneath those of later channels, left out"] += notes.pop("ids") - int(
        (there > 0).sum()
    )
    renumbered = position.reshape(labels.shape) + (0 if there[0] == 0 else 1)
    return renumbered.astype(np.int32), types, {text: count for text, count in notes.items() if count}


def _open_fold(images_path: Path, root: Path) -> _Fold:
    masks_path = _masks_of(images_path, root)
    images, masks = open_npy(images_path), open_npy(masks_path)
    if images.ndim != 4 or images.shape[3] != 3:
        raise NucSegError(
            f"'{images_path}' has the shape {images.shape}, but PanNuke's are (N, 256, 256, 3)."
        )
    if masks.ndim != 4 or masks.shape[3] != 6:
        raise NucSegError(f"'{masks_path}' has the shape {masks.shape}, but PanNuke's are (N, 256, 256, 6).")
    if images.shape[:3] != masks.shape[:3]:
        raise NucSegError(
            f"'{masks_path}' has {masks.shape[:3]} masks but '{images_path}' {images.shape[:3]} images; "
            "take both from one fold."
        )
    types_path = images_path.with_name("types.npy")
    organs = np.array(open_npy(types_path, "SU")) if types_path.exists() else None
    if organs is not None and organs.shape != images.shape[:1]:
        raise NucSegError(
            f"'{types_path}' names {organs.shape} tissues for {len(images)} images; take both from one fold."
        )
    return _Fold(_fold_key(images_path, root), len(images), organs, images_path, masks_path)


def _fold_key(path: Path, root: Path) -> str:
    """Return "fold1" for ``.../Fold 1/images/fold1/images.npy`` and its like, else the folder's name."""
    for part in reversed(path.relative_to(root.parent).parts[:-1]):
        found = re.search(r"fold[ _-]*(\d+)", part, re.IGNORECASE)
        if found:
            return f"fold{int(found[1])}"
    return safe_name(path.parent.name)


def _masks_of(images: Path, root: Path) -> Path:
    """Return where the masks of an ``images.npy`` lie.

    Beside it, below ``masks`` instead of ``images``, or wherever the only masks of that fold are.
    """
    beside = images.with_name("masks.npy")
    inner = images.relative_to(root.parent).parts[:-1]
    swapped = root.parent.joinpath(*("masks" if p.lower() == "images" else p for p in inner), "masks.npy")
    for found in (beside, swapped):
        if found.is_file():
            return found
    key = _fold_key(images, root)
    same = [masks for masks in sorted(root.rglob("masks.npy")) if _fold_key(masks, root) == key]
    return same[0] if len(same) == 1 else beside
