"""Losses and figures of training runs against the step: for print, and the ``curves.png`` of every run."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucseg.errors import NucSegError
from train.figures_config import FiguresConfig
from train.figures_style import FONT, PALETTE, new_figure
from train.scores import OWN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = list[tuple[float, float]]
Metrics = dict[str, dict[str, Points]]
"""Steps and values by name, and by where they were measured: "train", "val" or "speed"."""

_FORMERLY_OWN = "(shipped)"
"""What earlier versions wrote behind the figures in a model's own classes."""
_LINES = {"train": "-", "val": "--"}
_WORDS = {"train": "training", "val": "validation"}


def draw(config: FiguresConfig) -> Figure:
    """Draw the curves of the runs of a config."""
    folders = [Path(run) for run in config.models]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):  # such as a/student and b/student
        names = list(config.models)
    runs: dict[str, Metrics] = {}
    for k, folder in enumerate(folders):
        name = config.label(k, names[k])
        if name in runs:
            raise NucSegError(f"Two runs are called '{name}'; give each its own of --labels.")
        runs[name] = read_metrics(folder / "metrics.csv")
    return draw_curves(runs, config.width, panels=config.panels or list(dict.fromkeys(plain(runs))))


def plain(runs: Mapping[str, Metrics]) -> Iterator[str]:
    """Yield the names of the losses and of the figures over all sets: without those of one set, class, or speed."""
    for metrics in runs.values():
        yield from (name for name, lines in metrics.items() if "/" not in name and "speed" not in lines)


def read_metrics(path: Path) -> Metrics:
    """Read the metrics of a run; a loss in training and the same on validation crops come under one name.

    Raises
    ------
    NucSegError
        There are none, or they are damaged.
    """
    out: Metrics = {}
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            for row in csv.DictReader(handle):
                where, _, what = row["name"].partition("/")
                what = what.removeprefix("loss_").replace(_FORMERLY_OWN, f"({OWN})")
                lines = out.setdefault(what, {})
                lines.setdefault(where, []).append((float(row["step"]), float(row["value"])))
    except OSError as error:
        raise NucSegError(
            f"'{path}' cannot be read ({error.strerror}); give the folder of a training run with --models."
        ) from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise NucSegError(f"'{path}' is damaged ({error!r}); it is no table of a training run.") from error
    return out


def draw_curves(
    runs: Mapping[str, Metrics], width: float, panels: Sequence[str] = (), across: int = 3
) -> Figure:
    """Draw a panel for each metric, runs in colours, training solid and validation dashed.

    Parameters
    ----------
    runs : mapping of name to Metrics
    width : float
        Millimetres.
    panels : sequence of str
        Names of the metrics to draw; empty for all.
    across : int
        Panels side by side.

    Raises
    ------
    NucSegError
        No run has one of the panels, or there is nothing to draw.
    """
    known = list(dict.fromkeys(name for metrics in runs.values() for name in metrics))
    if missing := [name for name in panels if name not in known]:
        raise NucSegError(f"Metric '{missing[0]}' is in none of the runs; they have {', '.join(known)}.")
    shown = list(panels) or known
    if not shown:
        raise NucSegError("The runs have no metrics yet; let them train on.")
    columns = min(across, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(width, rows * 0.8 * width / max(columns, 2) + 10)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    last = max(
        points[-1][0] for metrics in runs.values() for n in shown for points in metrics.get(n, {}).values()
    )
    for axis, name in zip(axes, shown, strict=False):
        _panel(axis, name, [metrics.get(name, {}) for metrics in runs.values()])
        axis.set_xlim(0, 1.02 * last)
    for empty in axes[len(shown) :]:
        empty.set_axis_off()
    for axis in axes[max(0, len(shown) - columns) : len(shown)]:
        axis.set_xlabel("step", fontsize=FONT)
    places = {where for metrics in runs.values() for name in shown for where in metrics.get(name, {})}
    _legend(figure, list(runs), [where for where in _LINES if where in places])
    return figure


def _panel(axes: Axes, name: str, runs: Sequence[dict[str, Points]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for k, lines in enumerate(runs):
        for where, points in lines.items():
            axes.plot(
                *zip(*points, strict=True), color=PALETTE[k % len(PALETTE)], linestyle=_LINES.get(where, "-"),
                lw=1.0, marker="." if len(points) < 30 else "", ms=3,
            )  # fmt: skip
    places = {where for lines in runs for where in lines}
    title = name if places & set(_LINES) else f"{'/'.join(sorted(places))}/{name}"
    axes.set_title(textwrap.fill(title, 26), fontsize=FONT, pad=3)
    axes.tick_params(labelsize=FONT)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, names: Sequence[str], places: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color="0.2", ls=_LINES[k], lw=1.0, label=_WORDS[k]) for k in places]
    if len(names) > 1:
        handles += [
            Line2D([], [], color=PALETTE[k % len(PALETTE)], lw=2, label=name) for k, name in enumerate(names)
        ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False, fontsize=FONT
    )
