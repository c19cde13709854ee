"""What comes into a session from another program: shapes and centres."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.edit import region_at
from napari_nucseg.core.nuclei import (
    UNCLASSIFIED,
    Origin,
    Outline,
    State,
    centre_pixels,
    is_live,
)
from napari_nucseg.errors import NucSegError
from napari_nucseg.session.centres import Centres
from napari_nucseg.session.ground import cells_of
from napari_nucseg.session.shapes import inner_point, parts_of
from napari_nucseg.session.store import Store

if TYPE_CHECKING:
    pass


@dataclass
class Placed:
    """How many nuclei an import has added, changed, found the same, and had no room for.

    Among them are `strangers`: they came under the number of a nucleus that lies elsewhere, and got another one.
    """

    added: int = 0
    changed: int = 0
    same: int = 0
    refused: int = 0
    strangers: int = 0

    def __str__(self) -> str:
        parts = [f"{self.added:,} added", f"{self.changed:,} changed", f"{self.same:,} as they were"]
        if self.refused:
            parts.append(
                f"{self.refused:,} left out, since reviewed nuclei are in their place or they were rejected"
            )
        if self.strangers:
            parts.append(f"{self.strangers:,} renumbered, since nuclei elsewhere have their numbers")
        return ", ".join(parts)


@dataclass(frozen=True)
class Target:
    """What an import goes into.

    Attributes
    ----------
    store : Store
    centres : Centres
    class_index : callable
        Gives the index of a class, which it adds if it is new.
    names : sequence of str
        The classes of the model.
    """

    store: Store
    centres: Centres
    class_index: Callable[[str], int]
    names: Sequence[str]


def place(
    into: Target,
    outlines: Sequence[Outline],
    points: Any,
    kinds: Sequence[str | None],
    progress: Callable[[int, int], None] | None,
    predictions: Sequence[Mapping[str, float] | None] = (),
) -> Placed:
    """Take in shapes and centres, see `Session.place`."""
    store, centres = into.store, into.centres
    points = np.asarray(points, float).reshape(-1, 2)
    if kinds and len(kinds) != len(points):
        raise NucSegError(f"{len(points)} points came with {len(kinds)} classes; give one for each point.")
    total, done = len(outlines) + len(points), 0
    cells = cells_of(points)
    pixels = np.clip(np.floor(points + 0.5).astype(np.int64), 0, np.array(store.labels.shape) - 1)
    centres.ground.require_at(pixels[chosen] for chosen in cells)
    placer = _Placer(into)
    shapes = list(zip(outlines, predictions or [None] * len(outlines), strict=True))
    for outline, prediction in sorted(shapes, key=lambda pair: (pair[0].id is None, pair[0].id or 0)):
        placer.shape(outline, prediction)
        done += 1
        if progress is not None and done % 256 == 0:
            progress(done, total)
    for chosen in cells:
        names = [kinds[int(k)] for k in chosen] if kinds else [None] * len(chosen)
        placer.centres(points[chosen], names)
        done += len(chosen)
        if progress is not None:
            progress(done, total)
    return placer.placed


class _Placer:
    """Puts one thing after the other into a session."""

    def __init__(self, into: Target) -> None:
        self._store, self._centres, self._class_index = into.store, into.centres, into.class_index
        self._names = into.names
        self.placed = Placed()

    def shape(self, outline: Outline, prediction: Mapping[str, float] | None) -> None:
        """Take in one shape."""
        store = self._store
        kind = UNCLASSIFIED if outline.kind is None else self._class_index(outline.kind)
        here = store.labels[outline.box.slices]
        row = self._row_of(outline, here)
        if row >= 0 and store.records["state"][row] == State.REJECTED:
            self.placed.refused += 1
            return
        known = row >= 0 and bool(is_live(store.records[row : row + 1])[0])
        size = int(outline.mask.sum())
        same = known and store.records["area"][row] == size and bool((here[outline.mask] == outline.id).all())
        if same and (prediction is None or kind in (UNCLASSIFIED, int(store.records["kind"][row]))):
            self._same_shape(row, kind)
            return
        if known and prediction is not None and store.records["state"][row] != State.PREDICTED:
            self.placed.refused += 1
            return
        if prediction is not None and self._reviewed(here, outline):
            self.placed.refused += 1
            return
        mask = outline.mask & self._make_room(here, outline, known)
        if not mask.any():
            self.placed.refused += 1
            return
        mask = parts_of(mask)[0]
        if known:
            y, x = centre_pixels(store.records[row])
            store.write(region_at(store.labels, int(y), int(x)), 0)
        self._write(outline, mask, kind, row, prediction)

    def _row_of(self, outline: Outline, here: NDArray[np.uint32]) -> int:
        """Return the row of the nucleus whose number a shape has, -1 if there is none in its place.

        Numbers begin at 1 in every run, so that one from another run is told by its place alone.
        """
        row = -1 if outline.id is None else int(self._store.rows_of(outline.id)[0])
        if row < 0:
            return row
        record = self._store.records[row : row + 1]
        if is_live(record)[0]:
            same = bool((here[outline.mask] == outline.id).any())
        else:  # taken away before: only its centre is known
            y, x = centre_pixels(record)[0] - (outline.box.y0, outline.box.x0)
            same = 0 <= y < here.shape[0] and 0 <= x < here.shape[1] and bool(outline.mask[y, x])
        self.placed.strangers += not same
        return row if same else -1

    def _reviewed(self, here: NDArray[np.uint32], outline: Outline) -> bool:
        """Whether a person has dealt with this nucleus under another number, as a new run asks: see `session.rerun`."""
        store, place = self._store, outline.box
        ids, counts = np.unique(here[outline.mask], return_counts=True)
        states = store.records["state"][store.rows_of(ids[ids > 0])]
        if 2 * counts[ids > 0][states != State.PREDICTED].sum() > outline.mask.sum():
            return True
        rejected = store.records[store.records["state"] == State.REJECTED]
        marks = centre_pixels(rejected) - (place.y0, place.x0)
        y, x = marks[((marks >= 0) & (marks < outline.mask.shape)).all(1)].T
        return bool(outline.mask[y, x].any())

    def _same_shape(self, row: int, kind: int) -> None:
        if kind in (UNCLASSIFIED, int(self._store.records["kind"][row])):
            self.placed.same += 1
            return
        self._centres.retype(np.array([row]), kind)
        self.placed.changed += 1

    def _make_room(self, here: NDArray[np.uint32], outline: Outline, known: bool) -> NDArray[np.bool_]:
        """Take predicted nuclei away that the shape covers; return where it may be."""
        store, room = self._store, np.ones(here.shape, np.bool_)
        covered = here[outline.mask]
        for id_ in np.unique(covered[covered > 0]):
            if known and id_ == outline.id:
                continue
            row = store.rows_of(id_)
            record = store.records[row].copy()
            y, x = centre_pixels(record)[0]
            if record["state"][0] != State.PREDICTED:
                room &= here != id_
                continue
            region = region_at(store.labels, int(y), int(x))
            inside = (y - outline.box.y0, x - outline.box.x0)
            hit = all(0 <= v < n for v, n in zip(inside, here.shape, strict=True)) and outline.mask[inside]
            if hit or (covered == id_).sum() > len(region) / 2:
                record["state"], record["area"] = State.ABSENT, 0
                store.put(row, record)
                store.write(region, 0)
            else:
                self._trim(row, record, region, outline)
        return room

    def _trim(
        self, row: NDArray[np.int64], record: NDArray[Any], region: NDArray[np.int64], outline: Outline
    ) -> None:
        """Take the shape's pixels from a nucleus that stays, and what that cuts off."""
        store, width = self._store, self._store.labels.shape[1]
        rows, cols = region // width - outline.box.y0, region % width - outline.box.x0
        inside = (rows >= 0) & (rows < outline.mask.shape[0]) & (cols >= 0) & (cols < outline.mask.shape[1])
        inside[inside] = outline.mask[rows[inside], cols[inside]]
        store.write(region[inside], 0)
        y, x = centre_pixels(record)[0]
        left = region_at(store.labels, int(y), int(x))
        store.write(np.setdiff1d(region[~inside], left), 0)
        record["area"] = len(left)
        store.put(row, record)

    def _write(
        self,
        outline: Outline,
        mask: NDArray[np.bool_],
        kind: int,
        row: int,
        prediction: Mapping[str, float] | None,
    ) -> None:
        store = self._store
        record = self._centres.blank(1)
        if row >= 0:
            record = store.records[row : row + 1].copy()
        elif outline.id is not None and store.next_id <= outline.id < 2**31:
            record["id"] = outline.id
        y, x = centre_pixels(record)[0] - (outline.box.y0, outline.box.x0)
        if row < 0 or not (0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]):
            y, x = inner_point(mask)
            record["y"], record["x"] = y + outline.box.y0, x + outline.box.x0
        record["area"], record["floor"] = mask.sum(), 0
        if prediction is None:
            record["state"], record["origin"], record["locked"] = State.DRAWN, Origin.IMPORT, True
            if kind != UNCLASSIFIED:
                record["kind"], record["typed"] = kind, True
        else:
            record["state"], record["origin"], record["kind"] = State.PREDICTED, Origin.MODEL, kind
            record["locked"], record["typed"] = False, False
            record["score"] = prediction.get("score", np.nan)
            record["prob"] = [prediction.get(f"prob_{name}", np.nan) for name in self._names]
        if row >= 0:
            store.put(np.array([row]), record)
            self.placed.changed += 1
        else:
            store.append(record)
            self.placed.added += 1
        rows, cols = np.nonzero(mask)
        pixels = (rows + outline.box.y0) * store.labels.shape[1] + cols + outline.box.x0
        store.write(pixels, int(record["id"][0]))

    def centres(self, points: NDArray[np.float64], kinds: Sequence[str | None]) -> None:
        """Take in centres that lie near one another; one in a nucleus only gives that its class."""
        store, made = self._store, []
        for (y, x), name in zip(points, kinds, strict=True):
            kind = UNCLASSIFIED if name is None else self._class_index(name)
            there = store.at(y, x)
            if there:
                self._same_shape(int(store.rows_of(there)[0]), kind)
                continue
            try:
                self._centres.check_position(y, x)
            except NucSegError:
                self.placed.refused += 1
                continue
            record = self._centres.blank(1)
            record["y"], record["x"], record["state"], record["origin"] = y, x, State.EDITED, Origin.IMPORT
            if kind != UNCLASSIFIED:
                record["kind"], record["typed"] = kind, True
            store.append(record)
            made.append(int(record["id"][0]))
        if not made:
            return
        self._centres.ground.regrow_all(np.array(made))
        self.placed.added += len(made)
