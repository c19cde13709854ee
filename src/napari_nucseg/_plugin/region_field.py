"""Field for the part of the image to segment."""

from __future__ import annotations

from typing import Any

from napari.layers import Image, Shapes
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_nucseg._plugin.parts import (
    choose,
    column,
    combo,
    connect_all,
    disconnect_all,
    hint,
    say,
    set_item,
)
from napari_nucseg._plugin.regions import Area, shapes_area, view_area
from napari_nucseg.errors import NucSegError

WHOLE, VIEW, SHAPES = range(3)


class RegionField(QWidget):
    """Chooses between the whole image, the current view and drawn shapes."""

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._image: Image | None = None
        self._shapes: list[Shapes] = []
        self.box = combo("The part of the image to segment; nuclei are kept whose centre lies in it.")
        self.box.addItems(["Whole image", "Current view", "Selected shapes"])
        self.box.currentIndexChanged.connect(self._on_chosen)
        self._hint = hint()
        layout = column(self)
        layout.addWidget(self.box)
        layout.addWidget(self._hint)
        layers, dims = viewer.layers.events, viewer.dims.events
        self._emitters = [layers.inserted, layers.removed, dims.ndisplay]
        connect_all(self._emitters, self.refresh)
        self.refresh()

    def set_image(self, image: Image | None) -> None:
        """Say of which image the regions are."""
        self._image = image
        self.refresh()

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole image."""
        return self.box.currentIndex() == WHOLE

    def area(self) -> Area:
        """Return the chosen part of the image.

        Raises
        ------
        NucSegError
            It is empty now; the message says why.
        """
        kind = self.box.currentIndex()
        if self._image is None or kind == WHOLE:
            return Area()
        if kind == VIEW:
            return view_area(self._viewer, self._image)
        return shapes_area(self._viewer.layers, self._image)

    def why_not(self) -> str | None:
        """Return why the chosen region cannot be used, None where it can."""
        return self._reason(self.box.currentIndex())

    def _reason(self, kind: int) -> str | None:
        if self._image is None or kind == WHOLE:
            return None
        if kind == VIEW:  # what is in view is decided when the run starts
            flat = self._viewer.dims.ndisplay == 2
            return None if flat else "The viewer is in 3-D; switch to 2-D to segment the current view."
        try:
            shapes_area(self._viewer.layers, self._image)
        except NucSegError as error:
            return str(error)
        return None

    def refresh(self, _event: Any = None) -> None:
        """Enable what is possible now."""
        self._watch_shapes()
        tips = ("Every nucleus of the image.", "What the canvas shows.", "Nuclei centred in a drawn shape.")
        for kind, tip in enumerate(tips):
            set_item(self.box, kind, self.box.itemText(kind), self._reason(kind), tip)
        if self.box.currentIndex() == SHAPES and self.why_not() and not self._shapes:
            choose(self.box, WHOLE)
        self._explain()
        self.changed.emit()

    def _explain(self) -> None:
        text = ""
        if self.box.currentIndex() == SHAPES:
            text = self.why_not() or f"{self.area().title.capitalize()}."
        say(self._hint, text)

    def _on_chosen(self, _index: int) -> None:
        self._explain()
        self.changed.emit()

    def _shape_emitters(self) -> list[Any]:
        return [e for s in self._shapes for e in (s.events.data, s.events.highlight, s.events.visible)]

    def _watch_shapes(self) -> None:
        now = [layer for layer in self._viewer.layers if isinstance(layer, Shapes)]
        if now != self._shapes:
            disconnect_all(self._shape_emitters(), self.refresh)
            self._shapes = now
            connect_all(self._shape_emitters(), self.refresh)

    def release(self) -> None:
        """Let go of the viewer."""
        disconnect_all(self._emitters, self.refresh)
        disconnect_all(self._shape_emitters(), self.refresh)
