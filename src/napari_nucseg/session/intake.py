"""What comes into a session from outside: shapes and centres of another program, and the nuclei of a new run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.edit import anchor, areas, region_at
from napari_nucseg.core.nuclei import (
    UNCLASSIFIED,
    NucleusClass,
    Origin,
    Outline,
    State,
    centre_pixels,
    is_live,
    is_reviewed,
)
from napari_nucseg.errors import NucSegError
from napari_nucseg.session.ground import PLAUSIBLE, Ground, MapsMissing
from napari_nucseg.session.shapes import inner_point, parts_of
from napari_nucseg.session.store import Store
from napari_nucseg.session.tables import records_from_table

if TYPE_CHECKING:
    import pandas as pd

    from napari_nucseg.session.session import Session

CELL = 512
"""Centres in one square of this side, in level-0 pixels, are grown in one go."""


@dataclass
class Placed:
    """How many nuclei an import has added, changed, found the same, and had no room for."""

    added: int = 0
    changed: int = 0
    same: int = 0
    refused: int = 0

    def __str__(self) -> str:
        parts = [f"{self.added:,} added", f"{self.changed:,} changed", f"{self.same:,} as they were"]
        if self.refused:
            parts.append(f"{self.refused:,} left out, since reviewed nuclei are in their place")
        return ", ".join(parts)


def place(
    session: Session,
    store: Store,
    ground: Ground,
    outlines: Sequence[Outline],
    points: Any,
    kinds: Sequence[str | None],
    progress: Callable[[int, int], None] | None,
) -> Placed:
    """Take in shapes and centres, see `Session.place`."""
    points = np.asarray(points, float).reshape(-1, 2)
    if kinds and len(kinds) != len(points):
        raise NucSegError(f"{len(points)} points came with {len(kinds)} classes; give one for each point.")
    gap = session.missing_maps(points)
    if gap is not None:
        raise MapsMissing(gap)
    total, done = len(outlines) + len(points), 0
    placer = _Placer(session, store)
    for outline in sorted(outlines, key=lambda o: (o.id is None, o.id or 0)):
        placer.shape(outline)
        done += 1
        if progress is not None and done % 256 == 0:
            progress(done, total)
    cells = (points // CELL).astype(int)
    for cell in np.unique(cells, axis=0):
        chosen = np.flatnonzero((cells == cell).all(1))
        names = [kinds[int(k)] for k in chosen] if kinds else [None] * len(chosen)
        placer.centres(ground, points[chosen], names)
        done += len(chosen)
        if progress is not None:
            progress(done, total)
    return placer.placed


class _Placer:
    """Puts one thing after the other into a session."""

    def __init__(self, session: Session, store: Store) -> None:
        self._session, self._store = session, store
        self.placed = Placed()

    def shape(self, outline: Outline) -> None:
        """Take in one shape."""
        store = self._store
        kind = UNCLASSIFIED if outline.kind is None else self._session.class_index(outline.kind)
        row = -1 if outline.id is None else int(store.rows_of(outline.id)[0])
        known = row >= 0 and bool(is_live(store.records[row : row + 1])[0])
        here = store.labels[outline.box.slices]
        size = int(outline.mask.sum())
        if known and store.records["area"][row] == size and (here[outline.mask] == outline.id).all():
            self._same_shape(row, kind)
            return
        mask = outline.mask & self._make_room(here, outline, known)
        if not mask.any():
            self.placed.refused += 1
            return
        mask = parts_of(mask)[0]
        if known:
            y, x = centre_pixels(store.records[row])
            store.write(region_at(store.labels, int(y), int(x)), 0)
        self._write(outline, mask, kind, row)

    def _same_shape(self, row: int, kind: int) -> None:
        if kind in (UNCLASSIFIED, int(self._store.records["kind"][row])):
            self.placed.same += 1
            return
        self._set_kind(np.array([row]), kind)
        self.placed.changed += 1

    def _set_kind(self, rows: NDArray[np.int64], kind: int) -> None:
        records = self._store.records[rows].copy()
        records["kind"], records["typed"] = kind, True
        records["state"] = np.where(records["state"] == State.DRAWN, State.DRAWN, State.EDITED)
        self._store.put(rows, records)

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

    def _write(self, outline: Outline, mask: NDArray[np.bool_], kind: int, row: int) -> None:
        store = self._store
        record = np.zeros(1, store.records.dtype)
        record["id"], record["score"], record["prob"] = store.next_id, np.nan, np.nan
        record["kind"] = UNCLASSIFIED
        if row >= 0:
            record = store.records[row : row + 1].copy()
        elif outline.id is not None and store.next_id <= outline.id < 2**31:
            record["id"] = outline.id
        y, x = centre_pixels(record)[0] - (outline.box.y0, outline.box.x0)
        if row < 0 or not (0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]):
            y, x = inner_point(mask)
            record["y"], record["x"] = y + outline.box.y0, x + outline.box.x0
        record["state"], record["origin"], record["locked"] = State.DRAWN, Origin.IMPORT, True
        record["area"], record["floor"] = mask.sum(), 0
        if kind != UNCLASSIFIED:
            record["kind"], record["typed"] = kind, True
        if row >= 0:
            store.put(np.array([row]), record)
            self.placed.changed += 1
        else:
            store.append(record)
            self.placed.added += 1
        rows, cols = np.nonzero(mask)
        pixels = (rows + outline.box.y0) * store.labels.shape[1] + cols + outline.box.x0
        store.write(pixels, int(record["id"][0]))

    def centres(self, ground: Ground, points: NDArray[np.float64], kinds: Sequence[str | None]) -> None:
        """Take in centres that lie near one another; one in a nucleus only gives that its class."""
        session, store = self._session, self._store
        made = []
        for (y, x), name in zip(points, kinds, strict=True):
            kind = UNCLASSIFIED if name is None else session.class_index(name)
            there = session.at(y, x)
            if there:
                self._same_shape(int(store.rows_of(there)[0]), kind)
                continue
            try:
                session._check_position(y, x)
            except NucSegError:
                self.placed.refused += 1
                continue
            record = session._blank(1)
            record["y"], record["x"], record["state"], record["origin"] = y, x, State.EDITED, Origin.IMPORT
            if kind != UNCLASSIFIED:
                record["kind"], record["typed"] = kind, True
            store.append(record)
            made.append(int(record["id"][0]))
        if not made:
            return
        ground.regrow(np.zeros((0, 2), np.int64), np.array(made))
        least = PLAUSIBLE * ground.typical_area / float(np.prod(ground.scale.zoom))
        for id_ in made:
            record = store.records[store.rows_of(id_)]
            if record["area"][0] < least:
                ground.regrow(centre_pixels(record), record["id"].copy())
        self.placed.added += len(made)


def replace_predicted(
    store: Store,
    ground: Ground,
    classes: Sequence[NucleusClass],
    labels: NDArray[np.uint32],
    nuclei: pd.DataFrame,
    holds: Callable[[NDArray[np.float64]], NDArray[np.bool_]] | None,
) -> None:
    """Put the nuclei of a new run in the place of those nobody has dealt with, see `Session.rerun`."""
    if labels.shape != store.labels.shape:
        raise NucSegError(
            f"The new run is of an image of {labels.shape} pixels, not of {store.labels.shape}."
        )
    records = store.records
    centres = np.stack([records["y"], records["x"]], 1)
    there = np.ones(len(records), np.bool_) if holds is None else holds(centres)
    old = np.flatnonzero((records["state"] == State.PREDICTED) & there)
    gone = records[old].copy()
    flat = store.labels.reshape(-1)
    store.write(np.flatnonzero(_among(flat, gone["id"])), 0)
    gone["state"], gone["area"] = State.ABSENT, 0
    store.put(old, gone)
    fresh = records_from_table(nuclei, classes)
    fresh = _not_known(store, ground, labels, fresh)
    names = fresh["id"].copy()
    fresh["id"] = np.arange(store.next_id, store.next_id + len(fresh))
    lookup = np.zeros(int(labels.max(initial=0)) + 1, np.uint32)
    lookup[names] = fresh["id"]
    drawn = store.labels.copy()
    np.copyto(drawn, lookup[labels], where=store.labels == 0)
    anchor(drawn, fresh["id"].copy(), centre_pixels(fresh))
    fresh["area"] = areas(drawn, fresh["id"].copy())
    pixels = np.flatnonzero(drawn.reshape(-1) != flat)
    store.append(fresh)
    store.write(pixels, drawn.reshape(-1)[pixels])


def _among(flat: NDArray[np.uint32], ids: NDArray[np.uint32]) -> NDArray[np.bool_]:
    lookup = np.zeros(int(max(flat.max(initial=0), ids.max(initial=0))) + 1, np.bool_)
    lookup[ids] = True
    return lookup[flat]


def _not_known(store: Store, ground: Ground, labels: NDArray[np.uint32], fresh: NDArray[Any]) -> NDArray[Any]:
    """Return those nuclei of a new run that are neither kept already nor rejected before."""
    records = store.records
    pixels = centre_pixels(fresh)
    free = store.labels[pixels[:, 0], pixels[:, 1]] == 0
    twins = np.unique(pixels[:, 0] * labels.shape[1] + pixels[:, 1], return_index=True)[1]
    free &= np.isin(np.arange(len(fresh)), twins)
    # what a kept or a rejected nucleus' centre lies in is that nucleus, found again
    marks = centre_pixels(records[is_reviewed(records)])
    again = labels[marks[:, 0], marks[:, 1]]
    free &= ~np.isin(fresh["id"], again)
    rejected = records[records["state"] == State.REJECTED]
    near = ground.typical_radius / float(ground.scale.zoom.mean()) / 2
    for y, x in zip(rejected["y"], rejected["x"], strict=True):
        free &= np.hypot(fresh["y"] - y, fresh["x"] - x) >= near
    kept = np.bincount(
        labels.reshape(-1)[store.labels.reshape(-1) > 0], minlength=int(labels.max(initial=0)) + 1
    )
    size = areas(labels, fresh["id"].copy())
    return fresh[free & (kept[fresh["id"]] <= size / 2)]
