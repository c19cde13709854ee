"""Segment several images with one loaded model."""

from __future__ import annotations

import logging
import math
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucseg._cli.inputs import (
    Existing,
    Task,
    check_images,
    find_images,
    parse_formats,
    plan_tasks,
    prepare_folder,
    shown,
)
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp
from napari_nucseg.io.slide import ImageSource, as_source, read_image

if TYPE_CHECKING:
    from napari_nucseg.inference import Result
    from napari_nucseg.models.registry import Model
    from napari_nucseg.models.runtime import Runtime

log = logging.getLogger(__name__)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """What the user asked `segment` for, as typed."""

    images: tuple[str, ...]
    out: Path
    mpp: str | None = None
    model: str = "default"
    device: str = "auto"
    formats: str = "tif,csv,geojson"
    existing: Existing = "refuse"


@dataclass(frozen=True)
class Loaded:
    """A model on its runtime, loaded once for all images."""

    model: Model
    runtime: Runtime

    @classmethod
    def of(cls, model: str, device: str) -> Loaded:
        """Find a model and load it onto a device; `NucSegError` where either cannot be had."""
        from napari_nucseg.models.registry import find_model
        from napari_nucseg.models.runtime import load_runtime

        found = find_model(model)
        return cls(found, load_runtime(found, device))

    def describe(self) -> str:
        """Say what runs, under which licence, and what it is not proven to do."""
        card = self.model.card
        return f"{self.model} on {self.runtime.name}; weights: {card.licence}. {card.caution}".rstrip()


def segment_source(source: ImageSource, loaded: Loaded, stem: str) -> Result:
    """Segment one image, with a progress bar on stderr where that is a terminal."""
    from tqdm import tqdm

    from napari_nucseg.inference import collect, make_plan, run

    plan = make_plan(source, loaded.runtime, loaded.model.card)
    tiles = run(plan)
    try:
        bar = tqdm(tiles, stem, len(plan.cells), leave=False, file=sys.stderr, unit="tile", disable=None)
        return collect(bar, plan, stem)
    finally:
        tiles.close()  # joins the threads, on Ctrl-C too


def run_task(task: Task, loaded: Loaded, mpp: Mpp | None, out: Path) -> str:
    """Segment and save one image; return the line that sums it up.

    Raises
    ------
    NucSegError
        The image cannot be read or its results not be written.
    """
    began = time.perf_counter()
    with read_image(task.path) as image:
        source = as_source(image, mpp)
        try:
            result = segment_source(source, loaded, task.stem)
        except MemoryError as error:
            height, width = source.shape
            raise NucSegError(
                f"{task.path.name}: {width} x {height} pixels do not fit into the memory of this machine; free some, "
                "or cut the image."
            ) from error
        result.save(out, task.formats, overwrite=True)  # plan_tasks has asked
    seconds = time.perf_counter() - began
    megapixels = math.prod(source.shape) / 1e6
    return (
        f"{task.path.name}: {len(result.nuclei):,} nuclei, {megapixels:.2f} MP in {seconds:.1f} s "
        f"({megapixels / seconds:.2f} MP/s), {source.mpp}, {loaded.runtime.name}"
    )


def segment_all(job: Job, say: Say, warn: Say, verbose: bool = False) -> int:
    """Do a job: check all that can be checked, then segment image by image.

    Parameters
    ----------
    job
        The request.
    say, warn
        Take a line for the user: results, and complaints or notes.
    verbose
        Show the traceback of unexpected errors.

    Returns
    -------
    int
        0 all images done; 1 some not; 2 none, for want of usable input.

    Raises
    ------
    NucSegError
        Nothing can be done as asked; nothing has been written.
    """
    formats = parse_formats(job.formats)
    mpp = None if job.mpp is None else Mpp.stated(job.mpp)
    images, complaints = find_images(job.images)
    planned = plan_tasks(images, job.out, formats, job.existing)
    tasks = [task for task in planned if task.formats]
    if skipped := len(planned) - len(tasks):
        say(f"{skipped} of {len(planned)} images skipped: their results exist in {shown(job.out)}")
    tasks, unreadable = check_images(tasks, mpp)
    complaints += unreadable
    for complaint in complaints:
        warn(complaint)
    if not tasks:
        return 2 if complaints and not skipped else bool(complaints)
    prepare_folder(job.out)
    loaded = Loaded.of(job.model, job.device)
    warn(loaded.describe())
    bad, broken = _each(tasks, loaded, mpp, job.out, (say, warn, verbose))
    done = len(tasks) - bad - broken
    if done:
        say(
            f"Results in {shown(job.out)}"
            + (f" ({done} of {len(planned)} images)" if len(planned) > 1 else "")
        )
    if done == len(tasks) and not complaints:
        return 0
    return 1 if done or skipped or broken else 2


def _each(
    tasks: list[Task], loaded: Loaded, mpp: Mpp | None, out: Path, report: tuple[Say, Say, bool]
) -> tuple[int, int]:
    """Run the tasks; return how many failed for bad input, and how many for a fault of the program."""
    say, warn, verbose = report
    bad = broken = 0
    for task in tasks:
        try:
            say(run_task(task, loaded, mpp, out))
        except NucSegError as error:
            bad += 1
            warn(str(error))
        except Exception as error:  # one image must not cost the others
            broken += 1
            if verbose:
                warn(traceback.format_exc())
            hint = "" if verbose else "; run with -v for the details"
            reason = str(error).partition("\n")[0]
            warn(f"{task.path.name}: {type(error).__name__}: {reason}{hint}")
    return bad, broken
