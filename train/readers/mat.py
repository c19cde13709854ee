"""CoNSeP and Lizard: an image (.png) and a Matlab file (.mat) of the same name with ``inst_map`` and classes.

CoNSeP has ``type_map`` (older copies ``inst_type``), Lizard ``id`` and ``class``. Graham S et al., HoVer-Net,
Medical Image Analysis 58 (2019); Graham S et al., Lizard, ICCV Workshops (2021).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError
from train.readers import conic
from train.readers.files import as_ids, check_same_size, read_rgb
from train.readers.matfile import read_numbers
from train.readers.pairs import files_below, open_pairs
from train.readers.record import About, Raw, ReadOptions, Source

CONSEP: tuple[str, ...] = (
    "other",
    "inflammatory",
    "healthy epithelial",
    "dysplastic/malignant epithelial",
    "fibroblast",
    "muscle",
    "endothelial",
)
ABOUT = About(
    "CoNSeP (Graham et al. 2019) or Lizard (Graham et al. 2021)",
    "research use; see the terms of the download",
    "Graham S et al., HoVer-Net, Medical Image Analysis 58 (2019); Lizard, ICCV Workshops (2021)",
)


def matches(path: Path) -> bool:
    """Whether there is a Matlab file at or below a path."""
    return bool(files_below(path, ".mat"))


def open_source(path: Path, options: ReadOptions) -> Source:
    """Pair every Matlab file with its image; nothing is read."""
    del options
    return open_pairs("consep", path, files_below(path, ".mat"), read_pair, ABOUT)


def read_pair(mat: Path, image_path: Path) -> Raw:
    """Read an image with its Matlab file.

    Raises
    ------
    NucSegError
        One of them is damaged, they differ in size, or a class is not of the set's.
    """
    content = read_numbers(mat)
    if "inst_map" not in content:
        keys = ", ".join(content) or "no array of numbers"
        raise NucSegError(f"'{mat}' has no 'inst_map' but {keys}; it is no annotation of CoNSeP's form.")
    labels = as_ids(content["inst_map"], f"{mat}: inst_map")
    image, stated = read_rgb(image_path)
    check_same_size(image, labels, str(mat))
    if "class" in content:
        table = _per_nucleus(labels, content["class"], content.get("id"), mat)
        types, classes, mpp, source = table[labels], conic.CLASSES, conic.MPP, "as published for Lizard (20x)"
    elif "type_map" in content:
        types = as_ids(content["type_map"], f"{mat}: type_map")
        check_same_size(types, labels, str(mat))
        types, classes, mpp, source = (
            np.where(labels > 0, types, 0),
            CONSEP,
            0.25,
            "as published for CoNSeP (40x)",
        )
    elif "inst_type" in content:
        table = _per_nucleus(labels, content["inst_type"], None, mat)
        types, classes, mpp, source = table[labels], CONSEP, 0.25, "as published for CoNSeP (40x)"
    else:
        return Raw(image, labels, mpp=stated.value, mpp_source=stated.source)
    if types.max() > len(classes):
        raise NucSegError(f"'{mat}' has class {types.max()}, but the set's are 1..{len(classes)}.")
    return Raw(image, labels, types.astype(np.uint8), classes, mpp, source)


def _per_nucleus(labels: NDArray[np.int32], kinds: Any, ids: Any, mat: Path) -> NDArray[np.int32]:
    """Return the table from id to class; without ids the classes are those of the ids in ascending order."""
    known = np.unique(labels[labels > 0])
    values = as_ids(np.asarray(kinds).reshape(-1, 1), f"{mat}: classes")[:, 0]
    owners = known if ids is None else as_ids(np.asarray(ids).reshape(-1, 1), f"{mat}: id")[:, 0]
    if len(values) != len(owners):
        raise NucSegError(f"'{mat}' has {len(values)} classes for {len(owners)} nuclei; download it again.")
    table = np.zeros(max(labels.max(), owners.max(initial=0)) + 1, np.int32)
    table[owners] = values
    return table
