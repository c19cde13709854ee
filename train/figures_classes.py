"""How many nuclei of each class the sets of a training hold, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError
from train.annotated import AnnotatedImage
from train.data import SetConfig, load_data, load_split
from train.figures_config import FiguresConfig
from train.figures_style import NO_CLASS, PALETTE, new_figure
from train.listing import read_meta
from train.selection import training_data

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NONE = "no class"
Counts = dict[str, NDArray[np.int64]]
"""Nuclei of no class and of each class (C + 1,), by the name of the bars."""


def draw(config: FiguresConfig) -> Figure:
    """Count the nuclei of a training's data, or of one split of a set, and draw them; print the numbers."""
    if config.held_out is not None:
        data = training_data(config.held_out).resolved()
        train, held = load_data(data)
        classes = data.classes
        counts = {**count(train, len(classes), "training"), **count(held, len(classes), "validation")}
    else:
        classes, images = _of_split(config)
        counts = count(images, len(classes), config.split)
    for name, numbers in counts.items():
        said = ", ".join(f"{c} {n:,}" for c, n in zip((NONE, *classes), numbers.tolist(), strict=True) if n)
        print(f"{name}: {said}")
    return draw_counts(counts, classes, config.width)


def _of_split(config: FiguresConfig) -> tuple[tuple[str, ...], list[AnnotatedImage]]:
    """Return the classes of one set, its own or of a merge, and the images of one split."""
    if config.data is None or not config.split:
        raise NucSegError(
            "The figure 'classes' counts nuclei; give --held-out CONFIG.toml, or --data and --split."
        )
    folder = config.data.resolve()
    meta = read_meta(folder)
    if config.merge is not None and config.merge not in meta:
        raise NucSegError(f"merge='{config.merge}' is not in '{folder / 'dataset.json'}'; see its merges.")
    classes = tuple(meta[config.merge]) if config.merge else tuple(meta.get("classes", ())[1:])
    if not classes:
        raise NucSegError(f"'{folder}' has no classes to count; see dataset.json.")
    settings = SetConfig(train=(config.split,), validation=(), merge=config.merge, mpp=config.mpp)
    return classes, load_split(Path(folder.parent), {folder.name: settings}, classes, held_out=False)


def count(images: Sequence[AnnotatedImage], n_classes: int, side: str) -> Counts:
    """Count the nuclei of each set.

    Parameters
    ----------
    images : sequence of AnnotatedImage
    n_classes : int
    side : str
        Put behind the name of each set, such as "training".
    """
    out: Counts = {}
    for image in images:
        name = f"{image.dataset}, {side}"
        seen = np.bincount(image.nuclei[:, 2], minlength=n_classes + 1)[: n_classes + 1]
        out[name] = out.get(name, np.zeros(n_classes + 1, np.int64)) + seen
    return out


def draw_counts(counts: Counts, classes: Sequence[str], width: float) -> Figure:
    """Draw a group of bars for each class, one bar for each set that has any, on a logarithmic scale.

    Parameters
    ----------
    counts : dict of (C + 1,) int64
    classes : sequence of str
    width : float
        Millimetres.

    Raises
    ------
    NucSegError
        There are no nuclei.
    """
    groups = [(name, k) for k, name in enumerate(classes, start=1)] + [(NONE, 0)]
    groups = [(name, k) for name, k in groups if any(c[k] for c in counts.values())]
    if not groups:
        raise NucSegError("The images hold no nuclei to count; choose others.")
    sets = list(dict.fromkeys(name.rpartition(", ")[0] for name in counts))
    order = sorted(
        counts, key=lambda name: sets.index(name.rpartition(", ")[0])
    )  # what is held out beside the rest
    counts = {name: counts[name] for name in order}
    bars = sum(sum(bool(c[k]) for c in counts.values()) for _, k in groups)
    figure = new_figure(width, bars * 4.2 + len(groups) * 2 + 16 + 4 * -(-len(counts) // 3))
    axes = figure.subplots()
    _bars(axes, counts, groups)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), columnspacing=1.2)
    return figure


def _bars(axes: Axes, counts: Counts, groups: list[tuple[str, int]]) -> None:
    sets = list(dict.fromkeys(name.rpartition(", ")[0] for name in counts))
    palette = (*PALETTE, NO_CLASS)
    colours = {name: palette[sets.index(name.rpartition(", ")[0]) % len(palette)] for name in counts}
    y, ticks, named = 0.0, [], set()
    for _, k in groups:
        first = y
        for name, numbers in counts.items():
            if not numbers[k]:
                continue
            # not by colour alone: the held-out images are striped
            hatch = "////" if name.endswith("validation") else None
            label = name if name not in named else None
            named.add(name)
            axes.barh(
                y,
                numbers[k],
                0.9,
                label=label,
                color=colours[name],
                edgecolor="white",
                linewidth=0,
                hatch=hatch,
            )
            axes.annotate(f"{numbers[k]:,}", (numbers[k], y), (2, 0), textcoords="offset points", va="center")
            y += 1
        ticks.append((first + y - 1) / 2)
        y += 0.6
    axes.set_yticks(ticks, [name for name, _ in groups])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(1, 3 * max(int(c.max()) for c in counts.values()))
    axes.set_xlabel("nuclei (logarithmic)")
