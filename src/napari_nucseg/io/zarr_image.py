"""OME-Zarr images (NGFF 0.4 and 0.5), read chunk by chunk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.image import PixelRule, decide_rule, value_range
from napari_nucseg.io.mpp import Mpp
from napari_nucseg.io.tiles import CACHE_BYTES, TileCache, assemble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

MICROMETRES = {
    "meter": 1e6, "decimeter": 1e5, "centimeter": 1e4, "millimeter": 1e3, "micrometer": 1.0, "nanometer": 1e-3,
    "picometer": 1e-6, "angstrom": 1e-4, "inch": 25400.0,
    "m": 1e6, "cm": 1e4, "mm": 1e3, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "nm": 1e-3,
}  # fmt: skip
_OLD_AXES = "tczyx"  # of NGFF 0.1 and 0.2, which do not name them
_SMALLEST = 256  # smaller chunks are read several at a time
_METADATA = (".zattrs", "zarr.json")
_Json = dict[str, Any]


class ZarrPyramid:
    """An open OME-Zarr folder that holds one image in one or more resolutions; safe in several threads.

    Parameters
    ----------
    path
        The folder of the image, of a bioformats2raw export (its largest image is taken), or of a plain array.

    Raises
    ------
    NucSegError
        It is damaged, or isn't one RGB or grey image.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.closed = path, False
        self._cache = TileCache(CACHE_BYTES)
        folder = _image_folder(path)
        described = _multiscales(folder)
        self._arrays = _arrays(path, folder, described)
        axes, self.mpp = _axes(path, described, self._arrays[0]), _mpp(described)
        first, last = self._arrays[0], self._arrays[-1]
        self.rule: PixelRule = decide_rule(
            first.shape, first.dtype, axes, lambda rule: value_range(last, rule)
        )
        self._arrays = self._arrays[: _falling([self._shape_of(array) for array in self._arrays])]
        self._tiles = [self._tile_of(array) for array in self._arrays]

    @property
    def level_shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every level, the largest first."""
        return tuple(self._shape_of(array) for array in self._arrays)

    @property
    def is_rgb(self) -> bool:
        """Whether the image holds colours, not grey values."""
        return self.rule.channels >= 3

    def tile_shape(self, level: int) -> tuple[int, int]:
        """Return (height, width) of the chunks of a level, or of the groups of chunks that are read together."""
        return self._tiles[level]

    def read(self, y0: int, y1: int, x0: int, x1: int, level: int = 0) -> NDArray[np.uint8]:
        """Return a region, in pixels of its level, as (y1 - y0, x1 - x0, 3) uint8."""
        if self.closed:
            raise NucSegError(f"{self._path.name} has been closed; open it again with read_image")
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        assemble(out, (y0, x0), self._tiles[level], lambda row, column: self._tile(level, row, column))
        return out

    def close(self) -> None:
        """Further reads raise."""
        self.closed = True
        self._cache.clear()

    def _shape_of(self, array: Any) -> tuple[int, int]:
        return self.rule.spatial_shape(array.shape)

    def _tile_of(self, array: Any) -> tuple[int, int]:
        tall, wide = self.rule.spatial_shape(array.chunks)
        return tall * max(1, _SMALLEST // tall), wide * max(1, _SMALLEST // wide)

    def _tile(self, level: int, row: int, column: int) -> NDArray[np.uint8]:
        key = (level, row, column)
        known = self._cache.get(key)
        if known is not None:
            return known
        (tall, wide), (height, width) = self._tiles[level], self.level_shapes[level]
        y0, x0 = row * tall, column * wide
        index = self.rule.index(y0, min(y0 + tall, height), x0, min(x0 + wide, width))
        try:
            block = np.asarray(self._arrays[level][index])
        except Exception as error:  # the exception types of stores and codecs are legion
            raise NucSegError(
                f"{self._path.name} can't be read: a chunk in rows {y0}.., columns {x0}.. of level {level} is damaged "
                f"({_short(error)}); copy or export it again"
            ) from error
        if not self._path.is_dir():  # chunks that are not there read as empty ones
            raise NucSegError(f"{self._path} has gone while it was being read; put it back and start again")
        pixels = self.rule.apply(block)
        self._cache.put(key, pixels)
        return pixels


def _image_folder(path: Path) -> Path:
    """Return the folder that holds the multiscale image."""
    attributes = _attributes(path)
    if "image-label" in attributes:
        raise NucSegError(f"{path.name} holds labels, not an image; name the image that they belong to")
    if "multiscales" in attributes or "bioformats2raw.layout" not in attributes:
        return path
    images = [
        folder
        for folder in sorted(path.iterdir())
        if folder.name.isdigit() and "multiscales" in _attributes(folder)
    ]
    if not images:
        raise NucSegError(f"{path.name} holds no image; export it again")
    # label and overview are images of their own, and far smaller
    return max(images, key=lambda folder: _pixels(path, folder))


def _pixels(path: Path, folder: Path) -> int:
    shape = _arrays(path, folder, _multiscales(folder))[0].shape
    return int(shape[-1]) * int(shape[-2])


def _attributes(folder: Path) -> _Json:
    """Return what NGFF says about a folder: its attributes in Zarr 2, those under `ome` in Zarr 3."""
    for name in _METADATA:
        try:
            found = json.loads((folder / name).read_text("utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise NucSegError(
                f"{folder} can't be read: {name} is damaged ({_short(error)}); copy or export it again"
            ) from error
        if name == "zarr.json":
            found = found.get("attributes", {}) if isinstance(found, dict) else {}
            found = found.get("ome", found)
        if not isinstance(found, dict):
            raise NucSegError(f"{folder} can't be read: {name} holds no attributes; copy or export it again")
        return found
    return {}


def _multiscales(folder: Path) -> _Json | None:
    """Return the description of the image, None for a plain array."""
    found = _attributes(folder).get("multiscales")
    if found is None:
        return None
    try:
        described: _Json = found[0]
        [dataset["path"] for dataset in described["datasets"]]
    except (LookupError, TypeError) as error:
        raise NucSegError(
            f"{folder} can't be read: its multiscales name no datasets; export it again as OME-Zarr"
        ) from error
    return described


def _arrays(path: Path, folder: Path, described: _Json | None) -> list[Any]:
    """Open the arrays of the levels."""
    import zarr

    folders = [folder] if described is None else [folder / item["path"] for item in described["datasets"]]
    try:
        arrays = [zarr.open_array(str(place), mode="r") for place in folders]
    except Exception as error:  # see above
        raise NucSegError(
            f"{path.name} can't be read: it is no image in the OME-Zarr format, or incomplete "
            f"({_short(error)}); copy or export it again"
        ) from error
    if not arrays:
        raise NucSegError(f"{path.name} holds no image; export it again")
    return arrays


def _axes(path: Path, described: _Json | None, array: Any) -> str | None:
    """Return one letter per axis; None where it is for the shape to tell."""
    if described is None:
        return None
    names = [axis["name"] if isinstance(axis, dict) else str(axis) for axis in described.get("axes", ())]
    axes = "".join(names).lower() if names else _OLD_AXES[-array.ndim :]
    if any(len(name) != 1 for name in names) or len(axes) != array.ndim:
        raise NucSegError(
            f"{path.name} has axes {names} for an array of shape {tuple(array.shape)}; export it again with axes "
            "of t, c, z, y, x"
        )
    return axes.upper()


def _mpp(described: _Json | None) -> Mpp:
    """Return the resolution that the scale transformations of the first level give."""
    if described is None:
        return Mpp()
    axes = described.get("axes", ())
    scale = np.ones(len(axes))
    stated = False
    for holder in (described["datasets"][0], described):
        for step in holder.get("coordinateTransformations", ()):
            if step.get("type") == "scale" and len(step.get("scale", ())) == len(axes):
                scale, stated = scale * np.asarray(step["scale"], float), True
    sides: list[float] = []
    for name in ("y", "x"):
        at, axis = _axis(axes, name)
        unit = axis.get("unit")
        if not stated or not isinstance(unit, str):
            return Mpp(None, "unknown (the OME-Zarr states no unit)") if stated else Mpp()
        if unit.lower() not in MICROMETRES:
            return Mpp(None, f"unknown (the OME-Zarr states it in {unit})")
        sides.append(float(scale[at]) * MICROMETRES[unit.lower()])
    return Mpp.found(sides[1], sides[0], "OME-Zarr")


def _axis(axes: Sequence[Any], name: str) -> tuple[int, Mapping[str, Any]]:
    for at, axis in enumerate(axes):
        if isinstance(axis, dict) and str(axis.get("name")).lower() == name:
            return at, axis
    return 0, {}


def _falling(shapes: list[tuple[int, int]]) -> int:
    """Return how many levels are each smaller than the one before."""
    for at in range(1, len(shapes)):
        if shapes[at] >= shapes[at - 1]:
            return at
    return len(shapes)


def _short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")[:160]
