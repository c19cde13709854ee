"""What a run on a slide comes to: areas, counts, what failed, how long it took and what did it."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg import __version__
from napari_nucseg.core.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_nucseg.core.tissue import TissueMask
    from napari_nucseg.inference import Region

_SAMPLES = 2048  # along a side, where an area has no closed form
_PACKAGES = ("numpy", "numba", "torch", "openvino", "tifffile", "imagecodecs", "openslide-python", "zarr")


@dataclass(frozen=True)
class Place:
    """A part of an image that is missing from the result, and why.

    Attributes
    ----------
    box : (int, int, int, int)
        First row, last row + 1, first column, last column + 1.
    level : int
        In whose pixels.
    reason : str
    """

    box: tuple[int, int, int, int]
    level: int
    reason: str

    def __str__(self) -> str:
        y0, y1, x0, x1 = self.box
        return f"rows {y0}..{y1 - 1}, columns {x0}..{x1 - 1} of level {self.level}: {self.reason}"


@dataclass(frozen=True)
class Summary:
    """The report of a slide, saved as ``<name>_summary.json``.

    Attributes
    ----------
    name : str
        Stem of the results.
    image : str
        File, or what else the pixels came from.
    shape : (int, int)
        Height and width of level 0.
    mpp : float
        Micrometres per pixel.
    mpp_origin : str
        Where that comes from.
    complete : bool
        Whether every tile was computed.
    area_mm2 : float
        Segmented: tissue (all of the image where it was not looked for) in the region, without what failed.
    image_mm2 : float
        The whole image.
    nuclei : int
    nuclei_per_mm2 : float
        Over `area_mm2`.
    classes : dict
        Nuclei of each class.
    tiles : int
        Computed, in this run or before it was interrupted.
    failed : tuple of Place
        Tiles that could not be computed, in level-0 pixels.
    damaged : tuple of Place
        Places of the file that cannot be read; they count as glass.
    seconds : dict
        This run alone, by stage.
    versions : dict
    outputs : tuple of str
        Names of the files of these settings, those of an earlier run too; of others that lie there it says nothing.
    fingerprint : str
        Of everything that decides the result but the runtime.
    colours : dict
        RGB of all classes of the model, in its order.
    workers : tuple of str
        Addresses, where the slide was done on a cluster.
    resumed : int
        Of the tiles, those that an earlier run had computed; they are not in `seconds`.
    """

    name: str
    image: str
    shape: tuple[int, int]
    mpp: float
    mpp_origin: str
    complete: bool
    area_mm2: float
    image_mm2: float
    nuclei: int
    nuclei_per_mm2: float
    classes: dict[str, int]
    tiles: int
    failed: tuple[Place, ...]
    damaged: tuple[Place, ...]
    seconds: dict[str, float]
    versions: dict[str, str]
    outputs: tuple[str, ...]
    fingerprint: str
    colours: dict[str, tuple[int, int, int]]
    workers: tuple[str, ...] = field(default=())
    resumed: int = 0

    def to_json(self) -> str:
        """Return it as JSON text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    def lines(self) -> list[str]:
        """Return what to know of the result, in a few lines."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.classes.items())
        lines = [
            f"{self.area_mm2:,.3g} mm2 of {self.image_mm2:,.3g} mm2 segmented, {self.nuclei:,} nuclei, "
            f"{self.nuclei_per_mm2:,.0f} per mm2" + (f" ({counts})" if counts else "")
        ]
        return lines + self.complaints()

    def complaints(self) -> list[str]:
        """Return a sentence for each kind of thing that is missing from the result."""
        found = []
        for one, many, places in (
            ("1 tile failed and is blank", "tiles failed and are blank", self.failed),
            ("1 place cannot be read", "places cannot be read", self.damaged),
        ):
            if places:
                what = one if len(places) == 1 else f"{len(places):,} {many}"
                more = f" (and {len(places) - 1:,} more, see the summary)" if len(places) > 1 else ""
                found.append(f"{what}: {places[0]}{more}")
        return found


def damages_in(notes: Iterable[Mapping[str, Any]]) -> tuple[Place, ...]:
    """Return the damaged places that the notes of tiles tell of, each once, in raster order."""
    found: dict[tuple[int, int, int, int, int], str] = {}
    for told in notes:
        for level, y0, y1, x0, x1, reason in told.get("damaged", ()):
            found.setdefault((level, y0, x0, y1, x1), reason)
    return tuple(
        Place((y0, y1, x0, x1), level, found[level, y0, x0, y1, x1])
        for level, y0, x0, y1, x1 in sorted(found)
    )


def read_summary(path: Path) -> dict[str, Any] | None:
    """Return a summary as saved, or None where there is none that can be read."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def versions(runtime: str, model: Mapping[str, str]) -> dict[str, str]:
    """Return what computed: this program, the model, the runtime, and the libraries that matter."""
    found = {"napari-nucseg": __version__, "python": platform.python_version()}
    found |= {f"model {key}": value for key, value in model.items()}
    found["runtime"] = runtime
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def covered_px(
    shape: tuple[int, int],
    tissue: TissueMask | None,
    region: Region | None,
    without: Sequence[Box] = (),
) -> float:
    """Return how many level-0 pixels were segmented.

    Parameters
    ----------
    shape : (int, int)
        Level 0.
    tissue : TissueMask, optional
    region : Region, optional
    without : sequence of Box
        Parts that failed.

    Notes
    -----
    Exact for a whole image and for tissue alone; else counted on a grid of points, to about 0.1 %.
    """
    whole = float(shape[0] * shape[1])
    if region is None and not without:
        return whole if tissue is None else min(whole, tissue.area_px)
    box = Box(0, shape[0], 0, shape[1]) if region is None else region.box
    height, width = box.shape
    rows = box.y0 + (np.arange(min(height, _SAMPLES)) + 0.5) * height / min(height, _SAMPLES) - 0.5
    cols = box.x0 + (np.arange(min(width, _SAMPLES)) + 0.5) * width / min(width, _SAMPLES) - 0.5
    inside = np.ones((len(rows), len(cols)), bool)
    for part in without:
        y = slice(*np.searchsorted(rows, (part.y0 - 0.5, part.y1 - 0.5)))
        x = slice(*np.searchsorted(cols, (part.x0 - 0.5, part.x1 - 0.5)))
        inside[y, x] = False
    for row, keep in zip(rows, inside, strict=True):
        points = np.stack([np.full(len(cols), row), cols], axis=1)
        if tissue is not None:
            keep &= tissue.holds(points)
        if region is not None:
            keep &= region.holds(points)
    return float(inside.mean()) * height * width
