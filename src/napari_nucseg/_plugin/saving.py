"""Saving of results from the panel, in a worker thread."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.qt.threading import create_worker

from napari_nucseg._plugin.drawing import box_of
from napari_nucseg._plugin.flow import report_error
from napari_nucseg._plugin.images import axes_of, pixels_of
from napari_nucseg._plugin.place import Crop, from_list
from napari_nucseg._plugin.questions import Choice
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_nucseg._plugin.results import ResultLayers
    from napari_nucseg._plugin.review import Review
    from napari_nucseg._plugin.services import Services


SHAPE_COLUMNS = ("area_um2", "perimeter_um", "eccentricity", "solidity", "mean_haematoxylin")
"""Columns of the table that follow from labels and image alone."""

LAST_COLUMNS = ("state", "origin")
"""Columns that say how a person has dealt with a nucleus, and where it comes from."""

FEW = 500
"""Nuclei up to which each is measured by itself; of more, all are measured in one go."""


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
    table : DataFrame
        See `Session.table`.
    boxes : dict of int -> Box or None
        Nuclei whose shape is not that which the run has measured, and where they lie.
    measured : DataFrame or None
        What the run has measured.
    about : dict
        See `napari_nucseg._plugin.results.describe`.
    image, axes
        Pixels under the labels, see `napari_nucseg.io.slide.as_source`.
    """

    labels: NDArray[Any]
    table: pd.DataFrame
    boxes: dict[int, Box | None]
    measured: pd.DataFrame | None
    about: dict[str, Any]
    image: Any
    axes: str | None


def snapshot(results: ResultLayers, image: Image) -> Snapshot | None:
    """Return the results as they are now; None where there is nothing to save."""
    review = results.review
    return None if review is None else shot_of(review, results, image)


def shot_of(review: Review, results: ResultLayers, image: Image) -> Snapshot:
    """Return a review as it is now; its layers may have left the viewer."""
    table = review.session.table()
    known = np.zeros(0) if results.nuclei is None else results.nuclei["id"].to_numpy()
    fresh = table[table["id"].isin(review.touched) | ~table["id"].isin(known)]
    columns = (fresh[name].tolist() for name in ("id", "centre_y", "centre_x"))
    labels = np.array(review.session.labels)
    boxes = {
        i: box_of(labels, i, (y, x), 400) if len(fresh) <= FEW else None
        for i, y, x in zip(*columns, strict=True)
    }
    pixels, axes = pixels_of(image), axes_of(image)
    return Snapshot(labels, table, boxes, results.nuclei, dict(results.about), pixels, axes)


def save(folder: Path, stem: str, shot: Snapshot) -> list[Path]:
    """Write labels, table and GeoJSON, with every nucleus measured as it is now."""
    from napari_nucseg.io.export import save_results

    about = shot.about
    folder.mkdir(parents=True, exist_ok=True)
    place = from_list(about.get("place"))
    if place is not None:
        return _save_part(folder, stem, shot, place)
    return save_results(folder, stem, shot.labels, full_table(shot), about["mpp"], about["colours"])


def _save_part(folder: Path, stem: str, shot: Snapshot, place: Box) -> list[Path]:
    """Write the results of a part of an image: the labels as large as it is, table and outlines in the image's pixels.

    So QuPath shows them where they belong.
    """
    from napari_nucseg.io.export import write_csv, write_labels
    from napari_nucseg.io.geojson import write_geojson

    tif, csv, geojson = targets(folder, stem)
    table, about = full_table(shot), shot.about
    write_labels(tif, shot.labels, about["mpp"])
    write_csv(csv, table.assign(centre_y=table["centre_y"] + place.y0, centre_x=table["centre_x"] + place.x0))
    write_geojson(geojson, Placed(shot.labels, place), table, about["colours"], namespace=stem)
    return [tif, csv, geojson]


