"""MoNuSeg and Kumar: an image (.tif, .svs) and a file of Aperio ImageScope's outlines (.xml) of the same name.

Kumar N et al., IEEE Transactions on Medical Imaging 36 (2017) and 39 (2020).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp
from napari_nucseg.io.qupath_fill import fill, survey
from train.readers.canvas import Canvas
from train.readers.files import read_rgb
from train.readers.pairs import files_below, open_pairs
from train.readers.record import About, Raw, ReadOptions, Source

ABOUT = About(
    "MoNuSeg / Kumar", "CC BY-NC-SA 4.0", "Kumar N et al., IEEE TMI 36 (2017) and IEEE TMI 39 (2020)"
)
_NO_CLASS = {"", "description", "nuclei", "nucleus"}
"""Names of layers and attributes that tell no class; ImageScope calls every layer's attribute Description."""

_POLYGONS = {None, "0", "1"}  # Region Type: freehand outlines and rectangles; not ellipses, arrows, rulers
NO_OUTLINE = "regions that are no outlines (ellipses, arrows, rulers, excluded areas)"
DEGENERATE = "regions of fewer than three corners"
OUTSIDE = "regions outside of the image"
TOO_SMALL = "regions that hold no centre of a pixel"
CROSSING = "outlines that cross themselves, filled by the even-odd rule"


@dataclass(frozen=True)
class Regions:
    """What an XML file holds.

    Attributes
    ----------
    rings : list of (class or None, (n, 2) float64 corners x, y)
        In pixels of level 0, in the order of the file; the pixel (r, c) is the square from (c, r) to (c+1, r+1).
    mpp : Mpp
    notes : Counter
        What was left out -> how often.
    """

    rings: list[tuple[str | None, NDArray[np.float64]]]
    mpp: Mpp
    notes: Counter[str]


def matches(path: Path) -> bool:
    """Whether there is an XML file of ImageScope's, at or below a path."""
    return any("<Annotation" in _head(xml) for xml in files_below(path, ".xml"))


def open_source(path: Path, options: ReadOptions) -> Source:
    """Pair every XML file with its image; nothing is read."""
    del options
    return open_pairs("aperio", path, files_below(path, ".xml"), read_pair, ABOUT)


def read_pair(xml: Path, image_path: Path) -> Raw:
    """Read an image with its outlines.

    Raises
    ------
    NucSegError
        One of the files is damaged, or most outlines lie outside of the image.
    """
    regions = read_regions(xml)
    image, stated = read_rgb(image_path)
    canvas = Canvas((image.shape[0], image.shape[1]))
    canvas.notes.update(regions.notes)
    for kind, ring in regions.rings:
        _paint(canvas, ring, kind)
    if 2 * canvas.notes[OUTSIDE] > len(regions.rings):
        raise NucSegError(
            f"'{xml}' has {canvas.notes[OUTSIDE]} of {len(regions.rings)} outlines outside of '{image_path.name}', "
            "so it is of another image or resolution; pair files of one name and download."
        )
    types, classes = canvas.types()
    mpp = regions.mpp if regions.mpp.value is not None else stated
    return Raw(image, canvas.labels, types, classes, mpp.value, mpp.source, canvas.counted())


def read_regions(path: Path) -> Regions:
    """Parse a file of outlines.

    Raises
    ------
    NucSegError
        It's no XML, or not ImageScope's.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise NucSegError(f"'{path}' is damaged or no XML ({error}); download or export it again.") from error
    if root.tag != "Annotations":
        raise NucSegError(f"'{path}' begins with <{root.tag}>, but ImageScope's files with <Annotations>.")
    rings: list[tuple[str | None, NDArray[np.float64]]] = []
    notes: Counter[str] = Counter()
    for layer in root.iter("Annotation"):
        kind = _class_of(layer)
        for region in layer.iter("Region"):
            if region.get("Type") not in _POLYGONS or region.get("NegativeROA", "0") not in {"0", ""}:
                notes[NO_OUTLINE] += 1
                continue
            ring = _corners(region)
            if len(np.unique(ring, axis=0)) < 3:
                notes[DEGENERATE] += 1
            else:
                rings.append((kind, ring))
    return Regions(rings, _mpp(root), notes)


def _paint(canvas: Canvas, ring: NDArray[np.float64], kind: str | None) -> None:
    height, width = canvas.labels.shape
    finite, x0, x1, y0, y1, _ = survey(ring)
    if not finite or x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height or max(-x0, -y0, x1, y1) > 1e9:
        canvas.notes[OUTSIDE] += 1
        return
    top, left = max(0, math.floor(y0)), max(0, math.floor(x0))
    mask = np.zeros((min(height, math.ceil(y1)) - top, min(width, math.ceil(x1)) - left), np.bool_)
    canvas.notes[CROSSING] += int(fill(ring, top, left, mask))
    if mask.any():
        canvas.add(top, left, mask, kind)
    else:
        canvas.notes[TOO_SMALL] += 1


def _corners(region: Any) -> NDArray[np.float64]:
    try:
        corners = [(float(v.get("X", "nan")), float(v.get("Y", "nan"))) for v in region.iter("Vertex")]
    except ValueError:
        corners = []
    return np.array(corners, np.float64).reshape(-1, 2)


def _class_of(layer: Any) -> str | None:
    """Return the class of a layer: the name of its attribute (as in MoNuSAC), else its own."""
    names = [a.get("Name", "") for a in layer.findall("Attributes/Attribute")] + [layer.get("Name") or ""]
    return next((n.strip() for n in names if n.strip().lower() not in _NO_CLASS), None)


def _mpp(root: Any) -> Mpp:
    try:
        value = float(root.get("MicronsPerPixel", "0"))
    except ValueError:
        return Mpp()
    return Mpp.found(value, value, "MicronsPerPixel of the XML file") if value else Mpp()


def _head(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            return handle.read(4096).decode("utf-8", "replace")
    except OSError:
        return ""
