"""Micrometres per pixel, and where a file says it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from napari_nucseg.errors import NucSegError

PLAUSIBLE = (0.05, 5.0)
"""Smallest and largest micrometres per pixel at which a microscope shows nuclei."""

_SQUARE = 0.05  # relative difference of the two sides above which pixels don't count as square
_MICROMETRES = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0,
    "\\u00b5m": 1.0, "micrometer": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4, "in": 25400.0, "inch": 25400.0,
}  # fmt: skip
_INCH, _CENTIMETRE = 2, 3  # values of the TIFF tag ResolutionUnit


@dataclass(frozen=True)
class Mpp:
    """Micrometres per pixel of level 0, and where the figure came from.

    Parameters
    ----------
    value
        Micrometres per pixel, None where unknown.
    source
        Such as ``"OME-XML"``, ``"Aperio header"``, ``"TIFF resolution tag"``, ``"stated by the user"`` or
        ``"unknown"``; in brackets after ``"unknown"`` why a figure in the file was not believed.
    """

    value: float | None = None
    source: str = "unknown"

    def __str__(self) -> str:
        return self.source if self.value is None else f"{self.value:.4g} µm/px ({self.source})"

    @classmethod
    def stated(cls, value: float | str, source: str = "stated by the user") -> Mpp:
        """Return a figure given by a person, as a number or as text such as ``"0,25"`` or ``"0.25 um"``.

        Raises
        ------
        NucSegError
            It is no number, or not within `PLAUSIBLE`.
        """
        try:
            text = value.strip().removesuffix("um").removesuffix("µm") if isinstance(value, str) else value
            number = math.nan if isinstance(value, bool) else float(str(text).replace(",", "."))
        except (TypeError, ValueError):
            number = math.nan
        if not PLAUSIBLE[0] <= number <= PLAUSIBLE[1]:
            raise NucSegError(
                f"{value!r} is no usable mpp: it must lie between {PLAUSIBLE[0]} and {PLAUSIBLE[1]} "
                "micrometres per pixel; 40x scans have about 0.25, 20x scans about 0.5"
            )
        return cls(number, source)

    @classmethod
    def found(cls, x: float, y: float, source: str) -> Mpp:
        """Return a figure read from a file, or "unknown" with the reason where it can't be true."""
        if not (PLAUSIBLE[0] <= x <= PLAUSIBLE[1] and PLAUSIBLE[0] <= y <= PLAUSIBLE[1]):
            return cls(None, f"unknown ({source} says {x:.4g} µm/px, which no scan of nuclei has)")
        if abs(x - y) > _SQUARE * min(x, y):
            return cls(None, f"unknown ({source} says {x:.4g} x {y:.4g} µm/px, but pixels must be square)")
        return cls(math.sqrt(x * y) if x != y else x, source)


def from_ome_xml(xml: str) -> Mpp | None:
    """Read the PhysicalSize of the first image; None where it is missing or not in a unit of length."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    pixels = next((node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return None
    x, y = (_ome_size(pixels, axis) for axis in "XY")
    if x is None and y is None:
        return None
    return Mpp.found(x or y or 0.0, y or x or 0.0, "OME-XML")


def _ome_size(pixels: ElementTree.Element, axis: str) -> float | None:
    unit = _MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        return float(pixels.get(f"PhysicalSize{axis}", "")) * unit if unit else None
    except ValueError:
        return None


def from_aperio(description: str) -> Mpp | None:
    """Read the field ``MPP = 0.499`` of an Aperio image description."""
    if "aperio" not in description.lower():
        return None
    match = re.search(r"\|\s*MPP\s*=\s*([0-9.]+(?:[eE][-+]?\d+)?)", description)
    try:
        value = float(match[1]) if match else 0.0
    except ValueError:
        return None
    return Mpp.found(value, value, "Aperio header") if value else None


def from_dpi(dpi: Any, source: str) -> Mpp | None:
    """Read a (x, y) resolution in dots per inch; screen and print defaults such as 72 or 300 mean nothing."""
    try:
        x, y = (25400.0 / float(side) for side in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    mpp = Mpp.found(x, y, source)
    return mpp if PLAUSIBLE[0] <= x <= PLAUSIBLE[1] else None


def from_tiff(tif: Any, page: Any) -> Mpp:
    """Read the figure from an open TIFF file, from the most to the least trustworthy place.

    Parameters
    ----------
    tif, page
        The `tifffile.TiffFile` and the first page of its level 0.
    """
    candidates = (
        from_ome_xml(tif.ome_metadata) if tif.is_ome and tif.ome_metadata else None,
        from_aperio(page.description),
        _from_resolution(tif, page),
    )
    return next((mpp for mpp in candidates if mpp is not None), Mpp())


def _from_resolution(tif: Any, page: Any) -> Mpp | None:
    per_unit = [_ratio(page.tags.valueof(code)) for code in (282, 283)]
    x, y = per_unit[0], per_unit[1] or per_unit[0]
    if not x or not y:
        return None
    unit = page.tags.valueof(296, _INCH)
    imagej = _MICROMETRES.get(str((tif.imagej_metadata or {}).get("unit", "")).lower())
    if imagej and unit not in (_INCH, _CENTIMETRE):
        return Mpp.found(imagej / x, imagej / y, "ImageJ metadata")
    if unit == _CENTIMETRE:
        return from_dpi((x * 2.54, y * 2.54), "NDPI header" if tif.is_ndpi else "TIFF resolution tag")
    return from_dpi((x, y), "TIFF resolution tag") if unit == _INCH else None


def _ratio(value: Any) -> float | None:
    try:
        return float(value[0]) / float(value[1])
    except (TypeError, IndexError, ZeroDivisionError):
        return None
