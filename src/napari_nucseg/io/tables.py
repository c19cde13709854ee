"""Tables of nuclei as Parquet and CSV, written while they come in."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import Draft, Writer, replacing, told
from napari_nucseg.io.text import csv_header, csv_rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    import pandas as pd

TABLE_FORMATS = ("parquet", "csv")
"""Formats of `TableWriter`; the files are named ``<stem>_nuclei.<format>``."""

_GROUP_ROWS = 2**16


class TableWriter(Writer):
    """Writes the table of nuclei tile by tile, as Parquet, CSV or both; the files appear when they are complete.

    Parameters
    ----------
    folder : path
        Made where it is missing.
    stem : str
        Name of the image.
    formats : iterable of str
        Some of `TABLE_FORMATS`.
    like : DataFrame, optional
        Its columns, those of all tables to come, are the header where no table comes at all.

    Raises
    ------
    NucSegError
        An unknown format, Parquet without pyarrow, or (from every method) a file can't be written.
    """

    def __init__(
        self,
        folder: str | Path,
        stem: str,
        formats: Iterable[str] = TABLE_FORMATS,
        like: pd.DataFrame | None = None,
    ) -> None:
        wanted = list(dict.fromkeys(formats))
        unknown = [name for name in wanted if name not in TABLE_FORMATS]
        if unknown:
            raise NucSegError(
                f"{', '.join(unknown)} is no format of tables; choose of {', '.join(TABLE_FORMATS)}"
            )
        if "parquet" in wanted:
            _need_pyarrow()
        self._columns: list[str] | None = None
        self._files: list[_File] = []
        try:
            for name in wanted:
                path = Path(folder) / f"{stem}_nuclei.{name}"
                self._files.append(_Parquet(path) if name == "parquet" else _Csv(path))
            if like is not None:
                self.add(like.iloc[:0])
        except BaseException:
            self.abort()
            raise

    def add(self, nuclei: pd.DataFrame) -> None:
        """Write the rows of a table, which has the same columns as those before; the index is left out."""
        columns = list(map(str, nuclei.columns))
        if self._columns is None:
            self._columns = columns
        elif self._columns != columns:
            raise NucSegError(
                f"a table with the columns {', '.join(columns)} doesn't go with {', '.join(self._columns)}; "
                "give all tables the same columns"
            )
        for file in self._files:
            file.add(nuclei)

    def _finish(self) -> list[Path]:
        for file in self._files:
            file.finish()
        for file in self._files:
            file.commit()
        return [file.path for file in self._files]

    def _drop(self) -> None:
        for file in self._files:
            file.drop()


class _File(Protocol):
    path: Path

    def add(self, nuclei: pd.DataFrame) -> None: ...
    def finish(self) -> None: ...
    def commit(self) -> None: ...
    def drop(self) -> None: ...


class _Csv:
    def __init__(self, path: Path) -> None:
        self.path = path
        with told(path):
            self._draft = Draft(path)
            self._file: BinaryIO = self._draft.path.open("wb")
        self._begun = False

    def add(self, nuclei: pd.DataFrame) -> None:
        with told(self.path):
            if not self._begun:
                self._file.write(csv_header(nuclei))
                self._begun = True
            for rows in csv_rows(nuclei):
                self._file.write(rows.data)

    def finish(self) -> None:
        with told(self.path):
            self._file.close()

    def commit(self) -> None:
        with told(self.path):
            self._draft.commit()

    def drop(self) -> None:
        _close_quietly(self._file)
        self._draft.discard()


class _Parquet:
    """Collects tables to row groups, so that many small tiles make few of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with told(path):
            self._draft = Draft(path)
            self._file: BinaryIO = self._draft.path.open("wb")
        self._schema: Any = None
        self._writer: Any = None
        self._waiting: list[Any] = []

    def add(self, nuclei: pd.DataFrame) -> None:
        import pyarrow as pa

        table = pa.Table.from_pandas(_plain(nuclei), preserve_index=False)
        if self._schema is None:
            self._schema = _settled(table.schema)
        try:
            self._waiting.append(table.cast(self._schema))
        except (pa.ArrowInvalid, ValueError) as error:
            raise NucSegError(
                f"a table doesn't go with those before it ({error}); give columns one type"
            ) from error
        if sum(map(len, self._waiting)) >= _GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        import pyarrow as pa

        if self._schema is None:
            self._schema = pa.schema([])
        self._flush()
        with told(self.path):
            self._writer.close()
            self._file.close()

    def commit(self) -> None:
        with told(self.path):
            self._draft.commit()

    def drop(self) -> None:
        if self._writer is not None:
            _close_quietly(self._writer)
        _close_quietly(self._file)
        self._draft.discard()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with told(self.path):
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")
            if self._waiting:
                self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=2 * _GROUP_ROWS)
            self._waiting = []


def write_csv(path: str | Path, nuclei: pd.DataFrame) -> None:
    """Write the table of nuclei as CSV: UTF-8, comma, one header line, eight significant digits.

    Parameters
    ----------
    path
        File to write; it appears only when it is complete.
    nuclei
        One row per nucleus; the index is left out.

    Raises
    ------
    NucSegError
        The file can't be written.
    """
    with replacing(path) as draft, draft.open("wb") as file:
        file.write(csv_header(nuclei))
        for rows in csv_rows(nuclei):
            file.write(rows.data)


def _need_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise NucSegError(
            f"tables as Parquet need pyarrow ({error}); install it with 'pip install pyarrow', or choose csv"
        ) from error


def _plain(nuclei: pd.DataFrame) -> pd.DataFrame:
    """Return the table with categories, which differ between tiles, as what they stand for."""
    import pandas as pd

    categories = [name for name in nuclei if isinstance(nuclei[name].dtype, pd.CategoricalDtype)]
    return nuclei.astype({name: nuclei[name].cat.categories.dtype for name in categories})


def _settled(schema: Any) -> Any:
    """Return the types of all tables to come: where the first knows none, texts."""
    import pyarrow as pa

    for k, field in enumerate(schema):
        if pa.types.is_null(field.type) or pa.types.is_large_string(field.type):
            schema = schema.set(k, field.with_type(pa.string()))
    return schema


def _close_quietly(file: Any) -> None:
    """Close what is dropped anyway; a full disk doesn't matter any more."""
    with suppress(Exception):  # pyarrow has errors of its own
        file.close()
