"""Fields for what to segment: the image and its resolution."""

from __future__ import annotations

from typing import Any

from napari.layers import Image
from napari.qt.threading import create_worker
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QMenu, QWidget

from napari_nucseg._plugin import images
from napari_nucseg._plugin.images import STATED, image_layers, level0_shape, mpp_of, read_mpp, state_mpp
from napari_nucseg._plugin.parts import (
    AMBER,
    column,
    combo,
    connect_all,
    disconnect_all,
    hint,
    say,
    side_button,
)
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp


class ImageField(QWidget):
    """Chooses among the Image layers of a viewer, as they come, go and change their names."""

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._layers: list[Image] = []
        self._named: list[Image] = []
        self._box = combo("The image to segment.")
        self._box.currentIndexChanged.connect(lambda _: self.changed.emit())
        self._hint = hint("", AMBER)
        layout = column(self)
        layout.addWidget(self._box)
        layout.addWidget(self._hint)
        events = viewer.layers.events
        self._emitters = [events.inserted, events.removed, events.reordered]
        connect_all(self._emitters, self.refresh)
        self.refresh()

    @property
    def layer(self) -> Image | None:
        """The chosen layer."""
        index = self._box.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def choose(self, layer: Image) -> None:
        """Choose a layer."""
        if layer not in self._layers:  # news of it may come elsewhere first
            self.refresh()
        self._box.setCurrentIndex(self._layers.index(layer))

    def refresh(self, _event: Any = None) -> None:
        """Take over the viewer's layers, and keep to the chosen one while it is there."""
        before = self.layer
        self._layers = image_layers(self._viewer.layers)
        self._watch_names()
        blocker = QSignalBlocker(self._box)
        self._box.clear()
        self._box.addItems([layer.name for layer in self._layers])
        if before in self._layers:
            self._box.setCurrentIndex(self._layers.index(before))
        blocker.unblock()
        none = not self._layers
        self._box.setEnabled(not none)
        self._box.setToolTip(
            "There is no Image layer in the viewer; open an image." if none else "The image to segment."
        )
        say(self._hint, "Open an H&E image, or one of File > Open Sample > NucSeg." if none else "")
        if self.layer is not before:
            self.changed.emit()

    def _watch_names(self) -> None:
        disconnect_all([layer.events.name for layer in self._named], self.refresh)
        self._named = list(self._layers)
        connect_all([layer.events.name for layer in self._named], self.refresh)

    def release(self) -> None:
        """Let go of the viewer."""
        disconnect_all(self._emitters, self.refresh)
        disconnect_all([layer.events.name for layer in self._named], self.refresh)


class MppField(QWidget):
    """Micrometres per pixel of a layer, where it comes from, and a way to state it."""

    changed = Signal()

    TOOLTIP = (
        "Micrometres per pixel of the image at full resolution: about 0.25 for a 40x scan, 0.5 for 20x. "
        "The image is resampled to the resolution of the model, so a wrong figure gives wrong nuclei."
    )

    def __init__(self) -> None:
        super().__init__()
        self._layer: Image | None = None
        self._error = ""
        self.edit = QLineEdit()
        self.edit.setPlaceholderText("unknown")
        self.edit.setMaximumWidth(90)
        self.edit.editingFinished.connect(self.commit)
        self._menu_button = side_button("Set", "Usual resolutions, or back to what the file says.")
        self._menu_button.setMenu(self._make_menu())
        self._source = hint()
        row = QHBoxLayout()
        row.setSpacing(6)
        row.addWidget(self.edit)
        row.addWidget(QLabel("µm/px"))
        row.addStretch()
        row.addWidget(self._menu_button)
        layout = column(self)
        layout.addLayout(row)
        layout.addWidget(self._source)
        self.set_layer(None)

    def _make_menu(self) -> QMenu:
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        menu.addAction("0.25 (40x scan)", lambda: self.state(0.25))
        menu.addAction("0.5 (20x scan)", lambda: self.state(0.5))
        menu.addSeparator()
        self._back = menu.addAction("What the file says", lambda: self.state(None))
        menu.aboutToShow.connect(self._on_menu)
        return menu

    @property
    def mpp(self) -> Mpp:
        """The resolution to use; unknown while the field holds no resolution."""
        return Mpp() if self._layer is None or self._error else mpp_of(self._layer)

    @property
    def error(self) -> str | None:
        """What is wrong with the text of the field, None where nothing is."""
        return self._error or None

    def set_layer(self, layer: Image | None) -> None:
        """Show the resolution of a layer, and follow its scale."""
        if self._layer is not None:
            disconnect_all(self._emitters(self._layer), self.refresh)
        self._layer, self._error = layer, ""
        if layer is not None:
            connect_all(self._emitters(layer), self.refresh)
            self._ask_file(layer)
        self.refresh()

    def _ask_file(self, layer: Image) -> None:
        """Look into the file of a layer that another reader has opened, in a worker."""
        path = images.file_to_ask(layer)
        if path is None:
            return
        layer.metadata[images.FILE_MPP] = Mpp(None, "the file is being read for its resolution")

        def take(mpp: Mpp) -> None:
            layer.metadata[images.FILE_MPP] = mpp
            if self._layer is layer:
                self.refresh()
                self.changed.emit()

        worker = create_worker(images.file_mpp, path, level0_shape(layer), _start_thread=False)
        worker.returned.connect(take)
        worker.start()

    @staticmethod
    def _emitters(layer: Image) -> list[Any]:
        return [layer.events.scale, layer.events.units]

    def state(self, value: float | str | None) -> None:
        """Take the user's figure; None goes back to what the file says, and so does a figure that is none."""
        if self._layer is None:
            return
        self._error = ""
        try:
            state_mpp(self._layer, value)  # type: ignore[arg-type]  # text is checked there
        except NucSegError as error:
            state_mpp(self._layer, None)
            self._error = str(error)
        self.refresh()
        self.changed.emit()

    def refresh(self, _event: Any = None) -> None:
        """Show what holds now."""
        mpp = self.mpp
        missing = self._layer is not None and mpp.value is None
        if not self._error:
            self.edit.setText("" if mpp.value is None else f"{mpp.value:.4g}")
        self.setEnabled(self._layer is not None)
        alarm = missing or bool(self._error)
        self.edit.setStyleSheet(f"border: 1px solid {AMBER};" if alarm else "")
        self.edit.setToolTip(self.TOOLTIP if self._layer is not None else "Choose an image first.")
        self._source.setStyleSheet("font-size: 11px;" + (f" color: {AMBER};" if alarm else ""))
        say(self._source, self._error or self._explain(mpp))

    def _explain(self, mpp: Mpp) -> str:
        if self._layer is None:
            return ""
        if mpp.value is None:
            why = mpp.source if mpp.source != "unknown" else "The image does not say its resolution"
            return f"{why[0].upper()}{why[1:]}; state it: 0.25 for a 40x scan, 0.5 for 20x."
        return f"Source: {mpp.source}"

    def commit(self) -> None:
        """Take the text of the field, as when the user leaves it."""
        text = self.edit.text().strip().replace(",", ".")
        shown = self.mpp.value
        if self._layer is None or (shown is not None and text == f"{shown:.4g}" and not self._error):
            return
        if not text and STATED not in self._layer.metadata and not self._error:
            self.refresh()
            return
        self.state(text or None)

    def _on_menu(self) -> None:
        known = Mpp() if self._layer is None else read_mpp(self._layer)
        self._back.setEnabled(known.value is not None)
        self._back.setToolTip("" if known.value is not None else "The file does not say it.")

    def release(self) -> None:
        """Let go of the layer."""
        self.set_layer(None)
