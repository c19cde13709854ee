"""Annotated images to score against: images of a data set or of a plain folder, opened one at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import read_image as open_slide
from train.class_map import ClassMap
from train.data import SetConfig, class_lookup, median_diameter
from train.listing import Listed, read_meta
from train.pixels import read_image
from train.readers.files import check_same_size, read_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from train.scores import Scheme


@dataclass(frozen=True)
class Truth:
    """One image with its annotation, as scoring needs it.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    labels : int32 (H, W), 0 = background
    types : uint8 (H, W) or None
        Classes of a scheme from 1, `IGNORE` where that has none for them.
    mpp : float
    organ : str or None
    """

    dataset: str
    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    types: NDArray[np.uint8] | None
    mpp: float
    organ: str | None = None


@dataclass(frozen=True)
class Selection:
    """Which images of which data set.

    Parameters
    ----------
    folder
        The data set with its splits and ``dataset.json``, or a plain folder of ``images``, ``instances``, ``types``.
    items
        The images with their files and what the tables say of them.
    config
        Resolution of sets that state none, and merge of classes.
    what
        How to call the selection in a table.
    classes
        Names of the classes 1, 2 ... in ``types``, where no ``dataset.json`` gives them.
    class_map
        From the set's classes to the model's, instead of a merge.
    mpp
        Micrometres per pixel of all images, whatever else is stated.
    """

    folder: Path
    items: tuple[Listed, ...]
    config: SetConfig
    what: str
    classes: tuple[str, ...] = ()
    class_map: ClassMap | None = None
    mpp: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images, in order."""
        return tuple(item.name for item in self.items)

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What ``dataset.json`` says, if there is one; given classes stand in for its own."""
        meta = read_meta(self.folder) if (self.folder / "dataset.json").is_file() else {}
        return meta | ({"classes": ["background", *self.classes]} if self.classes else {})

    @property
    def has_types(self) -> bool:
        """Whether any image has classes, named or not."""
        return any(item.files.types is not None for item in self.items)

    @property
    def typed(self) -> bool:
        """Whether the images have classes with names."""
        return self.has_types and len(self.meta.get("classes") or ()) > 1

    def organ(self, item: Listed) -> str | None:
        """Return the organ of an image: of its row in ``index.csv``, else of the whole set, None if unknown."""
        return item.row.get("organ") or item.row.get("tissue") or self.meta.get("organ") or None

    def load(self, item: Listed, scheme: Scheme | None) -> Truth:
        """Read one image with its truth, in the classes of a scheme.

        Raises
        ------
        NucSegError
            A file is missing or damaged, the sizes differ, or the resolution is not known.
        """
        files = item.files
        if files.labels is None:
            raise NucSegError(f"'{files.image}' has no labels; only annotated images can be scored.")
        image, labels = read_image(files.image), read_labels(files.labels)
        check_same_size(image, labels, str(files.labels))
        types = None if scheme is None else self._types(files.types, labels, scheme)
        mpp = self._mpp(item, labels)
        return Truth(self.folder.name, item.name, image, labels, types, mpp, self.organ(item))

    def load_all(self, item: Listed, schemes: Sequence[Scheme]) -> dict[str, Truth]:
        """Read one image once, with its truth by the key of each scheme; by "" where there are no schemes."""
        bare = self.load(item, None)
        typed = {s.key: replace(bare, types=self._types(item.files.types, bare.labels, s)) for s in schemes}
        return typed or {"": bare}

    def _types(
        self, path: Path | None, labels: NDArray[np.int32], scheme: Scheme
    ) -> NDArray[np.uint8] | None:
        if path is None:
            return None
        kinds = read_labels(path)
        check_same_size(kinds, labels, str(path))
        known = len(self.meta["classes"]) - 1
        if (bad := kinds[(kinds > known) & (kinds != IGNORE)]).size:
            raise NucSegError(f"'{path}' has class {bad[0]}, but only {known} have names; name them all.")
        return self.lookup(scheme)[kinds]

    def lookup(self, scheme: Scheme) -> NDArray[np.uint8]:
        """Return the table from the set's class numbers to those of a scheme."""
        if self.class_map is None or scheme.merge is not None:
            return class_lookup(self.meta, scheme.merge, scheme.classes)
        target = np.full(256, IGNORE, np.uint8)
        target[0] = 0
        for number, name in enumerate(self.class_map.classes, start=1):
            if name in scheme.classes:
                target[number] = scheme.classes.index(name) + 1
        return target[self.class_map.numbers(self.meta["classes"][1:], self.folder.name)]

    def _mpp(self, item: Listed, labels: NDArray[np.int32]) -> float:
        """Return the resolution: as given, of the image's row, of the settings, of the set, estimated, or of the file.

        But for the first and the last this is the order of `train.data`, so that both see the same image.
        """
        stated: Any = self.mpp or item.stated_mpp or self.config.mpp or self.meta.get("mpp")
        if not stated and self.config.mpp_from_size:
            stated = self.config.mpp_from_size / median_diameter(labels)
        if not stated:
            with open_slide(item.files.image) as slide:
                stated = slide.mpp.value
        try:
            mpp = float(stated or "nan")
        except (TypeError, ValueError) as error:
            raise NucSegError(
                f"'{stated}' is stated as mpp of '{item.files.image}', which is no number; mend it."
            ) from error
        if not (np.isfinite(mpp) and mpp > 0):
            raise NucSegError(
                f"The resolution of '{item.files.image}' is not known; state it in micrometres per pixel with "
                "mpp=0.25 or in index.csv."
            )
        return mpp
