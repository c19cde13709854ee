"""`napari-nucseg segment --scheduler`: the same on a Dask cluster."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_nucseg._cli.batch import (
    Counts,
    Job,
    OtherResults,
    Pulse,
    Voice,
    enter,
    line_of,
    still_missing,
    tell,
)
from napari_nucseg._cli.inputs import shown
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import as_source, read_image
from napari_nucseg.models.registry import find_model
from napari_nucseg.slides.cohort import Cohort, Slide, SlideEnd, cluster_runtime, segment_cohort
from napari_nucseg.slides.loaded import Loaded
from napari_nucseg.slides.manifest import Manifest, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_nucseg._cli.inputs import Task
    from napari_nucseg.io.mpp import Mpp
    from napari_nucseg.models.registry import Model

_LOCAL = "local"
_PATIENCE = 30  # seconds for a scheduler to answer


def on_a_cluster(tasks: list[Task], mpp: Mpp | None, job: Job, voice: Voice) -> Counts:
    """Run the tasks on the cluster of a job, and write a manifest after every slide.

    Raises
    ------
    NucSegError
        The cluster or the model cannot be had.
    """
    model = find_model(job.model)
    counts, manifest = Counts(), Manifest(job.out)
    todo = []
    for task in tasks:
        try:
            formats = _missing(task, mpp, model, job)
        except NucSegError as error:
            counts.bad += 1
            voice.warn(str(error))
            if not isinstance(error, OtherResults):
                enter(manifest, Row.failed(task.stem, str(task.path), str(error)), voice)
            continue
        if formats:
            todo.append(Slide(task.path, task.stem, formats))
        else:
            counts.already += 1
    if todo:
        name = (
            str(model.weights.absolute())
            if os.path.sep in job.model or os.path.exists(job.model)
            else job.model
        )
        cohort = Cohort(tuple(todo), model, name, job.device, mpp, job.out, job.options, Loaded.of)
        by_stem = {task.stem: task for task in tasks}
        voice.warn(f"Waiting for the Dask cluster ({job.scheduler})")
        with client_of(str(job.scheduler)) as client:
            workers = len(client.nthreads())
            voice.warn(
                f"{model} on {client.scheduler.address}, {workers} worker{'s'[: workers != 1]}; weights: "
                f"{model.card.licence}. {model.card.caution}".rstrip()
            )
            _follow(cohort, client, by_stem, (counts, manifest), voice)
    if tasks:
        voice.say(f"What became of each slide is in {shown(manifest.path)}")
    return counts


def _missing(task: Task, mpp: Mpp | None, model: Model, job: Job) -> tuple[str, ...]:
    if job.existing != "resume":
        return task.formats
    with read_image(task.path.absolute()) as image:
        return still_missing(task, as_source(image, mpp), model, cluster_runtime(job.device), job)


def _follow(
    cohort: Cohort, client: Any, tasks: dict[str, Task], books: tuple[Counts, Manifest], voice: Voice
) -> None:
    """Run a cohort to its end, with a progress bar on stderr where that is a terminal."""
    from tqdm import tqdm

    counts, manifest = books
    pulse = Pulse(voice.warn)
    steps = segment_cohort(cohort, client)
    bar = tqdm(total=1, leave=False, file=sys.stderr, unit="tile", disable=None)
    try:
        for step in steps:
            if isinstance(step, SlideEnd):
                enter(manifest, _end(step, tasks[step.slide.stem], counts, voice), voice)
            elif bar.disable:
                what = f"{step.slides} of {len(cohort.slides)} slides"
                pulse.beat(what, step.done, step.total, step.nuclei)
            else:
                bar.total, bar.n = step.total or None, step.done
                bar.set_description(f"{step.slides} of {len(cohort.slides)} slides", refresh=False)
                bar.set_postfix_str(f"{step.nuclei:,} nuclei")
    finally:
        steps.close()
        bar.close()


def _end(step: SlideEnd, task: Task, counts: Counts, voice: Voice) -> Row:
    """Tell of a slide that is finished; return its row of the manifest."""
    if step.note:
        voice.warn(step.note)
    if step.summary is not None:
        voice.say(line_of(task, step.summary, step.seconds))
        counts.done += 1
        counts.incomplete += not tell(task, step.summary, voice)
        return Row.of(step.summary)
    if isinstance(step.error, NucSegError):
        counts.bad += 1
        reason = str(step.error)
        voice.warn(reason if task.path.name in reason else f"{task.path.name}: {reason}")
    else:
        counts.broken += 1
        reason = voice.tell_fault(task, step.error or RuntimeError("it was not done"))
    return Row.failed(task.stem, str(task.path), reason)


@contextmanager
def client_of(scheduler: str) -> Iterator[Any]:
    """Connect to a scheduler, or start processes here; a context manager.

    Parameters
    ----------
    scheduler : str
        Such as ``tcp://host:8786``; ``local`` or ``local:4`` starts so many processes of one thread each, by default
        one for every two processors.

    Raises
    ------
    NucSegError
        distributed is not installed, the scheduler does not answer or has no workers, or the text is none of these.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise NucSegError(
            "--scheduler needs dask.distributed, which is not installed; pip install 'napari-nucseg[cluster]', or "
            "leave --scheduler out."
        ) from error
    kind, _, rest = scheduler.partition(":")
    if kind == _LOCAL:
        with _local(rest) as cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(scheduler, timeout=_PATIENCE)
    except (OSError, ValueError, TimeoutError) as error:
        raise NucSegError(
            f"No Dask scheduler answers at '{scheduler}' ({str(error).partition(chr(10))[0]}); give its address, such "
            "as tcp://host:8786, or local:N."
        ) from error
    with client:
        if not client.nthreads():
            raise NucSegError(
                f"The Dask scheduler at '{scheduler}' has no workers; start some (dask worker {scheduler})."
            )
        yield client


@contextmanager
def _local(count: str) -> Iterator[Any]:
    """Start processes of one thread each; those that die are replaced."""
    import dask
    from distributed import LocalCluster

    processors = os.cpu_count() or 1
    if count and not (count.isdecimal() and int(count) > 0):
        raise NucSegError(
            f"--scheduler local:{count} gives no number of processes; give one such as local:4."
        )
    workers = int(count) if count else max(1, processors // 2)
    threads = str(max(1, processors // workers))
    settings = {
        "distributed.scheduler.allowed-failures": 10,
        # the tiles in work are what needs memory; Dask knows nothing of them and would stop workers that are well
        "distributed.worker.memory.terminate": False,
        "distributed.worker.memory.pause": False,
    }
    env = dict.fromkeys(("NUCSEG_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS"), threads)
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=0,
            env=env,
            silence_logs=50,
        ) as cluster,
    ):
        yield cluster
