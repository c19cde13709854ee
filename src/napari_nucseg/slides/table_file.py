"""The table of nuclei of a slide on disk, Parquet or CSV: read in parts, and rewritten in a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    import pandas as pd

    from napari_nucseg.core.tiling import Box

REACH = 512
"""How far from a place the centres of its nuclei lie at most, level-0 pixels."""

DEFAULTS = {"state": "predicted", "origin": "model"}
"""What nuclei are whose table says nothing of a review."""


@dataclass(frozen=True)
class TableFile:
    """A table of nuclei.

    Attributes
    ----------
    path : Path
        ``*.parquet`` or ``*.csv``.
    columns : tuple of str
    others : tuple of TableFile
        The same table in other formats.
    """

    path: Path
    columns: tuple[str, ...]
    others: tuple[TableFile, ...] = field(default=())

    @property
    def is_parquet(self) -> bool:
        """Whether it is Parquet."""
        return self.path.suffix == ".parquet"

    def all(self) -> list[TableFile]:
        """Return the table in all its formats."""
        return [self, *self.others]

    def read(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return some columns, as far as there; words as categories."""
        import pandas as pd

        wanted = [name for name in columns if name in self.columns]
        if self.is_parquet:
            import pyarrow.parquet as pq

            words = [name for name in wanted if name in ("class", "state", "origin")]
            with _told(self.path):
                table: pd.DataFrame = pq.read_table(
                    self.path, columns=wanted, read_dictionary=words
                ).to_pandas()
            return table
        kinds: dict[str, Any] = {"class": "category", "state": "category", "origin": "category"}
        with _told(self.path):
            return pd.read_csv(
                self.path,
                usecols=wanted,
                dtype={k: v for k, v in kinds.items() if k in wanted},
                keep_default_na=True,
                engine="c",
            )

    def rows(self, ids: NDArray[np.integer], place: Box) -> pd.DataFrame:
        """Return all columns of some nuclei, sorted by id.

        Parameters
        ----------
        ids : integers
        place : Box
            Where they lie, level 0.
        """
        import pandas as pd

        if self.is_parquet:
            import pyarrow.parquet as pq

            near = [
                ("centre_y", ">=", float(place.y0 - REACH)),
                ("centre_y", "<", float(place.y1 + REACH)),
                ("centre_x", ">=", float(place.x0 - REACH)),
                ("centre_x", "<", float(place.x1 + REACH)),
            ]
            with _told(self.path):
                found: pd.DataFrame = pq.read_table(self.path, filters=near).to_pandas()
            found = found[found["id"].isin(ids)]
        else:
            with _told(self.path):
                parts = [p[p["id"].isin(ids)] for p in pd.read_csv(self.path, chunksize=2**18)]
            found = pd.concat(parts)
        return found.sort_values("id", ignore_index=True)


def find_table(folder: Path, name: str) -> TableFile:
    """Return the table of a result.

    Raises
    ------
    NucSegError
        There is none that can be read.
    """
    found: list[TableFile] = []
    unread = ""
    parquet, csv = (folder / f"{name}_nuclei.{ending}" for ending in ("parquet", "csv"))
    if parquet.is_file():
        try:
            import pyarrow.parquet as pq
        except ImportError:
            unread = " (Parquet needs pyarrow, which is not installed)"
        else:
            with _told(parquet):
                found.append(TableFile(parquet, tuple(pq.ParquetFile(parquet).schema_arrow.names)))
    if csv.is_file():
        with _told(csv), csv.open("rb") as file:
            header = file.readline().decode().strip().split(",")
        found.append(TableFile(csv, tuple(header)))
    if not found:
        raise NucSegError(
            f"'{folder}' holds no table {parquet.name} or {csv.name} that can be read{unread}; segment the "
            "slide again, with --format zarr,csv."
        )
    first, *others = found
    return TableFile(first.path, first.columns, tuple(others))


def rewrite(table: TableFile, target: Path, without: NDArray[np.integer], more: pd.DataFrame) -> None:
    """Write a table anew, without some nuclei and with others at its end, a part at a time.

    Parameters
    ----------
    table : TableFile
    target : path
    without : integers
        Ids of the nuclei to leave out.
    more : DataFrame
        Their columns that the table lacks are added, with `DEFAULTS` for the other nuclei where there is one.
    """
    added = [name for name in DEFAULTS if name in more and name not in table.columns]
    columns = [*table.columns, *added]
    gone = np.sort(np.asarray(without, np.int64))
    fresh = more.reindex(columns=columns)
    if table.is_parquet:
        _rewrite_parquet(table, target, gone, fresh, added)
    else:
        _rewrite_csv(table, target, gone, fresh, added)


def _rewrite_parquet(
    table: TableFile, target: Path, gone: NDArray[np.int64], fresh: pd.DataFrame, added: list[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _told(table.path):
        source = pq.ParquetFile(table.path)
        schema = source.schema_arrow.remove_metadata()
        for name in added:
            schema = schema.append(pa.field(name, pa.string()))
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for k in range(source.num_row_groups):
                part = source.read_row_group(k)
                keep = ~np.isin(part["id"].to_numpy(), gone)
                part = part if keep.all() else part.filter(pa.array(keep))
                for name in added:
                    words = pa.DictionaryArray.from_arrays(
                        pa.array(np.zeros(len(part), np.int8)), [DEFAULTS[name]]
                    )
                    part = part.append_column(name, words.cast(pa.string()))
                if len(part):
                    writer.write_table(part.replace_schema_metadata(None).cast(schema))
            if len(fresh):
                writer.write_table(pa.Table.from_pandas(fresh, schema=schema, preserve_index=False))
        source.close()


def _rewrite_csv(
    table: TableFile, target: Path, gone: NDArray[np.int64], fresh: pd.DataFrame, added: list[str]
) -> None:
    """Copy the lines as they are: figures keep their digits, and nothing is parsed but the id."""
    out_of = set(gone.tolist())
    tail = "".join(f",{DEFAULTS[name]}" for name in added).encode() + b"\n"
    at = table.columns.index("id")
    with _told(table.path), table.path.open("rb") as source, target.open("wb") as out:
        header = source.readline().rstrip(b"\r\n")
        out.write(header + "".join(f",{name}" for name in added).encode() + b"\n")
        for line in source:
            if int(line.split(b",", at + 1)[at]) not in out_of:
                out.write(line.rstrip(b"\r\n") + tail if added else line)
        if len(fresh):
            text = fresh.to_csv(index=False, header=False, float_format="%.8g", lineterminator="\n")
            out.write(text.encode())


class _told:
    """Tell what is wrong with a table, whatever its library raises, in one sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, NucSegError | MemoryError | ImportError):
            reason = " ".join(str(error).split()).rstrip(".")[:160] or type(error).__name__
            raise NucSegError(
                f"'{self._path}' can't be read or written ({reason}); free some space, or segment the slide again."
            ) from error
