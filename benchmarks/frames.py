"""How smooth a slide with very many nuclei is in napari: ``python -m benchmarks.frames --nuclei 1000000``.

A real window (on a virtual screen where there is none) shows a slide of real tissue, lazily. The camera pans and zooms
along the same way again and again: first over the slide alone, then with the saved result of a million nuclei on it
(labels of all levels, centres of what is in view). The nuclei are made up (shaken grids of ellipses, 1,000 per
megapixel), their number is not. A frame is everything between two positions of the camera: events, layers, what other
threads have brought meanwhile, drawing, and the graphics card coming to its end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.timing import cores, machine
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg.models.card import Card

SIZE = (1400, 900)
"""Of the window, in pixels of the screen."""

ZOOMS = {"pan, 1 px per px": 1.0, "pan, 1/4": 0.25, "pan, 1/16": 1 / 16}
"""Pixels of the screen per pixel of the slide while the camera pans."""

STRIDE = 40.0
"""Pixels of the screen between two frames of a pan."""

ZOOMING = "zoom, whole slide to 2 px per px"
SETTLE_S = 60.0


@dataclass
class Way:
    """Frame times along one way of the camera, in ms.

    Attributes
    ----------
    settled : float
        Seconds after the last frame until all that is in view was shown.
    """

    frames: list[float] = field(default_factory=list)
    settled: float = 0.0


class Flight:
    """The camera of a viewer, flown over a slide.

    Parameters
    ----------
    viewer : napari.Viewer
    shape : (int, int)
        Of the slide, level 0.
    scale : float
        World units per pixel.
    frames : int
        Of every way.
    """

    def __init__(self, viewer: Any, shape: tuple[int, int], scale: float, frames: int) -> None:
        self._viewer, self._shape, self._scale, self._frames = viewer, shape, scale, frames
        self._canvas = viewer.window._qt_viewer.canvas

    def ways(self) -> Iterator[tuple[str, Iterator[tuple[float, float, float]]]]:
        """Yield the ways: a name, and (row, column, zoom) of every frame."""
        height, width = self._shape
        for name, zoom in ZOOMS.items():
            step = STRIDE / zoom
            ends = np.array([height, width]) / 2 + np.array([0.3, 1.0]) * step * self._frames / 2
            starts = np.array([height, width]) - ends
            places = np.clip(np.linspace(starts, ends, self._frames), 0, [height, width])
            yield name, ((y, x, zoom) for y, x in places.tolist())
        whole = 0.9 * min(SIZE) / max(height, width)
        zooms = np.geomspace(whole, 2.0, self._frames)
        yield ZOOMING, ((height * 0.4, width * 0.6, zoom) for zoom in zooms.tolist())

    def fly(self, resting: Any) -> dict[str, Way]:
        """Fly all the ways and time every frame.

        Parameters
        ----------
        resting : callable () -> bool
            Whether all that is in view is shown.
        """
        found: dict[str, Way] = {}
        for name, places in self.ways():
            first = next(places)
            self._look(*first)
            self._settle(resting)
            way = found[name] = Way()
            for place in places:
                began = time.perf_counter()
                self._look(*place)
                self._draw()
                way.frames.append(1e3 * (time.perf_counter() - began))
            way.settled = self._settle(resting)
        return found

    def _look(self, y: float, x: float, zoom: float) -> None:
        self._viewer.camera.center = (0.0, y * self._scale, x * self._scale)
        self._viewer.camera.zoom = zoom / self._scale

    def _draw(self) -> None:
        from qtpy.QtWidgets import QApplication
        from vispy.gloo import gl  # type: ignore[import-untyped]

        QApplication.processEvents()
        self._canvas._scene_canvas.native.repaint()
        self._canvas._scene_canvas.set_current()
        gl.glFinish()

    def _settle(self, resting: Any) -> float:
        """Draw until all is shown and 0.3 s have passed; return how long it took."""
        began = time.perf_counter()
        quiet = began
        while (now := time.perf_counter()) - quiet < 0.3 and now - began < SETTLE_S:
            busy = not resting()
            self._draw()
            if busy or not resting():
                quiet = time.perf_counter()
            time.sleep(0.005)
        return quiet - began

    def renderer(self) -> str:
        """Return what draws."""
        from vispy.gloo import gl

        self._canvas._scene_canvas.set_current()
        return str(gl.glGetParameter(gl.GL_RENDERER))


def memory_gb() -> float:
    """Return the resident memory of this process now."""
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e9


def measure(slide: Path, folder: Path, name: str, frames: int) -> str:
    """Fly over the slide without and with the result; return the report.

    Raises
    ------
    NucSegError
        There is no screen.
    """
    from benchmarks._window import have_screen

    if not have_screen():
        raise NucSegError("There is no screen, and no Xvfb to make one; install it (make system).")
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_nucseg._plugin.slide_results import add_result

    viewer = napari.Viewer(show=True)
    try:
        viewer.window.resize(*SIZE)
        (image,) = viewer.open(str(slide), plugin="napari-nucseg")
        shape = image.data[0].shape[:2] if image.multiscale else image.data.shape[:2]
        flight = Flight(viewer, (int(shape[0]), int(shape[1])), float(image.scale[-1]), frames)
        flight.fly(lambda: True)  # the tissue is read and kept, as far as it is ever kept
        memory = [memory_gb()]
        alone = flight.fly(lambda: True)
        began = time.perf_counter()
        layers = add_result(viewer, folder, name)
        loading = time.perf_counter() - began
        first = flight.fly(lambda: layers.is_resting)
        again = flight.fly(lambda: layers.is_resting)
        memory.append(memory_gb())
        total = sum(layers.counts().values())
        return (
            f"{table(alone, first, again)}\n\n{total:,} nuclei, loaded in {loading:.1f} s. Memory of napari and all: "
            f"{memory[0]:.2f} GB with the slide alone, {memory[1]:.2f} GB with the result, after both rounds. "
            f"Window {SIZE[0]} x {SIZE[1]}, {frames} frames each, drawn by {flight.renderer()}."
        )
    finally:
        viewer.close()
        QApplication.processEvents()


def table(alone: dict[str, Way], first: dict[str, Way], again: dict[str, Way]) -> str:
    """Return the frame times in markdown."""
    lines = [
        "| frame times, ms: median / p95 / most | the slide alone | with all nuclei, first visit | again | "
        "median, with : without | all shown after, s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, way in alone.items():
        cells = [_times(rounds[name].frames) for rounds in (alone, first, again)]
        ratio = np.median(first[name].frames) / np.median(way.frames)
        settled = f"{first[name].settled:.2f} / {again[name].settled:.2f}"
        lines.append(f"| {name} | {' | '.join(cells)} | {ratio:.2f} | {settled} |")
    return "\n".join(lines)


def _times(frames: Sequence[float]) -> str:
    middle, slow = np.percentile(frames, [50, 95])
    return f"{middle:.0f} / {slow:.0f} / {max(frames):.0f}"


def prepare(args: argparse.Namespace, folder: Path, card: Card) -> Path:
    """Make the slide and its result, unless the folder has them from before; return the slide."""
    from benchmarks._big_result import make_result, side_for
    from benchmarks.mosaic import write_mosaic

    side = side_for(args.nuclei)
    stem = f"slide{side}"
    slide = folder / f"{stem}.tif"
    for needed, make in (
        (slide, lambda: write_mosaic(args.data, side, slide)),
        (folder / f"{stem}_summary.json", lambda: make_result(folder, stem, args.nuclei, card)),
    ):
        if not needed.is_file():
            began = time.perf_counter()
            made = make()
            print(f"Made {needed.name} in {time.perf_counter() - began:.0f} s: {made}", flush=True)
    return slide


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.frames",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data sets (%(default)s)")
    parser.add_argument("--nuclei", type=int, default=1_000_000, help="at least (%(default)s)")
    parser.add_argument("--frames", type=int, default=60, help="of every way (%(default)s)")
    parser.add_argument(
        "--folder", type=Path, help="keeps slide and result for the next time (default: removed)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks.frames``."""
    from napari_nucseg.models.registry import find_model

    args = _parser().parse_args(argv)
    print(machine(cores()))
    try:
        with tempfile.TemporaryDirectory(prefix="nucseg-frames-") as scratch:
            folder = args.folder or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            slide = prepare(args, folder, find_model("default").card)
            print(f"\n{measure(slide, folder, slide.stem, max(2, args.frames))}", flush=True)
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
