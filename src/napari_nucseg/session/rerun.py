"""What a new run brings into a session: nuclei in the place of those that nobody has dealt with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_nucseg.core.edit import anchor, areas
from napari_nucseg.core.nuclei import NucleusClass, State, centre_pixels
from napari_nucseg.errors import NucSegError
from napari_nucseg.session.ground import Ground, MapsMissing, cells_of
from napari_nucseg.session.store import Store
from napari_nucseg.session.tables import records_from_table

if TYPE_CHECKING:
    import pandas as pd


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
    fresh = records_from_table(nuclei, classes)
    if fresh.dtype != store.records.dtype:
        raise NucSegError(
            f"The new run knows {fresh['prob'].shape[1]} of the review's classes, "
            f"not {store.records['prob'].shape[1]}; use the model that the review began with."
        )
    _clear_predicted(store, holds)
    fresh, refused = _sort_out(store, ground, labels, fresh)
    names = np.concatenate([fresh["id"], refused["id"]])
    fresh["id"] = np.arange(store.next_id, store.next_id + len(fresh))
    lookup = np.zeros(int(labels.max(initial=0)) + 1, np.uint32)
    lookup[names] = np.arange(store.next_id, store.next_id + len(names))
    drawn = store.labels.copy()
    np.copyto(drawn, lookup[labels], where=store.labels == 0)
    anchor(drawn, fresh["id"].copy(), centre_pixels(fresh))
    fresh["area"] = areas(drawn, fresh["id"].copy())
    pixels = np.flatnonzero(drawn.reshape(-1) != store.labels.reshape(-1))
    store.append(fresh)
    store.write(pixels, drawn.reshape(-1)[pixels])
    _give_away(store, ground, lookup[refused["id"]], drawn)
    ground.measure()


def _clear_predicted(store: Store, holds: Callable[[NDArray[np.float64]], NDArray[np.bool_]] | None) -> None:
    """Take away the nuclei that nobody has dealt with, and whose centres lie in the region of the run."""
    records = store.records
    centres = np.stack([records["y"], records["x"]], 1)
    there = np.ones(len(records), np.bool_) if holds is None else holds(centres)
    old = np.flatnonzero((records["state"] == State.PREDICTED) & there)
    gone = records[old].copy()
    store.write(np.flatnonzero(_among(store.labels.reshape(-1), gone["id"])), 0)
    gone["state"], gone["area"] = State.ABSENT, 0
    store.put(old, gone)


def _give_away(store: Store, ground: Ground, names: NDArray[np.uint32], drawn: NDArray[np.uint32]) -> None:
    """Give the pixels of nuclei that were rejected before to their neighbours, where the maps for that are known."""
    pixels = np.flatnonzero(_among(drawn.reshape(-1), names))
    if not pixels.size:
        return
    _, first = np.unique(drawn.reshape(-1)[pixels], return_index=True)
    seeds = np.stack(np.unravel_index(pixels[first], drawn.shape), 1)
    for chosen in cells_of(seeds):
        with suppress(MapsMissing):
            ground.regrow(seeds[chosen], np.zeros(0, np.int64))
    left = pixels[np.isin(store.labels.reshape(-1)[pixels], names)]
    store.write(left, 0)


def _among(flat: NDArray[np.uint32], ids: NDArray[np.uint32]) -> NDArray[np.bool_]:
    lookup = np.zeros(int(max(flat.max(initial=0), ids.max(initial=0))) + 1, np.bool_)
    lookup[ids] = True
    return lookup[flat]


def _sort_out(
    store: Store, ground: Ground, labels: NDArray[np.uint32], fresh: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the nuclei of a new run that are new, and those that were rejected before; the rest is kept already."""
    pixels = centre_pixels(fresh)
    free = store.labels[pixels[:, 0], pixels[:, 1]] == 0
    twins = np.unique(pixels[:, 0] * labels.shape[1] + pixels[:, 1], return_index=True)[1]
    free &= np.isin(np.arange(len(fresh)), twins)
    kept = np.bincount(
        labels.reshape(-1)[store.labels.reshape(-1) > 0], minlength=int(labels.max(initial=0)) + 1
    )
    free &= kept[fresh["id"]] <= areas(labels, fresh["id"].copy()) / 2
    again = _rejected_before(store, ground, labels, fresh)
    return fresh[free & ~again], fresh[free & again]


def _rejected_before(
    store: Store, ground: Ground, labels: NDArray[np.uint32], fresh: NDArray[Any]
) -> NDArray[np.bool_]:
    """Return which nuclei are rejected ones, found again: theirs is the nearest centre, in them or almost."""
    rejected = store.records[store.records["state"] == State.REJECTED]
    if not len(rejected) or not len(fresh):
        return np.zeros(len(fresh), np.bool_)
    near = ground.typical_radius / float(ground.scale.zoom.mean())
    marks = np.stack([rejected["y"], rejected["x"]], 1)
    distance, which = cKDTree(marks).query(np.stack([fresh["y"], fresh["x"]], 1), distance_upper_bound=near)
    y, x = centre_pixels(rejected[np.minimum(which, len(rejected) - 1)]).T
    inside = labels[y, x] == fresh["id"]
    result: NDArray[np.bool_] = (distance < near) & (inside | (distance < near / 2))
    return result
