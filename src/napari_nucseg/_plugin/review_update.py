"""A new run and the review there is: whether it fits, whether it was edited meanwhile, and how it takes the nuclei."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_nucseg._plugin.compute import make_basis, region_of
from napari_nucseg._plugin.place import as_list
from napari_nucseg._plugin.results import KEY
from napari_nucseg._plugin.review_busy import work_apart
from napari_nucseg.core.nuclei import is_live, is_reviewed
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from pandas import DataFrame

    from napari_nucseg._plugin import work
    from napari_nucseg._plugin.compute import Request
    from napari_nucseg._plugin.results import ResultLayers
    from napari_nucseg._plugin.review import Review
    from napari_nucseg.core.nuclei import Change

TAKING = "The new nuclei are being taken into the review; wait for the end."


def why_no_update(review: Review | None, request: Request) -> str | None:
    """Return why the nuclei of a run can't stand beside those of a review; None if they are found in the same way."""
    if review is None:
        return "They are not under review."
    card, about = request.model.card, review.labels.metadata[KEY]
    if (card.name, card.version) != (about["model"], about["model_version"]):
        return f"They were found by the model {about['model']} {about['model_version']}; choose it to update them."
    if as_list(request.place) != about.get("place"):
        return "They are of another part of the image."
    if request.mpp.value != about["mpp"]:
        return f"They were found at {about['mpp']:.4g} µm/px; set that resolution to update them."
    try:
        same = make_basis(request).scale == review.session.scale
    except NucSegError as error:
        return str(error)
    return None if same else "They were found on another grid of pixels."


def show_earlier(results: ResultLayers, shown: bool) -> None:
    """Show earlier results again, or hide them: a run is to replace or update them."""
    for layer in results.layers:
        layer.visible = layer.editable = shown


class Watch:
    """Notices whether a review is edited during a run.

    Parameters
    ----------
    review : Review or None
        None: nothing is there to be edited.
    """

    def __init__(self, review: Review | None) -> None:
        self._review, self._edited = review, False
        self._waiting = 0 if review is None else review.edits.waiting
        if review is not None:
            review.session.changed.connect(self._on_changed)

    @property
    def edited(self) -> bool:
        """Whether there was an edit, or one waits that did not wait before."""
        return self._edited or (self._review is not None and self._review.edits.waiting > self._waiting)

    def _on_changed(self, _change: Change) -> None:
        self._edited = True


@dataclass(frozen=True)
class Update:
    """The nuclei of a new run, on their way into a review.

    Attributes
    ----------
    old : ResultLayers
        Of the review.
    review : Review
    new : ResultLayers
        Of the run; its layers go when all is taken in.
    """

    old: ResultLayers
    review: Review
    new: ResultLayers

    def start(self, request: Request, nuclei: DataFrame, done: Callable[[Update, work.Outcome], None]) -> Any:
        """Take them in, in a worker: a large image takes seconds.

        Parameters
        ----------
        request : Request
            Of the run.
        nuclei : DataFrame
            What it has found.
        done : callable (Update, Outcome)
            Called in the thread of the window, when the review shows them.

        Returns
        -------
        napari worker
            To be held until `done` is called.

        Raises
        ------
        NucSegError
            Another such work on the review is under way.
        """
        session, labels = self.review.session, self.new.labels.data
        region = region_of(request.local_area, labels.shape)
        rerun = partial(session.rerun, labels, nuclei, None if region is None else region.holds)
        return work_apart(self.review, TAKING, rerun, partial(done, self))

    def told(self) -> str:
        """Return how it went, in a sentence."""
        records, kept = self.review.session.records, self.review.reviewed()
        fresh = int((is_live(records) & ~is_reviewed(records)).sum())
        noun, were = ("nucleus", "was") if kept == 1 else ("nuclei", "were")
        return f"Updated: the {kept:,} {noun} you reviewed {were} kept, and {fresh:,} others were found anew."
