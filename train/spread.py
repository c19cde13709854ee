"""Figures of several configurations over several seeds, as a table with mean and spread."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import replacing
from train.report import markdown
from train.scores import OWN

SHOWN = ("bPQ", "AJI", "F1_d", f"mPQ ({OWN})")
"""Ends of the names of the figures in the table if none are asked for."""


class Results:
    """What each configuration reached with each seed.

    Parameters
    ----------
    arms : sequence of str
        Names of the configurations, in the order of the table. The first is what the others are compared with.
    """

    def __init__(self, arms: Sequence[str]) -> None:
        self.arms = list(arms)
        self.runs: dict[tuple[str, int], dict[str, float]] = {}

    def add(self, arm: str, seed: int, figures: dict[str, float]) -> None:
        """Take the figures of one run."""
        self.runs[arm, seed] = figures

    @property
    def names(self) -> list[str]:
        """All figures, in the order in which they came."""
        return list(dict.fromkeys(name for figures in self.runs.values() for name in figures))

    def values(self, arm: str, figure: str) -> dict[int, float]:
        """Return a figure of a configuration by seed, where it is a number."""
        found = {seed: run.get(figure, math.nan) for (name, seed), run in self.runs.items() if name == arm}
        return {seed: value for seed, value in found.items() if not math.isnan(value)}

    def gains(self, arm: str, figure: str) -> list[float]:
        """Return how far a configuration is above the first one, seed by seed."""
        first, mine = self.values(self.arms[0], figure), self.values(arm, figure)
        return [value - first[seed] for seed, value in mine.items() if seed in first]


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation; NaN for what too few values do not give."""
    mean = statistics.fmean(values) if values else math.nan
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan


def written(values: Sequence[float], sign: str = "") -> str:
    """Return mean and spread as a cell of a table."""
    mean, spread = mean_and_spread(values)
    if math.isnan(mean):
        return "-"
    return f"{mean:{sign}.4f}" if math.isnan(spread) else f"{mean:{sign}.4f} ± {spread:.4f}"


def table(results: Results, figures: Sequence[str] = ()) -> str:
    """Return one row a configuration as markdown.

    Parameters
    ----------
    results : Results
    figures : sequence of str
        Columns; those of `SHOWN` if empty.

    Raises
    ------
    NucSegError
        A figure is not known.
    """
    names = results.names
    if unknown := [name for name in figures if name not in names]:
        raise NucSegError(f"Figure '{unknown[0]}' is not among those of the runs: {', '.join(names)}.")
    shown = list(figures) or [name for name in names if name.endswith(SHOWN)]
    first = shown[0] if shown else "bPQ"
    rows = [["configuration", "runs", *shown, f"{first} above the first"]]
    for k, arm in enumerate(results.arms):
        count = sum(name == arm for name, _ in results.runs)
        cells = [written(list(results.values(arm, name).values())) for name in shown]
        rows.append([arm, str(count), *cells, written(results.gains(arm, first), "+") if k else ""])
    return markdown(rows)


LEGEND = "Mean ± standard deviation over seeds of the last validation; differences are taken seed by seed."


def write(results: Results, folder: Path, figures: Sequence[str] = ()) -> str:
    """Write ``table.md``, ``table.csv`` (every figure of every configuration) and ``runs.csv`` (every run).

    Returns
    -------
    str
        The table in markdown.

    Raises
    ------
    NucSegError
        A figure is not known, or the folder can't be written to.
    """
    text, names = table(results, figures), results.names
    summary = [
        ["configuration", "figure", "runs", "mean", "sd", "mean above the first", "sd above the first"]
    ]
    for arm in results.arms:
        for name in names:
            values = list(results.values(arm, name).values())
            numbers = (*mean_and_spread(values), *mean_and_spread(results.gains(arm, name)))
            summary.append([arm, name, str(len(values)), *map(_cell, numbers)])
    runs = [["configuration", "seed", *names]]
    for (arm, seed), found in results.runs.items():
        runs.append([arm, str(seed), *(_cell(found.get(name, math.nan)) for name in names)])
    for name, content in (
        ("table.md", f"{text}\n\n{LEGEND}\n"),
        ("table.csv", _csv(summary)),
        ("runs.csv", _csv(runs)),
    ):
        with replacing(folder / name) as draft:
            draft.write_text(content, encoding="utf-8", newline="")
    return text


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
