"""Import from QuPath into a review: read in one worker, taken in by another, one step of the history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg._plugin import work
from napari_nucseg._plugin.compute import Cancelled, Ticker
from napari_nucseg._plugin.flow import report_error
from napari_nucseg._plugin.place import from_list
from napari_nucseg._plugin.results import KEY
from napari_nucseg._plugin.review_busy import once_free, work_apart
from napari_nucseg._plugin.saving import stem_of
from napari_nucseg.core.nuclei import Origin
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg._plugin.review import Review
    from napari_nucseg.core.tiling import Box
    from napari_nucseg.io.qupath import Imported

TRIES = 2
"""Times that centres may find maps missing."""

BUSY = "An import is under way; wait for its end, or cancel it."
NO_MAPS = (
    "The network's maps around the points are missing, so that they can't be segmented; "
    "add the model of this review from a folder."
)


class Importer:
    """Takes one file at a time into a review, never in the thread of the window; meanwhile nobody edits.

    Parameters
    ----------
    say : callable (text, alarm)
    changed : callable ()
        Called when an import begins and when it ends.

    Attributes
    ----------
    ticker : Ticker
        How far the import is.
    """

    def __init__(self, say: Callable[[str, bool], None], changed: Callable[[], None]) -> None:
        self._say, self._changed = say, changed
        self._review: Review | None = None
        self._free: Callable[[], None] = lambda: None
        self._worker: Any = None
        self._maps: int | None = None
        self._is_removed = False
        self._classes: int | None = None
        self.ticker = Ticker()

    @property
    def busy(self) -> bool:
        """Whether an import is under way."""
        return self._review is not None

    @property
    def why_busy(self) -> str | None:
        """Why nothing else can begin, None where it can."""
        return BUSY if self.busy else None

    def cancel(self) -> None:
        """Stop; everything is as it was before."""
        self.ticker.stop()
        if self._review is not None and self._review.maps is not None and self._maps is not None:
            self._review.maps.cancel(self._maps)

    def start(self, review: Review, path: Path, image_name: str) -> None:
        """Import a GeoJSON file."""
        if review.busy is not None:
            self._say(review.busy, True)
            return
        self._review, self._free, self._is_removed = review, review.hold(BUSY), False
        review.listeners.append(self)
        self.ticker = Ticker("Reading", "%", "Stop the import; everything is as it was before.")
        self._say(f"Reading {path.name}…", False)
        self._worker = work.start(partial(_read, review, path, image_name, self._share), self._on_read)
        self._changed()

    def session_began(self, review: Review) -> None:
        """See `SessionListener`."""

    def session_ended(self, review: Review) -> None:
        """Stop: nobody would see what comes of it; see `SessionListener`."""
        self._is_removed = True
        self.cancel()

    def _share(self, share: float) -> None:
        """Tell how much of the file is read."""
        self._count(round(100 * share), 100)

    def _count(self, done: int, total: int) -> None:
        if self.ticker.stopped:
            raise Cancelled
        self.ticker.done, self.ticker.total = done, total

    def _on_read(self, outcome: work.Outcome) -> None:
        if outcome.error is not None:
            self._end(outcome.error)
        else:
            self._take_in(outcome.value)

    def _take_in(self, result: Imported, tries: int = 0) -> None:
        review = self._review
        if review is None or self.ticker.stopped:
            self._end(Cancelled())
            return
        gaps = review.session.missing_maps(result.points)
        if gaps and (review.maps is None or tries >= TRIES):
            self._end(NucSegError(NO_MAPS))
        elif gaps and review.maps is not None:
            self.ticker.start("Computing the maps", "")
            self._say(f"Computing the maps around {len(result.points):,} points…", False)
            self._maps = review.maps.start(gaps, partial(self._on_maps, result, tries))
        else:
            # Edits that have waited for maps may be under way, and strokes as well.
            once_free(lambda: review.held, partial(self._place, review, result))

    def _on_maps(self, result: Imported, tries: int, error: Exception | None) -> None:
        self._maps = None
        if error is not None:
            self._end(error)
        else:
            self._take_in(result, tries + 1)

    def _place(self, review: Review, result: Imported) -> None:
        if self.ticker.stopped:
            self._end(Cancelled())
            return
        session = review.session
        self._classes = len(session.classes)
        for kind in result.classes:  # in the thread of the window, whose legend shows them
            session.class_index(kind.name, kind.colour)
        self.ticker.start("Taking in", "nuclei")
        self._say(f"Taking in {len(result.outlines) + len(result.points):,} nuclei…", False)
        place = partial(
            session.place,
            result.outlines, result.points, result.point_kinds, self._count, result.predictions,
        )  # fmt: skip
        try:
            self._worker = work_apart(review, BUSY, place, partial(self._on_placed, result))
        except NucSegError as error:
            self._end(error)

    def _on_placed(self, imported: Imported, outcome: work.Outcome) -> None:
        if outcome.error is not None:
            self._end(outcome.error)
        else:
            text = f"Imported: {outcome.value}. {imported.summary()}"
            missing = 0 if self._review is None else _missing(self._review, imported)
            if missing:
                text += f" {missing:,} nuclei of this review are not in the file and were kept."
            self._end(None, text, alarm=False)

    def _end(self, error: Exception | None, text: str = "", alarm: bool = True) -> None:
        review, self._review, self._worker = self._review, None, None
        if review is not None:
            review.listeners.remove(self)
            if error is not None and self._classes is not None:
                review.session.forget_classes(self._classes)
        self._classes = None
        self._free()
        if self._is_removed:
            text, alarm = "The review was removed; nothing was imported.", True
        elif isinstance(error, Cancelled):
            text, alarm = "The import was cancelled; everything is as it was.", False
        elif error is not None:
            text = report_error(error)
        self._say(text, alarm)
        self._changed()


def _missing(review: Review, imported: Imported) -> int:
    """Return how many nuclei a file of this review lacks, such as those deleted in QuPath; 0 if it is of no review."""
    ids = [outline.id for outline in imported.outlines if outline.id is not None]
    records = review.session.records[review.session.live]
    own = records["origin"] != Origin.IMPORT
    return int((~np.isin(records["id"][own], ids)).sum()) if ids else 0


def _read(review: Review, path: Path, image_name: str, progress: Callable[[float], None]) -> Imported:
    from napari_nucseg.io.geojson_objects import object_uuids
    from napari_nucseg.io.qupath import read_geojson

    session = review.session
    known = object_uuids(session.records["id"].tolist(), stem_of(image_name))
    about = review.labels.metadata[KEY]
    place = from_list(about.get("place"))
    if place is None:
        return read_geojson(path, session.labels.shape, known, mpp=review.mpp, progress=progress)
    rows, cols = about["image_shape"]
    return _within(read_geojson(path, (rows, cols), known, mpp=review.mpp, progress=progress), place)


def _within(imported: Imported, place: Box) -> Imported:
    """Return what lies wholly in a part of an image, in its pixels."""
    held = [outline.box.cut(place) == outline.box for outline in imported.outlines]
    outlines = [replace(o, box=o.box.relative(place)) for o in compress(imported.outlines, held)]
    predictions = tuple(compress(imported.predictions, held))
    points = np.asarray(imported.points, float).reshape(-1, 2) - (place.y0, place.x0)
    inside = np.all((points >= 0) & (points <= np.array(place.shape) - 1), axis=1).reshape(-1)
    kinds = tuple(compress(imported.point_kinds, inside.tolist()))
    beyond = len(imported.outlines) - len(outlines) + int((~inside).sum())
    skipped = {**imported.skipped, **({"outside the region": beyond} if beyond else {})}
    return replace(
        imported,
        outlines=outlines,
        points=points[inside],
        point_kinds=kinds,
        predictions=predictions,
        skipped=skipped,
    )
