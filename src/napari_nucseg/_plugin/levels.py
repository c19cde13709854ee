"""Levels of a slide as napari shows them: read as they come into view, with an overview where the file has none."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg._plugin.drawing import redraw
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.level import SlideLevel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_nucseg.io.slide import SlideImage

CHUNK = 512
"""Side of the squares in which napari asks for pixels; it asks again only when the view leaves them."""

COARSEST = 1600
"""Largest side of the coarsest level: napari reads all of it, for its thumbnail, at every new slice."""

OVERVIEW_PIXELS = 48_000_000
"""Of the finest level that is made in memory, for a file that lacks the coarse ones."""

AT_ONCE = 4_000_000
"""Pixels of a file's coarsest level up to which the overview is made when it is first asked for."""

POLL_MS = 400
BAND = 64
_GLASS = 255


class ViewLevel(SlideLevel):
    """A level of a slide, with what napari asks of an array besides."""

    def __init__(self, source: Any, level: int) -> None:
        super().__init__(source, level)
        self.chunks = (min(CHUNK, self.shape[0]), min(CHUNK, self.shape[1]), 3)
        self.size = int(np.prod(self.shape, dtype=np.int64))


class Overview:
    """Coarse levels, made from the coarsest one of a file in a thread; white as long as they are not there.

    Parameters
    ----------
    slide : SlideImage
    """

    def __init__(self, slide: SlideImage) -> None:
        self._slide, self._level = slide, len(slide.level_shapes) - 1
        height, width = slide.level_shapes[-1]
        step = 2
        while height * width / step**2 > OVERVIEW_PIXELS:
            step *= 2
        self._step = step
        self._arrays = []
        while True:
            shape = (-(-height // step), -(-width // step), 3)
            self._arrays.append(np.full(shape, _GLASS, np.uint8))
            if max(shape) <= COARSEST:
                break
            step *= 2
        self._lock = threading.Lock()
        self._begun = self._complete = False
        self.levels = [OverviewLevel(self, array) for array in self._arrays]

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return self._complete

    def ask(self) -> None:
        """Begin to make the levels, if nobody has."""
        with self._lock:
            if self._begun:
                return
            self._begun = True
        height, width = self._slide.level_shapes[-1]
        if height * width <= AT_ONCE:
            self._make()
            return
        threading.Thread(target=self._make, name="nucseg-overview", daemon=True).start()
        _refresh_until_complete(self)

    def _make(self) -> None:
        height, width = self._slide.level_shapes[-1]
        rows = BAND * self._step
        try:
            for y in range(0, height, rows):
                band = self._slide.read(y, min(y + rows, height), 0, width, self._level)
                for k, array in enumerate(self._arrays):
                    band = pooled(band, 2 if k else self._step)
                    top = y // (self._step << k)
                    array[top : top + len(band)] = band[: len(array) - top]
        except NucSegError:  # a damaged place is told when it is looked at
            pass
        self._complete = True


def pooled(pixels: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Return the means of squares of pixels; those at the edges may be of fewer."""
    rows, cols = -(-pixels.shape[0] // step), -(-pixels.shape[1] // step)
    pad = (rows * step - pixels.shape[0], cols * step - pixels.shape[1])
    if any(pad):
        pixels = np.pad(pixels, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
    taken = [k * step // min(step, 8) for k in range(min(step, 8))]  # of larger squares a part tells enough
    sums = np.zeros((rows, cols, 3), np.uint16)
    for dy in taken:
        for dx in taken:
            sums += pixels[dy::step, dx::step]
    return (sums // len(taken) ** 2).astype(np.uint8)


class OverviewLevel:
    """One level of an `Overview`, with numpy's shape, dtype and slicing."""

    ndim = 3
    dtype = np.dtype(np.uint8)

    def __init__(self, overview: Overview, array: NDArray[np.uint8]) -> None:
        self._overview, self._array = overview, array
        self.shape, self.size = array.shape, array.size

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        self._overview.ask()
        part: NDArray[np.uint8] = self._array[key]
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)


def levels_of(slide: SlideImage) -> list[Any]:
    """Return the levels of a slide to be shown, the last of which is small."""
    levels: list[Any] = [ViewLevel(slide, k) for k in range(len(slide.level_shapes))]
    if max(slide.level_shapes[-1]) > COARSEST:
        levels += Overview(slide).levels
    return levels


def real_levels(levels: Any) -> list[Any]:
    """Return the levels that hold an image's pixels; what was made to be looked at alone is left out."""
    return [level for level in levels if not isinstance(level, OverviewLevel)]


def _refresh_until_complete(overview: Overview) -> None:
    """Have the layers drawn again that show an overview, until all of it is there."""
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is None or threading.current_thread() is not threading.main_thread():
        return
    timer = QTimer(QApplication.instance())

    def look() -> None:
        import napari

        complete = overview.complete
        viewer = napari.current_viewer()
        for layer in [] if viewer is None else list(viewer.layers):
            if getattr(layer, "multiscale", False) and any(
                isinstance(level, OverviewLevel) and level._overview is overview for level in layer.data
            ):
                redraw(layer)
        if complete:
            timer.stop()
            timer.deleteLater()

    timer.timeout.connect(look)
    timer.start(POLL_MS)
