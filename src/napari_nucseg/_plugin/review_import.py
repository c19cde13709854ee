"""Import from QuPath into a review: read in one worker, taken in by another, one step of the history."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg._plugin import work
from napari_nucseg._plugin.compute import Cancelled
from napari_nucseg._plugin.flow import report_error
from napari_nucseg._plugin.saving import stem_of

if TYPE_CHECKING:
    from napari_nucseg._plugin.review import Review
    from napari_nucseg.io.qupath import Imported

TRIES = 2
"""Times that centres may find maps missing."""


class Importer:
    """Takes one file at a time into a review, never in the thread of the window.

    Parameters
    ----------
    say : callable (text, alarm)
    changed : callable ()
        Called when an import begins and when it ends.
    """

    def __init__(self, say: Callable[[str, bool], None], changed: Callable[[], None]) -> None:
        self._say, self._changed = say, changed
        self._worker: Any = None
        self._stop = threading.Event()

    @property
    def busy(self) -> bool:
        """Whether an import is under way."""
        return self._worker is not None

    def cancel(self) -> None:
        """Stop; everything is as it was before."""
        self._stop.set()

    def start(self, review: Review, path: Path, image_name: str) -> None:
        """Import a GeoJSON file."""
        self._stop.clear()
        self._say(f"Reading {path.name}…", False)
        self._run(partial(_read, review, path, image_name, self._check), partial(self._on_read, review))

    def _check(self, *_: Any) -> None:
        if self._stop.is_set():
            raise Cancelled

    def _run(self, task: Callable[[], Any], done: Callable[[work.Outcome], None]) -> None:
        self._worker = work.start(task, done)
        self._changed()

    def _on_read(self, review: Review, outcome: work.Outcome) -> None:
        if outcome.error is not None:
            self._end(outcome.error)
        else:
            self._take_in(review, outcome.value)

    def _take_in(self, review: Review, result: Imported, tries: int = 0) -> None:
        session = review.session
        gap = session.missing_maps(result.points)
        if gap is not None:
            if review.maps is None or tries >= TRIES:
                self._end(
                    None, "The network's maps around the points are missing, so that they can't be segmented."
                )
                return
            self._say(f"Computing the maps around {len(result.points):,} points…", False)
            review.maps.start(gap, partial(self._on_maps, review, result, tries))
            return
        for kind in result.classes:  # in the thread of the window, whose legend shows them
            session.class_index(kind.name, kind.colour)
        self._say(f"Taking in {len(result.outlines) + len(result.points):,} nuclei…", False)
        task = partial(
            session.apart,
            partial(session.place, result.outlines, result.points, result.point_kinds, self._check),
        )
        self._run(task, partial(self._on_placed, review, result))

    def _on_maps(self, review: Review, result: Imported, tries: int, error: Exception | None) -> None:
        if error is not None or self._stop.is_set():
            self._end(error or Cancelled())
        else:
            self._take_in(review, result, tries + 1)

    def _on_placed(self, review: Review, imported: Imported, outcome: work.Outcome) -> None:
        review.session.rejoin()
        if outcome.error is not None:
            self._end(outcome.error)
        else:
            self._end(None, f"Imported: {outcome.value}. {imported.summary()}", alarm=False)

    def _end(self, error: Exception | None, text: str = "", alarm: bool = True) -> None:
        self._worker = None
        if isinstance(error, Cancelled):
            text, alarm = "The import was cancelled; everything is as it was.", False
        elif error is not None:
            text = report_error(error)
        self._say(text, alarm)
        self._changed()


def _read(review: Review, path: Path, image_name: str, check: Callable[..., None]) -> Imported:
    from napari_nucseg.io.geojson import object_uuids
    from napari_nucseg.io.qupath import read_geojson

    session = review.session
    known = object_uuids(session.records["id"].tolist(), stem_of(image_name))
    return read_geojson(path, session.labels.shape, known, mpp=review.mpp, progress=check)
