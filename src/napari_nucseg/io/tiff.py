"""Lazy reading of TIFF pyramids: only the tiles that a region touches are read and decoded."""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.image import Alpha, PixelRule, Range, decide_rule
from napari_nucseg.io.mpp import from_tiff
from napari_nucseg.io.tiles import CACHE_BYTES, TileCache, assemble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6  # PhotometricInterpretation
_JPEG = (6, 7, 34892, 33007)  # Compression: these are converted to RGB by the decoder
_APERIO_J2K_YCBCR = 33003
_VENDORS = ("is_svs", "is_ndpi", "is_scn", "is_bif", "is_philips", "is_qpi")
_GLASS = 255  # an empty tile of a slide shows the glass


class TruncatedFile(NucSegError):
    """The file ends before its pixels do."""


@dataclass(frozen=True)
class _Level:
    """One resolution of the pyramid: a page cut into a grid of tiles or strips."""

    page: Any
    shape: tuple[int, int]
    samples: int
    separate: bool  # one plane of tiles per sample
    tile: tuple[int, int]

    @property
    def grid(self) -> tuple[int, int]:
        return -(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1])


class TiffPyramid:
    """An open TIFF file that holds one image in one or more resolutions.

    Reading is safe from several threads: file access is locked, decoding is not.

    Parameters
    ----------
    path
        TIFF, BigTIFF, OME-TIFF, SVS, NDPI and relatives.

    Raises
    ------
    NucSegError
        The file is broken, truncated, or isn't one RGB or grey image.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._cache = TileCache(CACHE_BYTES)
        self._memory: NDArray[Any] | None = None
        with _told(path):
            self._tif = tifffile.TiffFile(path)
        self._finalizer = weakref.finalize(self, self._tif.close)
        try:
            with _told(path):
                self._levels = _levels(self._tif, path)
                self._memory = self._memory_map()
                self.mpp = from_tiff(self._tif, self._levels[0].page.aspage())
                self.rule = self._decide()
        except BaseException:
            self.close()
            raise

    @property
    def level_shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every level, the largest first."""
        return tuple(level.shape for level in self._levels)

    @property
    def complete(self) -> bool:
        """Whether this is all of the slide, in place.

        It may not be where a scan consists of several regions (Leica) or of tiles that overlap (Ventana): these are
        laid on one plane by OpenSlide only, and by QuPath, which uses it.
        """
        return not (self._tif.is_bif or self._tif.is_scn)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._finalizer.alive

    def tile_shape(self, level: int) -> tuple[int, int]:
        """Return (height, width) of the tiles or strips of a level."""
        return self._levels[level].tile

    @property
    def is_rgb(self) -> bool:
        """Whether the file holds colours, not grey values."""
        return self.rule.channels >= 3

    def read(self, y0: int, y1: int, x0: int, x1: int, level: int = 0) -> NDArray[np.uint8]:
        """Return a region, in pixels of its level, as (y1 - y0, x1 - x0, 3) uint8."""
        if self.closed:
            raise NucSegError(f"{self._path.name} has been closed; open it again with read_image")
        return self.rule.apply(self._native(y0, y1, x0, x1, level))

    def close(self) -> None:
        """Close the file; further reads raise."""
        self._memory = None
        self._finalizer()
        self._cache.clear()

    def _decide(self) -> PixelRule:
        page = self._levels[0].page.keyframe
        self._probe()
        probe = _photometric(np.zeros((1, 1, self._levels[0].samples), page.dtype), page)
        extra = page.extrasamples[0] if len(page.extrasamples) else 0
        alpha: Alpha = {1: "premultiplied", 2: "straight"}.get(int(extra), "ignored")  # type: ignore[assignment]
        shape = (*self._levels[0].shape, probe.shape[2])
        return decide_rule(shape, probe.dtype, "YXC", lambda _: self._range(), alpha)

    def _probe(self) -> None:
        """Find now that tiles can't be decoded at all; a single damaged one does not matter."""
        last = len(self._levels) - 1
        height, width = self._levels[last].shape
        places = ((0, 0), (height // 2, width // 2), (height - 1, width - 1))
        for at, (y, x) in enumerate(places):
            try:
                self._native(y, y + 1, x, x + 1, last)
                return
            except NucSegError:
                if at == len(places) - 1:
                    raise

    def _range(self) -> Range:
        """Return the value range of the coarsest level; `PixelRule.apply` refuses what contradicts it."""
        index = len(self._levels) - 1
        level = self._levels[index]
        height, width = level.shape
        rows = level.tile[0] if level.tile[0] < height else min(height, 1024)
        blocks = (self._native(y, min(y + rows, height), 0, width, index) for y in range(0, height, rows))
        low, high = np.asarray([(float(block.min()), float(block.max())) for block in blocks]).T
        return float(low.min()), float(high.max())

    def _memory_map(self) -> NDArray[Any] | None:
        """Map an uncompressed image in one piece, whose single strip may be larger than memory."""
        page = self._levels[0].page
        if len(self._levels) > 1 or not page.keyframe.is_memmappable:
            return None
        mapped = page.asarray(out="memmap", squeeze=False)[:, 0]  # (separate, H, W, contiguous)
        return np.moveaxis(mapped, 0, -1)[..., 0, :] if self._levels[0].separate else mapped[0]

    def _native(self, y0: int, y1: int, x0: int, x1: int, index: int) -> NDArray[Any]:
        """Return a region as (h, w, samples) with the values of the file, save for photometric conversion."""
        level = self._levels[index]
        if self._memory is not None:
            return _photometric(np.array(self._memory[y0:y1, x0:x1]), level.page.keyframe)
        dtype = level.page.keyframe.dtype
        out = np.full((y1 - y0, x1 - x0, level.samples), _GLASS if dtype == np.uint8 else 0, dtype)
        rows, columns = level.grid
        for plane in range(level.samples if level.separate else 1):
            first = plane * rows * columns

            def load(row: int, column: int, first: int = first) -> NDArray[Any] | None:
                return self._segment(index, first + row * columns + column)

            target = out[..., plane : plane + 1] if level.separate else out
            assemble(target, (y0, x0), level.tile, load)
        return _photometric(out, level.page.keyframe)

    def _segment(self, index: int, number: int) -> NDArray[Any] | None:
        """Return a decoded tile or strip, (rows, columns, samples), None where the file holds nothing."""
        key = (index, number)
        known = self._cache.get(key)
        if known is not None:
            return known
        page = self._levels[index].page
        with _told(self._path, f"tile {number} of level {index} is damaged"):
            offset, count = page.dataoffsets[number], page.databytecounts[number]
            if not count:
                return None
            file = page.parent.filehandle
            with self._lock:
                file.seek(offset)
                data = file.read(count)
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.keyframe.jpegheader}
            decoded = page.keyframe.decode(data, number, **tables)[0]
            segment: NDArray[Any] = decoded[0]
        self._cache.put(key, segment)
        return segment


@contextmanager
def _told(path: Path, trouble: str = "it is damaged or no TIFF image") -> Iterator[None]:
    """Tell any failure of the reader or a codec, whose exception types are legion, in one sentence."""
    try:
        yield
    except NucSegError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise NucSegError(
            f"{path.name} can't be read: {trouble} ({reason[:160]}); copy or export the file again"
        ) from error


def _levels(tif: Any, path: Path) -> list[_Level]:
    """Return the resolutions of the one image of the file, the largest first."""
    series = _main_series(tif, path)
    planes = max(1, series.size // max(1, series.keyframe.size))
    if planes > 1:
        pages = max(planes, len(tif.pages))
        raise _refused(path, f"it holds {pages} pages (axes {series.axes}) instead of one image")
    first = _level(series, path)
    levels = [first]
    for lower in series.levels[1:]:
        level = _level(lower, path)
        same = level.samples == first.samples and level.page.keyframe.dtype == first.page.keyframe.dtype
        if not same or level.shape >= levels[-1].shape:
            break
        levels.append(level)
    return levels


def _main_series(tif: Any, path: Path) -> Any:
    """Choose the image among label, overview and thumbnail, or refuse where nothing tells which it is."""
    everything = list(tif.series)
    if not everything:  # the directory of its pages often lies at the end
        raise NucSegError(
            f"{path.name} can't be read: no image is found in its {path.stat().st_size} bytes, it seems damaged or "
            "not wholly copied; copy the file again"
        )
    series = [item for item in everything if not item.keyframe.is_reduced] or everything
    series.sort(key=lambda item: -item.keyframe.imagelength * item.keyframe.imagewidth)
    if len(series) == 1 or any(getattr(tif, vendor, False) for vendor in _VENDORS):
        return series[0]
    largest, second = (item.keyframe.imagelength * item.keyframe.imagewidth for item in series[:2])
    if tif.is_ome and second < largest:
        return series[0]
    raise _refused(path, f"it holds {len(tif.pages)} pages which are not the levels of one pyramid")


def _level(series: Any, path: Path) -> _Level:
    page = series.pages[0]
    if page is None:
        raise _refused(path, "it refers to another file that is missing")
    key = page.keyframe
    if key.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR):
        raise _refused(path, f"its colours are stored as {getattr(key.photometric, 'name', key.photometric)}")
    if key.imagedepth != 1:
        raise _refused(path, f"it is a volume of {key.imagedepth} slices")
    _check_complete(page, path)
    tile = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, key.imagewidth)
    tile = (min(tile[0], key.imagelength), tile[1]) if not key.is_tiled else tile
    separate = int(key.planarconfig) == 2 and key.samplesperpixel > 1
    return _Level(page, (key.imagelength, key.imagewidth), key.samplesperpixel, separate, tile)


