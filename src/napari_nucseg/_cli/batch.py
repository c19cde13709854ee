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
    AUTO,
    Existing,
    Task,
    check_images,
    find_images,
    parse_formats,
    plan_tasks,
    prepare_folder,
    shown,
)
from napari_nucseg.core.tissue import TissueConfig
from napari_nucseg.errors import NucSegError
from napari_nucseg.inference import check_tile
from napari_nucseg.io.mpp import Mpp
from napari_nucseg.io.slide import ImageSource, as_source, read_image
from napari_nucseg.slides.careful import reason_of
from napari_nucseg.slides.engine import Progress, Request, segment_slide
from napari_nucseg.slides.existing import state_of
from napari_nucseg.slides.loaded import Loaded
from napari_nucseg.slides.manifest import Manifest, Row
from napari_nucseg.slides.prepare import Options, asked, settings_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_nucseg.inference import Result
    from napari_nucseg.models.registry import Model
    from napari_nucseg.slides.report import Summary

log = logging.getLogger(__name__)

Say = Callable[[str], None]

_MINUTE = 60.0


@dataclass(frozen=True)
class Job:
    """What the user asked `segment` for, as typed."""

    images: tuple[str, ...]
    out: Path
    mpp: str | None = None
    model: str = "default"
    device: str = "auto"
    formats: str = AUTO
    existing: Existing = "refuse"
    tissue: bool = True
    tile: int | None = None
    scheduler: str | None = None

    @property
    def options(self) -> Options:
        """How each image is segmented."""
        return Options(tile=self.tile, tissue=TissueConfig() if self.tissue else None)


class OtherResults(NucSegError):
    """There are results that --resume neither completes nor replaces; what the manifest says of them stays."""


@dataclass(frozen=True)
class Voice:
    """Where lines for the user go: results, and complaints or notes; `verbose` adds tracebacks."""

    say: Say
    warn: Say
    verbose: bool = False

    def tell_fault(self, task: Task, error: Exception) -> str:
        """Complain of an error that no rule foresaw; return it in one line."""
        if self.verbose:
            self.warn("".join(traceback.format_exception(error)))
        hint = "" if self.verbose else "; run with -v for the details"
        self.warn(f"{task.path.name}: {reason_of(error)}{hint}")
        return reason_of(error)


def segment_source(source: ImageSource, loaded: Loaded, stem: str) -> Result:
    """Segment one image in memory, with a progress bar on stderr where that is a terminal."""
    from tqdm import tqdm

    from napari_nucseg.inference import collect, make_plan, run

    plan = make_plan(source, loaded.runtime, loaded.model.card)
    tiles = run(plan)
    try:
        bar = tqdm(tiles, stem, len(plan.tiles), leave=False, file=sys.stderr, unit="tile", disable=None)
        return collect(bar, plan, stem)
    finally:
        tiles.close()  # joins the threads, on Ctrl-C too


class Pulse:
    """Says how far a run is once a minute, where no progress bar is seen: in the log of a batch job.

    Parameters
    ----------
    warn : callable
        Takes a line.
    """

    def __init__(self, warn: Say) -> None:
        self._warn, self._last = warn, time.monotonic()

    def beat(self, what: str, done: int, total: int, nuclei: int) -> None:
        """Say it if it is time."""
        if time.monotonic() - self._last >= _MINUTE:
            self._last = time.monotonic()
            self._warn(f"{what}: {done} of {total} tiles, {nuclei:,} nuclei")


def show(steps: Generator[Progress, None, Summary], stem: str, warn: Say) -> Summary:
    """Run a slide to its end, with a progress bar on stderr where that is a terminal; notes go to `warn`."""
    from tqdm import tqdm

    pulse = Pulse(warn)
    bar = tqdm(desc=stem, total=1, leave=False, file=sys.stderr, unit="tile", disable=None)
    try:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                summary: Summary = end.value
                return summary
            if step.note:
                warn(step.note)
            if bar.disable:
                pulse.beat(stem, step.done, step.total, step.nuclei)
            else:
                bar.initial = step.resumed  # speed and time left are those of this run
                bar.total, bar.n = step.total or None, step.done
                words = {"tissue": "looking for tissue", "write": "writing"}.get(step.stage)
                bar.set_postfix_str(words or f"{step.nuclei:,} nuclei")
    finally:
        steps.close()  # joins the threads, on Ctrl-C too, and keeps what is finished
        bar.close()


def run_task(task: Task, loaded: Loaded, mpp: Mpp | None, job: Job, voice: Voice) -> Summary | None:
    """Segment one image into files and say so; None if its results are complete already.

    Raises
    ------
    NucSegError
        The image cannot be read or its results not be written.
    """
    began = time.perf_counter()
    with read_image(task.path) as image:
        source, formats = as_source(image, mpp), task.formats
        if job.existing == "resume":
            formats = still_missing(task, source, loaded.model, loaded.runtime.name, job)
            if not formats:
                return None
        request = Request(source, loaded, job.out, task.stem, formats, job.options)
        summary = show(segment_slide(request), task.stem, voice.warn)
    voice.say(line_of(task, summary, time.perf_counter() - began))
    return summary


