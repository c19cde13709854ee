import csv
import math

import pytest

from napari_nucseg.errors import NucSegError
from train.spread import Results, mean_and_spread, table, write, written


@pytest.fixture
def results():
    out = Results(["a", "+ b"])
    for seed, (one, two) in enumerate([(0.50, 0.53), (0.60, 0.62), (0.40, 0.42)]):
        out.add("a", seed, {"bPQ": one, "x/AJI": 0.5, "x/Dice": 0.7})
        out.add("+ b", seed, {"bPQ": two, "x/AJI": math.nan, "x/Dice": 0.7})
    return out


def test_mean_and_spread_of_known_values():
    assert mean_and_spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_and_spread([5.0])[0] == 5.0
    assert math.isnan(mean_and_spread([5.0])[1])
    assert written([]) == "-"
    assert written([0.5]) == "0.5000"
    assert written([0.1, 0.3], "+") == "+0.2000 ± 0.1414"


def test_differences_are_taken_seed_by_seed(results):
    """The seeds differ by 0.1, the configurations by 0.02 or 0.03: only paired does that show."""
    rows = table(results).splitlines()
    assert rows[0] == "| configuration | runs | bPQ | x/AJI | bPQ above the first |"
    assert rows[2] == "| a | 3 | 0.5000 ± 0.1000 | 0.5000 ± 0.0000 |  |"
    assert rows[3] == "| + b | 3 | 0.5233 ± 0.1002 | - | +0.0233 ± 0.0058 |"


def test_seeds_that_only_one_has_are_not_compared(results):
    results.add("+ b", 9, {"bPQ": 0.9})
    assert len(results.gains("+ b", "bPQ")) == 3
    assert len(results.values("+ b", "bPQ")) == 4


def test_tables_hold_every_figure_and_every_run(results, tmp_path):
    text = write(results, tmp_path / "new", ["x/Dice"])
    assert "x/Dice" in text
    assert (tmp_path / "new" / "table.md").read_text().startswith(text)
    with (tmp_path / "new" / "table.csv").open() as handle:
        rows = {(r["configuration"], r["figure"]): r for r in csv.DictReader(handle)}
    assert len(rows) == 6
    assert float(rows["+ b", "bPQ"]["mean above the first"]) == pytest.approx(0.07 / 3, rel=1e-5)
    assert rows["+ b", "x/AJI"]["mean"] == ""
    with (tmp_path / "new" / "runs.csv").open() as handle:
        runs = list(csv.DictReader(handle))
    assert [(r["configuration"], r["seed"]) for r in runs][:2] == [("a", "0"), ("+ b", "0")]


def test_unknown_figures_are_named(results):
    with pytest.raises(NucSegError, match="'PQ'"):
        table(results, ["PQ"])
