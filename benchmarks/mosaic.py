"""A large image of real tissue, put together from the training images at 0.25 um per pixel.

``python -m benchmarks.mosaic --size 10000 --out FILE.tif`` writes one as a slide: a pyramidal OME-TIFF of JPEG
tiles, made in bands, so in constant memory. It takes the training images with most nuclei, about 1,000 per megapixel
on average. They are few: each is used again and again, turned or mirrored, so the tissue repeats, but not at a fixed
distance.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_nucseg.core.synthetic import synthetic_he
from napari_nucseg.errors import NucSegError

SETS = ("monuseg", "consep")
"""Sets of large images at 0.25 um per pixel."""

MPP = 0.25


@dataclass(frozen=True)
class Mosaic:
    """An image to measure on.

    Attributes
    ----------
    image : (H, W, 3) uint8
    origin : str
        What it is made of.
    mpp : float
    """

    image: NDArray[np.uint8]
    origin: str
    mpp: float = MPP

    @property
    def megapixels(self) -> float:
        """Size in millions of pixels."""
        return self.image.shape[0] * self.image.shape[1] / 1e6


def training_images(data: Path) -> Iterator[Path]:
    """Yield the training images of `SETS` in turns, by name; never those of a test split."""
    files = [sorted((data / name / "train" / "images").glob("*.*")) for name in SETS if _fits(data / name)]
    for group in itertools.zip_longest(*files):
        yield from (path for path in group if path is not None)


def _fits(folder: Path) -> bool:
    meta = folder / "dataset.json"
    return meta.is_file() and json.loads(meta.read_text()).get("mpp") == MPP


def mosaic(data: Path, shape: tuple[int, int] = (2048, 2048)) -> Mosaic:
    """Fill an image of `shape` with whole training images side by side, cut at the right and lower edge.

    Parameters
    ----------
    data
        Folder of the data sets. Where it holds none, the synthetic sample is drawn in this size.
    shape
        Rows and columns.

    Returns
    -------
    Mosaic
        The same for the same data and shape. Images are used again where there are too few.
    """
    paths = list(training_images(data))
    if not paths:
        return Mosaic(synthetic_he(shape, mpp=MPP).image, "synthetic tissue (the real data are not there)")
    canvas = np.empty((*shape, 3), np.uint8)
    pool = itertools.cycle(paths)
    used: set[Path] = set()
    y = 0
    while y < shape[0]:
        x, height = 0, shape[0] - y
        while x < shape[1]:
            path = next(pool)
            used.add(path)
            part = np.asarray(Image.open(path).convert("RGB"))[: shape[0] - y, : shape[1] - x]
            height = min(height, part.shape[0])
            canvas[y : y + height, x : x + part.shape[1]] = part[:height]
            x += part.shape[1]
        y += height
    return Mosaic(canvas, f"{len(used)} training images of {' and '.join(SETS)}")


def write_mosaic(data: Path, size: int, path: Path) -> str:
    """Write a mosaic of `size` x `size` pixels as a pyramidal TIFF; return what it is made of.

    Raises
    ------
    NucSegError
        The size is not a positive number, or the folder is not there.
    """
    from benchmarks._canvas import make_canvas
    from benchmarks._pyramid import write_pyramid

    canvas = make_canvas(data, (size, size))
    if not path.parent.is_dir():
        raise NucSegError(f"The folder '{path.parent}' of the mosaic is not there; make it first.")
    write_pyramid(path, canvas.shape, canvas.rows, MPP)
    return canvas.origin


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks.mosaic``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mosaic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data sets (%(default)s)")
    parser.add_argument("--size", type=int, default=10000, help="side in pixels (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.tif", help="replaced if it is there")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    try:
        origin = write_mosaic(args.data, args.size, args.out)
    except (NucSegError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    seconds, size = time.perf_counter() - began, args.out.stat().st_size
    print(f"{args.out}: {args.size} x {args.size} px, {size / 1e6:.0f} MB, in {seconds:.1f} s\n{origin}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
