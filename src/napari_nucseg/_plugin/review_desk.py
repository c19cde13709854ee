"""Where reviews begin: at the end of a run, with a first click, or with layers of an earlier panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from napari_nucseg._plugin.compute import Basis, Loader, Request, Started, make_basis
from napari_nucseg._plugin.results import ResultLayers
from napari_nucseg._plugin.review import Review, SessionListener
from napari_nucseg._plugin.review_maps import MapsLoader
from napari_nucseg._plugin.review_update import why_no_update
from napari_nucseg.core.nuclei import NucleusClass

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_nucseg.session import Session

ORIGIN = "napari_nucseg_origin"
"""Key of the labels' metadata for the request and the basis of a run, until its review begins."""


def empty_table(classes: tuple[str, ...]) -> pd.DataFrame:
    """Return the table of a result without nuclei, see `napari_nucseg.inference.Result`."""
    shapes = ("area_um2", "perimeter_um", "eccentricity", "solidity", "mean_haematoxylin")
    numbers = ("centre_y", "centre_x", "score", *(f"prob_{name}" for name in classes), *shapes)
    table = pd.DataFrame({name: pd.Series(dtype=float) for name in numbers})
    table.insert(0, "id", pd.Series(dtype="uint32"))
    table.insert(3, "class", pd.Series(dtype=object))
    return table


class ReviewDesk:
    """Begins reviews and tells those who want to know.

    Parameters
    ----------
    viewer : napari.Viewer
    load : callable (model, device) -> Runtime
        Called in a worker thread, when an edit lacks maps.
    say : callable (text, alarm)

    Attributes
    ----------
    listeners : list of SessionListener
        Told of every session that begins from now on, and of its end: the place to attach what saves it.
    """

    def __init__(self, viewer: Any, load: Loader, say: Callable[[str, bool], None]) -> None:
        self._viewer, self._load, self._say = viewer, load, say
        self.listeners: list[SessionListener] = []
        self._heard: list[Review] = []

    def begin(self, results: ResultLayers, request: Request, basis: Basis) -> Review:
        """Begin the review of what a run has found, or of nothing.

        Raises
        ------
        NucSegError
            Labels and nuclei can't be those of one image.
        """
        from napari_nucseg.session import Session

        classes = results.about["classes"]
        kinds = [NucleusClass(name, _rgb(results.about["colours"][name])) for name in classes]
        nuclei = results.nuclei if results.nuclei is not None else empty_table(classes)
        labels = results.labels.data
        session = Session.from_table(
            labels, nuclei.sort_values("id"), kinds, basis.scale, basis.config, basis.fields
        )
        return self.resume(results, session, request)

    def resume(self, results: ResultLayers, session: Session, request: Request | None) -> Review:
        """Begin the review of a session that exists, such as a restored one.

        Parameters
        ----------
        results : ResultLayers
            Whose labels' data is the session's array.
        session : Session
        request : Request or None
            Image and model for maps that edits lack; None: such edits are refused until there is one, see `equip`.
        """
        maps = MapsLoader(request, session.fields, self._load, results.about["model"])
        review = Review(self._viewer, results, session, maps)
        review.listeners.extend(self.listeners)
        self.hear(review)
        for listener in self.listeners:
            listener.session_began(review)
        return review

    def equip(self, review: Review, request: Request) -> None:
        """Let a review that lacks its model compute maps, if this is its model."""
        if (
            isinstance(review.maps, MapsLoader)
            and review.request is None
            and why_no_update(review, request) is None
        ):
            review.maps.request = request
            self._say(
                f"The model '{request.model.name}' is there: centres can be added and moved again.", False
            )

    def start_empty(self, image: Image, request: Request) -> ResultLayers:
        """Put empty layers on an image and begin a review of them; no model is loaded before the first click.

        Raises
        ------
        NucSegError
            The image is too large for one layer, or cannot be read.
        """
        basis = make_basis(request)
        started = Started(basis.scale.level0, "", 0, basis)
        results = ResultLayers.create(image, request, started)
        results.about["nuclei"] = empty_table(results.about["classes"])
        for layer in results.layers:
            self._viewer.add_layer(layer)
        results.show()
        self.begin(results, request, basis)
        return results

    def hear(self, review: Review) -> None:
        """Show what a review has to say in this panel."""
        if review not in self._heard:
            self._heard.append(review)
            review.said.connect(self._say)

    def leave(self) -> None:
        """Show nothing any more; the reviews go on."""
        for review in self._heard:
            review.said.disconnect(self._say)
        self._heard.clear()


def _rgb(colour: Any) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in colour)
    return red, green, blue
