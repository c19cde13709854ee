"""Text of tables: digit for digit what C's and pandas' formatting gives."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_nucseg.io import text
from napari_nucseg.io.text import csv_header, csv_rows


def as_csv(nuclei: pd.DataFrame) -> str:
    return (csv_header(nuclei) + b"".join(rows.tobytes() for rows in csv_rows(nuclei))).decode()


def by_pandas(nuclei: pd.DataFrame) -> str:
    file = io.StringIO()
    nuclei.to_csv(file, index=False, float_format="%.8g", lineterminator="\n")
    return file.getvalue()


def check_numbers(numbers: np.ndarray) -> None:
    found = as_csv(pd.DataFrame({"x": numbers, "y": 1})).split("\n")[1:-1]
    assert found == [f"{number:.8g},1" for number in numbers.tolist()]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.floats(allow_nan=False), max_size=20))
@example([-0.0, 0.0, np.inf, -np.inf, 5e-324, 1.7e308])
@example([99999999.5, 9999999.95, 0.00009999999995, 0.0001, 12345678.5, 12345679.5, 1e8, 1e22, 1e23])
def test_floats(numbers: list[float]) -> None:
    check_numbers(np.array(numbers, np.float64))


def test_many_floats() -> None:
    rng = np.random.default_rng(5)
    powers = 10.0 ** np.arange(-279, 279)
    halves = (rng.integers(10**7, 10**8, 20000) * 10 + 5) * 10.0 ** rng.integers(0, 14, 20000)
    bits = rng.integers(0, 2**63, 20000).view(np.float64)
    for numbers in (
        bits[(bits > text._LEAST) & (bits < text._MOST)],
        rng.random(20000) * 10.0 ** rng.integers(-9, 9, 20000),
        (rng.integers(10**7, 10**8, 20000) * 2 + 1) / 2.0,
        halves,
        np.nextafter(halves, 0),
        *(powers, np.nextafter(powers, 0), np.nextafter(powers, np.inf)),
    ):
        check_numbers(numbers)
    check_numbers(rng.random(20000).astype(np.float32) * 1e5)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), st.lists(st.integers(0, 2**64 - 1), max_size=5)
)
@example([0, 9, 10, -(2**63), 2**63 - 1, 10**18, 10**18 - 1], [2**64 - 1])
def test_integers(signed: list[int], unsigned: list[int]) -> None:
    for values in (np.array(signed, np.int64), np.array(unsigned, np.uint64)):
        assert as_csv(pd.DataFrame({"n": values})).split("\n")[1:-1] == list(map(str, values.tolist()))


# pandas leaves a lone carriage return bare, at which readers, its own too, would break the line
WORDS = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=6))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(WORDS, st.booleans(), st.floats(width=32), st.integers(0, 2**32 - 1)), max_size=8))
def test_tables_are_as_pandas_writes_them(rows: list[tuple]) -> None:
    nuclei = pd.DataFrame(rows, columns=["word, or not", "locked", "score", "id"])
    nuclei["locked"] = nuclei["locked"].astype(bool)
    nuclei["id"] = nuclei["id"].astype(np.uint32)
    nuclei["score"] = nuclei["score"].astype(np.float32)
    for words in (object, "category"):
        nuclei["word, or not"] = nuclei["word, or not"].astype(words)
        assert as_csv(nuclei) == by_pandas(nuclei)


def test_line_breaks_in_texts() -> None:
    words = ["a\rb", "c\nd", "e\r\nf", '"', ""]
    again = pd.read_csv(
        io.StringIO(as_csv(pd.DataFrame({"word": words, "id": 1})), newline=""), na_filter=False
    )
    assert again["word"].tolist() == words


def test_any_number_of_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    nuclei = pd.DataFrame({"id": np.arange(1000), "class": ["a", "b, c"] * 500, "x": np.linspace(0, 1, 1000)})
    whole = as_csv(nuclei)
    assert whole == by_pandas(nuclei)
    monkeypatch.setattr(text, "_ROWS", 70)
    monkeypatch.setattr(text, "_BUFFER", 1000)
    assert as_csv(nuclei) == whole


def test_numbers_of_pandas_own_types() -> None:
    nuclei = pd.DataFrame(
        {"n": pd.array([1, None, 3], "Int64"), "x": pd.array([0.1, None, 1 / 3], "Float64"), "id": [1, 2, 3]}
    )
    assert as_csv(nuclei) == "n,x,id\n1,0.1,1\n,,2\n3,0.33333333,3\n"
