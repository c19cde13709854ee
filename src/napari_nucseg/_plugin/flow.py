"""What happens between the press of Run and the last word on it: questions, layers, words to the user."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from napari.utils.notifications import notification_manager, show_error
from qtpy.QtCore import QTimer

from napari_nucseg._plugin.images import level0_shape
from napari_nucseg._plugin.parts import connect_all, disconnect_all
from napari_nucseg._plugin.place import holds, place_of
from napari_nucseg._plugin.questions import Choice
from napari_nucseg._plugin.results import ResultLayers, find_results
from napari_nucseg._plugin.review_desk import ReviewDesk
from napari_nucseg._plugin.review_update import TAKING, Update, Watch, show_earlier, why_no_update
from napari_nucseg._plugin.run import RunController
from napari_nucseg._plugin.services import RuntimeCache, Services
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_nucseg._plugin import work
    from napari_nucseg._plugin.compute import Request, Started
    from napari_nucseg._plugin.review import Review
    from napari_nucseg.inference import TileResult
    from napari_nucseg.session import Session


ANYWHERE = object()
"""Stands for all of an image and any part of it."""

REST_MS = 500
"""After which centres are shown that came too soon after others."""


class FlowView(Protocol):
    """The panel, as the flow sees it."""

    def set_status(self, text: str, alarm: bool = False) -> None:
        """Show one sentence."""

    def show_results(self, results: ResultLayers | None) -> None:
        """Show classes and counts."""

    def refresh(self) -> None:
        """Enable and disable what depends on whether a run is under way."""


def report_error(error: Exception) -> str:
    """Tell napari of an error, in one sentence where the user can mend it; return that sentence."""
    text = _sentence(error)
    if text is None:
        notification_manager.receive_error(type(error), error, error.__traceback__)
        return f"Stopped by an error: {error}"
    show_error(text)
    return text


def _sentence(error: Exception) -> str | None:
    if isinstance(error, NucSegError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory for this image; choose a smaller region."
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return (
            "The GPU has not enough memory left; choose the device CPU, or close other programs on the GPU."
        )
    return None


class SegmentFlow:
    """Listens to the runs of a panel and keeps the results of the viewer's images.

    Parameters
    ----------
    viewer : napari.Viewer
    services : Services
    view : FlowView
    """

    def __init__(self, viewer: Any, services: Services, view: FlowView) -> None:
        self._viewer, self._services, self._view = viewer, services, view
        runtimes = RuntimeCache(services.load_runtime)
        self.controller = RunController(self, runtimes)
        self.desk = ReviewDesk(viewer, runtimes, view.set_status)
        self._known: list[ResultLayers] = []
        self._image: Image | None = None
        self._request: Request | None = None
        self._started: Started | None = None
        self._results: ResultLayers | None = None
        self._replaces: ResultLayers | None = None
        self._updates = False
        self._watch = Watch(None)
        self._began, self._why = 0.0, ""
        self._closed = False
        self._taking: Any = None
        self._rest = QTimer()
        self._rest.setSingleShot(True)
        self._rest.timeout.connect(self._show_rest)
        self._emitters = [viewer.layers.events.removed]
        connect_all(self._emitters, self._on_removed)

    @property
    def busy(self) -> str | None:
        """Why neither a run nor an edit can begin, None where they can."""
        if self._taking is not None:
            return TAKING
        return "A run is under way; cancel it first." if self.controller.running else None

    @property
    def closed(self) -> bool:
        """Whether the panel is gone."""
        return self._closed

    def results_of(
        self, image: Image | None, active: Any = None, place: Any = ANYWHERE
    ) -> ResultLayers | None:
        """Return the results of an image: those that hold the active layer, else the latest.

        Parameters
        ----------
        place : Box or None, optional
            Only those of this part of the image, or with None of all of it.
        """
        known = {id(results.labels) for results in self._known}
        found = find_results(self._viewer.layers, image, known)
        self._known = list(reversed(found)) + self._known if found else self._known
        for results in found:
            if results.review is not None:
                self.desk.hear(results.review)
        own = [r for r in self._known if image is not None and r.belongs_to(image)]
        own = [r for r in own if place is ANYWHERE or r.place == place]
        chosen = [r for r in own if active is not None and active in r.layers]
        best = chosen or own
        return best[-1] if best else None

    def place_for(self, image: Image, box: Box, zoom: float, active: Any = None) -> Box:
        """Return the part of a large image for the results of a box: that of results which hold it, or a new one.

        Raises
        ------
        NucSegError
            The box is too large.
        """
        shape = level0_shape(image)
        box = box.cut(Box(0, shape[0], 0, shape[1])) or box
        for known in (self.results_of(image, active), *reversed(self._known)):
            if known is not None and known.belongs_to(image) and holds(known.place, box):
                return known.place  # type: ignore[return-value]  # a place that holds something is one
        return place_of(box, shape, zoom)

    def start(self, image: Image, request: Request, parent: Any = None) -> None:
        """Start a run, if need be after asking what to do with the results there are."""
        old = self.results_of(image, self._viewer.layers.selection.active, request.place)
        choice = Choice.KEEP if old is None else self._ask(old, request, parent)
        if choice is Choice.CANCEL:
            self._view.set_status("Nothing was run; the results are as they were.")
            return
        self._updates = choice is Choice.UPDATE
        if self._updates and old is not None and old.review is not None:
            request = replace(request, fields=old.review.session.fields)
        self._image, self._request, self._results = image, request, None
        self._replaces = None if choice is Choice.KEEP else old
        self._watch = Watch(None if old is None else old.review)
        self._why = ""
        self.controller.start(request, f"NucSeg: {image.name}")
        self._view.set_status("Loading the model…")
        self._view.refresh()

    def _ask(self, old: ResultLayers, request: Request, parent: Any) -> Choice:
        """Ask what to do with earlier results; those of a review that nobody has begun are of no interest."""
        if old.review is not None and not old.total() and not old.edited:
            return Choice.REPLACE
        why = why_no_update(old.review, request)
        if old.edited and why is None:
            return self._services.ask_update(parent, old.labels.name, old.total(), old.edits)
        edited = why if old.edited else None
        return self._services.ask_existing(parent, old.labels.name, old.total(), edited)

    def start_review(self, image: Image, request: Request) -> ResultLayers | None:
        """Begin a review of an image without a run: every click segments one nucleus.

        Returns
        -------
        ResultLayers or None
            None if the image cannot be used, which is said.
        """
        try:
            results = self.desk.start_empty(image, request)
        except NucSegError as error:
            self._view.set_status(report_error(error), True)
            return None
        self._known.append(results)
        self._view.refresh()
        return results

    def adopt(self, results: ResultLayers, session: Session, request: Request | None) -> Review:
        """Begin the review of a session that was saved, in layers that are not yet in the viewer."""
        self._known.append(results)
        for layer in results.layers:
            self._viewer.add_layer(layer)
        results.show()
        review = self.desk.resume(results, session, request)
        self._viewer.layers.selection.active = results.points
        self._view.refresh()
        return review

    def on_started(self, started: Started) -> None:
        """Put the empty layers into the viewer."""
        if self._image is None or self._request is None:
            return
        self._began, self._started = time.perf_counter(), started
        self._results = ResultLayers.create(self._image, self._request, started)
        # Known before they come into the viewer, where they would be found as those of another panel.
        self._known.append(self._results)
        if self._replaces is not None:
            show_earlier(self._replaces, False)
        for layer in self._results.layers:
            self._viewer.add_layer(layer)
            layer.editable = False
        self._viewer.layers.selection.active = self._results.labels
        self._view.show_results(self._results)
        self._view.set_status(
            f"Segmenting with {started.runtime}… Nuclei can be edited once it is done, since tiles are still "
            "written into the labels."
        )

    def on_tile(self, tile: TileResult) -> None:
        """Take in a tile."""
        if self._results is None:
            return
        if self._results.add(tile):
            self._view.show_results(self._results)
        elif not self._rest.isActive():
            self._rest.start(REST_MS)

    def _show_rest(self) -> None:
        """Show the centres of tiles that came too soon after others, should the next tile be long in coming."""
        if self._results is not None and self.controller.running and not self._closed:
            self._results.catch_up()
            self._view.show_results(self._results)

    def on_finished(self) -> None:
        """Show the rest, remove what was to be replaced or update it, say how it went."""
        results, old = self._results, self._replaces
        if results is None or self._image is None:
            return
        results.show()
        seconds = time.perf_counter() - self._began
        n = results.total()
        found = f"{n:,} {'nucleus' if n == 1 else 'nuclei'}" if n else "No nuclei found"
        runtime = "" if self._started is None else self._started.runtime
        words = f"{found} in {seconds:.1f} s ({runtime})."
        if old is not None and self._updates and old.review is not None:
            self._take_in(Update(old, old.review, results), words)
            return
        if old is not None and self._watch.edited and old.labels in self._viewer.layers:
            words += " The earlier results were edited meanwhile, so they are still here, hidden."
            self._unlock(old)
        elif old is not None:
            self._remove(old.layers)
            results.rename(self._image.name)
        self._end(words)

    def _take_in(self, update: Update, words: str) -> None:
        """Take what a new run has found into the review there is."""
        if self._request is None or update.new.nuclei is None:
            self._keep_part()
            self._end(words)
            return
        try:
            self._taking = update.start(self._request, update.new.nuclei, self._on_taken)
        except NucSegError as error:  # the new nuclei stay beside the review
            show_earlier(update.old, True)
            self._end(report_error(error), alarm=True)
            return
        self._results = None  # its layers go when it is taken in
        self._view.set_status("Taking the new nuclei into the review…")
        self._view.refresh()

    def _on_taken(self, update: Update, outcome: work.Outcome) -> None:
        """Show the review again; this happens although the panel was closed meanwhile."""
        self._taking = None
        old, new = update.old, update.new
        if old.labels in self._viewer.layers:
            show_earlier(old, True)
            self._viewer.layers.selection.active = old.points or old.labels
        if outcome.error is not None:
            self._results = new  # kept beside the review
            self._end(report_error(outcome.error), alarm=True)
            return
        self._known = [results for results in self._known if results is not new]
        self._remove(new.layers)
        self._end(update.told())

    @staticmethod
    def _unlock(results: ResultLayers) -> None:
        for layer in results.layers:
            layer.editable = True

    def on_cancelled(self) -> None:
        """Keep what there is."""
        self._end(f"{self._why or 'Cancelled'}: {self._keep_part()}.")

    def on_failed(self, error: Exception) -> None:
        """Keep what there is, and say what went wrong."""
        part = self._keep_part()
        text = report_error(error)
        self._end(text if self._results is None else f"{text} ({part})", alarm=True)

    def cancel(self) -> None:
        """Cancel the run."""
        self.controller.cancel()

    def shut_down(self) -> None:
        """Stop the run, keep what there is, and let go of the viewer; reviews go on without this panel."""
        if self._closed:
            return
        self._closed = True
        disconnect_all(self._emitters, self._on_removed)
        if self.controller.running:
            self.controller.shut_down()
            self._keep_part()
            self._end("")  # begins the review of what was found
        self.desk.leave()

    def _keep_part(self) -> str:
        """Keep the nuclei found so far, or take away empty layers; return what was done, in words."""
        results, old = self._results, self._replaces
        if results is not None and results.labels in self._viewer.layers and not self._updates:
            results.show()
            if results.total():
                kept = f"the {results.total():,} nuclei found so far were kept"
                earlier = old is not None and old.labels in self._viewer.layers
                if old is not None:
                    self._unlock(old)
                return f"{kept}, and the earlier results, hidden" if earlier else kept
        left = self._discard(results)
        if old is not None:
            show_earlier(old, True)
            if old.points in self._viewer.layers and not self._closed:
                self._viewer.layers.selection.active = old.points  # the keys of the review work there
        return "the review is as it was" if self._updates else left

    def _discard(self, results: ResultLayers | None) -> str:
        """Take away what is left of layers that are empty or have lost their labels; say so in words."""
        here = [] if results is None else [layer for layer in results.layers if layer in self._viewer.layers]
        total = 0 if results is None else results.total()
        self._results = None
        self._known = [known for known in self._known if known is not results]
        if self._why:  # napari is in the midst of removing layers, and these may be on its list too
            QTimer.singleShot(0, lambda: self._remove(here))
        else:
            self._remove(here)
        if not total:
            return "there were no results yet"
        return "its centres are removed too" if here else "nothing was kept"

    def _remove(self, layers: Iterable[Any]) -> None:
        """Remove those layers which the user has not removed already."""
        for layer in list(layers):
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def _review(self, results: ResultLayers) -> None:
        """Begin the review of what a run has found."""
        request, started = self._request, self._started
        if request is None or started is None or started.basis is None:
            return
        try:
            self.desk.begin(results, request, started.basis)
        except NucSegError as error:
            text = report_error(error)
            if not self._closed:
                self._view.set_status(text, True)

    def _end(self, text: str, alarm: bool = False) -> None:
        results = self._results
        if results is not None and results.labels in self._viewer.layers and results.review is None:
            self._review(results)
            selection = self._viewer.layers.selection
            if selection.active == results.labels and results.points is not None:
                selection.active = results.points  # where clicks and keys are edits
        self._image = self._request = self._results = self._replaces = self._started = None
        self._updates = False
        if not self._closed:
            self._view.set_status(text, alarm)
            self._view.refresh()

    def _on_removed(self, event: Any) -> None:
        """Follow what the user removes: the image or the labels of a run end it."""
        layer = event.value
        running = self._results if self.controller.running else None
        for results in self._known:
            if layer is results.points:
                results.drop_points()
        self._known = [results for results in self._known if results.labels is not layer]
        if self.controller.running and layer is self._image:
            self._why = "Cancelled, since the image was removed"
            self.controller.cancel()
        elif running is not None and layer is running.labels:
            self._why = "Cancelled, since the layer of the results was removed"
            self.controller.cancel()
        else:
            self._view.refresh()
