"""The demo without a window: segment a sample and draw what was found."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from napari_nucseg._cli.batch import Say, segment_source
from napari_nucseg._cli.inputs import prepare_folder, shown, stem_of
from napari_nucseg.doctor import QT_BINDINGS
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import Mpp, as_source, read_image
from napari_nucseg.slides.loaded import Loaded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_nucseg.inference import Result

FOLDER = Path("nucseg-demo")
_TWICE_BELOW = 4e6
_LARGEST = 100e6


def why_no_window() -> str | None:
    """Return why napari cannot open here, or None where it can."""
    if importlib.util.find_spec("napari") is None:
        return "napari is not installed (pip install 'napari-nucseg[desktop]')"
    if not any(importlib.util.find_spec(name) for name in QT_BINDINGS):
        return "no Qt binding is installed (pip install 'napari-nucseg[desktop]')"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    return None


def headless_demo(image: Path | None, mpp: Mpp | None, folder: Path, say: Say) -> None:
    """Segment an image, or the synthetic sample, into `folder`, with an overlay to look at.

    Parameters
    ----------
    image
        A file; None for the synthetic sample, which is then saved as a PNG beside its results.
    mpp
        Micrometres per pixel, where the file doesn't say.
    folder
        Made if missing; files of an earlier demo in it are replaced.
    say
        Takes a line for the user.

    Raises
    ------
    NucSegError
        The image cannot be used, or the results cannot be written.
    """
    prepare_folder(folder)
    path = image or save_synthetic(folder)
    loaded = Loaded.of("default", "auto")
    say(loaded.describe())
    with read_image(path) as opened:
        source = as_source(opened, mpp)
        result = segment_source(source, loaded, stem_of(path))
        files = result.save(folder, overwrite=True)
        if image is None:
            files.insert(0, path)
        height, width = source.shape
        if height * width <= _LARGEST:
            files.append(folder / f"{result.name}_overlay.png")
            Image.fromarray(overlay(source.read(0, height, 0, width), result)).save(files[-1])
    counts = ", ".join(f"{n} {name}" for name, n in result.nuclei["class"].value_counts().items())
    say(f"{len(result.nuclei):,} nuclei at {result.mpp}: {counts or 'none'}")
    say(f"The results lie in {folder.resolve()}:")
    for file in files:
        say(f"  {shown(file)}")


def save_synthetic(folder: Path) -> Path:
    """Write the synthetic sample as a PNG that carries its resolution; return the path."""
    from napari_nucseg.core.synthetic import synthetic_he

    tile = synthetic_he()
    path = folder / "synthetic_he.png"
    dots_per_inch = 25400 / tile.mpp
    try:
        Image.fromarray(tile.image).save(path, dpi=(dots_per_inch, dots_per_inch))
    except OSError as error:
        raise NucSegError(f"'{path}' cannot be written ({error.strerror}); choose another folder.") from error
    return path


def overlay(rgb: NDArray[np.uint8], result: Result) -> NDArray[np.uint8]:
    """Draw the outlines of the nuclei in the colours of their classes, and a legend below.

    Parameters
    ----------
    rgb : (H, W, 3) uint8
        The image, not changed.
    result : Result
        Its labels are (H, W).

    Returns
    -------
    (H', W', 3) uint8
        Small images are drawn at twice their size, so that the outlines stay thin.
    """
    zoom = 2 if rgb.shape[0] * rgb.shape[1] <= _TWICE_BELOW else 1
    size = (rgb.shape[1] * zoom, rgb.shape[0] * zoom)
    canvas = np.array(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))
    labels, outline = result.labels, np.zeros(result.labels.shape, bool)
    for low, high in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        step = labels[low] != labels[high]
        outline[low] |= step
        outline[high] |= step
    labels = (labels * outline).repeat(zoom, 0).repeat(zoom, 1)
    colours = np.zeros((int(labels.max(initial=0)) + 1, 3), np.uint8)
    names = result.nuclei["class"].tolist()
    colours[result.nuclei["id"].to_numpy()] = np.array([result.card.colours[n] for n in names]).reshape(-1, 3)
    canvas[labels > 0] = colours[labels[labels > 0]]
    return np.vstack([canvas, _legend(canvas.shape[1], result)])


def _legend(width: int, result: Result) -> NDArray[np.uint8]:
    """Draw a strip that names the classes present, their numbers and colours."""
    counts = result.nuclei["class"].value_counts()
    entries = [(name, f"{name} {counts.get(name, 0)}") for name in result.card.classes]
    column, line = 130, 20
    per_row = max(1, width // column)
    strip = Image.new("RGB", (width, line * math.ceil(len(entries) / per_row) + 4), "white")
    draw = ImageDraw.Draw(strip)
    for k, (name, text) in enumerate(entries):
        x, y = 6 + column * (k % per_row), 4 + line * (k // per_row)
        draw.rectangle((x, y + 1, x + 10, y + 11), fill=result.card.colours[name])
        draw.text((x + 16, y), text, fill="black")
    return np.asarray(strip)
