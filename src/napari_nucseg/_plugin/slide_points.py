"""The centres of the nuclei that are in view, of very many: a Points layer that holds only these."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Points
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_nucseg._plugin import work
from napari_nucseg._plugin.colouring import NO_CLASS, UNKNOWN, Look
from napari_nucseg._plugin.parts import connect_all, disconnect_all
from napari_nucseg._plugin.review_camera import MARGIN, view_box

if TYPE_CHECKING:
    from napari_nucseg.core.tiling import Box
    from napari_nucseg.slides.centres import Centres, View

MOST = 5_000
"""Points shown at once; of more nuclei in view, so many are chosen evenly."""

FAR = 250_000
"""Nuclei in view from which on none is shown: the points would hide the tissue."""

REST_MS = 80


class SlidePoints:
    """Shows the centres in view, a moment after the camera has come to rest.

    Parameters
    ----------
    viewer : napari.Viewer
    points : Points
        Written here alone.
    centres : Centres
    colours : dict
        Class -> RGB.

    Attributes
    ----------
    looked : Signal(object)
        The `View` that is shown now.
    """

    looked = Signal(object)

    def __init__(self, viewer: Any, points: Points, centres: Centres, colours: dict[str, Any]) -> None:
        self._viewer, self.points, self._centres = viewer, points, centres
        self._colours = np.array(
            [*((*(v / 255 for v in colours[name]), 1.0) for name in centres.classes), UNKNOWN]
        )
        self._look, self._leave_out = Look(), np.zeros(0, np.uint32)
        self._worker: Any = None
        self._again = False
        self._rest = QTimer()
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._on_rest)
        camera = viewer.scene.camera.events
        self._camera = [camera.center, camera.zoom]
        connect_all(self._camera, self._on_camera)
        self._rest.start()

    def release(self) -> None:
        """Follow the camera no more."""
        disconnect_all(self._camera, self._on_camera)
        self._rest.stop()
        self._worker = self._viewer = None

    def show(self, look: Look | None = None, leave_out: Any = None, centres: Centres | None = None) -> None:
        """Show anew: in another look, without some nuclei, or of other columns."""
        self._look = look or self._look
        self._centres = centres or self._centres
        if leave_out is not None:
            self._leave_out = np.asarray(leave_out, np.uint32)
        self._rest.start()

    @property
    def is_resting(self) -> bool:
        """Whether what is shown is what is in view."""
        return self._worker is None and not self._rest.isActive()

    def _on_camera(self, _event: Any = None) -> None:
        self._rest.start()

    def _on_rest(self) -> None:
        if self._worker is not None:
            self._again = True
            return
        box = None if self._viewer is None else view_box(self._viewer, self.points)
        if box is None:
            return
        find = partial(_find, self._centres, box, self._leave_out, self._hidden())
        self._worker = work.start(find, partial(self._on_found, self._centres))

    def _hidden(self) -> NDArray[np.int16]:
        names = (*self._centres.classes, NO_CLASS)
        hidden = [k for k, name in enumerate(names) if name in self._look.hidden]
        return np.array([-1 if k == len(self._centres.classes) else k for k in hidden], np.int16)

    def _on_found(self, centres: Centres, outcome: work.Outcome) -> None:
        if self._viewer is None:
            return
        self._worker = None
        if outcome.error is None:
            self._paint(centres, outcome.value)
        if self._again:
            self._again = False
            self._on_rest()

    def _paint(self, centres: Centres, view: View) -> None:
        points, rows = self.points, view.rows
        kinds = centres.kinds[rows]
        names = np.array([*centres.classes, NO_CLASS], object)
        with ExitStack() as stack:
            for events in (points.events, points._face.events, points._border.events):
                stack.enter_context(events.blocker_all())
            points.selected_data = set()
            points.data = np.stack([centres.y[rows], centres.x[rows]], axis=1)
            points.features = pd.DataFrame(
                {
                    "id": centres.ids[rows],
                    "class": names[kinds],
                    "score": centres.score[rows].round(2),
                    "area_um2": centres.area[rows].round(1),
                }
            )
            if len(rows):
                # a rim is drawn even where it has no width, and small points show little else
                points.face_color = points.border_color = self._colours[kinds]
            points.editable = False
        points.refresh(extent=False, thumbnail=False)
        self.looked.emit(view)


def _find(centres: Centres, box: Box, leave_out: NDArray[np.uint32], hidden: NDArray[np.int16]) -> View:
    """Look for what is in view; in another thread."""
    from napari_nucseg.slides.centres import View

    rows = centres.look(box, MOST, leave_out).rows
    seen = centres.look(_without_margin(box), 1)
    if seen.total > FAR:
        rows = rows[:0]
    return View(rows[~np.isin(centres.kinds[rows], hidden)], seen.counts)


def _without_margin(box: Box) -> Box:
    """Return what the canvas shows, given that with the margin of `view_box`."""
    from napari_nucseg.core.tiling import Box

    height, width = box.shape
    y, x = (int(n * MARGIN / (1 + MARGIN) / 2) for n in (height, width))
    return Box(box.y0 + y, box.y1 - y, box.x0 + x, box.x1 - x)
