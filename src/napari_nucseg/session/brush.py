"""Shapes that a person makes: strokes of a brush, and several nuclei joined into one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.edit import bounds
from napari_nucseg.core.nuclei import UNCLASSIFIED, Origin, State, centre_pixels, is_live
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.session.ground import Ground
from napari_nucseg.session.shapes import inner_point, joined, parts_of
from napari_nucseg.session.store import Store

SPECK = 9
"""Pixels up to which a part that was cut off a nucleus is dropped."""


def apply_stroke(store: Store, ground: Ground, pixels: NDArray[np.int64], values: NDArray[np.uint32]) -> None:
    """Write a stroke, and bring the nuclei that it touched in line with it; see `Session.paint`."""
    before = store.labels.reshape(-1)[pixels]
    changed = before != values
    pixels, before, values = pixels[changed], before[changed], values[changed].copy()
    if not pixels.size:
        return
    old, known = np.unique(before[before > 0]), len(store.records)
    _name_newcomers(store, values)
    painted = np.unique(values[values > 0])
    touched = np.union1d(old, painted)
    areas = _areas(store, ground, touched, pixels, values)
    store.write(pixels, values)
    shaped = np.union1d(before[values == 0], painted)
    for id_, area in zip(touched, areas, strict=True):
        _settle(store, int(id_), area, bool(np.isin(id_, shaped)), pixels[values == id_])
    fresh = store.records[known:]
    for id_ in np.union1d(painted, fresh["id"][is_live(fresh)]):
        if is_live(store.records[store.rows_of(id_)])[0]:
            ground.describe(int(id_))


def redraw(store: Store, ground: Ground, row: int, pixels: NDArray[np.int64]) -> None:
    """Give a nucleus that was taken away the shape back that a person drew, but for what other drawn ones hold now."""
    record = store.records[row : row + 1].copy()
    record["state"], record["locked"] = State.DRAWN, True
    store.put(np.array([row]), record)
    flat = store.labels.reshape(-1)
    owners = store.rows_of(flat[pixels])
    free = (owners < 0) | ~store.records["locked"][owners]
    apply_stroke(store, ground, pixels[free], np.full(int(free.sum()), record["id"][0], np.uint32))


def _areas(
    store: Store,
    ground: Ground,
    ids: NDArray[np.uint32],
    pixels: NDArray[np.int64],
    values: NDArray[np.uint32],
) -> list[Box]:
    """Return for each nucleus the box of what it has and of what a stroke gives it."""
    order = np.argsort(values, kind="stable")
    begins, ends = (np.searchsorted(values[order], ids, side) for side in ("left", "right"))
    flat, out = store.labels.reshape(-1), []
    width = store.labels.shape[1]
    records = store.records[store.rows_of(ids)]
    centres = centre_pixels(records)
    for (y, x), id_, begin, end in zip(centres, ids, begins, ends, strict=True):
        own = [pixels[order[begin:end]]]
        if y >= 0 and flat[y * width + x] == id_:
            own.append(ground.region(int(y), int(x)))
        out.append(bounds(np.concatenate(own), width))
    return out


def _name_newcomers(store: Store, values: NDArray[np.uint32]) -> None:
    """Make records for painted labels that no live nucleus has, and replace labels that were given before."""
    present = np.unique(values[values > 0])
    rows = store.rows_of(present)
    live = (rows >= 0) & is_live(store.records[rows]) if len(store.records) else rows >= 0
    places = [values == label for label in present[~live]]  # before any of them is renamed
    for label, place in zip(present[~live], places, strict=True):
        new = max(int(label), store.next_id) if int(label) < 2**31 else store.next_id
        values[place] = new
        _newcomer(store, new)


def _newcomer(store: Store, id_: int) -> None:
    record = np.zeros(1, store.records.dtype)
    record["id"], record["kind"], record["score"], record["prob"] = id_, UNCLASSIFIED, np.nan, np.nan
    record["y"] = record["x"] = -1
    record["state"], record["origin"] = State.DRAWN, Origin.BRUSH
    store.append(record)


def _settle(store: Store, id_: int, area: Box, drawn: bool, painted: NDArray[np.int64]) -> None:
    """Make one region of what a stroke has left of a nucleus; parts cut off become nuclei, or go if they are specks."""
    mask = store.labels[area.slices] == id_
    row = store.rows_of(id_)
    record = store.records[row].copy()
    if not mask.any():
        record["state"], record["area"], record["locked"] = State.REJECTED, 0, False
        store.put(row, record)
        return
    parts = parts_of(mask)
    y, x = centre_pixels(record)[0] - (area.y0, area.x0)
    inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
    keep = next((k for k, part in enumerate(parts) if inside and part[y, x]), 0)
    moved = not (inside and parts[keep][y, x])
    for part in parts[:keep] + parts[keep + 1 :]:
        _cut_off(store, record, _flat(part, area, store), drawn, painted)
    if moved:
        py, px = inner_point(parts[keep])
        record["y"], record["x"] = py + area.y0, px + area.x0
    size = parts[keep].sum()
    if moved or (drawn and size != record["area"][0]):  # a stroke elsewhere does not touch it
        record["state"], record["locked"] = State.DRAWN, True
    record["area"] = size
    store.put(row, record)


def _flat(part: NDArray[np.bool_], area: Box, store: Store) -> NDArray[np.int64]:
    rows, cols = np.nonzero(part)
    return (rows + area.y0) * store.labels.shape[1] + cols + area.x0


def _cut_off(
    store: Store, parent: NDArray[Any], pixels: NDArray[np.int64], drawn: bool, painted: NDArray[np.int64]
) -> None:
    """Make a nucleus of a part; one that was painted all by itself has nothing of its parent but the label."""
    if not drawn or len(pixels) <= SPECK:
        store.write(pixels, 0)
        return
    id_ = store.next_id
    if np.isin(pixels, painted).all():
        _newcomer(store, id_)
        record = store.records[store.rows_of(id_)].copy()
    else:
        record = parent.copy()
        record["id"] = id_
        store.append(record)
    rows, cols = np.divmod(pixels, store.labels.shape[1])
    mask = np.zeros((np.ptp(rows) + 1, np.ptp(cols) + 1), np.bool_)
    mask[rows - rows.min(), cols - cols.min()] = True
    y, x = inner_point(mask)
    record["y"], record["x"], record["area"] = y + rows.min(), x + cols.min(), len(pixels)
    record["state"], record["origin"], record["locked"] = State.DRAWN, Origin.BRUSH, True
    store.put(store.rows_of(id_), record)
    store.write(pixels, id_)


def merge(store: Store, ground: Ground, rows: NDArray[np.int64]) -> int:
    """Make one nucleus of several, see `Session.merge`."""
    if len(rows) < 2:
        raise NucSegError("One nucleus alone cannot be merged; select two or more that belong together.")
    records = store.records[rows].copy()
    width = store.labels.shape[1]
    regions = [ground.region(int(y), int(x)) for y, x in centre_pixels(records)]
    height = store.labels.shape[0]
    area = bounds(np.concatenate(regions), width).grown(2, (height, width))
    labels = store.labels[area.slices]
    mask = np.isin(labels, records["id"])
    longest = 2 * ground.typical_radius / float(ground.scale.zoom.mean())
    whole = joined(mask, labels == 0, longest)
    if whole is None:
        raise NucSegError(
            f"Nuclei {', '.join(str(i) for i in records['id'][:4])} do not touch and something lies between them, or "
            f"they are more than {longest:.0f} pixels apart; select neighbours."
        )
    largest = int(records["area"].argmax())
    y, x = inner_point(whole)
    survivor = records[largest : largest + 1].copy()
    weights = records["area"] / max(1, records["area"].sum())
    survivor["y"], survivor["x"], survivor["area"] = y + area.y0, x + area.x0, whole.sum()
    survivor["state"], survivor["origin"], survivor["locked"] = State.DRAWN, Origin.MERGE, True
    if not np.isnan(records["prob"]).any():
        survivor["prob"] = (records["prob"] * weights[:, None]).sum(0)
        survivor["kind"] = survivor["prob"].argmax()
    if records["typed"].any():  # the word of a person counts, and of the largest nucleus that has it
        said = records[records["typed"]]
        survivor["kind"], survivor["typed"] = said["kind"][said["area"].argmax()], True
    records["state"], records["area"], records["locked"] = State.ABSENT, 0, False
    records[largest] = survivor[0]
    store.put(rows, records)
    r, c = np.nonzero(whole)
    store.write((r + area.y0) * width + c + area.x0, survivor["id"][0])
    return int(survivor["id"][0])
