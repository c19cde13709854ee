"""Writes small image files of every kind that the reader knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APERIO = (
    "Aperio Image Library v12.0.15\r\n"
    "400x300 [0,0 400x300] (64x64) JPEG/RGB Q=70|AppMag = 40|MPP = {mpp}|Left = 3"
)


def picture(height: int = 300, width: int = 401) -> np.ndarray:
    """Smooth colours, so that JPEG keeps them nearly, with a texture that shows every shift by one pixel."""
    y, x = np.mgrid[:height, :width]
    red = 128 + 100 * np.sin(y / 9)
    green = 128 + 100 * np.cos(x / 7)
    blue = (y + x) % 200
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def halved(image: np.ndarray, times: int) -> list[np.ndarray]:
    """A pyramid of `times` further levels."""
    levels = [image]
    for _ in range(times):
        levels.append(np.ascontiguousarray(levels[-1][::2, ::2]))
    return levels


def write_pyramid(path: Path, levels: list[np.ndarray], **options: Any) -> Path:
    """A tiled pyramid with the lower levels in SubIFDs."""
    options = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib", **options}
    with tifffile.TiffWriter(path, ome=path.name.endswith(".ome.tif")) as tif:
        tif.write(levels[0], subifds=len(levels) - 1, **options)
        options.pop("metadata", None)
        for level in levels[1:]:
            tif.write(level, subfiletype=1, **options)
    return path


def write_svs(path: Path, levels: list[np.ndarray], mpp: str = "0.2520") -> Path:
    """Aperio's order of pages: image, thumbnail, lower levels, label, macro."""
    common: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(levels[0], tile=(64, 64), compression="jpeg", description=APERIO.format(mpp=mpp), **common)
        tif.write(
            levels[0][::5, ::5].copy(), rowsperstrip=16, description="Aperio Image Library\r\nthumb", **common
        )
        for level in levels[1:]:
            tif.write(
                level,
                tile=(64, 64),
                compression="jpeg",
                description="Aperio Image Library\r\nlevel",
                **common,
            )
        for name, kind in (("label", 1), ("macro", 9)):
            junk = np.zeros((50, 90, 3), np.uint8)
            tif.write(
                junk,
                subfiletype=kind,
                rowsperstrip=16,
                description=f"Aperio Image Library\r\n{name} 90x50",
                **common,
            )
    return path


def _variants() -> dict[str, Callable[[Path], tuple[Path, list[np.ndarray]]]]:
    rgb = picture()

    def one(image: np.ndarray, expected: np.ndarray | None = None, **options: Any) -> Callable:
        options = {"photometric": "rgb", **options}

        def write(folder: Path) -> tuple[Path, list[np.ndarray]]:
            path = folder / "one.tif"
            tifffile.imwrite(path, image, metadata=None, **options)
            return path, [rgb if expected is None else expected]

        return write

    def pyramid(name: str, **options: Any) -> Callable:
        def write(folder: Path) -> tuple[Path, list[np.ndarray]]:
            levels = halved(rgb, 2)
            return write_pyramid(folder / name, levels, **options), levels

        return write

    white = rgb.astype(np.uint16) * 257
    white[0, 0] = 65535
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    planes = rgb.transpose(2, 0, 1).copy()
    ramp = np.stack([np.arange(256)[::-1]] * 3).astype(np.uint16) * 256
    minimum = {"photometric": "minisblack"}
    opaque = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    return {
        "pyramid": pyramid("p.tif"),
        "ome pyramid": pyramid("p.ome.tif", metadata={"axes": "YXS"}),
        "lzw": one(rgb, tile=(64, 48), compression="lzw", predictor=True),
        "uncompressed": one(rgb),
        "strips": one(rgb, rowsperstrip=7, compression="packbits"),
        "one strip": one(rgb, rowsperstrip=300, compression="zlib"),
        "big endian": one(
            white, np.where(white == 65535, 255, rgb), byteorder=">", tile=(64, 64), compression="zlib"
        ),
        "16 bits mapped": one(white, np.where(white == 65535, 255, rgb), byteorder=">"),
        "bigtiff": one(rgb, bigtiff=True, tile=(128, 128)),
        "planes in tiles": one(planes, planarconfig="separate", tile=(64, 64), compression="zlib"),
        "planes in strips": one(planes, planarconfig="separate", rowsperstrip=33, compression="zlib"),
        "planes mapped": one(planes, planarconfig="separate"),
        "float": one(rgb.astype(np.float32) / 255, tile=(64, 64), compression="zlib"),
        "rgba": one(opaque, extrasamples=["unassalpha"], tile=(64, 64)),
        "grey": one(rgb[..., 0], grey, tile=(64, 64), **minimum),
        "inverted grey": one(255 - rgb[..., 0], grey, photometric="miniswhite"),
        "palette": one(255 - rgb[..., 0], grey, photometric="palette", colormap=ramp, tile=(64, 64)),
    }


VARIANTS = _variants()