def still_missing(task: Task, source: ImageSource, model: Model, runtime: str, job: Job) -> tuple[str, ...]:
    """Return the formats that --resume has still to write.

    Raises
    ------
    OtherResults
        There are some, but of other settings, or reviewed.
    """
    settings = asked(settings_of(source, model, runtime, job.options))
    state, missing = state_of(job.out, task.stem, task.formats, settings, runtime)
    if state in ("other", "reviewed"):
        what = {
            "other": "were made with other settings or from another state of the image",
            "reviewed": "are not complete, and were reviewed since",
        }[state]
        raise OtherResults(
            f"{task.path.name}: its results in {shown(job.out)} {what}; give --overwrite to replace them, or another "
            "folder."
        )
    return missing


def line_of(task: Task, summary: Summary, seconds: float) -> str:
    """Sum a finished image up."""
    megapixels = math.prod(summary.shape) / 1e6
    took = f"{megapixels:.2f} MP in {seconds:.1f} s ({megapixels / seconds:.2f} MP/s)"
    if summary.resumed:  # an earlier run has taken its time too
        fresh = summary.tiles - summary.resumed
        took = f"{megapixels:.2f} MP, the last {fresh} of {summary.tiles} tiles in {seconds:.1f} s"
    return f"{task.path.name}: {summary.nuclei:,} nuclei, {took}, {summary.mpp_origin}, {summary.versions['runtime']}"


def tell(task: Task, summary: Summary, voice: Voice) -> bool:
    """Say what else is to be known of a result; return whether it is complete."""
    voice.say(f"  {summary.lines()[0]}")
    for complaint in summary.complaints():
        voice.warn(f"{task.path.name}: {complaint}")
    return summary.complete


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
    voice = Voice(say, warn, verbose)
    formats = parse_formats(job.formats)
    mpp = None if job.mpp is None else Mpp.stated(job.mpp)
    check_tile(job.tile)
    images, complaints = find_images(job.images)
    planned = plan_tasks(images, job.out, formats, job.existing)
    tasks = [task for task in planned if task.formats]
    if skipped := len(planned) - len(tasks):
        say(f"{skipped} of {len(planned)} images skipped: their results exist in {shown(job.out)}")
    asked = tasks
    tasks, unreadable = check_images(asked, mpp)
    complaints += unreadable
    for complaint in complaints:
        warn(complaint)
    if not tasks:
        return 2 if complaints and not skipped else bool(complaints)
    prepare_folder(job.out)
    manifest = Manifest(job.out) if len(planned) > 1 or job.scheduler is not None else None
    if manifest is not None:
        for task, complaint in zip([t for t in asked if t not in tasks], unreadable, strict=True):
            enter(manifest, Row.failed(task.stem, str(task.path), complaint), voice)
    if job.scheduler is None:
        counts = _one_by_one(tasks, mpp, job, voice, manifest)
    else:
        from napari_nucseg._cli.cluster import on_a_cluster

        counts = on_a_cluster(tasks, mpp, job, voice)
    if counts.already:
        say(f"{counts.already} of {len(planned)} images skipped: their results are complete")
    if counts.done:
        say(
            f"Results in {shown(job.out)}"
            + (f" ({counts.done} of {len(planned)} images)" if len(planned) > 1 else "")
        )
    if counts.done + counts.already == len(tasks) and not complaints and not counts.incomplete:
        return 0
    return 1 if counts.done or counts.already or skipped or counts.broken else 2


@dataclass
class Counts:
    """What became of the images.

    Attributes
    ----------
    done : int
        Segmented; `incomplete` of them with tiles that failed.
    already : int
        Complete before.
    bad, broken : int
        Not segmented, for bad input or for a fault of the program.
    """

    done: int = 0
    incomplete: int = 0
    already: int = 0
    bad: int = 0
    broken: int = 0


def _one_by_one(
    tasks: list[Task], mpp: Mpp | None, job: Job, voice: Voice, manifest: Manifest | None
) -> Counts:
    """Run the tasks here, one after the other; one that fails does not cost the others."""
    loaded = Loaded.of(job.model, job.device)
    voice.warn(loaded.describe())
    counts = Counts()
    for task in tasks:
        try:
            summary = run_task(task, loaded, mpp, job, voice)
            if summary is None:
                counts.already += 1
                continue
            counts.done += 1
            counts.incomplete += not tell(task, summary, voice)
            row = Row.of(summary)
        except OtherResults as error:
            counts.bad += 1
            voice.warn(str(error))
            continue
        except NucSegError as error:
            counts.bad += 1
            voice.warn(str(error))
            row = Row.failed(task.stem, str(task.path), str(error))
        except Exception as error:
            counts.broken += 1
            row = Row.failed(task.stem, str(task.path), voice.tell_fault(task, error))
        if manifest is not None:
            enter(manifest, row, voice)
    return counts


def enter(manifest: Manifest, row: Row, voice: Voice) -> None:
    """Write a row; a manifest that cannot be written is told, and costs no slide."""
    try:
        manifest.put(row)
    except NucSegError as error:
        voice.warn(str(error))
