"""Whether labels and records belong together; and what can be restored where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.nuclei import UNCLASSIFIED, Origin, State, centre_pixels, is_live

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_BAND = 512


def disagreement(labels: NDArray[np.uint32], records: NDArray[Any]) -> str | None:
    """Say how labels and records disagree, or return None.

    Every live nucleus must own the pixel of its centre, and every label must be a live nucleus.
    """
    homeless = np.count_nonzero(~_at_home(labels, records))
    unknown = strangers(labels, records)
    found = []
    if homeless:
        found.append(f"{homeless} nuclei of the table have no pixels at their centre")
    if unknown.size:
        found.append(f"{unknown.size} labels of the image (such as {unknown[0]}) are no nuclei of the table")
    return " and ".join(found) or None


def strangers(labels: NDArray[np.uint32], records: NDArray[Any]) -> NDArray[np.uint32]:
    """Return the labels that are no live nuclei, ascending."""
    return np.setdiff1d(present(labels), records["id"][is_live(records)])


def present(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the labels that occur, without 0, ascending."""
    found = np.unique(np.concatenate([np.unique(values) for _, _, values in _runs(labels)]))
    return found[found > 0]


def reconcile(labels: NDArray[np.uint32], records: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """Make labels (in place) and records belong together, keeping as much as there is.

    Returns
    -------
    records : structured (n,)
        By ascending id. Live ones that don't own the pixel of their centre get a centre within the pixels they have,
        or become absent; labels without a record get one of unknown class; those of rejected ones are cleared.
    notes : list of str
        What was lost or made.
    """
    records = records.copy()
    _clear(labels, records["id"][~is_live(records)])
    shown = present(labels)
    unknown = np.setdiff1d(shown, records["id"])
    records = np.concatenate([records, _blank(unknown, records.dtype)])
    empty = ~_at_home(labels, records) & ~np.isin(records["id"], shown)
    records["state"][empty] = State.ABSENT
    records = records[np.argsort(records["id"], kind="stable")]
    _recentre(labels, records, np.flatnonzero(~_at_home(labels, records)))
    notes = []
    if empty.any():
        notes.append(f"{np.count_nonzero(empty)} nuclei have lost their pixels")
    if unknown.size:
        notes.append(f"{unknown.size} nuclei have lost their class and state")
    return records, notes


def _blank(ids: NDArray[np.uint32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return live records of which nothing but the id is known."""
    new = np.zeros(len(ids), dtype)
    new["id"], new["kind"], new["score"], new["prob"] = ids, UNCLASSIFIED, np.nan, np.nan
    new["state"], new["origin"], new["locked"] = State.PREDICTED, Origin.IMPORT, True
    new["y"] = new["x"] = -1  # nowhere yet
    return new


def _clear(labels: NDArray[np.uint32], ids: NDArray[np.uint32]) -> None:
    if not np.intersect1d(present(labels), ids).size:
        return
    for top in range(0, labels.shape[0], _BAND):
        band = labels[top : top + _BAND]
        band[np.isin(band, ids)] = 0


def _recentre(labels: NDArray[np.uint32], records: NDArray[Any], rows: NDArray[np.int64]) -> None:
    """Put centres (in place; ids ascending) into the middle of the nuclei's longest runs, and count their pixels."""
    if not rows.size:
        return
    ids, longest = records["id"][rows], np.zeros(len(rows), np.int64)
    records["area"][rows] = 0
    for first, lengths, values in _runs(labels):
        place = np.minimum(np.searchsorted(ids, values), len(ids) - 1)
        for run in np.flatnonzero(ids[place] == values):
            row = rows[place[run]]
            records["area"][row] += lengths[run]
            if lengths[run] > longest[place[run]]:
                longest[place[run]] = lengths[run]
                y, x = divmod(int(first[run] + lengths[run] // 2), labels.shape[1])
                records["y"][row], records["x"][row] = y, x


def _at_home(labels: NDArray[np.uint32], records: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which records own the pixel of their centre; those that aren't live need none."""
    pixels = centre_pixels(records)
    inside: NDArray[np.bool_] = np.all((pixels >= 0) & (pixels < labels.shape), axis=1)
    y, x = np.where(inside[:, None], pixels, 0).T
    own = labels[y, x] == records["id"]
    at_home: NDArray[np.bool_] = (inside & own) | ~is_live(records)
    return at_home


def _runs(
    labels: NDArray[np.uint32],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]]:
    """Yield flat index, length and label of the runs, band by band; a run ends with its row."""
    width = labels.shape[1]
    for top in range(0, labels.shape[0], _BAND):
        band = labels[top : top + _BAND]
        new = np.ones(band.shape, bool)
        new[:, 1:] = band[:, 1:] != band[:, :-1]
        first = np.flatnonzero(new)
        yield first + top * width, np.diff(first, append=band.size), band.reshape(-1)[first]
