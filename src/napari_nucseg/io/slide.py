"""Images to segment, of whatever origin, behind one interface that reads regions."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

import numpy as np

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.image import PixelRule, as_arraylike, decide_rule, value_range
from napari_nucseg.io.level import SlideLevel
from napari_nucseg.io.mpp import Mpp
from napari_nucseg.io.readers import EXTENSIONS, PICTURES, Reader, check_reader, open_slide, slide_in

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from napari_nucseg.io.openslide import OpenSlidePyramid
    from napari_nucseg.io.tiff import TiffPyramid
    from napari_nucseg.io.zarr_image import ZarrPyramid

    Pixels: TypeAlias = "ArraySource | TiffPyramid | OpenSlidePyramid | ZarrPyramid"

__all__ = [
    "EXTENSIONS",
    "ArraySource",
    "ImageSource",
    "Mpp",
    "Reader",
    "SlideImage",
    "SlideLevel",
    "as_source",
    "read_image",
]

Shape = tuple[int, int]
_Source = TypeVar("_Source")


@runtime_checkable
class ImageSource(Protocol):
    """What inference reads from."""

    @property
    def shape(self) -> Shape:
        """(height, width) of level 0."""

    @property
    def mpp(self) -> Mpp:
        """Micrometres per pixel of level 0."""

    @property
    def level_shapes(self) -> tuple[Shape, ...]:
        """(height, width) of every level, the largest first; one entry for a plain image."""

    def read(self, y0: int, y1: int, x0: int, x1: int, level: int = 0) -> NDArray[np.uint8]:
        """Return rows y0..y1 and columns x0..x1 of a level, in its own pixels, as RGB.

        Returns
        -------
        ndarray
            (y1 - y0, x1 - x0, 3) uint8.

        Raises
        ------
        NucSegError
            The region doesn't lie in the level, or its pixels can't be read.
        """


class ArraySource:
    """An array, or the arrays of a pyramid, read lazily.

    Parameters
    ----------
    levels
        Arrays with numpy's indexing (numpy, dask, zarr ...), the largest first, in a form `as_rgb` takes.
    mpp
        Micrometres per pixel of level 0.
    axes
        See `as_rgb`.

    Raises
    ------
    NucSegError
        See `as_rgb`. For 16-bit and float data this reads the coarsest level once, to settle the scale of its
        values for all levels and regions alike.
    """

    def __init__(self, levels: Sequence[Any], mpp: Mpp | None = None, axes: str | None = None) -> None:
        self._arrays = tuple(as_arraylike(array) for array in levels)
        if not self._arrays:
            raise NucSegError("an empty list holds no image; give an array or the levels of a pyramid")
        self.mpp = mpp or Mpp()
        first, last = self._arrays[0], self._arrays[-1]
        self._rule: PixelRule = decide_rule(
            first.shape, first.dtype, axes, lambda rule: value_range(last, rule)
        )
        if any(array.ndim != first.ndim or array.dtype != first.dtype for array in self._arrays):
            raise NucSegError(
                "the levels of the pyramid differ in axes or dtype; give the levels of one image"
            )
        shapes = self.level_shapes
        if any(a <= b for a, b in itertools.pairwise(shapes)):
            raise NucSegError(
                f"{shapes} are no levels of a pyramid: each must be smaller than the one before"
            )

    @property
    def shape(self) -> Shape:
        """(height, width) of level 0."""
        return self.level_shapes[0]

    @property
    def level_shapes(self) -> tuple[Shape, ...]:
        """(height, width) of every level."""
        return tuple(self._rule.spatial_shape(array.shape) for array in self._arrays)

    def read(self, y0: int, y1: int, x0: int, x1: int, level: int = 0) -> NDArray[np.uint8]:
        """See `ImageSource.read`."""
        check_region(self.level_shapes, y0, y1, x0, x1, level)
        return self._rule.apply(np.asarray(self._arrays[level][self._rule.index(y0, y1, x0, x1)]))


class SlideImage:
    """An image file, read by regions; made by `read_image`.

    Slides stay on disk, and of a region only its tiles are read; PNG, JPEG and BMP files are held in memory. Usable
    as a context manager, and from several threads.
    """

    def __init__(self, path: Path, pixels: Pixels) -> None:
        self.path = path
        self.mpp = pixels.mpp
        self._pixels = pixels

    def __repr__(self) -> str:
        height, width = self.shape
        levels = len(self.level_shapes)
        return f"SlideImage({self.path.name!r}, {width} x {height} px, {levels} levels, {self.mpp})"

    @property
    def name(self) -> str:
        """File name without folder and extensions."""
        stem = self.path.stem
        return stem[:-4] if stem.lower().endswith(".ome") else stem

    @property
    def shape(self) -> Shape:
        """(height, width) of level 0."""
        return self.level_shapes[0]

    @property
    def level_shapes(self) -> tuple[Shape, ...]:
        """(height, width) of every level, the largest first."""
        return self._pixels.level_shapes

    @property
    def closed(self) -> bool:
        """Whether `close` was called on a file that is read lazily."""
        return bool(getattr(self._pixels, "closed", False))

    def tile_shape(self, level: int) -> Shape | None:
        """Return height and width of the tiles in which a level is stored, each of which can be read on its own.

        None where a level is not stored in tiles.
        """
        ask = getattr(self._pixels, "tile_shape", None)
        return None if ask is None else cast("Shape | None", ask(level))

    @property
    def is_rgb(self) -> bool:
        """Whether the file holds colours; grey images are read as RGB all the same."""
        return bool(getattr(self._pixels, "is_rgb", True))

    @property
    def levels(self) -> list[SlideLevel]:
        """Every level as a lazy (H, W, 3) array."""
        return [SlideLevel(self, level) for level in range(len(self.level_shapes))]

    def read(self, y0: int, y1: int, x0: int, x1: int, level: int = 0) -> NDArray[np.uint8]:
        """See `ImageSource.read`."""
        check_region(self.level_shapes, y0, y1, x0, x1, level)
        return self._pixels.read(y0, y1, x0, x1, level)

    def close(self) -> None:
        """Close the file; further reads of a TIFF raise."""
        close = getattr(self._pixels, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> SlideImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_image(path: str | Path, reader: Reader = "auto") -> SlideImage:
    """Open an image.

    Parameters
    ----------
    path
        PNG, JPEG, BMP, TIFF, BigTIFF, OME-TIFF, SVS, NDPI, an OME-Zarr folder or (with OpenSlide) MRXS, DICOM and
        others; of a MRXS slide also its folder, and of a DICOM series the folder with its files. Its mpp is read from
        its metadata, unless that is missing or can't be true of a scan of nuclei.
    reader
        Who reads a TIFF or a vendor's format: `"tifffile"`, `"openslide"`, or `"auto"`: tifffile, unless it refuses
        the file or reads only part of it and OpenSlide does better. Both give the same pixels.

    Returns
    -------
    SlideImage
        Open: close it, or use it in a ``with`` block.

    Raises
    ------
    NucSegError
        The file is missing, damaged, truncated, of another kind, or doesn't hold just one grey or RGB image.
    """
    path = Path(path)
    check_reader(reader)
    if path.is_dir():
        path = slide_in(path)
    if not path.exists():
        raise NucSegError(f"{path} does not exist; check the spelling and the folder")
    if path.is_file():
        if path.suffix.lower() not in EXTENSIONS:
            raise NucSegError(
                f"{path.name} is no image that can be read: the extension must be {', '.join(EXTENSIONS)}; "
                "convert it to one of these"
            )
        if path.stat().st_size == 0:
            raise NucSegError(f"{path.name} is empty (0 bytes); copy or export it again")
    try:
        return SlideImage(path, _open(path, reader))
    except NucSegError as error:
        if path.name in str(error):
            raise
        raise NucSegError(f"{path.name}: {error}") from error


def as_source(image: Any, mpp: float | Mpp | None = None, axes: str | None = None) -> ImageSource:
    """Return anything that holds an image as an `ImageSource`.

    Parameters
    ----------
    image
        A path, an array (see `as_rgb`), a list of arrays that are the levels of a pyramid, or a source, which
        is returned as it is.
    mpp
        Micrometres per pixel, which overrides what the image says.
    axes
        See `as_rgb`; ignored for files and sources.

    Raises
    ------
    NucSegError
        See `as_rgb` and `read_image`; or the mpp is not plausible.
    """
    known = mpp if mpp is None or isinstance(mpp, Mpp) else Mpp.stated(mpp)
    if isinstance(image, str | Path):
        return _restated(read_image(image), known)
    if isinstance(image, ImageSource):
        return _restated(image, known)
    levels = list(image) if _is_pyramid(image) else [image]
    if levels and all(isinstance(level, SlideLevel) for level in levels):
        return _restated(cast("SlideImage", levels[0].source), known)
    return ArraySource(levels, known, axes)


def _is_pyramid(image: Any) -> bool:
    """Whether this is a sequence of arrays, such as the data of a multiscale layer, and no array itself."""
    if hasattr(image, "__array_interface__") or not isinstance(image, Sequence):
        return False
    return all(hasattr(level, "shape") and len(level.shape) >= 2 for level in image)


def _restated(source: _Source, mpp: Mpp | None) -> _Source:
    if mpp is None:
        return source
    twin: Any = copy.copy(source)
    twin.mpp = mpp
    return cast("_Source", twin)


def check_region(shapes: tuple[Shape, ...], y0: int, y1: int, x0: int, x1: int, level: int) -> None:
    """Refuse a region that does not lie in a level of an image with levels of these `shapes`; `NucSegError`."""
    if not 0 <= level < len(shapes):
        raise NucSegError(f"there is no level {level}; this image has levels 0 to {len(shapes) - 1}")
    height, width = shapes[level]
    if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
        raise NucSegError(
            f"rows {y0}..{y1}, columns {x0}..{x1} do not lie in level {level}, which has {height} rows and "
            f"{width} columns; cut the region to it"
        )


def _open(path: Path, reader: Reader) -> Pixels:
    if path.suffix.lower() not in PICTURES or path.is_dir():
        return open_slide(path, reader)
    from napari_nucseg.io.picture import read_picture

    pixels, mpp = read_picture(path)
    return ArraySource([pixels], mpp, "YXC"[: pixels.ndim])
