"""The records of a session: a growing array, and `nuclei.csv`, which holds every field to the last bit."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.nuclei import UNCLASSIFIED, NucleusClass, Origin, State
from napari_nucseg.io.atomic import replacing
from napari_nucseg.io.session_files import WAY_OUT, SessionDamaged, reason, sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

FIXED = (
    "id", "centre_y", "centre_x", "kind", "class", "score", "state", "origin", "locked", "typed", "floor", "area",
)  # fmt: skip
_SLICE = 2000  # rows written at a time, so that other threads get their turn
_WORDS = {
    "state": {s.word: s.value for s in State},
    "origin": {o.word: o.value for o in Origin} | {"": 0},  # of those that came and went in one edit
    "locked": {"true": 1, "false": 0},
    "typed": {"true": 1, "false": 0},
}
_NAMES = {name: {value: word for word, value in words.items()} for name, words in _WORDS.items()}
_FIELDS = {"centre_y": "y", "centre_x": "x"}


class Table:
    """Records that grow at their end.

    Parameters
    ----------
    records : structured (n,)
        Of `core.nuclei.record_dtype`; copied.
    """

    def __init__(self, records: NDArray[Any]) -> None:
        self._store, self._size = records.copy(), len(records)

    @property
    def records(self) -> NDArray[Any]:
        """The records; a view that is valid until the next `put`."""
        return self._store[: self._size]

    @property
    def last_id(self) -> int:
        """Id of the last record, 0 where there is none."""
        return int(self._store["id"][self._size - 1]) if self._size else 0

    def put(self, rows: NDArray[np.int64], records: NDArray[Any]) -> None:
        """Set records at these places, ascending; the table grows as far as needed.

        Places beyond the end that are left out belong to nuclei that came and went in one edit, so that no change has
        told of them: they become absent, with the ids just below that of the next one.
        """
        if not len(rows):
            return
        end = int(rows[-1]) + 1
        if end > len(self._store):
            grown = np.zeros(max(end, 2 * len(self._store)), self._store.dtype)
            grown[: self._size] = self.records
            self._store = grown
        old, self._size = self._size, max(self._size, end)
        self._store[rows] = records
        for gap in np.setdiff1d(np.arange(old, end), rows)[::-1]:
            self._store[gap] = np.zeros((), self._store.dtype)
            self._store["id"][gap] = self._store["id"][gap + 1] - 1


def columns(classes: Sequence[NucleusClass], n_model_classes: int) -> list[str]:
    """Return the header of `nuclei.csv`."""
    return [*FIXED, *(f"prob_{c.name}" for c in classes[:n_model_classes])]


def write_table(path: Path, records: NDArray[Any], classes: Sequence[NucleusClass]) -> Iterator[None]:
    """Write `nuclei.csv` step by step; at the end it is in place and on the disk.

    Raises
    ------
    NucSegError
        The file can't be written.
    """
    n_model = records.dtype["prob"].shape[0]
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns(classes, n_model))
        for start in range(0, len(records), _SLICE):
            writer.writerows(_rows(records[start : start + _SLICE], classes))
            yield
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


def read_table(
    path: Path, dtype: np.dtype[Any], classes: Sequence[NucleusClass], least: int, lenient: bool = False
) -> NDArray[Any]:
    """Read `nuclei.csv`.

    Parameters
    ----------
    path
        The file.
    dtype
        Of the records.
    classes
        Those of the session.
    least
        Number of rows that must be there.
    lenient
        Take the rows up to a damaged one instead of raising.

    Returns
    -------
    structured (n,)

    Raises
    ------
    SessionDamaged
        It is missing, cut short or changed.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace" if lenient else "strict")
    except (OSError, ValueError) as error:
        raise SessionDamaged(f"{path} can't be read ({reason(error)}); restore it from a backup") from error
    if lenient:
        text = text[: text.rfind("\n") + 1]  # a last row cut short is not believed
    stream = io.StringIO(text, newline="")
    header = columns(classes, dtype["prob"].shape[0])
    found = next(csv.reader(stream), None)
    try:
        if found is None or found[: len(FIXED)] != header[: len(FIXED)] or len(found) != len(header):
            raise ValueError(f"columns {found}")
        records = _parse(stream, dtype, lenient)
        if not lenient and (not text.endswith("\n") or len(records) < least):
            raise ValueError(f"{len(records)} rows where at least {least} are due, or the last one is cut")
        if len(np.unique(records["id"])) != len(records) or (records["id"] == 0).any():
            raise ValueError("an id stands twice, or is 0")
    except (ValueError, KeyError, OverflowError, csv.Error) as error:
        raise SessionDamaged(f"{path} is cut short or damaged ({error}){WAY_OUT}") from error
    return records


def _rows(records: NDArray[Any], classes: Sequence[NucleusClass]) -> Iterator[tuple[Any, ...]]:
    names = {index: c.name for index, c in enumerate(classes)} | {UNCLASSIFIED: ""}
    kinds = records["kind"].tolist()
    return zip(
        records["id"].tolist(),
        records["y"].tolist(),  # written by repr, hence exact
        records["x"].tolist(),
        kinds,
        [names.get(kind, "") for kind in kinds],
        _floats(records["score"]),
        *(
            [_NAMES[name][v] for v in records[name].tolist()]
            for name in ("state", "origin", "locked", "typed")
        ),
        records["floor"].tolist(),
        records["area"].tolist(),
        *(_floats(records["prob"][:, k]) for k in range(records.dtype["prob"].shape[0])),
        strict=True,
    )


def _floats(values: NDArray[np.float32]) -> list[str]:
    """Nine digits tell every float32 from its neighbours; NaN is an empty field."""
    return ["" if v != v else f"{v:.9g}" for v in values.tolist()]


def _parse(stream: io.StringIO, dtype: np.dtype[Any], lenient: bool) -> NDArray[Any]:
    n_model = dtype["prob"].shape[0]
    width = len(FIXED) + n_model
    rows: list[list[str]] = []
    for row in csv.reader(stream, strict=True):
        if len(row) != width:
            if lenient:
                break
            raise ValueError(f"row {len(rows) + 1} has {len(row)} fields of {width}")
        rows.append(row)
    records = np.zeros(len(rows), dtype)
    if rows:
        fields = list(zip(*rows, strict=True))
        for name, texts in zip(FIXED, fields, strict=False):
            if name != "class":
                field = _FIELDS.get(name, name)
                records[field] = _column(name, texts, dtype[field])
        for k, texts in enumerate(fields[len(FIXED) :]):
            records["prob"][:, k] = _column("prob", texts, dtype["score"])
    return records


def _column(name: str, texts: Sequence[str], dtype: np.dtype[Any]) -> NDArray[Any]:
    if name in _WORDS:
        return np.array([_WORDS[name][text] for text in texts], dtype)
    if dtype.kind == "f":
        empty_allowed = name in ("score", "prob")
        return np.array([float(t) if t or not empty_allowed else np.nan for t in texts], dtype)
    numbers = np.array([int(text) for text in texts], np.int64)
    if (numbers != numbers.astype(dtype)).any():
        raise ValueError(f"{name} out of range")
    return numbers.astype(dtype)
