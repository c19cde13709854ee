"""Tables as text: columns made ready for the compiled loops that write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.io._text_kernels import FLOAT, INT, NUMBER_BYTES, TEXT, Fields, put_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray

_ROWS = 2**16
_BUFFER = 2**22
_LEAST, _MOST = 1e-280, 1e280  # magnitudes that the compiled loop can write


@dataclass(frozen=True)
class Texts:
    """A column of texts.

    Attributes
    ----------
    codes : int64 (n,)
        Index into `texts`, -1 for a missing value.
    texts : sequence of bytes
    """

    codes: NDArray[np.int64]
    texts: Sequence[bytes]


Column = Texts | np.ndarray
"""One of texts, of int64 or of float64."""


def csv_header(nuclei: pd.DataFrame) -> bytes:
    """Return the first line of a table as CSV."""
    return b",".join(_quoted(str(name)) for name in nuclei.columns) + b"\n"


def csv_rows(nuclei: pd.DataFrame) -> Iterator[NDArray[np.uint8]]:
    """Yield a table as CSV, in pieces that hold until the next one: eight significant digits, nothing for NaN."""
    buffer = np.empty(0, np.uint8)
    for start in range(0, len(nuclei), _ROWS):
        part = nuclei.iloc[start : start + _ROWS]
        columns = [column_of(part.iloc[:, k], _quoted) for k in range(part.shape[1])]
        fields = make_fields([(b"," if k else b"", column) for k, column in enumerate(columns)], len(part))
        width = row_bytes(fields) + 1
        step = max(1, _BUFFER // width)
        if len(buffer) < min(step, len(part)) * width:
            buffer = np.empty(min(step, len(part)) * width, np.uint8)
        for first in range(0, len(part), step):
            yield buffer[: put_rows(buffer, fields, first, min(first + step, len(part)))]


def column_of(values: pd.Series, text: Callable[[Any], bytes], finite: bool = False) -> Column:
    """Make a column ready to be written.

    Parameters
    ----------
    values
        Numbers, or anything else, of which few are different.
    text
        Writes a value that is no number, and isn't missing.
    finite
        Whether infinity counts as missing.
    """
    import pandas as pd

    kind = values.dtype.kind
    if kind == "f":
        numbers: NDArray[np.float64] = values.to_numpy(np.float64, na_value=np.nan)
        return _odd_numbers(numbers, finite) if _is_odd(numbers) else numbers
    if isinstance(values.dtype, np.dtype) and kind in "iu" and (kind == "i" or values.dtype.itemsize < 8):
        return values.to_numpy(np.int64)
    codes, uniques = pd.factorize(values)
    return Texts(codes.astype(np.int64), [text(value) for value in uniques.tolist()])


def make_fields(columns: Sequence[tuple[bytes, Column]], rows: int) -> Fields:
    """Put columns, each with the text that comes before its value, together for the compiled loops."""
    texts: list[bytes] = [lead for lead, _ in columns]
    floats: list[Any] = []
    ints: list[Any] = []
    codes: list[Any] = []
    kinds, which = [], []
    for _, column in columns:
        if isinstance(column, Texts):
            kind, held = TEXT, codes
            value = np.where(column.codes < 0, -1, column.codes + len(texts))
            texts.extend(column.texts)
        else:
            kind, held = (FLOAT, floats) if column.dtype.kind == "f" else (INT, ints)
            value = column
        kinds.append(kind)
        which.append(len(held))
        held.append(value)
    return Fields(
        np.array(kinds, np.int64),
        np.array(which, np.int64),
        np.array(floats, np.float64).reshape(-1, rows),
        np.array(ints, np.int64).reshape(-1, rows),
        np.array(codes, np.int64).reshape(-1, rows),
        np.arange(len(columns), dtype=np.int64),
        np.frombuffer(b"".join(texts), np.uint8),
        np.cumsum([0, *map(len, texts)], dtype=np.int64),
    )


def row_bytes(fields: Fields) -> int:
    """Return how many bytes no row exceeds."""
    lengths = np.diff(fields.ends)
    leads, texts = lengths[: len(fields.leads)], lengths[len(fields.leads) :]
    most = NUMBER_BYTES + int(texts.max(initial=0))
    return int(leads.sum()) + len(fields.leads) * most


def _quoted(value: Any) -> bytes:
    text = str(value)
    if any(sign in text for sign in ',"\n\r'):
        text = '"' + text.replace('"', '""') + '"'
    return text.encode("utf-8", "replace")


def _is_odd(numbers: NDArray[np.float64]) -> bool:
    size = np.abs(numbers)
    return bool((((size < _LEAST) & (size > 0)) | ((size > _MOST) & np.isfinite(size))).any())


def _odd_numbers(numbers: NDArray[np.float64], finite: bool) -> Texts:
    """Write a column with magnitudes beyond what the compiled loop can."""
    missing = ~np.isfinite(numbers) if finite else np.isnan(numbers)
    texts = [f"{number:.8g}".encode() for number in numbers.tolist()]
    return Texts(np.where(missing, -1, np.arange(len(texts))), texts)
