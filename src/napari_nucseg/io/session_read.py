"""Reading of a session's folder: replay of the journals over the checkpoint, checks, and rescue of damaged ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.session_check import disagreement, reconcile
from napari_nucseg.io.session_files import WAY_OUT, SessionDamaged
from napari_nucseg.io.session_format import (
    LABELS,
    TABLE,
    Manifest,
    Snapshot,
    first_free_id,
    read_manifest,
)
from napari_nucseg.io.session_journal import Entry, check_entry, read_journal
from napari_nucseg.io.session_labels import LabelFiles
from napari_nucseg.io.session_runs import apply_runs
from napari_nucseg.io.session_table import Table, read_table

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Loaded:
    """A session as it was read.

    Attributes
    ----------
    entries : list of Entry
        Those of the journals.
    number : int
        Of the next entry.
    journal_size : int
        Bytes of the last journal that count.
    """

    snapshot: Snapshot
    manifest: Manifest
    entries: list[Entry]
    number: int
    journal_size: int


def read_session(folder: str | Path, shape: tuple[int, int] | None = None) -> Snapshot:
    """Read a session without writing anything; meant for folders that can't be written.

    Parameters
    ----------
    folder
        Of a session that no other process has open.
    shape
        Height and width of the image it is read for, if that is known.

    Raises
    ------
    NucSegError
        No session, one of a newer version, or of an image of another shape.
    SessionDamaged
        A file is missing, cut short or changed, or labels and table disagree; see `salvage`.
    """
    return load(Path(folder), shape).snapshot


def load(folder: Path, shape: tuple[int, int] | None) -> Loaded:
    """Read a session; see `read_session`."""
    manifest = read_manifest(folder)
    _check_shape(folder, manifest, shape)
    entries, number, size = _read_journals(folder, manifest)
    labels = LabelFiles(folder / LABELS, manifest.shape).read_all()
    classes = _replay_classes(manifest, entries)
    # the table may be newer than session.json, if a checkpoint was cut off; the header shows the model's classes only
    table = Table(read_table(folder / TABLE, manifest.dtype, classes, manifest.rows))
    for entry in entries:
        _apply(labels, table, entry)
    snapshot = _snapshot(labels, table, classes, manifest)
    wrong = disagreement(labels, snapshot.records)
    if wrong:
        raise SessionDamaged(f"{folder} does not fit together ({wrong}){WAY_OUT}")
    manifest = replace(manifest, classes=classes, next_id=snapshot.next_id)
    return Loaded(snapshot, manifest, entries, number, size)


def salvage(folder: str | Path) -> tuple[Snapshot, list[str]]:
    """Read as much as there is of a damaged session; nothing in the folder is changed.

    Returns
    -------
    snapshot : Snapshot
        Its labels and records belong together; to be saved to a new folder.
    notes : list of str
        What was lost, a sentence or phrase each.

    Raises
    ------
    NucSegError
        `session.json` can't be read, or is of a newer version.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    notes: list[str] = []
    labels = LabelFiles(folder / LABELS, manifest.shape).read_all(notes)
    entries = _salvage_journals(folder, manifest, notes)
    classes = _replay_classes(manifest, entries)
    try:
        records = read_table(folder / TABLE, manifest.dtype, classes, manifest.rows, lenient=True)
        if len(records) < manifest.rows:
            notes.append(f"{folder / TABLE} has lost {manifest.rows - len(records)} rows")
    except SessionDamaged as error:
        notes.append(str(error))
        records = np.zeros(0, manifest.dtype)
    records = _salvage_replay(labels, records, entries)
    records, found = reconcile(labels, records)
    return _snapshot(labels, Table(records), classes, manifest), notes + found


def _snapshot(
    labels: NDArray[np.uint32], table: Table, classes: tuple[Any, ...], manifest: Manifest
) -> Snapshot:
    records = table.records.copy()
    next_id = max(manifest.next_id, first_free_id(records))
    return Snapshot(labels, records, classes, next_id, manifest.about)


def _check_shape(folder: Path, manifest: Manifest, shape: tuple[int, int] | None) -> None:
    if shape is not None and tuple(shape) != manifest.shape:
        (h, w), (height, width) = manifest.shape, shape
        raise NucSegError(
            f"{folder} belongs to an image of {w} x {h} pixels, but this one has {width} x {height}; "
            "open the image it was made for"
        )


def _read_journals(folder: Path, manifest: Manifest) -> tuple[list[Entry], int, int]:
    """Return the entries of the listed journals, the number of the next, and the size of the last journal."""
    entries: list[Entry] = []
    number = manifest.journals[0][1] if manifest.journals else 0
    size = 0
    for name, first in manifest.journals:
        if first != number:
            raise SessionDamaged(
                f"{folder} lacks the changes {number} to {first - 1}, which a journal has lost{WAY_OUT}"
            )
        content = read_journal(folder / name, first, manifest.dtype)
        if content.lost:
            raise SessionDamaged(
                f"{folder / name} is damaged in the middle, with {content.lost} lines behind{WAY_OUT}"
            )
        entries += content.entries
        number += len(content.entries)
        size = content.size
    return entries, number, size


def _replay_classes(manifest: Manifest, entries: list[Entry]) -> tuple[Any, ...]:
    classes = manifest.classes
    for entry in entries:
        classes = entry.classes or classes
    return classes


def _apply(labels: NDArray[np.uint32], table: Table, entry: Entry) -> None:
    check_entry(entry, labels.size, len(table.records), table.last_id)
    table.put(entry.rows, entry.records)
    apply_runs(labels, entry.runs)


def _salvage_journals(folder: Path, manifest: Manifest, notes: list[str]) -> list[Entry]:
    entries: list[Entry] = []
    for name, first in manifest.journals:
        try:
            content = read_journal(folder / name, first, manifest.dtype)
        except SessionDamaged as error:
            notes.append(str(error))
            continue
        entries += content.entries
        if content.lost:
            notes.append(
                f"{folder / name} has lost the changes behind number {first + len(content.entries) - 1}"
            )
    return entries


def _salvage_replay(labels: NDArray[np.uint32], records: NDArray[Any], entries: list[Entry]) -> NDArray[Any]:
    """Apply changes by the ids of their records, since places mean nothing in a table that has lost rows."""
    changed: dict[int, NDArray[Any]] = {}
    for entry in entries:
        apply_runs(labels, entry.runs)
        changed |= {int(record["id"]): record for record in entry.records}
    kept = records[~np.isin(records["id"], list(changed))]
    new = np.array([changed[i] for i in sorted(changed)], records.dtype)
    return np.concatenate([kept, new]) if changed else kept