def _check_complete(page: Any, path: Path) -> None:
    """Find at once that a file was cut short, rather than hours into a run."""
    ends = np.add(page.dataoffsets, page.databytecounts, dtype=np.int64, casting="unsafe")
    size = page.parent.filehandle.size
    if len(ends) == 0 or ends.max() > size:
        needed = f", {ends.max()} bytes are needed" if len(ends) else ""
        raise TruncatedFile(f"{path.name} is truncated: it has {size} bytes{needed}; copy the file again")


def _photometric(native: NDArray[Any], page: Any) -> NDArray[Any]:
    """Turn palettes, inverted grey and undecoded YCbCr into plain grey or RGB; (h, w, samples) in and out."""
    kind = page.photometric
    if kind == _PALETTE and page.colormap is not None and native.dtype == np.uint8:
        return (np.asarray(page.colormap)[:, native[..., 0]] >> 8).astype(np.uint8).transpose(1, 2, 0)
    if kind == _WHITE_IS_ZERO and native.dtype.kind == "u":
        return np.iinfo(native.dtype).max - native
    stored_ycbcr = page.compression == _APERIO_J2K_YCBCR or (kind == _YCBCR and page.compression not in _JPEG)
    if stored_ycbcr and native.dtype == np.uint8 and native.shape[2] == 3:
        return _ycbcr_to_rgb(native)
    return native


def _ycbcr_to_rgb(ycbcr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert full-range YCbCr (ITU-R BT.601, as in JFIF) to RGB."""
    y, cb, cr = np.moveaxis(ycbcr.astype(np.float32), -1, 0)
    cb, cr = cb - 128.0, cr - 128.0
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    return np.rint(np.clip(rgb, 0.0, 255.0)).astype(np.uint8)


def _refused(path: Path, reason: str) -> NucSegError:
    return NucSegError(f"{path.name} can't be used: {reason}; export one 8-bit RGB image of it")
