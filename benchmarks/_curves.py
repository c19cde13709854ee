"""Quality against the number of edits: recorded image by image, summed up over a data set, as table, csv and plot."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from napari_nucseg.core.nuclei import is_live
from train.scores import ImageScore, figures, score_image

if TYPE_CHECKING:
    from benchmarks._validation import Case

GOAL = 0.95
"""F1_d that a review is to reach."""


@dataclass(frozen=True)
class Mark:
    """The figures of a data set after so many edits per 100 true nuclei.

    Attributes
    ----------
    done : float
        Edits that were done per 100 nuclei: fewer than `per_100` once nothing is left to mend.
    f1_c : dict
        By class; empty for sets without classes.
    """

    dataset: str
    per_100: float
    done: float
    bpq: float
    f1_d: float
    f1_c: dict[str, float]

    @property
    def mean_f1_c(self) -> float:
        """Mean over the classes, NaN without any."""
        known = [v for v in self.f1_c.values() if not math.isnan(v)]
        return sum(known) / len(known) if known else math.nan


def score(case: Case) -> ImageScore:
    """Compare a session with the truth, by the definitions of `core.metrics`."""
    session = case.session
    live = session.records[is_live(session.records)]
    names = [session.classes[kind].name for kind in live["kind"]]
    nuclei = pd.DataFrame({"id": live["id"], "class": names})
    schemes = [case.scheme] if case.scheme else []
    items = {s.key: case.item for s in schemes} or {"": case.item}
    return score_image(items, session.labels, nuclei, schemes)


@dataclass
class Track:
    """The course of one review: scores after some of its edits.

    Attributes
    ----------
    at : list of int
        Edits done at each score, from 0 on.
    """

    case: Case
    at: list[int]
    scores: list[ImageScore]

    @classmethod
    def begin(cls, case: Case) -> Track:
        """Score the session as it is."""
        return cls(case, [0], [score(case)])

    @property
    def nuclei(self) -> int:
        """True nuclei."""
        return self.scores[0].true_nuclei

    def note(self, edits: int, every: float) -> None:
        """Score once more if `every` edits per 100 nuclei have been done since the last time."""
        if edits - self.at[-1] >= every * self.nuclei / 100:
            self.end(edits)

    def end(self, edits: int) -> None:
        """Score the session as it is after so many edits."""
        if edits > self.at[-1]:
            self.at.append(edits)
            self.scores.append(score(self.case))

    def until(self, per_100: float) -> int:
        """Return the place of the last score that took at most so many edits per 100 nuclei (rounded up)."""
        most = math.ceil(per_100 * self.nuclei / 100)
        return max(k for k, edits in enumerate(self.at) if edits <= most)


def curve(dataset: str, tracks: Sequence[Track], every: float) -> list[Mark]:
    """Sum the reviews of a set up: bPQ as the mean over images, F1 pooled over them."""
    total = sum(t.nuclei for t in tracks)
    longest = max(100 * t.at[-1] / t.nuclei for t in tracks)
    marks = []
    for step in range(math.ceil(longest / every) + 1):
        places = [t.until(step * every) for t in tracks]
        scores = [t.scores[k] for t, k in zip(tracks, places, strict=True)]
        scheme = tracks[0].case.scheme
        named = {f.name: f.value for f in figures(scores, [scheme] if scheme else [])}
        done = 100 * sum(t.at[k] for t, k in zip(tracks, places, strict=True)) / total
        by_class = {n[5:].partition(" (")[0]: v for n, v in named.items() if n.startswith("F1_c ")}
        marks.append(Mark(dataset, step * every, done, named["bPQ"], named["F1_d"], by_class))
    return marks


def reached(marks: Sequence[Mark], goal: float = GOAL) -> Mark | None:
    """Return the first mark at which F1_d is as high as asked, and stays so; None if it never is."""
    below = [k for k, mark in enumerate(marks) if mark.f1_d < goal]
    first = below[-1] + 1 if below else 0
    return marks[first] if first < len(marks) else None


def as_table(marks: Sequence[Mark], most: int = 16) -> str:
    """Return the marks as a markdown table of at most about so many rows, evenly chosen, the last always."""
    step = max(1, math.ceil((len(marks) - 1) / most))
    chosen = [m for k, m in enumerate(marks) if k % step == 0 or m is marks[-1]]
    lines = ["| edits per 100 nuclei | bPQ | F1_d | F1_c (mean of the classes) |", "|---:|---:|---:|---:|"]
    for m in chosen:
        typed = "-" if math.isnan(m.mean_f1_c) else f"{m.mean_f1_c:.3f}"
        lines.append(f"| {m.done:.1f} | {m.bpq:.3f} | {m.f1_d:.3f} | {typed} |")
    return "\n".join(lines)


def write_csv(path: Path, marks: Sequence[Mark]) -> None:
    """Write all the marks, one a row."""
    classes = list(dict.fromkeys(name for m in marks for name in m.f1_c))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        head = ["dataset", "edits_per_100", "done_per_100", "bPQ", "F1_d", "F1_c"]
        writer.writerow(head + [f"F1_c {name}" for name in classes])
        for m in marks:
            values = [m.per_100, m.done, m.bpq, m.f1_d, m.mean_f1_c]
            values += [m.f1_c.get(name, math.nan) for name in classes]
            writer.writerow([m.dataset, *("" if math.isnan(v) else f"{v:.5g}" for v in values)])


def plot(path: Path, curves: Sequence[Sequence[Mark]]) -> None:
    """Draw the curves, one panel a data set."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(curves), figsize=(4.6 * len(curves), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, marks in zip(axes[0], curves, strict=True):
        x = [m.done for m in marks]
        ax.plot(x, [m.f1_d for m in marks], label="F1_d", color="#1f6fb4")
        ax.plot(x, [m.bpq for m in marks], label="bPQ", color="#d1495b")
        if marks[0].f1_c:
            ax.plot(x, [m.mean_f1_c for m in marks], label="F1_c, mean of the classes", color="#66a182")
        ax.axhline(GOAL, color="0.6", linewidth=0.8, linestyle="--")
        if (goal := reached(marks)) is not None:
            ax.plot([goal.done], [goal.f1_d], "o", color="#1f6fb4", markersize=5)
            ax.annotate(
                f"{goal.done:.0f} edits", (goal.done, goal.f1_d), (4, -12), textcoords="offset points"
            )
        ax.set(title=f"{marks[0].dataset}, validation images", xlabel="edits per 100 nuclei", ylim=(0, 1.02))
        ax.grid(alpha=0.25)
    axes[0, 0].legend(loc="lower right", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
