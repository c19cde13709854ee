"""Images by models, errors marked: the picture that goes with an ablation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.nuclei import CLASS_COLOURS
from napari_nucseg.core.tiling import Box
from napari_nucseg.io.slide import Mpp
from train import loaded
from train.figures_config import FiguresConfig
from train.figures_data import choose, densest
from train.figures_errors import find_errors
from train.figures_style import draw_outlines, new_figure, outlines, picture, scale_bar
from train.truth import Truth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 4
"""Images shown where none is named."""
PAGE, LEAST = 230.0, 25.0
"""Height that a figure may have, and the least side of a picture, in millimetres."""
WORDY = 72.0
"""Side in millimetres from which on the errors are named, and not only counted, below a picture."""

DASHED = (0, (2.2, 1.1))
FROM_TRUTH = ("missed", "merged")
_RIGHT = (0.45, 0.45, 0.45)
MARKS: dict[str, dict[str, Any]] = {
    "missed": {"color": tuple(c / 255 for c in CLASS_COLOURS[5]), "linestyles": DASHED},
    "invented": {"color": tuple(c / 255 for c in CLASS_COLOURS[4]), "linestyles": "solid"},
    "merged": {"color": (0.0, 0.0, 0.0), "linestyles": DASHED},
    "split": {"color": tuple(c / 255 for c in CLASS_COLOURS[2]), "linestyles": "solid"},
}
"""Colour and line of each error. Dashed are true nuclei: missed, or lost in a merge, whose own outline is solid."""


@dataclass(frozen=True)
class Row:
    """One image with what every model made of it.

    Attributes
    ----------
    truth : Truth
    box : Box
        What is shown of it.
    found : list of uint32 (H, W)
        Labels of each model.
    """

    truth: Truth
    box: Box
    found: list[NDArray[np.uint32]]


def draw(config: FiguresConfig) -> Figure:
    """Segment the images with every model and draw them."""
    chosen, items = choose(config)
    models = [loaded.load(name, config.device) for name in config.models]
    rows = []
    for item in items if config.images else items[:MOST_ROWS]:
        truth = chosen.load(item, None)
        mpp = Mpp(truth.mpp, f"the data set {truth.dataset}")
        box = densest(truth.labels, round(config.window / truth.mpp), config.at)
        rows.append(Row(truth, box, [model.segment(truth.image, mpp)[0] for model in models]))
    labels = [config.label(k, model.name) for k, model in enumerate(models)]
    return draw_rows(rows, labels, config.width)


def draw_rows(rows: list[Row], names: list[str], width: float) -> Figure:
    """Draw a line of pictures for each image: the truth, then each model's result.

    Parameters
    ----------
    rows : list of Row
    names : list of str
        Of the models.
    width : float
        Millimetres; less is taken where the figure would be higher than `PAGE`.
    """
    columns = len(names) + 1
    # a picture, the line of numbers below it, and once the titles and the legend
    side = max(min((width - 6) / columns, (PAGE - 12) / len(rows) - 5), LEAST)
    figure = new_figure(side * columns + 6, len(rows) * (side + 5) + 12, gap=0.4)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for k, row in enumerate(rows):
        truth = row.truth.labels[row.box.slices]
        _truth(axes[k, 0], row, truth)
        axes[k, 0].set_ylabel(_short(row.truth.name, int(side / 1.6)), labelpad=2)
        for cell, labels in zip(axes[k, 1:], row.found, strict=True):
            _result(cell, row, labels, side >= WORDY)
        for cell, title in zip(axes[k], ["truth", *names], strict=True):
            cell.set_title(title if k == 0 else "", pad=3)
    _legend(figure)
    return figure


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _pale(row: Row) -> NDArray[np.uint8]:
    """Return the tissue lightened, so that outlines stand out."""
    image = row.truth.image[row.box.slices].astype(np.float32)
    return (255 - 0.6 * (255 - image)).astype(np.uint8)


def _truth(axes: Axes, row: Row, labels: NDArray[np.integer]) -> None:
    picture(axes, row.truth.image[row.box.slices])
    lines = [line for part in outlines(labels).values() for line in part]
    draw_outlines(axes, lines, colors=[_RIGHT], linewidths=0.6)
    scale_bar(axes, labels.shape, row.truth.mpp)
    axes.set_xlabel(f"{len(np.unique(labels[labels > 0]))} nuclei", labelpad=2)


def _result(axes: Axes, row: Row, labels: NDArray[np.uint32], wordy: bool) -> None:
    """Draw the nuclei found, and the missed ones, with their errors. Errors are judged on the whole image."""
    errors = find_errors(row.truth.labels, labels)
    true, pred = row.truth.labels[row.box.slices], labels[row.box.slices]
    picture(axes, _pale(row))
    lines, shown = outlines(pred), outlines(true)
    draw_outlines(axes, _of(lines, errors.right), colors=[_RIGHT], linewidths=0.5)
    draw_outlines(
        axes, _of(lines, errors.merged), linewidths=1.1, **{**MARKS["merged"], "linestyles": "solid"}
    )
    ids = {
        "missed": errors.missed,
        "invented": errors.invented,
        "merged": errors.merged_true,
        "split": errors.split,
    }
    counts = []
    for kind, look in MARKS.items():
        where = shown if kind in FROM_TRUTH else lines
        draw_outlines(axes, _of(where, ids[kind]), linewidths=1.1, **look)
        counts.append(len(_visible(where, ids[kind])))
    _counts(axes, counts, wordy)


def _visible(lines: dict[int, list[NDArray[np.float64]]], ids: NDArray[np.int64]) -> list[int]:
    return [int(i) for i in ids if int(i) in lines]


def _of(lines: dict[int, list[NDArray[np.float64]]], ids: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    return [line for i in _visible(lines, ids) for line in lines[i]]


def _counts(axes: Axes, counts: list[int], wordy: bool) -> None:
    """Write the numbers of errors below a picture, each in its colour, in the order of the legend."""
    axes.set_xlabel(" ", labelpad=2)  # keeps the room
    for k, (number, (name, look)) in enumerate(zip(counts, MARKS.items(), strict=True)):
        text, weight = (f"{number} {name}", "normal") if wordy else (str(number), "bold")
        axes.annotate(
            text, ((k + 0.5) / len(counts), 0), (0, -3), "axes fraction", textcoords="offset points",
            ha="center", va="top", color=look["color"], fontweight=weight,
        )  # fmt: skip


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=_RIGHT, lw=0.8, label="right")]
    for name, look in MARKS.items():
        handles.append(Line2D([], [], color=look["color"], linestyle=look["linestyles"], lw=1.4, label=name))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), handlelength=1.8, columnspacing=1.0
    )
