"""Tables written tile by tile are the table, in both formats, or not there at all."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from napari_nucseg.errors import NucSegError
from napari_nucseg.io import tables
from napari_nucseg.io.tables import TableWriter, write_csv

if TYPE_CHECKING:
    from pathlib import Path

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def table(n: int = 1000) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "id": np.arange(1, n + 1, dtype=np.uint32),
            "centre_y": rng.random(n) * 1e5,
            "class": rng.choice(["neoplastic", "dead, or not", "unclassified"], n),
            "score": rng.random(n).astype(np.float32),
            "solidity": np.where(rng.random(n) < 0.1, np.nan, rng.random(n)),
            "locked": rng.random(n) < 0.5,
        }
    )


def write(folder: Path, nuclei: pd.DataFrame, step: int = 130, **options: object) -> list[Path]:
    with TableWriter(folder, "case 1", **options) as writer:
        for start in range(0, len(nuclei), step):
            writer.add(nuclei.iloc[start : start + step])
        return writer.close()


def test_both_formats_hold_the_table(tmp_path: Path) -> None:
    nuclei = table()
    paths = write(tmp_path / "new", nuclei)
    assert [path.name for path in paths] == ["case 1_nuclei.parquet", "case 1_nuclei.csv"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    pd.testing.assert_frame_equal(pd.read_parquet(paths[0]), nuclei)
    write_csv(tmp_path / "whole.csv", nuclei)
    assert paths[1].read_bytes() == (tmp_path / "whole.csv").read_bytes()
    (only,) = write(tmp_path, nuclei, formats=["csv"])
    assert only.read_bytes() == paths[1].read_bytes()


def test_small_tables_make_large_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_GROUP_ROWS", 400)
    path = write(tmp_path, table(), 50)[0]
    groups = parquet.ParquetFile(path).metadata
    assert [groups.row_group(k).num_rows for k in range(groups.num_row_groups)] == [400, 400, 200]
    pd.testing.assert_frame_equal(pd.read_parquet(path), table())


def test_categories_that_differ_from_tile_to_tile(tmp_path: Path) -> None:
    first = pd.DataFrame({"id": [1, 2], "class": pd.Categorical(["a", "b"])})
    second = pd.DataFrame({"id": [3, 4], "class": pd.Categorical(["c", None])})
    with TableWriter(tmp_path, "x") as writer:
        writer.add(first)
        writer.add(second)
    for found in (pd.read_parquet(tmp_path / "x_nuclei.parquet"), pd.read_csv(tmp_path / "x_nuclei.csv")):
        assert found["id"].tolist() == [1, 2, 3, 4]
        assert found["class"].fillna("-").tolist() == ["a", "b", "c", "-"]


def test_no_nuclei_at_all(tmp_path: Path) -> None:
    paths = write(tmp_path, table()[:0], like=table())
    assert list(pd.read_parquet(paths[0]).columns) == list(table().columns)
    assert paths[1].read_text() == ",".join(table().columns) + "\n"
    assert len(write(tmp_path, table()[:0])) == 2
    # a first tile without nuclei, and so without types of its texts, does not decide them
    with TableWriter(
        tmp_path, "y", like=pd.DataFrame({"class": [], "id": []}, dtype=object)[["class"]]
    ) as writer:
        writer.add(table()[["class"]])
    assert pd.read_parquet(tmp_path / "y_nuclei.parquet")["class"].tolist() == table()["class"].tolist()


def test_tables_that_do_not_go_together_are_refused_and_leave_older_files(tmp_path: Path) -> None:
    (tmp_path / "case 1_nuclei.csv").write_text("older")
    for other, match in (
        (table().drop(columns="score"), "columns"),
        (table().assign(score="high"), "one type"),
    ):

        def broken(other: pd.DataFrame = other) -> None:
            with TableWriter(tmp_path, "case 1") as writer:
                writer.add(table())
                writer.add(other)

        with pytest.raises(NucSegError, match=match):
            broken()
    assert [item.name for item in tmp_path.iterdir()] == ["case 1_nuclei.csv"]
    assert (tmp_path / "case 1_nuclei.csv").read_text() == "older"


def test_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NucSegError, match="xml is no format of tables"):
        TableWriter(tmp_path, "x", ["xml"])
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError("No module named 'pyarrow'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NucSegError, match="need pyarrow"):
        TableWriter(tmp_path, "x")
    with TableWriter(tmp_path, "x", ["csv"]) as writer:
        writer.add(table(3))
    assert [item.name for item in tmp_path.iterdir()] == ["x_nuclei.csv"]
