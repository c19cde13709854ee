"""Review of a part of a slide that was segmented before: cut out, reviewed like any image, and put back."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_nucseg._plugin import work
from napari_nucseg._plugin.compute import Basis, Request, Started, make_basis
from napari_nucseg._plugin.flow import report_error
from napari_nucseg._plugin.images import level0_shape
from napari_nucseg._plugin.parts import connect_all, disconnect_all
from napari_nucseg._plugin.place import from_list, place_of
from napari_nucseg._plugin.regions import Area
from napari_nucseg._plugin.results import ResultLayers
from napari_nucseg._plugin.review_keeper import keeper_of, kept_folders
from napari_nucseg._plugin.review_saved import Archive, Opened, request_for, restore
from napari_nucseg._plugin.saving import Snapshot, full_table, shot_of
from napari_nucseg.core.nuclei import NucleusClass, Origin, State, record_dtype
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Image

    from napari_nucseg._plugin.flow import SegmentFlow
    from napari_nucseg._plugin.review import Review
    from napari_nucseg._plugin.slide_results import SlideLayers
    from napari_nucseg.session import Session
    from napari_nucseg.slides.result import Part, Put, SlideResult

MOST = 64_000_000
"""Pixels of the largest part of a slide that is reviewed at once."""

CURRENT = "current.nucseg"
"""Name of the folder that the review under way is saved in, or current-2 and so on where another window has that one.
It is renamed once the review was put back."""

PUTTING = "The review is being put back into the slide; wait for the end."
TITLE = "review"


class SlideReview:
    """One review of a part of one slide at a time.

    Parameters
    ----------
    viewer : napari.Viewer
    flow : SegmentFlow
        Begins the review.
    archive : Archive
        Opens saved ones.
    say : callable (text, alarm)

    Attributes
    ----------
    changed : Signal()
        It has begun or ended, or is busy.
    """

    changed = Signal()

    def __init__(
        self, viewer: Any, flow: SegmentFlow, archive: Archive, say: Callable[[str, bool], None]
    ) -> None:
        self._viewer, self._flow, self._archive, self._say = viewer, flow, archive, say
        self._worker: Any = None
        self.slide: SlideLayers | None = None
        self.results: ResultLayers | None = None
        self._image: Image | None = None
        self._review: Review | None = None
        self._removed = [viewer.layers.events.removed]

    @property
    def is_open(self) -> bool:
        """Whether a part is under review."""
        return self.results is not None

    @property
    def busy(self) -> str | None:
        """Why nothing can begin now."""
        return (
            None
            if self._worker is None
            else PUTTING
            if self.is_open
            else "A part of the slide is being read."
        )

    @staticmethod
    def saved(slide: SlideLayers | None) -> Path | None:
        """Return the review of a part of a slide that was saved and never put back, None where there is none."""
        if slide is None:
            return None
        stem, suffix = CURRENT.split(".")
        found = sorted(slide.result.reviews.glob(f"{stem}*.{suffix}"))
        return next((folder for folder in found if folder not in kept_folders()), None)

    def start(self, slide: SlideLayers, image: Image, request: Request) -> None:
        """Cut a part out and begin its review.

        Parameters
        ----------
        request : Request
            Its area is the part.

        Raises
        ------
        NucSegError
            The part is too large, or another review was not put back yet.
        """
        shape = level0_shape(image)
        box = (request.area.extent or Box(0, *shape[:1], 0, shape[1])).cut(Box(0, shape[0], 0, shape[1]))
        if box is None:
            raise NucSegError("The region lies outside the slide; move it onto the tissue.")
        if box.shape[0] * box.shape[1] > MOST:
            raise NucSegError(
                f"This region has {box.shape[0] * box.shape[1] / 1e6:,.0f} megapixels, and a review takes "
                f"{MOST / 1e6:,.0f}; zoom in or draw a smaller shape."
            )
        if self.saved(slide) is not None:
            raise NucSegError(
                "A review of a part of this slide was saved and not put back; resume it and put it back first."
            )
        zoom = request.model.card.mpp / (request.mpp.value or request.model.card.mpp)
        place = place_of(box, shape, zoom)
        request = replace(request, place=place, area=Area(box, (), TITLE), fields=None)
        self._say("Reading this part of the slide…", False)
        read = partial(_read, slide.result, place, request)
        self._worker = work.start(read, partial(self._on_read, slide, image, request))
        self.changed.emit()

    def resume(self, slide: SlideLayers, image: Image, request: Request, models: Any) -> None:
        """Open the review that was saved and not put back."""
        folder = self.saved(slide)
        if folder is None:
            return
        done = partial(self._on_opened, slide, image, request, models)
        self._archive.open(folder, image, done)

    def _on_read(self, slide: SlideLayers, image: Image, request: Request, outcome: work.Outcome) -> None:
        self._worker = None
        if outcome.error is not None or self._flow.closed or image not in self._viewer.layers:
            if outcome.error is not None:
                self._say(report_error(outcome.error), True)
            self.changed.emit()
            return
        part, session, basis = outcome.value
        results = ResultLayers.create(image, request, Started((1, 1), "", 0, basis))
        results.labels.data = session.labels
        local = part.nuclei.assign(
            centre_y=part.nuclei["centre_y"] - part.place.y0, centre_x=part.nuclei["centre_x"] - part.place.x0
        )
        results.about.update(
            nuclei=local,
            classes=tuple(c.name for c in session.classes),
            colours={c.name: tuple(c.colour) for c in session.classes},
            review_folder=str(slide.result.reviews / CURRENT),
        )
        self._begin(slide, image, results, session, request, part.foreign)
        cut = f" {len(part.foreign):,} that its border cuts stay as they are." if len(part.foreign) else ""
        self._say(f"Review of {len(part.nuclei):,} nuclei.{cut} Put them back when you are done.", False)

    def _on_opened(
        self, slide: SlideLayers, image: Image, request: Request, models: Any, opened: Opened
    ) -> None:
        place = from_list(opened.snapshot.about.get("place"))
        if place is None:
            _give_back(opened)
            self._say("The saved review does not say where it belongs; open it by itself.", True)
            return
        # what the border cuts now: the slide may have been segmented again
        look = partial(_foreign, slide.result, place)
        usable = request_for(opened, request, models)
        self._worker = work.start(look, partial(self._on_looked, slide, image, request, usable, opened))
        self.changed.emit()

    def _on_looked(
        self,
        slide: SlideLayers,
        image: Image,
        request: Request,
        usable: Request | None,
        opened: Opened,
        outcome: work.Outcome,
    ) -> None:
        self._worker = None
        if self._flow.closed or image not in self._viewer.layers or not slide.is_open:
            _give_back(opened)
            self.changed.emit()
            return
        try:
            if outcome.error is not None:
                raise outcome.error
            results, session = restore(opened, image, request, usable)
        except Exception as error:
            _give_back(opened)
            self._say(report_error(error), True)
            self.changed.emit()
            return
        results.about["review_folder"] = str(slide.result.reviews / CURRENT)
        self._archive.expect(session, opened)
        self._begin(slide, image, results, session, usable, outcome.value)
        self._say("The review of this part goes on where you left it.", False)

    def _begin(
        self,
        slide: SlideLayers,
        image: Image,
        results: ResultLayers,
        session: Session,
        request: Request | None,
        foreign: Any,
    ) -> None:
        self.slide, self.results, self._image = slide, results, image
        place = results.place
        slide.hide(place, foreign)
        self._review = self._flow.adopt(results, session, request)
        keeper = keeper_of(self._review)
        if keeper is not None:
            keeper.closed.connect(self.changed.emit)  # from then on it can be resumed
        connect_all(self._removed, self._on_removed)
        self.changed.emit()

    def put_back(self, then: Callable[[], None] | None = None) -> None:
        """Put the review back into the slide, and end it; `then` is called if that went well.

        Raises
        ------
        NucSegError
            Edits are under way.
        """
        results, image = self.results, self._image
        review = None if results is None else results.review
        if results is None or review is None or image is None:
            return
        if review.busy is not None or review.held or review.edits.waiting:
            raise NucSegError(
                review.busy or "Edits wait for the network; put the review back once they are done."
            )
        free = review.hold(PUTTING)
        self._put(review, shot_of(review, results, image), free, then)

    def _put(
        self, review: Review, shot: Snapshot, free: Callable[[], None], then: Callable[[], None] | None
    ) -> None:
        slide = self.slide
        if slide is None:
            return
        self._say("Putting the review back into the slide…", False)
        self._worker = work.start(
            partial(_put, slide.result, shot), partial(self._on_put, review, free, then)
        )
        self.changed.emit()

    def _on_put(
        self, review: Review, free: Callable[[], None], then: Callable[[], None] | None, outcome: work.Outcome
    ) -> None:
        self._worker = None
        free()
        if outcome.error is not None:  # the review is there, and saved
            self._say(report_error(outcome.error), True)
            if self.results is not None and self.results.labels not in self._viewer.layers:
                self._end()
            self.changed.emit()
            return
        put: Put = outcome.value
        slide, results = self.slide, self.results
        keeper = keeper_of(review)
        folder = None if keeper is None else keeper.folder
        waits = keeper is not None and folder is not None and folder in kept_folders()

        def finish() -> None:
            if folder is not None:
                _set_aside(folder)
            self.changed.emit()
            if then is not None:
                then()

        if keeper is not None and waits:
            keeper.closed.connect(finish)
        disconnect_all(self._removed, self._on_removed)
        self._end()
        for layer in [] if results is None else results.layers:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        if slide is not None and slide.is_open:
            slide.renew()
            self._viewer.layers.selection.active = slide.labels
        lost = f" {len(put.lost)} had no room beside nuclei that the border cuts." if put.lost else ""
        self._say(
            f"Put back: the region has {put.nuclei:,} nuclei now, {put.before:,} before.{lost}",
            bool(put.lost),
        )
        if waits:
            self.changed.emit()
        else:
            finish()

    def _on_removed(self, event: Any) -> None:
        """Put back what was reviewed when the user removes its layers; nothing edited, nothing to do."""
        results, image, slide = self.results, self._image, self.slide
        if results is None or slide is None or image is None:
            return
        if event.value == slide.labels:
            self._end()
            disconnect_all(self._removed, self._on_removed)
            self._say("The slide's results were removed; the review is saved and can be resumed.", True)
        elif event.value == results.labels:
            disconnect_all(self._removed, self._on_removed)
            review = self._review
            if self._worker is not None:  # it is being put back already, as it is
                return
            if review is not None and results_edited(review):
                self._put(review, shot_of(review, results, image), lambda: None, None)
            else:
                self._end()
                self.changed.emit()

    def _end(self) -> None:
        if self.slide is not None and self.slide.is_open:
            self.slide.hide(None)
        self.slide = self.results = self._image = self._review = None

    def release(self) -> None:
        """Let go of the viewer; the review is saved, and can be resumed."""
        disconnect_all(self._removed, self._on_removed)


def results_edited(review: Review) -> bool:
    """Return whether a person has done anything in a review."""
    return bool(review.session.can_undo or review.session.can_redo)


def _read(result: SlideResult, place: Box, request: Request) -> tuple[Part, Session, Basis]:
    """Cut a part out of a result and make a session of it; in another thread."""
    from napari_nucseg.session import Session

    part = result.read_region(place)
    basis = make_basis(request)
    classes = _classes(result, request)
    records = records_of(part, classes, len(request.model.card.classes))
    session = Session(part.labels, records, classes, basis.scale, basis.config, basis.fields)
    return part, session, basis


def _classes(result: SlideResult, request: Request) -> tuple[NucleusClass, ...]:
    """Return the classes of a result, those of the model first."""
    card = request.model.card
    if not set(result.classes) & set(card.classes) and result.classes:
        raise NucSegError(
            f"The slide was segmented with the classes {', '.join(result.classes)}, which the model {card.name} "
            "does not know; choose the model that it was segmented with."
        )
    colours = {**result.colours, **{name: tuple(card.colours[name]) for name in card.classes}}
    names = dict.fromkeys([*card.classes, *result.classes])
    return tuple(NucleusClass(name, colours[name]) for name in names)  # type: ignore[arg-type]


def records_of(part: Part, classes: tuple[NucleusClass, ...], n_model: int) -> NDArray[Any]:
    """Return the records of a part of a slide, in its own pixels; ids of others are not given."""
    from napari_nucseg.core.edit import areas
    from napari_nucseg.session.tables import records_from_table

    table = part.nuclei.assign(
        centre_y=part.nuclei["centre_y"] - part.place.y0, centre_x=part.nuclei["centre_x"] - part.place.x0
    )
    if "score" not in table:
        table["score"] = np.nan
    made = records_from_table(table, classes)
    records = np.zeros(len(made), record_dtype(n_model))
    for name in made.dtype.names or ():
        if name != "prob":
            records[name] = made[name]
    shared = min(n_model, made["prob"].shape[1])
    records["prob"] = np.nan
    records["prob"][:, :shared] = made["prob"][:, :shared]
    if "state" in table:
        _take_states(records, table)
    records["area"] = areas(part.labels, records["id"].copy())
    last: NDArray[Any] = np.zeros(1, records.dtype)
    last["id"], last["state"], last["kind"], last["prob"] = part.next_id - 1, State.ABSENT, -1, np.nan
    has_room = part.next_id > 1 and (not len(records) or records["id"][-1] < part.next_id - 1)
    return np.concatenate([records, last]) if has_room else records


def _take_states(records: NDArray[Any], table: pd.DataFrame) -> None:
    states = {state.word: int(state) for state in State}
    origins = {origin.word: int(origin) for origin in Origin}
    records["state"] = [states.get(str(word), int(State.PREDICTED)) for word in table["state"]]
    if "origin" in table:
        records["origin"] = [origins.get(str(word), int(Origin.MODEL)) for word in table["origin"]]
    records["locked"] = records["state"] == State.DRAWN
    records["typed"] = records["state"] >= State.ACCEPTED


def _put(result: SlideResult, shot: Snapshot) -> Put:
    """Write a reviewed part into the slide; in another thread."""
    place = from_list(shot.about["place"])
    if place is None:
        raise NucSegError("The review does not say where in the slide it belongs; it stays as it is.")
    table = full_table(shot)
    table = table.assign(centre_y=table["centre_y"] + place.y0, centre_x=table["centre_x"] + place.x0)
    put = result.put_back(place, np.asarray(shot.labels, np.uint32), table)
    _ = result.centres
    return put


def _foreign(result: SlideResult, place: Box) -> NDArray[np.uint32]:
    """Return the nuclei that a place cuts; in another thread."""
    from napari_nucseg.slides.result import border_ids

    return border_ids(np.asarray(result.levels[0][place.slices]), place, result.shape)


def _give_back(opened: Opened) -> None:
    if opened.store is not None:
        opened.store.close()


def _set_aside(folder: Path) -> None:
    """Rename the folder of a review that was put back, so that it is not offered again."""
    from napari_nucseg.io.session_places import free_name

    with suppress(OSError):
        os.replace(folder, free_name(folder.with_name("put-back.nucseg")))
