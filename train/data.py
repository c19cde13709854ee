"""Annotated images: the folder layout, class merging, and the images of a training by set and side.

A data set is a folder ``<set>/<split>/{images,instances,types}/NAME.*`` with a ``dataset.json`` beside the
splits (mpp, classes, licence) and optionally an ``index.csv`` that gives mpp and patient per image.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError
from train.annotated import AnnotatedImage, Known, LazyImage
from train.class_checks import check_classes, check_numbers
from train.class_map import ClassMap
from train.data_config import DataConfig, SetConfig
from train.listing import Listed, list_set, read_meta, read_table
from train.pixels import Pixels, PixelStore, read_image
from train.readers.files import check_same_size, read_labels
from train.scan import Found, ImageFiles, list_files, look, scan

__all__ = [
    "AnnotatedImage",
    "DataConfig",
    "LazyImage",
    "SetConfig",
    "class_lookup",
    "load_data",
    "load_image",
    "load_split",
    "median_diameter",
    "nucleus_classes",
]


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Reader:
    """Reads the pixels of one of many images."""

    files: tuple[ImageFiles, ...]
    lookups: tuple[NDArray[np.uint8] | None, ...]

    def __call__(self, position: int) -> Pixels:
        return read_pixels(self.files[position], self.lookups[position])


def read_pixels(files: ImageFiles, lookup: NDArray[np.uint8] | None) -> Pixels:
    """Read an image with its labels and, through a lookup of classes, types.

    Raises
    ------
    NucSegError
        A file can't be read, or the sizes differ.
    """
    image = read_image(files.image)
    labels: NDArray[np.integer]
    if files.labels is None:
        return Pixels(image, np.zeros(image.shape[:2], np.uint16), None)
    labels = read_labels(files.labels)
    check_same_size(image, labels, str(files.labels))
    if labels.max(initial=0) < 2**16:
        labels = labels.astype(np.uint16)
    if files.types is None or lookup is None:
        return Pixels(image, labels, None)
    types = read_labels(files.types)
    check_same_size(image, types, str(files.types))
    known = lookup[types]
    known[labels == 0] = 0
    known[(labels > 0) & (known == 0)] = IGNORE  # a nucleus is no background, even if nobody knows its class
    return Pixels(image, labels, known)


def class_lookup(meta: dict[str, Any], merge: str | None, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the table from a set's class numbers to 1..C of `classes` (unmapped ones become `IGNORE`).

    Raises
    ------
    NucSegError
        The merge is not in ``dataset.json``, or names a class that the set does not have.
    """
    names = list(meta.get("classes") or ())
    table = np.full(256, IGNORE, np.uint8)
    table[0] = 0
    groups = meta.get(merge) if merge else {name: [name] for name in names}
    if groups is None:
        known = ", ".join(k for k in meta if k.startswith("merge_"))
        raise NucSegError(f"Class merge '{merge}' is not in dataset.json; there are: {known}.")
    for group, members in groups.items():
        if group in classes:
            for member in members:
                if member not in names:
                    near = difflib.get_close_matches(member, names, 1)
                    hint = f"did it mean '{near[0]}'?" if near else f"there are {', '.join(names)}."
                    raise NucSegError(
                        f"'{merge}' of dataset.json names '{member}', which is none of its classes; {hint}"
                    )
                table[names.index(member)] = classes.index(group) + 1
    return table


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


def _mpp(key: str, item: Listed, config: SetConfig, meta: dict[str, Any], found: Found) -> float:
    """Return the resolution of an image: of its row, of the settings, of the set, or estimated."""
    value: Any = item.stated_mpp or config.mpp or meta.get("mpp")
    if value is None and config.mpp_from_size:
        value = config.mpp_from_size / found.diameter[0]
    try:
        mpp = float("nan") if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise NucSegError(
            f"'{value}' is stated as mpp of '{key}/{item.name}'; it must be a number."
        ) from error
    if not (np.isfinite(mpp) and mpp > 0):
        raise NucSegError(f"Resolution of '{key}/{item.name}' is unknown; set data.sets.{key}.mpp.")
    return mpp


def _lookup(
    folder: Path,
    config: SetConfig,
    meta: dict[str, Any],
    classes: tuple[str, ...],
    class_map: ClassMap | None,
) -> NDArray[np.uint8] | None:
    """Return the table from the classes of a set to those to learn, None if there are none."""
    if not classes:
        return None
    if class_map is None or config.merge:
        return class_lookup(meta, config.merge, classes)
    names = (meta.get("classes") or ["background"])[1:]
    class_map.check(dict.fromkeys(names, str(folder / "dataset.json")), folder.name)
    return class_map.numbers(names, folder.name)


def load_image(
    folder: Path, split: str, name: str, config: SetConfig, classes: tuple[str, ...]
) -> AnnotatedImage:
    """Read one image with its truth; classes are mapped to positions in `classes`.

    Raises
    ------
    NucSegError
        There is no such image, a file can't be read, or the resolution is not known.
    """
    meta = read_meta(folder, config.labelled)
    plain = not config.labelled and not (folder / split / "images").is_dir()
    by_name = {f.name: f for f in list_files(folder if plain else folder / split, config.labelled)}
    if name not in by_name:
        raise NucSegError(f"'{folder / split}' has no image '{name}'; see its folder images.")
    rows = [r for r in read_table(folder / "index.csv") if r["name"] == name]
    row = next((r for r in rows if r.get("split") == split), rows[0] if rows else {})
    files, lookup = by_name[name], _lookup(folder, config, meta, classes, None)
    found, pixels = look(files), read_pixels(files, lookup)
    return AnnotatedImage(
        folder.name,
        name,
        pixels.image,
        pixels.labels.astype(np.int32),
        pixels.types,
        _mpp(folder.name, Listed(split, files, row), config, meta, found),
        found.nuclei(lookup if files.types else None),
        config.labelled,
    )


