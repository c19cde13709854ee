"""The result of a whole slide in the viewer: labels of all levels, and the centres that are in view."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Points
from napari.utils.notifications import show_error
from psygnal import Signal
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtCore import Signal as QtSignal

from napari_nucseg._plugin import work
from napari_nucseg._plugin.colouring import NO_CLASS, UNKNOWN, Look, NucleusColormap
from napari_nucseg._plugin.drawing import draw_palette, quick_contours, redraw
from napari_nucseg._plugin.images import level0_shape, placement
from napari_nucseg._plugin.lazy_labels import LabelStore
from napari_nucseg._plugin.parts import connect_all, disconnect_all
from napari_nucseg._plugin.results import CENTRE_UM, CONTOUR, FILL_OPACITY, OUTLINE_OPACITY
from napari_nucseg._plugin.slide_points import SlidePoints
from napari_nucseg.slides.result import SlideResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_nucseg.core.tiling import Box
    from napari_nucseg.slides.centres import View

SLIDE = "napari_nucseg_slide"
"""Key of the labels' metadata under which the `SlideLayers` are kept, for panels that are opened later."""

DRAW_MS = 40
"""Chunks that come within this time are drawn together."""


class _Courier(QObject):
    """Tells the thread of the window that chunks have come."""

    arrived = QtSignal()


class SlideLayers:
    """The layers of one saved result, as long as its labels are in the viewer.

    Make them with `add_result` or `show_result`.

    Parameters
    ----------
    viewer : napari.Viewer
    result : SlideResult
        Whose columns were read.
    labels : Labels
        See `labels_layer`; in the viewer.

    Attributes
    ----------
    changed : Signal()
        Counts are others, or the layers are gone.
    """

    changed = Signal()

    def __init__(self, viewer: Any, result: SlideResult, labels: Labels) -> None:
        self._viewer, self.result, self.labels = viewer, result, labels
        self.store: LabelStore = labels.data[0].store
        self.look = Look()
        self.view: View | None = None
        self.is_open, self._drawn = True, -1
        labels.metadata[SLIDE] = self
        self._courier, self._timer = _Courier(), QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(DRAW_MS)
        self._timer.timeout.connect(self._draw)
        self._courier.arrived.connect(self._on_arrived, Qt.ConnectionType.QueuedConnection)
        self.store.arrived = self._courier.arrived.emit
        self.points = self._make_points()
        viewer.add_layer(self.points)
        self._centres = SlidePoints(viewer, self.points, result.centres, result.colours)
        self._centres.looked.connect(self._on_looked)
        self._take_columns()
        self._removed = [viewer.layers.events.removed]
        connect_all(self._removed, self._on_removed)
        self._timer.start()

    def _make_points(self) -> Points:
        points = Points(
            np.zeros((0, 2)),
            ndim=2,
            name=self.labels.name.removesuffix(" nuclei") + " centres",
            size=CENTRE_UM / (self.result.mpp or 1.0),
            border_width=0,
            **placement(self.labels),
        )
        points.canvas_size_limits = (2, 12)
        points.editable = False
        return points

    @property
    def layers(self) -> list[Any]:
        """The layers that are in the viewer."""
        return [layer for layer in (self.labels, self.points) if layer in self._viewer.layers]

    def belongs_to(self, image: Image | None) -> bool:
        """Whether this is a result of an image: of its size and in its place."""
        if image is None or level0_shape(image) != self.result.shape:
            return False
        there = np.asarray(image.data_to_world((100.0,) * image.ndim))[-2:]
        return bool(np.allclose(there, np.asarray(self.labels.data_to_world((100.0, 100.0)))))

    def colours(self) -> dict[str, tuple[int, ...]]:
        """Return the colour of every class; one stands for nuclei without a class, where there are any."""
        known: dict[str, tuple[int, ...]] = dict(self.result.colours)
        white = tuple(int(255 * part) for part in UNKNOWN[:3])
        return {**known, NO_CLASS: white} if NO_CLASS in self.counts() else known

    def counts(self) -> dict[str, int]:
        """Return the number of nuclei of every class in the slide, and of those without one if there are any."""
        return self._named(self.result.centres.counts())

    def counts_in_view(self) -> dict[str, int]:
        """Return the numbers in the part that is seen."""
        return {} if self.view is None else self._named(self.view.counts)

    def _named(self, counts: Any) -> dict[str, int]:
        named = dict(zip(self.result.classes, map(int, counts), strict=False))
        unknown = int(counts[-1])
        return {**named, NO_CLASS: unknown} if unknown else named

    def show(self, look: Look | None = None) -> None:
        """Show in another look."""
        self.look = look or self.look
        labels, result = self.labels, self.result
        colormap = labels.colormap
        contour = CONTOUR if self.look.outlines else 0
        if isinstance(colormap, NucleusColormap):
            mapped = colormap.set_look(self.look, result.colours, result.classes)
            if labels.contour != contour:
                labels.contour = contour
                labels.opacity = OUTLINE_OPACITY if contour else FILL_OPACITY
            elif mapped:
                redraw(labels)
            draw_palette(labels)
        self._centres.show(self.look)

    def hide(self, place: Box | None, but: Any = ()) -> None:
        """Leave a part out, which is reviewed in layers of its own; None shows all again."""
        self.store.hide(place, but)
        redraw(self.labels)
        hidden: Any = ()
        if place is not None:
            inside = self.result.centres.look(place, 10**9)
            ids = self.result.centres.ids[inside.rows]
            hidden = ids[~np.isin(ids, but)]
        self._centres.show(leave_out=hidden)

    def renew(self) -> None:
        """Show the result as it is on the disk now; its columns were read."""
        self.store.forget(self.result.levels)
        self._take_columns()
        redraw(self.labels)
        self._centres.show(centres=self.result.centres)
        self.changed.emit()

    @property
    def is_resting(self) -> bool:
        """Whether all that is in view is shown."""
        drawn = self._drawn == self.store.arrivals and not self._timer.isActive()
        return self._centres.is_resting and self.store.is_idle and drawn

    def close(self) -> None:
        """Let go of the viewer."""
        if not self.is_open:
            return
        self.is_open = False
        disconnect_all(self._removed, self._on_removed)
        self._centres.release()
        self._timer.stop()
        self.store.close()
        self.changed.emit()

    def _take_columns(self) -> None:
        centres, colormap = self.result.centres, self.labels.colormap
        if isinstance(colormap, NucleusColormap):
            colormap.set_kinds(centres.ids, centres.kinds)
        self.labels._get_properties = self._hover

    def _hover(self, position: Any, **_: Any) -> list[str]:
        """Return what napari shows of the nucleus under the cursor; its own way needs a table of all."""
        value = self.labels.get_value(position, world=True)
        id_ = value[1] if isinstance(value, tuple) else value
        told = self.result.centres.describe(int(id_)) if id_ else None
        return [] if told is None else [f"{name}: {what}" for name, what in told.items()]

    def _on_arrived(self) -> None:
        if self.is_open and not self._timer.isActive():
            self._timer.start()

    def _draw(self) -> None:
        self._drawn = self.store.arrivals
        self.labels.refresh(extent=False, thumbnail=False)

    def _on_looked(self, view: View) -> None:
        self.view = view
        self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        if event.value is self.labels or event.value == self.labels:
            self.close()
            if self.points in self._viewer.layers:
                QTimer.singleShot(0, lambda: self._remove_points())

    def _remove_points(self) -> None:
        if self.points in self._viewer.layers:
            self._viewer.layers.remove(self.points)


