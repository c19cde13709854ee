"""Saving of results from the panel, in a worker thread."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.qt.threading import create_worker

from napari_nucseg._plugin.flow import report_error
from napari_nucseg._plugin.images import axes_of, pixels_of
from napari_nucseg._plugin.questions import Choice
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_nucseg._plugin.results import ResultLayers
    from napari_nucseg._plugin.services import Services


UNCLASSIFIED = "unclassified"
"""Class, in saved files, of nuclei painted by hand."""

SHAPE_COLUMNS = ("area_um2", "perimeter_um", "eccentricity", "solidity", "mean_haematoxylin")
"""Columns of the table that follow from labels and image alone."""

CENTRES_LEFT = (
    " Centres that you moved, added or deleted are not in the files yet; they hold those of the run."
)


def stem_of(name: str) -> str:
    """Return a layer's name as the stem of a file name."""
    return re.sub(r"[^\w.\- ]+", "_", name).strip(" .") or "image"


def targets(folder: Path, stem: str) -> list[Path]:
    """Return the files that saving under a stem writes."""
    from napari_nucseg.io.export import FORMATS

    return [folder / f"{stem}_{ending}" for ending in FORMATS.values()]


def free_stem(folder: Path, stem: str) -> str:
    """Return the stem, numbered so that saving under it overwrites nothing."""
    tried, number = stem, 1
    while any(path.exists() for path in targets(folder, tried)):
        number += 1
        tried = f"{stem} ({number})"
    return tried


@dataclass(frozen=True)
class Snapshot:
    """Results as they were when Save was pressed; the user may go on editing the layers.

    Attributes
    ----------
    labels : (H, W) integers
        A copy.
    nuclei : DataFrame
        As the run wrote it; never changed in place.
    about : dict
        See `napari_nucseg._plugin.results.describe`.
    image, axes
        Pixels under the labels, see `napari_nucseg.io.slide.as_source`.
    """

    labels: NDArray[Any]
    nuclei: pd.DataFrame
    about: dict[str, Any]
    image: Any
    axes: str | None


def save(folder: Path, stem: str, shot: Snapshot) -> list[Path]:
    """Write labels, table and GeoJSON; the table is brought up to date where the user edited."""
    from napari_nucseg.io.export import save_results

    about = shot.about
    nuclei = remeasured(shot) if about["edited"] else shot.nuclei
    folder.mkdir(parents=True, exist_ok=True)
    return save_results(folder, stem, shot.labels, nuclei, about["mpp"], about["colours"])


def remeasured(shot: Snapshot) -> pd.DataFrame:
    """Return the table that belongs to edited labels.

    Size, shape and staining are measured anew. Centres, classes and scores of the nuclei which the run found stay.
    Those painted by hand are of class `UNCLASSIFIED`, their centre is their centroid, and they have neither score
    nor probabilities. Nuclei whose label is gone are left out.

    Raises
    ------
    NucSegError
        Labels and image are not of one size any more, or the labels not integers.
    """
    import pandas as pd

    from napari_nucseg.core.measure import measure
    from napari_nucseg.io.slide import as_source

    rows, columns = (np.flatnonzero(shot.labels.any(axis)) for axis in (1, 0))
    if not rows.size:
        return shot.nuclei[:0]
    source = as_source(shot.image, shot.about["mpp"], shot.axes)
    if source.shape != shot.labels.shape:
        raise NucSegError(
            f"The labels are of shape {shot.labels.shape} and the image {source.shape}, so that the edited nuclei "
            "can't be measured; give both one shape."
        )
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    found = measure(shot.labels[y0:y1, x0:x1], source.read(y0, y1, x0, x1), shot.about["mpp"])
    shape = pd.DataFrame({name: getattr(found, name) for name in SHAPE_COLUMNS}, index=found.id)
    table = shot.nuclei.set_index("id").reindex(found.id)
    table[list(SHAPE_COLUMNS)] = shape
    painted = ~np.isin(found.id, shot.nuclei["id"])
    table.loc[painted, "class"] = UNCLASSIFIED
    table.loc[painted, "centre_y"] = found.centroid_y[painted] + y0
    table.loc[painted, "centre_x"] = found.centroid_x[painted] + x0
    return table.rename_axis("id").reset_index()[shot.nuclei.columns]


class Saver:
    """Asks where to, and saves; one at a time.

    Parameters
    ----------
    say : callable (text, alarm)
    done : callable ()
        Called when saving starts and when it ends.
    """

    def __init__(
        self, services: Services, say: Callable[[str, bool], None], done: Callable[[], None]
    ) -> None:
        self._services, self._say, self._done = services, say, done
        self._worker: Any = None
        self._note = ""

    @property
    def saving(self) -> bool:
        """Whether files are being written."""
        return self._worker is not None

    def start(self, results: ResultLayers, image: Image, parent: Any = None) -> None:
        """Ask for a folder and save the results of an image into it."""
        folder = self._services.ask_folder(parent, "Folder for the results")
        if folder is None or results.nuclei is None:
            return
        stem = stem_of(str(results.about["image"]))
        present = [path for path in targets(folder, stem) if path.exists()]
        if present:
            choice = self._services.ask_files(parent, present)
            if choice is Choice.CANCEL:
                return
            stem = free_stem(folder, stem) if choice is Choice.KEEP else stem
        self._say(f"Saving to {folder}…", False)
        about = dict(results.about)
        self._note = CENTRES_LEFT if about.get("centres_edited") else ""
        labels = np.array(results.labels.data)
        shot = Snapshot(labels, results.nuclei, about, pixels_of(image), axes_of(image))
        self._worker = create_worker(
            save,
            folder,
            stem,
            shot,
            _start_thread=False,
            _ignore_errors=True,
            _worker_class=None,
        )
        self._worker.returned.connect(self._on_saved)
        self._worker.errored.connect(self._on_errored)
        self._worker.start()
        self._done()

    def _on_saved(self, paths: list[Path]) -> None:
        self._worker = None
        self._say(f"Saved {', '.join(path.name for path in paths)} to {paths[0].parent}.{self._note}", False)
        self._done()

    def _on_errored(self, error: Exception) -> None:
        self._worker = None
        self._say(report_error(error), True)
        self._done()
