"""Opening the files that the published formats are made of; every failure is told in one sentence."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp
from napari_nucseg.io.slide import EXTENSIONS, read_image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

MOST_PIXELS = 100_000_000
"""Larger images don't fit a training set in memory: cut regions from them."""

_NO_IMAGES = re.compile(r"overlays?|masks?|labels?|instances?|types?|annotations?|.*\.nucseg", re.IGNORECASE)
"""Folders whose pictures are drawn from the annotation."""

_IMAGES = re.compile(r"image|img|tissue|picture", re.IGNORECASE)

LABELS = (".png", ".tif", ".tiff", ".npy")
"""Endings of label images in our own layout, the first that is there counts."""


def one_line(error: Exception) -> str:
    """Return what an exception says, without line breaks and the full stop."""
    text = " ".join(str(error).split()).rstrip(".")
    return text[:200] or type(error).__name__


def open_npy(path: Path, kinds: str = "buif") -> NDArray[Any]:
    """Map an ``.npy`` file into memory without reading it.

    Parameters
    ----------
    path
        Of the file.
    kinds
        Kinds of numpy dtypes that it may hold: numbers.

    Raises
    ------
    NucSegError
        It's missing, cut short, or no array of such a kind.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise NucSegError(f"'{path}' is missing; unpack the published archive completely.") from error
    except Exception as error:  # a damaged head makes numpy raise whatever Python's parser stumbles over
        raise NucSegError(
            f"'{path}' is damaged or no array ({one_line(error)}); download it again."
        ) from error
    if array.dtype.kind not in kinds:
        raise NucSegError(
            f"'{path}' holds {array.dtype}, which the published file doesn't; download it again."
        )
    return array


def read_rgb(path: Path) -> tuple[NDArray[np.uint8], Mpp]:
    """Read a whole image.

    Returns
    -------
    image : uint8 (H, W, 3)
    mpp : Mpp
        What the file states.

    Raises
    ------
    NucSegError
        It can't be read, or has more than `MOST_PIXELS`.
    """
    with read_image(path) as slide:
        height, width = slide.shape
        if height * width > MOST_PIXELS:
            raise NucSegError(
                f"'{path}' has {width} x {height} pixels, more than {MOST_PIXELS:,}; export annotated regions of it."
            )
        return slide.read(0, height, 0, width), slide.mpp


def read_labels(path: Path) -> NDArray[np.int32]:
    """Read a label image (PNG, TIFF or NPY of one channel) as int32 (H, W).

    Raises
    ------
    NucSegError
        It can't be read, has colours, or values that are no ids.
    """
    if path.suffix.lower() == ".npy":
        return as_ids(open_npy(path), str(path))
    try:
        if path.suffix.lower() in {".tif", ".tiff"}:
            import tifffile

            array = np.squeeze(tifffile.imread(path))
        else:
            from PIL import Image

            with Image.open(path) as picture:
                array = np.asarray(picture)
    except Exception as error:  # codecs and parsers of damaged files raise whatever they stumble over
        raise NucSegError(f"'{path}' can't be read ({one_line(error)}); copy or export it again.") from error
    return as_ids(array, str(path))


def as_ids(array: NDArray[Any], where: str) -> NDArray[np.int32]:
    """Return ids as int32, whatever the numeric type they are stored in.

    Raises
    ------
    NucSegError
        The array isn't (H, W), or has negative, fractional or too large values.
    """
    if array.ndim != 2:
        raise NucSegError(f"'{where}' has the shape {array.shape}, but labels are (rows, columns).")
    if array.dtype.kind not in "buif":
        raise NucSegError(f"'{where}' holds {array.dtype}, but labels are whole numbers.")
    if array.size and not (array.min() >= 0 and array.max() < 2**31):
        raise NucSegError(
            f"'{where}' has values from {array.min()} to {array.max()}, but ids lie in 0..2147483647."
        )
    ids = array.astype(np.int32)
    if array.dtype.kind == "f" and (ids != array).any():
        raise NucSegError(
            f"'{where}' has fractions such as {array[ids != array][0]}, but ids are whole numbers."
        )
    return ids


def check_same_size(image: NDArray[Any], labels: NDArray[Any], where: str) -> None:
    """Raise `NucSegError` where an annotation is not of the size of its image."""
    if image.shape[:2] != labels.shape:
        (h, w), (rows, columns) = image.shape[:2], labels.shape
        raise NucSegError(
            f"'{where}' is of {columns} x {rows} pixels but its image of {w} x {h}; pair files of one download."
        )


@dataclass
class ImageIndex:
    """The images below a folder by the stem of their names."""

    root: Path
    _paths: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for path in sorted(self.root.rglob("*")):
            folders = path.relative_to(self.root).parts[:-1]
            hidden = path.name.startswith(".")  # file managers leave such as ._NAME.png
            if (
                path.suffix.lower() in EXTENSIONS
                and not hidden
                and not any(map(_NO_IMAGES.fullmatch, folders))
            ):
                self._paths[path.stem].append(path)

    def find(self, annotation: Path, stem: str) -> Path:
        """Return the image of an annotation: the one of its stem, the nearest in the tree of folders.

        Raises
        ------
        NucSegError
            There is none, or several are equally near.
        """
        found = self._paths.get(stem, [])
        if not found:
            raise NucSegError(f"'{annotation}' has no image '{stem}' (.tif, .png, ...) below '{self.root}'.")
        ranked = sorted(((self._rank(annotation, path), path) for path in found), reverse=True)
        if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            raise NucSegError(
                f"'{annotation}' may belong to '{ranked[0][1]}' or '{ranked[1][1]}'; keep one image per name."
            )
        return ranked[0][1]

    def without(self, used: Iterable[Path]) -> list[Path]:
        """Return the images that no annotation uses."""
        taken = set(used)
        return [path for paths in self._paths.values() for path in paths if path not in taken]

    @staticmethod
    def _rank(annotation: Path, image: Path) -> tuple[int, bool]:
        common = 0
        for a, b in zip(annotation.parts, image.parts, strict=False):
            if a != b:
                break
            common += 1
        return common, bool(_IMAGES.search(image.parent.name))
