"""The stages of one image side by side: image, truth, every map of the network, instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.decode import compress, decode
from napari_nucseg.core.maps import BAND, MapLayout
from napari_nucseg.core.tiling import Box
from napari_nucseg.models.card import Card
from napari_nucseg.models.runtime import Runtime
from train import loaded
from train.figures_config import FiguresConfig
from train.figures_data import Seen, choose, densest, own_scheme
from train.figures_style import (
    SEQUENTIAL,
    SIGNED,
    colour,
    draw_outlines,
    new_figure,
    outlines,
    picture,
    scale_bar,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIRECTIONS = {0: "horizontal", 90: "vertical", 45: "45°", 135: "135°"}


@dataclass(frozen=True)
class Stages:
    """What is shown of one image, all at the model's resolution.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    truth : int32 (H, W)
    true_classes : dict
        Class of each true nucleus, 0 if not known.
    maps : float32 (channels, H, W)
        Probabilities and distances.
    found : int32 (H, W)
        Predicted nuclei.
    found_classes : dict
        Their classes.
    centres : (n, 2) int64
        Predicted centres, rows and columns.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.int32]
    true_classes: dict[int, int]
    maps: NDArray[np.float32]
    found: NDArray[np.int32]
    found_classes: dict[int, int]
    centres: NDArray[np.int64]
    layout: MapLayout
    classes: tuple[str, ...]
    mpp: float


def draw(config: FiguresConfig) -> Figure:
    """Run the first model on the first image and draw what comes of it."""
    chosen, items = choose(config)
    model = loaded.load(config.models[0], config.device)
    truth = chosen.load(items[0], own_scheme(chosen, model.card.classes, config.merge))
    seen = Seen.of(truth, model.card)
    middle = None
    if config.at is not None:
        row, col = seen.image.scale.model_pixels(np.array([config.at], float))[0].tolist()
        middle = (row, col)
    box = densest(seen.labels(seen.whole), round(config.window / model.card.mpp), middle)
    return draw_stages(look(seen, box, model.card, model.runtime), config.width)


def look(seen: Seen, box: Box, card: Card, runtime: Runtime) -> Stages:
    """Run a network around a box of the model's grid, as far as the nuclei in it depend on, and decode.

    Parameters
    ----------
    seen : Seen
    box : Box
        What to show.
    card, runtime
        Of the model.
    """
    around = box.grown(card.decode.margin, seen.image.shape)
    pixels = seen.image.read(around)
    maps = run_network(pixels, runtime)
    found = decode(compress(maps, card.layout), card.decode)
    cut = box.relative(around).slices
    kinds = found.probabilities.argmax(1) + 1
    centres = found.centres - np.array([box.y0 - around.y0, box.x0 - around.x0], np.int64)
    shown = ((centres >= 0) & (centres < box.shape)).all(1)
    return Stages(
        pixels[cut],
        seen.labels(box),
        seen.classes(),
        maps[:, *cut],
        found.owner[cut],
        {k + 1: int(kind) for k, kind in enumerate(kinds)},
        centres[shown],
        card.layout,
        card.classes,
        card.mpp,
    )


def run_network(image: NDArray[np.uint8], runtime: Runtime) -> NDArray[np.float32]:
    """Return the activated maps (channels, H, W) of an (H, W, 3) image of any size, mirrored up to the stride."""
    height, width = image.shape[:2]
    pad = ((0, -height % 16), (0, -width % 16), (0, 0))
    padded = np.pad(image, pad, mode="symmetric" if min(height, width) < 16 else "reflect")
    return runtime(padded)[:, :height, :width]


