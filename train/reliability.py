"""The reliability diagram of a calibration: how often nuclei are right, by what is reported of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from train.calibration import BINS, CLASS, SCORE, STAGES, Bin, Kind, Outcome
from train.figures_style import NO_CLASS, colour, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {SCORE: "Score of a nucleus", CLASS: "Probability of its class"}
SAYS = {SCORE: "share with a true nucleus (IoU > 0.5)", CLASS: "share of the right class"}


def draw(outcome: Outcome) -> Figure:
    """Draw score and class side by side, before and after, with the number of nuclei in each bin below.

    "After" is by fits without the image where there are several, since the fit to the very images flatters.
    """
    kinds = [kind for kind in (SCORE, CLASS) if any(len(getattr(im, kind.key)) for im in outcome.images)]
    figure = new_figure(85 * len(kinds), 100, gap=1.5)
    grid = figure.subplots(2, len(kinds), height_ratios=(3, 1), sharex="col", squeeze=False)
    for (upper, lower), kind in zip(grid.T, kinds, strict=True):
        upper.plot([0, 1], [0, 1], color=NO_CLASS, lw=0.8, ls=":")
        after = "left out" if outcome.others else "after"
        error = [row for row in outcome.rows() if row["what"] == kind.name][-1]  # mean over the sets
        for place, (by, number, marker) in enumerate((("before", 2, "s"), (after, 1, "o"))):
            found = outcome.bins(kind, by)
            _curve(upper, found, f"{STAGES[by]}: ECE {error[by]:.3f}", number, marker)
            edges = (np.arange(BINS) + 0.12 + 0.38 * place) / BINS
            counts = [b.count for b in found]
            lower.bar(edges, counts, 0.38 / BINS, align="edge", color=colour(number), lw=0)
        _label(upper, lower, kind)
    return figure


def _curve(axes: Axes, found: list[Bin], label: str, number: int, marker: str) -> None:
    seen = [b for b in found if b.count]
    axes.plot(
        [b.confidence for b in seen],
        [b.right for b in seen],
        color=colour(number),
        marker=marker,
        ms=4,
        label=label,
    )


def _label(upper: Axes, lower: Axes, kind: Kind) -> None:
    upper.set(ylabel=SAYS[kind], xlim=(0, 1), ylim=(-0.02, 1.02))
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1), title=TITLES[kind], alignment="left")
    lower.set(xlabel="reported", ylabel="nuclei")