class Placed:
    """Labels of a part of an image, sliced in pixels of the image; nothing lies beyond them.

    Parameters
    ----------
    labels : (h, w) integers
    place : Box
        Where they lie.
    """

    ndim = 2

    def __init__(self, labels: NDArray[Any], place: Box) -> None:
        self._labels, self._place = labels, place
        self.shape, self.dtype = (place.y1, place.x1), labels.dtype

    def __getitem__(self, key: tuple[slice, slice] | slice) -> NDArray[Any]:
        rows, cols = key if isinstance(key, tuple) else (key, slice(None))
        y0, y1, _ = rows.indices(self.shape[0])
        x0, x1, _ = cols.indices(self.shape[1])
        out = np.zeros((max(0, y1 - y0), max(0, x1 - x0)), self.dtype)
        shared = Box(y0, y1, x0, x1).cut(self._place)
        if shared is not None:
            out[shared.relative(Box(y0, y1, x0, x1)).slices] = self._labels[
                shared.relative(self._place).slices
            ]
        return out


def full_table(shot: Snapshot) -> pd.DataFrame:
    """Return the table of the nuclei with their measures; those whose shape has changed are measured anew.

    Raises
    ------
    NucSegError
        Labels and image are not of one size any more.
    """
    import pandas as pd

    ids = shot.table["id"].to_numpy()
    shapes = pd.DataFrame(np.nan, index=ids, columns=list(SHAPE_COLUMNS))
    if shot.measured is not None and set(SHAPE_COLUMNS) <= set(shot.measured.columns):
        run = shot.measured.set_index("id")[list(SHAPE_COLUMNS)]
        shapes.update(run[run.index.isin(ids)])
    if shot.boxes:
        shapes.update(_measure(shot))
    table = shot.table.reset_index(drop=True)
    first = [name for name in table.columns if name not in (*LAST_COLUMNS, "locked")]
    return pd.concat([table[first], shapes.reset_index(drop=True), table[list(LAST_COLUMNS)]], axis=1)


def _measure(shot: Snapshot) -> pd.DataFrame:
    """Measure the nuclei of `shot.boxes`."""
    import pandas as pd

    from napari_nucseg.core.measure import measure
    from napari_nucseg.io.slide import as_source

    source = as_source(shot.image, shot.about["mpp"], shot.axes)
    place = from_list(shot.about.get("place"))
    source = source if place is None else Crop(source, place)
    if source.shape != shot.labels.shape:
        raise NucSegError(
            f"The labels are of shape {shot.labels.shape} and the image {source.shape}, so that the edited nuclei "
            "can't be measured; give both one shape."
        )
    wanted: list[tuple[list[int], Box | None]]
    if len(shot.boxes) <= FEW:
        wanted = [([id_], box) for id_, box in shot.boxes.items()]
    else:
        wanted = [(list(shot.boxes), _extent(shot.labels))]
    found = []
    for ids, box in wanted:
        if box is not None:
            rgb = source.read(box.y0, box.y1, box.x0, box.x1)
            one = measure(shot.labels[box.slices], rgb, shot.about["mpp"], ids=ids)
            found.append(pd.DataFrame({name: getattr(one, name) for name in SHAPE_COLUMNS}, index=one.id))
    return pd.concat(found) if found else pd.DataFrame(columns=list(SHAPE_COLUMNS))


def _extent(labels: NDArray[Any]) -> Box | None:
    rows, columns = (np.flatnonzero(labels.any(axis)) for axis in (1, 0))
    if not rows.size:
        return None
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


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

    @property
    def saving(self) -> bool:
        """Whether files are being written."""
        return self._worker is not None

    def start(self, results: ResultLayers, image: Image, parent: Any = None) -> None:
        """Ask for a folder and save the results of an image into it."""
        folder = self._services.ask_folder(parent, "Folder for the results")
        shot = None if folder is None else snapshot(results, image)
        if folder is None or shot is None:
            return
        stem = stem_of(str(results.about["image"]))
        present = [path for path in targets(folder, stem) if path.exists()]
        if present:
            choice = self._services.ask_files(parent, present)
            if choice is Choice.CANCEL:
                return
            stem = free_stem(folder, stem) if choice is Choice.KEEP else stem
        self._say(f"Saving to {folder}…", False)
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
        self._say(f"Saved {', '.join(path.name for path in paths)} to {paths[0].parent}.", False)
        self._done()

    def _on_errored(self, error: Exception) -> None:
        self._worker = None
        self._say(report_error(error), True)
        self._done()
