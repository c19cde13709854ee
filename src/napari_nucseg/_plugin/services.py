"""What the panel asks of the world outside its own code, in one place, so that tests can answer instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg._plugin import preferences, questions
from napari_nucseg.models.registry import Model, available, open_model

if TYPE_CHECKING:
    from napari_nucseg._plugin.questions import Choice
    from napari_nucseg.models.runtime import DeviceReport, Runtime


def _load_runtime(model: Model, device: str) -> Runtime:
    from napari_nucseg.models.runtime import load_runtime

    return load_runtime(model, device)


def _inspect_devices() -> DeviceReport:
    from napari_nucseg.models.runtime import inspect_devices

    return inspect_devices()


def _warm_up() -> None:
    import numpy as np

    from napari_nucseg._plugin.contour_kernel import outlines
    from napari_nucseg.session.warm_up import warm_up

    outlines(np.zeros((1, 1), np.uint32), 0, 1, 0, 1, 1)
    warm_up()


@dataclass(frozen=True)
class Services:
    """Functions that the panel calls.

    Attributes
    ----------
    models : () -> dict of name -> Model
    open_model : (path) -> Model
    load_runtime : (model, device) -> Runtime
        Slow (imports torch); only called in a worker thread, as is `inspect_devices`.
    inspect_devices : () -> DeviceReport
    warm_up : ()
        Has what edits and outlines need compiled, once after an installation; some seconds then. Called in a worker.
    ask_resume : (parent, folder) -> Choice
        Whether to go on with a review that was saved.
    ask_existing : (parent, name, count, edited) -> Choice
        What to do with results that exist already.
    ask_update : (parent, name, count, reviewed) -> Choice
        What to do with results that a person has reviewed.
    ask_slide : (parent, folder, count, reviewed) -> Choice
        What to do with results of a whole slide that are in the folder already.
    ask_result : (parent) -> Path or None
        Which results of a slide to open.
    ask_files : (parent, paths) -> Choice
        What to do with files that exist already.
    ask_folder : (parent, title) -> Path or None
    ask_geojson : (parent) -> Path or None
    ask_salvage : (parent, sentence) -> bool
        Whether to rescue what can be read of a damaged review.
    session_base : () -> Path or None
        Folder in which the user wants reviews to be saved; None: each beside its image.
    remember_session_base : (folder)
    """

    models: Callable[[], dict[str, Model]] = available
    open_model: Callable[[Path], Model] = open_model
    load_runtime: Callable[[Model, str], Runtime] = _load_runtime
    inspect_devices: Callable[[], DeviceReport] = _inspect_devices
    warm_up: Callable[[], None] = _warm_up
    ask_resume: Callable[[Any, Path], Choice] = questions.ask_resume
    ask_existing: Callable[[Any, str, int, str | None], Choice] = questions.ask_existing
    ask_update: Callable[[Any, str, int, int], Choice] = questions.ask_update
    ask_slide: Callable[[Any, Path, int, int], Choice] = questions.ask_slide
    ask_result: Callable[[Any], Path | None] = questions.ask_result
    ask_files: Callable[[Any, list[Path]], Choice] = questions.ask_files
    ask_folder: Callable[[Any, str], Path | None] = questions.ask_folder
    ask_geojson: Callable[[Any], Path | None] = questions.ask_geojson
    ask_salvage: Callable[[Any, str], bool] = questions.ask_salvage
    session_base: Callable[[], Path | None] = preferences.session_base
    remember_session_base: Callable[[Path | None], None] = preferences.remember_session_base


class RuntimeCache:
    """Keeps the runtime of the last run, so that the next one with the same model and device starts at once."""

    def __init__(self, load: Callable[[Model, str], Runtime]) -> None:
        self._load = load
        self._last: tuple[tuple[Path, str, str], Runtime] | None = None

    def __call__(self, model: Model, device: str) -> Runtime:
        """Return the runtime of a model on a device."""
        key = (model.weights, model.card.sha256, device)
        last = self._last
        if last is not None and last[0] == key:
            return last[1]
        self._last = None  # two models at a time may be too much for a GPU
        runtime = self._load(model, device)
        self._last = (key, runtime)
        return runtime
