"""Nuclei as points in the plane (UMAP, McInnes et al. 2018) by their embeddings, coloured by class."""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError
from train.figures_config import FiguresConfig
from train.figures_embed import Embedded, embed
from train.figures_style import MARKERS, colour, new_figure
from train.report import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)
_MISSING = "The figure 'umap' needs umap-learn and scikit-learn; pip install 'napari-nucseg[train]'."


def draw(config: FiguresConfig) -> Figure:
    """Embed the nuclei with every model, lay them out, and draw a panel for each; print the silhouettes."""
    found = [embed(config, what) for what in config.models]
    points = [lay_out(standardised(e.features), config.seed) for e in found]
    for k, (e, place) in enumerate(zip(found, points, strict=True)):
        print(f"{config.label(k, e.model)}: {summary(e, place)}")
    titles = [config.label(k, e.model) for k, e in enumerate(found)]
    return draw_points(found, points, titles, config.width)


def standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring every feature to mean 0 and deviation 1 over the nuclei; constant ones to 0."""
    spread = features.std(0)
    out: NDArray[np.float32] = (features - features.mean(0)) / np.where(spread > 1e-6, spread, 1)
    return out


def lay_out(features: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return (n, 2) positions by UMAP, the same for the same seed.

    Raises
    ------
    NucSegError
        umap-learn is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a parametric variant would need TensorFlow
            import umap
    except ImportError as error:
        raise NucSegError(_MISSING) from error
    log.info(
        "laying %s out by UMAP, which takes a minute for some thousands", counted(len(features), "nucleus")
    )
    neighbours = min(15, len(features) - 1)
    # spectral layouts need more points than they have dimensions
    start = "spectral" if len(features) > 20 else "random"
    layout = umap.UMAP(n_neighbors=neighbours, min_dist=0.1, init=start, random_state=seed, n_jobs=1)
    points: NDArray[np.float32] = layout.fit_transform(features)
    return points


def silhouettes(features: NDArray[np.float32], classes: NDArray[np.int64]) -> tuple[float, dict[int, float]]:
    """Return the mean silhouette (Rousseeuw 1987) over all nuclei, and that of each class; NaN with one class alone.

    It goes from -1 to 1: how much nearer a nucleus is on average to its own class than to the nearest other one.

    Raises
    ------
    NucSegError
        scikit-learn is not installed.
    """
    try:
        from sklearn.metrics import silhouette_samples
    except ImportError as error:
        raise NucSegError(_MISSING) from error
    present = np.unique(classes)
    if not 2 <= len(present) < len(classes):
        return float("nan"), {int(k): float("nan") for k in present}
    values = silhouette_samples(features, classes)
    return float(values.mean()), {int(k): float(values[classes == k].mean()) for k in present}


def summary(embedded: Embedded, points: NDArray[np.float32]) -> str:
    """Return the silhouettes in words, in the space of the features and on the plane."""
    before, by_class = silhouettes(standardised(embedded.features), embedded.classes)
    after, _ = silhouettes(points, embedded.classes)
    each = ", ".join(f"{embedded.names[k - 1]} {value:.3f}" for k, value in by_class.items())
    shape = f"{len(embedded.classes)} nuclei, {embedded.features.shape[1]} features at 1/{embedded.stride}"
    return f"{shape}; silhouette of the features {before:.3f} ({each}), on the plane {after:.3f}"


def draw_points(
    found: list[Embedded], points: list[NDArray[np.float32]], titles: list[str], width: float
) -> Figure:
    """Draw a panel of points for each model.

    Parameters
    ----------
    found : list of Embedded
    points : list of (n, 2)
        Where their nuclei lie.
    titles : list of str
    width : float
        Millimetres.
    """
    columns = min(len(found), 2)
    rows = -(-len(found) // columns)
    side = width / columns if columns > 1 else 0.7 * width
    figure = new_figure(width, rows * (side + 4) + 10)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, embedded, place, title in zip(axes, found, points, titles, strict=False):
        score, _ = silhouettes(standardised(embedded.features), embedded.classes)
        _panel(axis, embedded, place)
        axis.set_title(f"{title}   silhouette {score:.2f}", pad=3)
    for empty in axes[len(found) :]:
        empty.set_axis_off()
    _legend(figure, found)
    return figure


def _panel(axes: Axes, embedded: Embedded, points: NDArray[np.float32]) -> None:
    """Draw the points of one model, rare classes on top."""
    present, counts = np.unique(embedded.classes, return_counts=True)
    size = float(np.clip(20000 / len(points), 5, 16))
    for k in present[np.argsort(-counts)].tolist():
        some = points[embedded.classes == k]
        axes.scatter(
            some[:, 0], some[:, 1], s=size, color=colour(k), marker=MARKERS[(k - 1) % len(MARKERS)], alpha=0.75,
            linewidths=0, rasterized=len(points) > 1000,
        )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set_visible(True)


def _legend(figure: Figure, found: list[Embedded]) -> None:
    from matplotlib.lines import Line2D

    # models may differ in what they call classes; what differs has a line of its own
    present = dict.fromkeys(
        (k, embedded.names[k - 1]) for embedded in found for k in np.unique(embedded.classes).tolist()
    )
    handles = [
        Line2D([], [], color=colour(k), marker=MARKERS[(k - 1) % len(MARKERS)], ls="", ms=4.5, label=name)
        for k, name in sorted(present)
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 6),
        handletextpad=0.1,
        columnspacing=1.0,
    )
