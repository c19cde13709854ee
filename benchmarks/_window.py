"""What an edit costs in a real napari window."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._edits import Clock, Hand, one_round, undo_all

if TYPE_CHECKING:
    from napari_nucseg.models.card import Card
    from napari_nucseg.session import Session

SIZE = (1400, 900)
"""Of the window, in pixels of the screen."""

ZOOM = 2.0
"""Pixels of the screen per pixel of the image: as in a review."""

CENTRE_PX = 7.0
"""Diameter of the dot on a centre."""

MOST = 30
"""Rounds of edits in a window at most."""

OFTEN = 5
"""Times that something is drawn for comparison."""


def have_screen() -> bool:
    """Provide a screen, a virtual one where there is none; return whether there is one."""
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return True
    program = shutil.which("Xvfb")
    if program is None:
        return False
    read, write = os.pipe()
    # it ends by itself, once the last window's connection is closed
    command = [
        program,
        "-displayfd",
        str(write),
        "-screen",
        "0",
        "1600x1000x24",
        "-nolisten",
        "tcp",
        "-terminate",
    ]
    subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as answer:
        os.environ["DISPLAY"] = f":{answer.readline().strip()}"
    return True


def measure_window(session: Session, tile: NDArray[np.uint8], card: Card, rounds: int, seed: int) -> str:
    """Time edits with the layers of a review in a window; return the report."""
    if not have_screen():
        return "No screen, and no Xvfb to make one: napari was not measured."
    return _measure(session, tile, card, rounds, seed)


def _measure(session: Session, tile: NDArray[np.uint8], card: Card, rounds: int, seed: int) -> str:
    import napari
    from qtpy.QtWidgets import QApplication

    from benchmarks.edits import draw_table

    viewer = napari.Viewer(show=True)
    try:
        viewer.window.resize(*SIZE)
        labels = open_review(viewer, session, tile, card)
        window = Window(viewer, labels)
        clock = Clock(window.draw, window.look_at)
        hand = Hand(session, seed)
        one_round(session, hand, Clock(window.draw, window.look_at))  # warm up
        for _ in range(min(rounds, MOST)):
            one_round(session, hand, clock)
        undo_all(session, clock)
        return f"{draw_table(clock)}\n\n{window.yardsticks()}"
    finally:
        viewer.close()
        QApplication.processEvents()


def open_review(viewer: Any, session: Session, tile: NDArray[np.uint8], card: Card) -> Any:
    """Show a session in a viewer as the panel does; return its Labels layer."""
    from napari.layers import Labels, Points

    from napari_nucseg._plugin.colouring import NucleusColormap
    from napari_nucseg._plugin.results import KEY, OUTLINE_OPACITY, ResultLayers
    from napari_nucseg._plugin.review import Review

    about = {"classes": card.classes, "colours": dict(card.colours), "mpp": card.mpp, "nuclei": None}
    if session.labels.shape == tile.shape[:2]:
        viewer.add_image(tile, rgb=True)
    colormap = NucleusColormap()
    labels = Labels(session.labels, colormap=colormap, opacity=OUTLINE_OPACITY, metadata={KEY: about})
    points = Points(np.zeros((0, 2)), ndim=2, size=CENTRE_PX, metadata={KEY: about})
    for layer in (labels, points):
        viewer.add_layer(layer)
    results = ResultLayers(labels, points)
    Review(viewer, results, session, None)
    results.show()
    return labels


class Window:
    """A viewer whose drawing can be waited for.

    Parameters
    ----------
    viewer : napari.Viewer
    labels : Labels
    """

    def __init__(self, viewer: Any, labels: Any) -> None:
        self.viewer, self.labels = viewer, labels
        self._canvas = viewer.window._qt_viewer.canvas
        self._sent = 0
        texture = self._canvas.layer_to_visual[labels].node._texture
        send = texture.scale_and_set_data

        def count(data: Any, *args: Any, **options: Any) -> Any:
            self._sent += int(np.prod(data.shape[:2]))
            return send(data, *args, **options)

        texture.scale_and_set_data = count

    def look_at(self, y: float, x: float) -> None:
        """Move the camera to a position, as a person would, and let the views come to rest."""
        from qtpy.QtWidgets import QApplication

        self.viewer.camera.center, self.viewer.camera.zoom = (0.0, y, x), ZOOM
        end = time.perf_counter() + 0.25
        while time.perf_counter() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    def draw(self) -> dict[str, float]:
        """Let napari draw what is to be drawn; return how long it took, and how much of the layer was sent for it."""
        from qtpy.QtWidgets import QApplication

        began = time.perf_counter()
        QApplication.processEvents()
        self._canvas._scene_canvas.native.repaint()
        self._finish()
        sent, self._sent = self._sent, 0
        return {
            "napari's drawing, ms": 1e3 * (time.perf_counter() - began),
            "pixels of the layer drawn anew": sent,
        }

    def yardsticks(self) -> str:
        """Return what drawing costs without an edit, and how long the whole layer takes."""
        frame = [self.draw()["napari's drawing, ms"] for _ in range(OFTEN)]
        whole = []
        for _ in range(OFTEN):
            began = time.perf_counter()
            self.labels.refresh(extent=False)
            self.draw()
            whole.append(1e3 * (time.perf_counter() - began))
        return (
            f"For comparison, a frame in which nothing has changed: {np.median(frame):.0f} ms; with the whole layer of "
            f"{self.labels.data.size:,} pixels drawn anew: {np.median(whole):.0f} ms. Drawn by {self.renderer()}."
        )

    def renderer(self) -> str:
        """Return what draws."""
        from vispy.gloo import gl  # type: ignore[import-untyped]

        self._canvas._scene_canvas.set_current()
        return str(gl.glGetParameter(gl.GL_RENDERER))

    def _finish(self) -> None:
        """Wait for the graphics card."""
        from vispy.gloo import gl

        self._canvas._scene_canvas.set_current()
        gl.glFinish()