def load_data(config: DataConfig) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Return the training and the validation images of all sets; pixels are read when they are asked for.

    Raises
    ------
    NucSegError
        A set is not as `train.listing.list_set` wants it, a class is not in the class map, a resolution is not
        known, or there is nothing to train on.
    """
    class_map = None if config.class_map is None else ClassMap.load(config.class_map)
    if class_map is not None and class_map.classes != config.classes:
        raise NucSegError(
            f"Class map '{config.class_map}' has the classes {', '.join(class_map.classes)}, but data.classes says "
            f"{', '.join(config.classes)}; leave data.classes out."
        )
    sides: tuple[list[Known], list[Known]] = ([], [])
    for key, settings in config.sets.items():
        for side, members in zip(sides, _members(config, key, settings, class_map), strict=True):
            side.extend(members)
    if not sides[0]:
        raise NucSegError(f"No training image in '{config.root}'; see data.sets.")
    if len(sides[0]) == 1 and not sides[1]:
        raise NucSegError(
            f"'{config.root}' has a single image to train on, '{sides[0][0].files.name}', and none to validate with; "
            "at least two images are needed."
        )
    if not sides[1]:
        raise NucSegError(
            f"No validation image in '{config.root}'; name some by held_out of a set, or a share by val_fraction."
        )
    names = {
        key: read_meta(config.root / key, settings.labelled).get("classes") or ()
        for key, settings in config.sets.items()
    }
    mapped = {key for key, settings in config.sets.items() if class_map is not None or settings.merge}
    check_classes(sides, config.classes, names, mapped)
    # validation comes seldom, so that memory is better spent on training
    limit = config.cache_gb * 1e9
    return _lazy(sides[0], int(0.9 * limit)), _lazy(sides[1], int(0.1 * limit))


def load_split(
    root: Path, sets: dict[str, SetConfig], classes: tuple[str, ...], held_out: bool
) -> list[AnnotatedImage]:
    """Return the training images of every set, or those held out of them for validation, see `load_data`."""
    train: list[Known] = []
    validation: list[Known] = []
    for key, settings in sets.items():
        one, other = _members(DataConfig(root, classes), key, settings, None)
        train += one
        validation += other
    out = validation if held_out else train
    if not out:
        raise NucSegError(f"No {'validation' if held_out else 'training'} image in '{root}'; see data.sets.")
    return _lazy(out, int(DataConfig.cache_gb * 1e9))


def _members(
    config: DataConfig, key: str, settings: SetConfig, class_map: ClassMap | None
) -> tuple[list[Known], list[Known]]:
    """Return the images of one set to train on and to validate with."""
    folder = config.root / key
    if not folder.is_dir():
        near = difflib.get_close_matches(key, [p.name for p in config.root.glob("*") if p.is_dir()], 1)
        hint = f"did you mean '{near[0]}'?" if near else "see data.root and data.sets."
        raise NucSegError(f"Data set '{folder}' does not exist; {hint}")
    listed = list_set(folder, settings)
    meta = read_meta(folder, settings.labelled)
    lookup = _lookup(folder, settings, meta, config.classes, class_map)
    splits = {item.split for items in listed for item in items}
    found = {split: _found(folder, split, settings.labelled) for split in splits}
    out: tuple[list[Known], list[Known]] = ([], [])
    for side, items in zip(out, listed, strict=True):
        if side is out[1] and not settings.labelled:
            continue  # nothing to validate against
        for item in items:
            what = found[item.split][item.name]
            mpp = _mpp(key, item, settings, meta, what)
            if item.files.types and config.classes:
                check_numbers(what, item.files.types, meta.get("classes") or ())
            typed = lookup if item.files.types else None
            side.append(Known(key, item.files, mpp, settings.labelled, what, typed))
    others = [
        k for side in out for k in side if settings.mpp and not np.isclose(k.mpp, settings.mpp, rtol=0.01)
    ]
    if others:
        name, mpp = others[0].files.name, others[0].mpp
        log.warning(
            "data.sets.%s.mpp=%g is not heeded where index.csv tells another resolution, as for %s (%g) and %d more.",
            key, settings.mpp, name, mpp, len(others) - 1,
        )  # fmt: skip
    return out


def _found(folder: Path, split: str, labelled: bool) -> dict[str, Found]:
    """Return by name what the images of a split hold; of all of them, so that it is known for any division."""
    files = list_files(folder / split, labelled)
    found = scan(files, folder / f".scan-{split or 'all'}.npz")
    return dict(zip((f.name for f in files), found, strict=True))


def _lazy(members: Sequence[Known], limit: int) -> list[AnnotatedImage]:
    reader = _Reader(tuple(m.files for m in members), tuple(m.lookup for m in members))
    shapes = [(int(m.found.shape[0]), int(m.found.shape[1])) for m in members]
    store = PixelStore(reader, shapes, limit)
    return [LazyImage(m, store, n) for n, m in enumerate(members)]