def labels_layer(result: SlideResult, image: Image | None = None) -> tuple[list[Any], dict[str, Any]]:
    """Return data and keyword arguments of the Labels layer of a result.

    Parameters
    ----------
    image : Image, optional
        That it is to lie on; otherwise it is placed by its own resolution.
    """
    colormap = NucleusColormap()
    colormap.set_look(Look(), result.colours, result.classes)
    scale = {} if result.mpp is None else {"scale": (result.mpp,) * 2, "units": ("um", "um")}
    place = scale if image is None else placement(image)
    options = {
        "name": f"{result.name} nuclei",
        "multiscale": True,
        "opacity": OUTLINE_OPACITY,
        "colormap": colormap,
        **place,
    }
    return list(LabelStore(result.levels).levels), options


def show_result(viewer: Any, result: SlideResult, image: Image | None = None) -> SlideLayers:
    """Add the layers of a result to a viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    result : SlideResult
        With its columns read (`result.centres`), which takes a second for a million nuclei.
    image : Image, optional
        Layer that it is to lie on.
    """
    data, options = labels_layer(result, image)
    labels = Labels(data, **options)
    _outline(labels)
    viewer.add_layer(labels)
    return SlideLayers(viewer, result, labels)


def _outline(labels: Labels) -> None:
    """Show outlines, from the first time on by the quick way; napari's own takes seconds for a window full."""
    quick_contours(labels)
    labels.contour = CONTOUR
    labels.editable = False


def attach_soon(result: SlideResult, data: list[Any]) -> None:
    """Bring to life a Labels layer with this data, which napari is about to add: its centres, its colours."""
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is None:
        return

    def read() -> SlideResult:
        _ = result.centres
        return result

    def done(outcome: work.Outcome) -> None:
        import napari

        viewer = napari.current_viewer()
        for layer in [] if viewer is None else list(viewer.layers):
            if isinstance(layer, Labels) and layer.multiscale and layer.data[0] is data[0]:
                if outcome.error is not None:
                    show_error(str(outcome.error))
                    return
                _outline(layer)
                SlideLayers(viewer, result, layer).show()

    work.start(read, done)


def add_result(viewer: Any, folder: str | Path, name: str | None = None) -> SlideLayers:
    """Add the saved result in a folder to a viewer, on the image of its size where there is one.

    Parameters
    ----------
    viewer : napari.Viewer
    folder : path
        Of the result, or of its ``*_labels.zarr`` or ``*_summary.json``.
    name : str, optional
        Stem of the files.

    Raises
    ------
    NucSegError
        See `napari_nucseg.slides.result.SlideResult.open`.
    """
    result = SlideResult.open(folder, name)
    _ = result.centres
    return show_result(viewer, result, image_of(viewer.layers, result))


def image_of(layers: Iterable[Any], result: SlideResult) -> Image | None:
    """Return the topmost image of the size of a result."""
    images = [layer for layer in layers if isinstance(layer, Image)]
    fitting = [image for image in images if level0_shape(image) == result.shape]
    return fitting[-1] if fitting else None


def slides_in(layers: Iterable[Any]) -> list[SlideLayers]:
    """Return the results of slides among a viewer's layers, the topmost first."""
    found = [layer.metadata.get(SLIDE) for layer in layers if isinstance(layer, Labels)]
    return [slide for slide in reversed(found) if isinstance(slide, SlideLayers) and slide.is_open]
