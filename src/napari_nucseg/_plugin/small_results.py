"""The saved results of an image of moderate size in the viewer: labels and centres as the panel shows its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Labels

from napari_nucseg._plugin.colouring import NO_CLASS, Look, NucleusColormap, rgba
from napari_nucseg._plugin.drawing import quick_contours
from napari_nucseg._plugin.results import CENTRE_UM, CONTOUR, OUTLINE_OPACITY, hover_table
from napari_nucseg.errors import NucSegError
from napari_nucseg.slides.report import read_summary
from napari_nucseg.slides.result import LABELS, SUMMARY, SlideResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIFF = "instances.tif"
"""How the name of the labels ends."""


def labels_of(summary: Path) -> Path:
    """Return where the labels of a result lie, if it is one of an image of moderate size."""
    return summary.with_name(f"{summary.name.removesuffix(SUMMARY)}{TIFF}")


def read_labels(path: Path) -> NDArray[np.uint32]:
    """Return the labels in a TIFF.

    Raises
    ------
    NucSegError
        It can't be read, or holds something else.
    """
    import tifffile

    try:
        labels = tifffile.imread(path)
    except MemoryError:
        raise
    except Exception as error:  # the exception types of codecs are legion
        raise NucSegError(
            f"{path.name} can't be read ({error or type(error).__name__}); copy the file again."
        ) from error
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise NucSegError(f"{path.name} holds {labels.dtype} of shape {labels.shape}, which are no labels.")
    return np.asarray(labels, np.uint32)


def read_small_result(path: str) -> list[tuple[Any, dict[str, Any], str]]:
    """Open a result by its ``*_summary.json``: a layer of labels and one of centres, to be looked at.

    Raises
    ------
    NucSegError
        Labels or table are not beside the summary, or can't be read.
    """
    summary = Path(path)
    name = summary.name.removesuffix(f"_{SUMMARY}")
    tif = labels_of(summary)
    if not tif.is_file():
        raise NucSegError(
            f"There are no labels {name}_{LABELS} or {tif.name} beside {summary.name}, so that there is nothing to "
            "show; segment the image again, with --format tif,csv."
        )
    labels = read_labels(tif)
    result = SlideResult(summary.parent, name, [labels], read_summary(summary) or {})
    try:
        scale = {} if result.mpp is None else {"scale": (result.mpp,) * 2, "units": ("um", "um")}
        layers = [_labels(result, labels, scale), _centres(result, scale)]
    except NucSegError:
        raise
    except (KeyError, ValueError, TypeError) as error:
        raise NucSegError(
            f"The table or the summary of {name} is damaged ({error!r}); copy the results again."
        ) from error
    _outline_soon(labels)
    return layers


def _labels(result: SlideResult, labels: NDArray[np.uint32], scale: dict[str, Any]) -> tuple[Any, Any, str]:
    centres, colormap = result.centres, NucleusColormap()
    colormap.set_look(Look(), result.colours, result.classes)
    colormap.set_kinds(centres.ids, centres.kinds)
    options = {
        "name": f"{result.name} nuclei",
        "colormap": colormap,
        "opacity": OUTLINE_OPACITY,
        "features": hover_table(centres.ids, _classes(result), centres.score, centres.area),
        **scale,
    }
    return labels, options, "labels"


def _centres(result: SlideResult, scale: dict[str, Any]) -> tuple[Any, Any, str]:
    centres, names = result.centres, _classes(result)
    colours = rgba(result.colours, names.tolist())
    options = {
        "name": f"{result.name} centres",
        "size": CENTRE_UM / (result.mpp or 1.0),
        "border_width": 0,
        "canvas_size_limits": (2, 12),
        "features": pd.DataFrame({"id": centres.ids, "class": names, "score": centres.score.round(2)}),
        "face_color": colours,
        "border_color": colours,
        **scale,
    }
    return np.stack([centres.y, centres.x], axis=1), options, "points"


def _classes(result: SlideResult) -> NDArray[Any]:
    return np.array([*result.classes, NO_CLASS], object)[result.centres.kinds]


def _outline_soon(labels: NDArray[np.uint32]) -> None:
    """Show outlines of the layer with this data, which napari is about to add; a reader can't ask for them."""
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    def outline() -> None:
        import napari

        viewer = napari.current_viewer()
        for layer in [] if viewer is None else viewer.layers:
            if isinstance(layer, Labels) and layer.data is labels:
                quick_contours(layer)
                layer.contour = CONTOUR

    if QApplication.instance() is not None:
        QTimer.singleShot(0, outline)
