"""Sum up what disturbances cost: one row each, with the figures of every data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from train import report
from train.disturbances import UNDISTURBED, Disturbance
from train.intervals import Difference, Summary, paired_bootstrap
from train.scores import PER_IMAGE, Figure, ImageScore
from train.truth import Selection
from train.validate import mean_known

FIGURES = ("Dice", "AJI", "bPQ", "F1_d")
"""Columns of the table, each a mean over images."""

COMPARED = "bPQ"
"""The figure whose difference is in the table; the JSON has those of all."""


@dataclass(frozen=True)
class Disturbed:
    """The scores of the images of one data set, by the key of each disturbance."""

    name: str
    chosen: Selection
    scores: dict[str, list[ImageScore]] = field(default_factory=dict)

    def differences(self, key: str, draws: int, seed: int) -> list[Difference]:
        """Return how far the `FIGURES` under a disturbance are above those of the images as they are."""
        plain, scores = self.scores[UNDISTURBED.key], self.scores[key]
        return paired_bootstrap(len(plain), means(plain), means(scores), draws, seed)


def means(scores: Sequence[ImageScore]) -> Summary:
    """Return what makes the means of the `FIGURES` over some of the images."""
    values = [[score.row()[name] for name in FIGURES] for score in scores]

    def of(chosen: Sequence[int]) -> list[Figure]:
        columns = zip(*(values[i] for i in chosen), strict=True)
        return [
            Figure(n, PER_IMAGE, mean_known(list(column))) for n, column in zip(FIGURES, columns, strict=True)
        ]

    return of


def table(
    sets: Sequence[Disturbed],
    disturbances: Sequence[Disturbance],
    found: Sequence[Sequence[Sequence[Difference]]],
) -> str:
    """Return one row a disturbance: the figures of every data set, and the difference of `COMPARED` with its interval.

    Parameters
    ----------
    sets, disturbances
        What was scored.
    found
        For every set and disturbance, in order, from `Disturbed.differences`.
    """
    own = [*FIGURES, f"{COMPARED} - as it is (95 %)"]
    rows = [["disturbance", *(f"{one.name} {name}" for one in sets for name in own)]]
    for k, disturbance in enumerate(disturbances):
        cells = [disturbance.words]
        for of_set in found:
            cells += [report.cell(f.value) for f in of_set[k]]
            f = of_set[k][FIGURES.index(COMPARED)]
            plain = disturbance == UNDISTURBED
            cells.append("" if plain else report.cell(f.difference, f.low, f.high, sign="+"))
        rows.append(cells)
    return report.markdown(rows)


def image_rows(sets: Sequence[Disturbed]) -> list[dict[str, Any]]:
    """Return one row an image and disturbance."""
    return [
        {"data": one.name, "disturbance": key, **score.row()}
        for one in sets
        for key, scores in one.scores.items()
        for score in scores
    ]


def by_disturbance(
    sets: Sequence[Disturbed],
    disturbances: Sequence[Disturbance],
    found: Sequence[Sequence[Sequence[Difference]]],
) -> list[dict[str, Any]]:
    """Return all of `table` and the differences of the other figures, for the JSON."""
    return [
        {
            "key": d.key,
            "words": d.words,
            "figures": {one.name: _by_name(of_set[k]) for one, of_set in zip(sets, found, strict=True)},
        }
        for k, d in enumerate(disturbances)
    ]


def _by_name(found: Sequence[Difference]) -> dict[str, dict[str, float]]:
    return {
        f.name: {"value": f.value, "difference": f.difference, "low": f.low, "high": f.high} for f in found
    }
