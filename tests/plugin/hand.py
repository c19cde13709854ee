"""A hand on mouse and keyboard: real Qt events on the canvas, as the window system would send them."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
PLAIN, SHIFT, CTRL = (
    Qt.KeyboardModifier.NoModifier,
    Qt.KeyboardModifier.ShiftModifier,
    Qt.KeyboardModifier.ControlModifier,
)


class Hand:
    """Points at pixels of a layer and presses keys."""

    def __init__(self, viewer, layer):
        self.viewer, self.layer = viewer, layer
        window = getattr(viewer, "__wrapped__", viewer).window
        self.canvas = window._qt_viewer.canvas.native

    def see(self, pixel, zoom=20):
        """Bring a pixel to the middle of the canvas."""
        world = self.layer.data_to_world(pixel)
        self.viewer.scene.camera.center = (0, *world[-2:])
        self.viewer.scene.camera.zoom = zoom
        self.wait()

    def wait(self):
        QTest.qWait(20)

    def at(self, pixel):
        """Return where a pixel of the layer lies on the canvas."""
        camera = self.viewer.scene.camera
        world = np.array(self.layer.data_to_world(pixel))[-2:]
        y, x = (world - camera.center[-2:]) * camera.zoom + np.array(self.viewer.canvas.size) / 2
        assert 0 <= y < self.canvas.height(), "bring it into view first"
        assert 0 <= x < self.canvas.width(), "bring it into view first"
        return QPointF(float(x), float(y))

    def send(self, kind, pixel, button, buttons, modifiers=PLAIN):
        spot = self.at(pixel)
        there = QPointF(self.canvas.mapToGlobal(spot.toPoint()))
        QApplication.sendEvent(self.canvas, QMouseEvent(kind, spot, there, button, buttons, modifiers))

    def press(self, pixel, modifiers=PLAIN):
        self.send(QEvent.Type.MouseMove, pixel, NONE, NONE, modifiers)
        self.send(QEvent.Type.MouseButtonPress, pixel, LEFT, LEFT, modifiers)

    def move(self, pixel, modifiers=PLAIN):
        QTest.qWait(12)  # vispy takes no notice of moves that come within 10 ms
        self.send(QEvent.Type.MouseMove, pixel, NONE, LEFT, modifiers)

    def release(self, pixel, modifiers=PLAIN):
        self.send(QEvent.Type.MouseButtonRelease, pixel, LEFT, NONE, modifiers)

    def click(self, pixel, modifiers=PLAIN):
        self.press(pixel, modifiers)
        self.release(pixel, modifiers)

    def drag(self, start, *stops):
        """Press, go along the stops in small steps, release at the last."""
        self.press(start)
        here = np.array(start, float)
        for stop in stops:
            for step in np.linspace(here, stop, 5)[1:]:
                self.move(step)
            here = np.array(stop, float)
        self.release(stops[-1])

    def key(self, key, modifiers=PLAIN):
        """Press a key: a letter, a digit or a member of Qt.Key."""
        code = getattr(Qt.Key, f"Key_{key.upper()}") if isinstance(key, str) else key
        QTest.keyClick(self.canvas, code, modifiers)
