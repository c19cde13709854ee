"""A review in the viewer: a session, its two layers as views of it, gestures and keys."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_nucseg._plugin.colouring import NO_CLASS, Look
from napari_nucseg._plugin.parts import connect_all, disconnect_all
from napari_nucseg._plugin.results import KEY, REVIEW, ResultLayers, make_points
from napari_nucseg._plugin.review_actions import ReviewActions
from napari_nucseg._plugin.review_brush import Brush
from napari_nucseg._plugin.review_busy import Busy
from napari_nucseg._plugin.review_camera import go_to, view_box
from napari_nucseg._plugin.review_edits import EditQueue
from napari_nucseg._plugin.review_elsewhere import KeysElsewhere
from napari_nucseg._plugin.review_gestures import PointGestures
from napari_nucseg._plugin.review_help import HelpLine
from napari_nucseg._plugin.review_keys import bind_keys, unbind_keys
from napari_nucseg._plugin.review_labels import LabelsView
from napari_nucseg._plugin.review_points import MOST, PointsView
from napari_nucseg._plugin.review_selection import Selection
from napari_nucseg.core.nuclei import Change, centre_pixels, is_reviewed
from napari_nucseg.core.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_nucseg._plugin.compute import Request
    from napari_nucseg._plugin.review_edits import Maps
    from napari_nucseg.review_queue import ReviewQueue
    from napari_nucseg.session import Session

REST_MS = 150
"""Rest of the camera after which the points of the new view are shown."""


HINT = "Click on nuclei to segment them; a click inside one splits it."


class SessionListener(Protocol):
    """Whoever wants to know when a session begins and ends, such as what saves it."""

    def session_began(self, review: Review) -> None:
        """Take notice of a session; its edits come with `review.session.changed`."""

    def session_ended(self, review: Review) -> None:
        """Conclude: the layers are gone from the viewer, or hold another session now."""


class Review:
    """Binds a session to the layers of a result, until the labels are removed from the viewer.

    It lives in the metadata of the labels: panels may come and go.

    Parameters
    ----------
    viewer : napari.Viewer
    results : ResultLayers
        Whose labels' data is the session's array.
    session : Session
    maps : Maps or None
        Computes maps that an edit lacks.

    Attributes
    ----------
    said : Signal(str, bool)
        A sentence for the user, and whether it is an alarm.
    selected_changed : Signal(list)
        Ids of the nuclei that actions are about.
    clicking_changed : Signal(bool)
        Whether every click adds a nucleus.
    busy_changed : Signal(object)
        Why nobody can edit, a sentence or None.
    """

    said = Signal(str, bool)
    selected_changed = Signal(list)
    clicking_changed = Signal(bool)
    busy_changed = Signal(object)

    def __init__(self, viewer: Any, results: ResultLayers, session: Session, maps: Maps | None) -> None:
        self.viewer, self.session = viewer, session
        self.labels, self.points = results.labels, results.points
        self.listeners: list[SessionListener] = []
        self.mpp = float(results.about["mpp"] or 1.0)
        self.look = results.look
        self.refusals = 0
        self._hinted = self._passing = False
        self.maps = maps
        self._busy = Busy()
        self._modes: dict[Any, Any] = {}
        self._busy.changed.connect(self._on_busy)
        self.edits = EditQueue(maps, self._on_said, self._settle, lambda: self.busy, lambda: self.held)
        self.actions = ReviewActions(self)
        self.labels.metadata[REVIEW] = self
        self._begin()

    def _begin(self) -> None:
        self._rest = QTimer()
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._on_rest)
        self._shown = LabelsView(self.labels, self.session, self.mpp)
        self._brush = Brush(self.labels, self.session, self.edits, lambda id_: self.select([id_]))
        self.view: PointsView | None = None
        self._gestures: PointGestures | None = None
        self._elsewhere = KeysElsewhere(self.viewer, self.labels, self.say)
        self._shown.set_classes(self.look)
        self._selection = Selection(self.viewer, self.labels, self.session, self._tell_selected)
        self.adopt_points(self.points)
        self.session.changed.connect(self._on_changed)
        self.session.classes_changed.connect(self._on_classes)
        self._camera = [self.viewer.scene.camera.events.center, self.viewer.scene.camera.events.zoom]
        connect_all(self._camera, self._on_camera)
        connect_all([self.viewer.layers.events.removed], self._on_removed)
        connect_all([self.viewer.layers.selection.events.active], self._on_active)
        connect_all([self.labels.events.data], self._on_data)
        self._brush.new_label()

    def adopt_points(self, points: Any) -> None:
        """Show the centres in this layer, and take its gestures as edits; None: in none."""
        self.points = points
        if points is not None:
            self.view = PointsView(points, self.session, self.mpp)
            self.view.window = view_box(self.viewer, self.labels)
            self.view.set_look(self.look)
            points.selected_data = set()
            self._gestures = PointGestures(self.view, self.session, self.edits, self._on_added)
            self._selection.follow(self.view)
            self._help = HelpLine(points)
            connect_all([points.events.mode], self._on_mode)
            points.editable = self.busy is None
        bind_keys(self.actions, self.labels, points, self._new_nucleus, self.say)
        self.labels.editable = self.busy is None

    def end(self) -> None:
        """Let go of the layers."""
        if self.labels.metadata.get(REVIEW) is not self:
            return
        del self.labels.metadata[REVIEW]
        self.edits.cancel()
        self._rest.stop()
        self._shown.release()
        self._brush.release()
        self._elsewhere.release()
        self._drop_points()
        self.session.changed.disconnect(self._on_changed)
        self.session.classes_changed.disconnect(self._on_classes)
        disconnect_all(self._camera, self._on_camera)
        disconnect_all([self.viewer.layers.events.removed], self._on_removed)
        disconnect_all([self.viewer.layers.selection.events.active], self._on_active)
        disconnect_all([self.labels.events.data], self._on_data)
        self._selection.release()
        unbind_keys(self.labels)
        self.actions.close()
        if "queue" in self.__dict__:
            self.queue.close()
        for listener in list(self.listeners):
            listener.session_ended(self)

    @property
    def busy(self) -> str | None:
        """Why nobody can edit, such as an import under way; None where all can."""
        return self._busy.why

    @property
    def held(self) -> bool:
        """Whether the session must not be edited or copied at this moment.

        So it is while a stroke is open, and while another thread works on the session.
        """
        return self._brush.is_open or self.session.is_apart

    def hold(self, why: str) -> Callable[[], None]:
        """Let nobody edit, by layers, keys or panels, until the function that is returned is called."""
        self._brush.finish()
        return self._busy.hold(why)

    @property
    def request(self) -> Request | None:
        """Image and model of the maps that edits may lack."""
        return None if self.maps is None else self.maps.request

    @cached_property
    def queue(self) -> ReviewQueue:
        """The order of review; made when it is first asked for, since it looks at every outline."""
        from napari_nucseg.review_queue import ReviewQueue

        return ReviewQueue(self.session)

    def say(self, text: str, alarm: bool = False) -> None:
        """Tell the user."""
        self.said.emit(text, alarm)
        self.viewer.status = text
        self._passing = bool(text)

    def window(self) -> Any:
        """Return the window that a dialog belongs to."""
        return QApplication.activeWindow()

    @property
    def touched(self) -> set[int]:
        """Nuclei whose pixels have changed since the review began here."""
        return self._shown.touched

    def reviewed(self) -> int:
        """Return how many nuclei a person has dealt with."""
        return int(is_reviewed(self.session.records).sum())

    def counts(self) -> dict[str, int]:
        """Return the number of nuclei of every class, and of those without one if there are any."""
        session = self.session
        kinds = session.records["kind"][session.live]
        found = np.bincount(kinds[kinds >= 0], minlength=len(session.classes))
        counts = {c.name: int(n) for c, n in zip(session.classes, found, strict=True)}
        unknown = int((kinds < 0).sum())
        return {**counts, NO_CLASS: unknown} if unknown else counts

    def selected(self) -> list[int]:
        """Return the ids of the selected nuclei: of the points, or of the label where the labels are active."""
        return self._selection.ids

    def select(self, ids: list[int]) -> None:
        """Select nuclei in both layers."""
        self._selection.set(ids)

    def is_live(self, id_: int) -> bool:
        """Return whether an id is that of a nucleus with pixels."""
        return self._selection.is_live(id_)

    def look_at(self, id_: int) -> None:
        """Move the camera to a nucleus and select it."""
        record = self.session.record(id_)
        go_to(
            self.viewer, self.labels, (float(record["y"]), float(record["x"])), int(record["area"]), self.mpp
        )
        self.mark_place(id_)
        self._on_rest()
        self.select([id_])

    def mark_place(self, id_: int | None) -> None:
        """Show the centre of the nucleus that the queue has led to, whatever has become of it."""
        if self.view is not None:
            self.view.place = id_ or 0
            self._settle()

    def reveal(self, change: Change) -> None:
        """Move the camera to where something has changed, unless it is seen already."""
        shown, box = view_box(self.viewer, self.labels), change.box
        if box is None and len(change.records):  # a state or a class
            y, x = centre_pixels(change.records[0])
            box = Box(int(y), int(y) + 1, int(x), int(x) + 1)
        if box is not None and shown is not None and shown.cut(box) is None:
            centre = ((box.y0 + box.y1) / 2, (box.x0 + box.x1) / 2)
            go_to(self.viewer, self.labels, centre, box.shape[0] * box.shape[1], self.mpp)

    def _new_nucleus(self) -> None:
        """Let the brush paint a nucleus of its own, and none that is selected."""
        self.select([])
        self._brush.new_label()

    @property
    def clicking(self) -> bool:
        """Whether every click adds a nucleus."""
        active = self.viewer.layers.selection.active
        return self.points is not None and active == self.points and self.points.mode == "add"

    def set_clicking(self, clicking: bool) -> None:
        """Begin to add a nucleus with every click, or end it."""
        if self.points is None and clicking:  # the user has removed them
            about = {key: what for key, what in self.labels.metadata[KEY].items() if key != "nuclei"}
            self.adopt_points(make_points(self.labels, f"{about['image']} centres", about))
            self.viewer.add_layer(self.points)
        if self.points is None:
            return
        if clicking:
            self.points.visible = True
            self.viewer.layers.selection.active = self.points
        self.points.mode = "add" if clicking else "select"
        if clicking:
            self._hinted = True
            self.say(HINT)
            self._passing = False

    def show_points(self, look: Look) -> None:
        """Show the centres in a look."""
        self.look = look
        if self.view is not None:
            self.view.set_look(look)

    def _on_said(self, text: str, alarm: bool) -> None:
        self.refusals += alarm
        if text or self._passing:  # what was said is past after an edit that was made
            self.say(text, alarm)

    def _on_busy(self, why: str | None) -> None:
        layers = [layer for layer in (self.labels, self.points) if layer is not None]
        if why is not None and not self._modes:
            self._modes = {layer: layer.mode for layer in layers}
        for layer in layers:
            layer.editable = why is None
        if why is None:
            for layer, mode in self._modes.items():
                layer.mode = mode
            self._modes = {}
        self.busy_changed.emit(why)

    def _settle(self) -> None:
        """Bring the points in agreement with the session and the edits that wait."""
        if self.view is not None:
            self.view.overlay = self.edits.overlay
            if self._gestures is None or not self._gestures.dragging:
                self.view.sync()

    def _on_changed(self, change: Change) -> None:
        self._shown.show(change)
        self._brush.renew_label()
        self._settle()

    def _on_active(self, _event: Any = None) -> None:
        if self._gestures is not None and self.viewer.layers.selection.active != self.points:
            self._gestures.stop()

    def _on_added(self, id_: int) -> None:
        """Select a new nucleus, also one that had to wait for its maps, unless the user is at something else."""
        dragging = self._gestures is not None and self._gestures.dragging
        if self.viewer.layers.selection.active == self.points and not dragging:
            self._selection.add_late(id_)

    def _tell_selected(self) -> None:
        """Mark the selected nuclei, and tell who wants to know of them."""
        ids = self.actions.selected()
        self._shown.mark(ids)
        self.selected_changed.emit(ids)
        self.clicking_changed.emit(self.clicking)

    def _on_classes(self) -> None:
        self._shown.set_classes(self.look)
        self.show_points(self.look)

    def _on_camera(self, _event: Any = None) -> None:
        if len(self.session.records) > MOST:
            self._rest.start()

    def _on_rest(self) -> None:
        if self.view is None:
            return
        before = self.view.crowded
        self.view.window = view_box(self.viewer, self.labels)
        self._settle()
        if self.view.crowded and not before:
            self.say(f"Zoom in to see the centres: more than {MOST:,} are in this view.")

    def _on_mode(self, _event: Any = None) -> None:
        clicking = self.clicking
        self.clicking_changed.emit(clicking)
        if self._hinted and not clicking:
            self._hinted = False
            self.say("")

    def _on_data(self, _event: Any = None) -> None:
        """Put the session's array back where another was assigned: the layer is a view of the session."""
        if self.labels.data is not self.session.labels:
            self.labels.data = self.session.labels
            self.say(
                "The labels of a review can't be replaced or converted; duplicate the layer and work on the copy.",
                True,
            )

    def _on_removed(self, event: Any) -> None:
        if event.value is self.labels:
            self.end()
        elif event.value is self.points:
            self._drop_points()

    def _drop_points(self) -> None:
        if self.points is None or self.view is None:
            return
        if self._gestures is not None:
            self._gestures.release()
        self._selection.follow(None)
        self._help.release()
        disconnect_all([self.points.events.mode], self._on_mode)
        unbind_keys(self.points)
        self.points = self.view = self._gestures = None
