"""The look that all figures share: sizes for print, colours that the colour-blind can tell apart, outlines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.nuclei import CLASS_COLOURS
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MM = 1 / 25.4
FONT = 8.0
_ORDER = (4, 5, 2, 6, 1, 0)  # without the yellow, which is lost on white paper
PALETTE: tuple[tuple[float, float, float], ...] = tuple(
    (CLASS_COLOURS[k][0] / 255, CLASS_COLOURS[k][1] / 255, CLASS_COLOURS[k][2] / 255) for k in _ORDER
)
"""Okabe and Ito's colours: blue, vermilion, green, purple, sky blue, orange."""
MARKERS = "osD^vP"
"""With the colours in turn, so that more classes than colours still differ."""
NO_CLASS = (0.55, 0.55, 0.55)
SEQUENTIAL, SIGNED = "cividis", "PuOr"


def colour(number: int) -> tuple[float, float, float]:
    """Return the colour of class 1, 2, ...; grey for 0, which stands for no class."""
    return PALETTE[(number - 1) % len(PALETTE)] if number > 0 else NO_CLASS


@contextmanager
def style() -> Iterator[None]:
    """Draw with these settings inside.

    Raises
    ------
    NucSegError
        matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise NucSegError("Figures need matplotlib; pip install 'napari-nucseg[train]'.") from error
    settings: dict[str, Any] = {
        "font.size": FONT,
        "axes.titlesize": FONT,
        "axes.labelsize": FONT,
        "xtick.labelsize": FONT,
        "ytick.labelsize": FONT,
        "legend.fontsize": FONT,
        "legend.frameon": False,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.linewidth": 1.0,
        "svg.hashsalt": "train.figures",  # the same figure gives the same file
        "savefig.facecolor": "white",
        "image.interpolation": "nearest",
    }
    with mpl.rc_context(settings):
        yield


def new_figure(width: float, height: float, gap: float = 1.0) -> Figure:
    """Return an empty figure of a size in millimetres, with a margin of `gap` mm around each of its parts.

    Not by pyplot, which keeps a state for the whole process.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=gap * MM, h_pad=gap * MM, wspace=0.01, hspace=0.01)
    return Figure(figsize=(width * MM, height * MM), layout=layout)


def save(figure: Figure, path: Path, dpi: int) -> Path:
    """Write a figure; the kind of file goes by its ending.

    Raises
    ------
    NucSegError
        The file cannot be written.
    """
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix.lstrip("."))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, metadata=undated)
    except OSError as error:
        raise NucSegError(
            f"Figure '{path}' cannot be written ({error.strerror}); give another --out."
        ) from error
    return path


def picture(axes: Axes, image: NDArray[Any], title: str = "", **how: Any) -> None:
    """Show an image without ticks, a thin frame around it."""
    axes.imshow(image, **how)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.set_title(title, pad=3)


def outlines(labels: NDArray[np.integer]) -> dict[int, list[NDArray[np.float64]]]:
    """Return the outlines of every nucleus of an (H, W) label image as closed lines of (x, y) along pixel edges."""
    from skimage.measure import find_contours, regionprops

    out: dict[int, list[NDArray[np.float64]]] = {}
    for region in regionprops(labels.astype(np.int32)):
        top, left = region.bbox[:2]
        # at 0.5 between the pixels of the nucleus and a rim of background
        lines = find_contours(np.pad(region.image.astype(np.float32), 1), 0.5)
        out[region.label] = [line[:, ::-1] + (left - 1, top - 1) for line in lines]
    return out


def draw_outlines(axes: Axes, lines: Sequence[NDArray[np.float64]], **how: Any) -> None:
    """Draw outlines, each as vectors on a thin white rim that lifts it from the tissue."""
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import Normal, Stroke

    width = how.setdefault("linewidths", 0.8)
    how.setdefault("path_effects", [Stroke(linewidth=width + 0.8, foreground="white", alpha=0.7), Normal()])
    axes.add_collection(LineCollection(lines, **how), autolim=False)


def scale_bar(axes: Axes, shape: tuple[int, ...], mpp: float) -> None:
    """Draw a bar of a round length in the lower left corner of a picture."""
    from matplotlib.patheffects import withStroke

    side = shape[1] * mpp
    length = max(v for v in (1, 2, 5, 10, 20, 50, 100, 200, 500) if v <= max(side / 3, 1))
    x, y = 0.05 * shape[1], 0.93 * shape[0]
    rim = [withStroke(linewidth=3.5, foreground="white")]
    axes.plot([x, x + length / mpp], [y, y], color="black", lw=2, solid_capstyle="butt", path_effects=rim)
    axes.text(
        x, y - 0.03 * shape[0], f"{length} µm", va="bottom", ha="left",
        path_effects=[withStroke(linewidth=2, foreground="white")],
    )  # fmt: skip
