"""Reading a slide: tiles of a JPEG pyramid, another resolution, tissue against glass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.suite.conftest import SIDE
from napari_nucseg.core.tiling import Box
from napari_nucseg.io.resample import Resampled
from napari_nucseg.io.slide import as_source, read_image
from napari_nucseg.io.tissue import find_tissue


def bench_jpeg_tiles(benchmark: Any, slide: Path) -> None:
    """Open the slide and decode all its pixels, as the first reader of a slide must."""

    def read() -> None:
        with read_image(slide) as image:
            image.read(0, SIDE, 0, SIDE)

    benchmark(read)


def bench_resampled(benchmark: Any, slide: Path) -> None:
    """Read everything at 0.3 um per pixel in place of 0.25."""

    def read() -> None:
        with read_image(slide) as image:
            resampled = Resampled(as_source(image, None), 0.3)
            resampled.read(Box(0, resampled.shape[0], 0, resampled.shape[1]))

    benchmark(read)


def bench_tissue(benchmark: Any, slide: Path) -> None:
    """Find the tissue of the slide."""

    def find() -> float:
        with read_image(slide) as image:
            return find_tissue(as_source(image, None)).fraction

    assert benchmark(find) > 0.5