def draw_stages(stages: Stages, width: float) -> Figure:
    """Draw all stages: three columns, or four if there are four distance maps.

    Parameters
    ----------
    stages : Stages
    width : float
        Millimetres.
    """
    columns = 3 if len(stages.layout.angles) <= 2 else 4
    rows = -(-(7 + len(stages.layout.angles)) // columns)
    shape = stages.truth.shape
    side = (width / columns - 2) * shape[0] / shape[1]
    figure = new_figure(width, rows * (side + 4) + 17, gap=0.4)
    grid = figure.add_gridspec(rows + 1, 2 * columns, height_ratios=[*[side] * rows, 2])
    places = [(row, column) for row in range(rows) for column in range(columns)][
        : 7 + len(stages.layout.angles)
    ]
    axes = [figure.add_subplot(grid[row, 2 * column : 2 * column + 2]) for row, column in places]
    _panels(axes, stages)
    _scale(figure.add_subplot(grid[rows, :columns]), SIGNED, -1, "distance (grey: not in a nucleus)")
    _scale(figure.add_subplot(grid[rows, columns:]), SEQUENTIAL, 0, "probability or activation")
    _legend(figure, stages)
    return figure


def _scale(place: Axes, cmap: str, low: float, text: str) -> None:
    """Draw what the colours of maps stand for, from `low` to 1, with a gap on both sides."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    place.set_axis_off()
    axes = place.inset_axes((0.04, 0, 0.92, 1))
    bar = place.figure.colorbar(
        ScalarMappable(Normalize(low, 1), cmap), cax=axes, orientation="horizontal", label=text
    )
    ticks = [low, (low + 1) / 2, 1]
    bar.set_ticks(ticks, labels=[f"{tick:g}".replace("-", "\N{MINUS SIGN}") for tick in ticks])
    first, *_, last = bar.ax.get_xticklabels()
    first.set_horizontalalignment("left")  # within the bar, away from its neighbour's
    last.set_horizontalalignment("right")
    bar.outline.set_linewidth(0.5)


def _panels(axes: list[Axes], stages: Stages) -> None:
    """Fill the panels in order."""
    todo = iter(axes)
    lay, maps, image = stages.layout, stages.maps, stages.image
    inside = maps[lay.foreground.start] > 0.5
    first = next(todo)
    picture(first, image, "image")
    scale_bar(first, stages.truth.shape, stages.mpp)
    _instances(next(todo), stages, stages.truth, stages.true_classes, "truth")
    plain = {"cmap": SEQUENTIAL, "vmin": 0, "vmax": 1}
    picture(next(todo), maps[lay.foreground.start], "foreground", **plain)
    for angle, channel in zip(lay.angles, range(lay.distance.start, lay.distance.stop), strict=True):
        # it means nothing outside nuclei
        values = np.where(inside, maps[channel], np.nan)
        axis = next(todo)
        picture(axis, values, f"distance, {DIRECTIONS[angle]}", cmap=SIGNED, vmin=-1, vmax=1)
        axis.set_facecolor("0.6")
    picture(next(todo), maps[lay.centre.start], "centre", **plain)
    picture(next(todo), maps[lay.boundary.start + BAND], "boundary", **plain)
    picture(next(todo), _types(maps[lay.type]), "type")
    last = next(todo)
    _instances(last, stages, stages.found, stages.found_classes, "instances")
    last.plot(*stages.centres.T[::-1], ".", color="black", ms=2.2, mec="white", mew=0.3)


def _types(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the likeliest class of each pixel as a colour, white where it is background."""
    palette = np.array([(1.0, 1.0, 1.0), *(colour(k) for k in range(1, len(probabilities)))])
    return palette[probabilities.argmax(0)]


def _instances(
    axes: Axes, stages: Stages, labels: NDArray[np.int32], classes: dict[int, int], title: str
) -> None:
    pale = (255 - 0.6 * (255 - stages.image.astype(np.float32))).astype(np.uint8)
    picture(axes, pale, title)
    lines = outlines(labels)
    for kind in sorted({classes.get(i, 0) for i in lines}):
        some = [line for i, part in lines.items() if classes.get(i, 0) == kind for line in part]
        draw_outlines(axes, some, colors=[colour(kind)], linewidths=1.0)


def _legend(figure: Figure, stages: Stages) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour(k), lw=2, label=name) for k, name in enumerate(stages.classes, start=1)
    ]
    if 0 in {stages.true_classes.get(int(i), 0) for i in np.unique(stages.truth[stages.truth > 0])}:
        handles.append(Line2D([], [], color=colour(0), lw=2, label="no class"))
    columns = min(len(handles), 6)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, handlelength=1.2, columnspacing=1.2
    )
