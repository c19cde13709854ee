"""One annotated image: in memory, or read when its pixels are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.pixels import Pixels, PixelStore
from train.scan import Found, ImageFiles


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

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def pixels(self) -> Pixels:
        """Image, labels and types at once."""
        return Pixels(self.image, self.labels, self.types)


@dataclass(frozen=True)
class Known:
    """An image of a data set with all that is known of it without its pixels.

    Attributes
    ----------
    key : str
        Of the data set.
    files : ImageFiles
    mpp : float
    labelled : bool
    found : Found
    lookup : (256,) uint8 or None
        From the set's classes to those to learn; None where the image has none.
    """

    key: str
    files: ImageFiles
    mpp: float
    labelled: bool
    found: Found
    lookup: NDArray[np.uint8] | None


class LazyImage(AnnotatedImage):
    """An image of a set whose pixels are read when they are asked for.

    Parameters
    ----------
    known
        All else.
    store, position
        Where its pixels are kept, and as which image.
    """

    def __init__(self, known: Known, store: PixelStore, position: int) -> None:
        # straight into the dictionary: frozen, and the properties below stand in for the fields of arrays
        self.__dict__.update(
            dataset=known.key,
            name=known.files.name,
            mpp=known.mpp,
            labelled=known.labelled,
            nuclei=known.found.nuclei(known.lookup),
            _shape=(int(known.found.shape[0]), int(known.found.shape[1])),
            _typed=known.lookup is not None,
            _place=(store, position),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; reads nothing."""
        shape: tuple[int, int] = self.__dict__["_shape"]
        return shape

    @property
    def pixels(self) -> Pixels:
        """Image, labels (as small as they fit) and types, read-only."""
        store, position = self.__dict__["_place"]
        pixels: Pixels = store[position]
        return pixels

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8."""
        return self.pixels.image

    @property
    def labels(self) -> NDArray[np.integer]:
        """(H, W) int32."""
        return self.pixels.labels.astype(np.int32)

    @property
    def types(self) -> NDArray[np.uint8] | None:
        """(H, W) uint8 or None."""
        return self.pixels.types if self.__dict__["_typed"] else None

    def __repr__(self) -> str:
        return f"LazyImage({self.dataset}/{self.name}, {self.shape[0]} x {self.shape[1]})"
