"""Saving of results from the panel, in a worker thread."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.qt.threading import create_worker

from napari_nucseg._plugin.flow import report_error
from napari_nucseg._plugin.questions import Choice

if TYPE_CHECKING:
    from napari_nucseg._plugin.results import ResultLayers
    from napari_nucseg._plugin.services import Services


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


def save(folder: Path, stem: str, labels: Any, nuclei: Any, about: dict[str, Any]) -> list[Path]:
    """Write labels, table and GeoJSON; nuclei whose label was erased by hand are left out of the table."""
    from napari_nucseg.io.export import save_results

    snapshot = np.array(labels)
    if about["edited"]:
        present = np.zeros(max(int(snapshot.max(initial=0)), int(nuclei["id"].max())) + 1, bool)
        present[snapshot.ravel()] = True
        nuclei = nuclei[present[nuclei["id"].to_numpy(np.int64)]]
    folder.mkdir(parents=True, exist_ok=True)
    return save_results(folder, stem, snapshot, nuclei, about["mpp"], about["colours"])


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

    def start(self, results: ResultLayers, parent: Any = None) -> None:
        """Ask for a folder and save results into it."""
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
        self._worker = create_worker(
            save,
            folder,
            stem,
            results.labels.data,
            results.nuclei,
            about,
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
