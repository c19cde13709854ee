"""The one source of truth of a review: nuclei, labels and history of one image.

Views show it and tell it what the person did; the autosave writes down what it says has changed. It knows neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.core.edit import anchor, areas
from napari_nucseg.core.field_cache import FieldCache
from napari_nucseg.core.nuclei import (
    CLASS_COLOURS,
    Change,
    NucleusClass,
    Origin,
    Outline,
    State,
    centre_pixels,
    is_live,
)
from napari_nucseg.core.scale import Scale
from napari_nucseg.errors import NucSegError
from napari_nucseg.session.brush import apply_stroke, merge
from napari_nucseg.session.centres import Centres
from napari_nucseg.session.contents import Contents
from napari_nucseg.session.drag import Drag
from napari_nucseg.session.ground import Ground, cells_of
from napari_nucseg.session.intake import Placed, Target, place
from napari_nucseg.session.rerun import replace_predicted
from napari_nucseg.session.store import History, Step, Store
from napari_nucseg.session.tables import records_from_table

if TYPE_CHECKING:
    import pandas as pd

Result = TypeVar("Result")

NOBODY = 0
"""In place of a thread's number, which is never 0: the session is claimed, and the work has not begun."""


class Session(Contents):
    """Labels, records, classes and history of one image.

    Parameters
    ----------
    labels : uint32 (H, W)
        Level 0; written in place from now on, by the session alone.
    records : (n,) of `core.nuclei.record_dtype`
        One for every nucleus ever made, ids ascending.
    classes : sequence of NucleusClass
        The first ones are the model's, in its order.
    scale : Scale
    config : DecodeConfig
    fields : FieldCache
        May be empty; edits say which part is missing.

    Attributes
    ----------
    changed : Signal(Change)
        After every edit, undo and redo.
    classes_changed : Signal()
        A class has come.

    Notes
    -----
    Every live nucleus has exactly one 4-connected region of its label, which holds its centre pixel; no other
    record has any pixel. Ids are never given twice.
    """

    changed = Signal(Change)
    classes_changed = Signal()

    def __init__(
        self,
        labels: NDArray[np.uint32],
        records: NDArray[Any],
        classes: Sequence[NucleusClass],
        scale: Scale,
        config: DecodeConfig,
        fields: FieldCache,
    ) -> None:
        if labels.shape != scale.level0 or labels.dtype != np.uint32 or not labels.flags.c_contiguous:
            raise NucSegError(
                f"Labels of {labels.dtype} and shape {labels.shape} are no uint32 image of {scale.level0} pixels."
            )
        self._store = Store(labels, records)
        self.ground = Ground(self._store, scale, config, fields)
        self._centres = Centres(self._store, self.ground)
        self._history = History()
        self._classes = tuple(classes)
        self._drag: Drag | None = None
        self._apart: int | None = None
        self._untold: list[Change] = []

    @classmethod
    def from_table(
        cls,
        labels: NDArray[np.uint32],
        nuclei: pd.DataFrame,
        classes: Sequence[NucleusClass],
        scale: Scale,
        config: DecodeConfig,
        fields: FieldCache,
    ) -> Session:
        """Start from the result of a run, see `inference.Result`.

        Parameters
        ----------
        labels : uint32 (H, W)
            Taken over, not copied. Where its grid is not the model's, stray pixels that are not connected to
            their nucleus' centre are cleared.
        nuclei : DataFrame
            Sorted by id; classes must be among `classes`.
        """
        records = records_from_table(nuclei, classes)
        if not scale.is_identity and len(records):
            kept = anchor(labels, records["id"].copy(), centre_pixels(records))
            records = records[kept]
        records["area"] = areas(labels, records["id"].copy())
        return cls(labels, records, classes, scale, config, fields)

    def class_index(self, name: str, colour: tuple[int, int, int] | None = None) -> int:
        """Return the index of a class, upper and lower case alike, which is added if it is new."""
        for k, known in enumerate(self._classes):
            if known.name.casefold() == name.casefold():
                return k
        colour = colour or CLASS_COLOURS[len(self._classes) % len(CLASS_COLOURS)]
        self._classes = (*self._classes, NucleusClass(name, colour))
        self.classes_changed.emit()
        return len(self._classes) - 1

    def forget_classes(self, known: int) -> None:
        """Forget the classes beyond the first `known`, which came with an import that was given up."""
        if len(self._classes) > known:
            self._classes = self._classes[:known]
            self.classes_changed.emit()

    # ---- edits ------------------------------------------------------------------------------------------

    def add(self, y: float, x: float, kind: int | None = None) -> int:
        """Add a nucleus at a level-0 position and return its id; inside another one it splits that.

        Parameters
        ----------
        kind : int, optional
            Its class; the model's opinion by default.

        Raises
        ------
        NucSegError
            The position is outside the image, a centre already, or in a locked nucleus.
        MapsMissing
        """
        self._centres.check_position(y, x)
        if kind is not None:
            self._check_kind(kind)
        with self._edit("Add"):
            self._centres.mark_split(self.at(y, x))
            record = self._centres.blank(1)
            record["y"], record["x"], record["state"], record["origin"] = y, x, State.EDITED, Origin.CLICK
            if kind is not None:
                record["kind"], record["typed"] = kind, True
            self._store.append(record)
            self.ground.regrow(np.zeros((0, 2), np.int64), record["id"])
        return int(record["id"][0])

    def move(self, id_: int, y: float, x: float) -> None:
        """Move a centre; the nucleus is grown anew from there.

        Raises
        ------
        NucSegError
            As of `add`, or the nucleus is locked and the position outside of it.
        MapsMissing
        """
        with self._edit("Move"):
            self._centres.move(self._live_rows([id_]), np.array([[y, x]], float))

    def drag(self, ids: Any) -> Drag:
        """Begin to move centres together; see `Drag`."""
        self._check_alone()
        rows = self._live_rows(ids)
        if self._drag is not None:
            self._drag.end()
        self._drag = Drag(self._store, self._centres, rows, self._tell, self._on_dragged)
        return self._drag

    def reject(self, ids: Any) -> None:
        """Say that these are no nuclei: their pixels go to neighbours or become background.

        Raises
        ------
        MapsMissing
        """
        with self._edit("Delete"):
            self._centres.take_away(self._live_rows(ids), State.REJECTED)

    def accept(self, ids: Any) -> None:
        """Say that these nuclei are right; a rejected one comes back.

        Raises
        ------
        MapsMissing
        NucSegError
            A rejected nucleus cannot come back, since its centre is another's now.
        """
        with self._edit("Accept"):
            rows = self._known(ids)
            self._restore(rows[self._store.records["state"][rows] == State.REJECTED])
            fresh = rows[self._store.records["state"][rows] == State.PREDICTED]
            records = self._store.records[fresh].copy()
            records["state"] = State.ACCEPTED
            self._store.put(fresh, records)

    def retype(self, ids: Any, kind: int) -> None:
        """Set the class of nuclei."""
        self._check_kind(kind)
        with self._edit(f"Set class {self._classes[kind].name}"):
            self._centres.retype(self._live_rows(ids), kind)

    def retype_class(self, old: int, new: int) -> int:
        """Give all live nuclei of one class another one; return how many there were."""
        records = self._store.records
        ids = records["id"][is_live(records) & (records["kind"] == old)]
        if len(ids):
            self.retype(ids, new)
        return len(ids)

    def merge(self, ids: Any) -> int:
        """Make one nucleus of several; it keeps the id of the largest, and its shape is locked.

        Raises
        ------
        NucSegError
            There are fewer than two, or they lie too far apart, or something lies between them.
        """
        rows = np.unique(self._live_rows(ids))
        with self._edit("Merge"):
            return merge(self._store, self.ground, rows)

    def paint(self, pixels: NDArray[np.int64], values: Any) -> None:
        """Take in a stroke of a brush: these flat pixels are of these labels now.

        Parameters
        ----------
        pixels : int64 (p,)
        values : uint32 (p,) or int
            0 erases. A label that no live nucleus has makes a new one.

        Notes
        -----
        A nucleus that was painted or erased keeps its shape from now on (locked). A part that was cut off becomes a
        nucleus of its own, unless it is a mere speck.
        """
        pixels = np.asarray(pixels, np.int64)
        labels = np.broadcast_to(np.asarray(values, np.uint32), pixels.shape)
        with self._edit("Paint"):
            apply_stroke(self._store, self.ground, pixels, labels)

    def unlock(self, ids: Any) -> None:
        """Let go of drawn shapes: the nuclei are grown anew from their centres.

        Raises
        ------
        MapsMissing
        """
        with self._edit("Unlock"):
            rows = self._live_rows(ids)
            rows = rows[self._store.records["locked"][rows]]
            pixels = centre_pixels(self._store.records[rows])
            self.ground.require(pixels[chosen] for chosen in cells_of(pixels))
            for row in rows:
                record = self._store.records[row : row + 1].copy()
                record["locked"], record["state"] = False, State.EDITED
                self._store.put(np.array([row]), record)
                self.ground.regrow(centre_pixels(record), record["id"])

    def place(
        self,
        outlines: Sequence[Outline],
        points: Any = (),
        kinds: Sequence[str | None] = (),
        progress: Callable[[int, int], None] | None = None,
        predictions: Sequence[Mapping[str, float] | None] = (),
    ) -> Placed:
        """Take in nuclei from outside: shapes, locked unless they are predictions, and centres, which are grown.

        Parameters
        ----------
        outlines : sequence of Outline
            One whose id is known replaces that nucleus' shape; others replace the predicted nuclei they cover.
        points : (n, 2) float
            Level-0 positions of centres.
        kinds : sequence of str or None
            Their classes, as many as points.
        progress : callable (done, total), optional
            An error that it raises stops the import, and everything is as before.
        predictions : sequence of (mapping or None), optional
            As many as outlines: `score` and `prob_<class>` of those that nobody has reviewed. They stay predictions,
            and replace nothing that was reviewed.

        Raises
        ------
        MapsMissing
            For the points; nothing is changed then.
        """
        known = len(self._classes)
        try:
            with self._edit("Import"):
                names = [c.name for c in self._classes[: self._store.records["prob"].shape[1]]]
                into = Target(self._store, self._centres, self.class_index, names)
                return place(into, outlines, points, kinds, progress, predictions)
        except BaseException:
            self.forget_classes(known)
            raise

    def rerun(
        self,
        labels: NDArray[np.uint32],
        nuclei: pd.DataFrame,
        holds: Callable[[NDArray[np.float64]], NDArray[np.bool_]] | None = None,
    ) -> None:
        """Take in a new run: what a person has dealt with stays, predictions are replaced.

        Parameters
        ----------
        labels : uint32 (H, W)
        nuclei : DataFrame
            Of the new run.
        holds : callable (n, 2) -> bool (n,), optional
            Whether centres lie in the region of the run; by default it is the whole image.
        """
        with self._edit("Run"):
            replace_predicted(self._store, self.ground, self._classes, labels, nuclei, holds)

    def claim(self) -> None:
        """Let nobody edit but who works `apart`, until `rejoin`; called in the thread of all the other edits.

        A drag under way ends where it is.

        Raises
        ------
        NucSegError
            The session is claimed already.
        """
        self._check_alone()
        if self._drag is not None:
            self._drag.end()
        self._apart = NOBODY

    def apart(self, work: Callable[[], Result]) -> Result:
        """Do a long edit in the calling thread, while others may look on but not edit.

        It needs a `claim` before, and ends with `rejoin`.

        Parameters
        ----------
        work : callable
            Calls one method of this session.

        Raises
        ------
        NucSegError
            The session was not claimed, or another thread works on it.
        """
        if self._apart is None:
            raise NucSegError("The session was not claimed for work in another thread; call claim first.")
        if self._apart != NOBODY:
            self._check_alone()
        self._apart = threading.get_ident()
        return work()

    @property
    def is_apart(self) -> bool:
        """Whether an edit is under way that is told only at `rejoin`."""
        return self._apart is not None

    def rejoin(self) -> None:
        """Tell what was done `apart`, in the thread of those who listen, and let all edit again."""
        self._apart = None
        while self._untold:
            self.changed.emit(self._untold.pop(0))

    # ---- history ----------------------------------------------------------------------------------------

    @property
    def can_undo(self) -> str | None:
        """Name of the edit that `undo` takes back."""
        return self._history.done[-1].name if self._history.done else None

    @property
    def can_redo(self) -> str | None:
        """Name of the edit that `redo` does again."""
        return self._history.undone[-1].name if self._history.undone else None

    def undo(self) -> Change | None:
        """Take the last edit back; None if there is none."""
        self._check_alone()
        if self._drag is not None:
            self._drag.end()
        if not self._history.done:
            return None
        step = self._history.done.pop()
        self._store.revert(step)
        self._history.undone.append(step)
        return self._tell(self._store.change(step, f"Undo {step.name}"))

    def redo(self) -> Change | None:
        """Do the last undone edit again; None if there is none."""
        self._check_alone()
        if self._drag is not None or not self._history.undone:
            return None
        step = self._history.undone.pop()
        self._store.repeat(step)
        self._history.done.append(step)
        return self._tell(self._store.change(step, f"Redo {step.name}"))

    # ---- inside -----------------------------------------------------------------------------------------

    @contextmanager
    def _edit(self, name: str) -> Iterator[None]:
        """Do all of an edit or, after an error, nothing."""
        self._check_alone()
        if self._drag is not None:
            self._drag.end()
        with self._store.logged(name) as made:
            yield
        if self._remember(made[0]):
            self._tell(self._store.change(made[0]))

    def _on_dragged(self, step: Step) -> None:
        self._drag = None
        self._remember(step)

    def _remember(self, step: Step) -> bool:
        """Add a step to the history, unless it changed nothing; return whether it did."""
        if not step.is_empty:
            self._history.add(step)
        return not step.is_empty

    def _restore(self, rows: NDArray[np.int64]) -> None:
        """Bring rejected nuclei back: drawn ones in their shapes, as far as the history knows them, others grown."""
        records = self._store.records[rows]
        shapes = [
            self._history.erased(int(row), int(id_)) for row, id_ in zip(rows, records["id"], strict=True)
        ]
        pixels = centre_pixels(records)[[shape is None for shape in shapes]]
        self.ground.require_at(pixels[chosen] for chosen in cells_of(pixels))
        for row, shape in zip(rows, shapes, strict=True):
            self._centres.restore(int(row), shape)

    def _check_alone(self) -> None:
        if self._apart not in (None, threading.get_ident()):
            raise NucSegError("An import or a run is being taken in; wait for its end.")

    def _tell(self, change: Change) -> Change:
        if self._apart is None:
            self.changed.emit(change)
        else:
            self._untold.append(change)
        return change

    def _check_kind(self, kind: int) -> None:
        if not 0 <= kind < len(self._classes):
            raise NucSegError(f"There is no class number {kind + 1}; there are {len(self._classes)}.")
