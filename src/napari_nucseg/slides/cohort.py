"""Many slides on a Dask cluster: workers compute blocks into the shared folder, the client assembles the results.

Dask hands the blocks out, and gives those of a worker that dies to another one. A block that is done twice does no
harm: tiles appear whole or not at all, and are not computed again where they are.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future as LocalFuture
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import as_source, read_image
from napari_nucseg.slides.blocks import Load, Record, SlideTask, compute_block
from napari_nucseg.slides.careful import Failure
from napari_nucseg.slides.engine import Clock, SlideRun
from napari_nucseg.slides.loaded import Loaded
from napari_nucseg.slides.outputs import check_formats
from napari_nucseg.slides.prepare import NO_RUNTIME, Options, prepare
from napari_nucseg.slides.workdir import WorkFolder

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from napari_nucseg.core.tiling import Index
    from napari_nucseg.io.mpp import Mpp
    from napari_nucseg.models.registry import Model
    from napari_nucseg.slides.report import Summary

_AHEAD = 3
"""Blocks that are handed out per thread of the cluster: one in work, the others so that nobody waits."""

_TRIES = 3
"""Times that a block is handed out anew after Dask has given it up because its workers died."""


@dataclass(frozen=True)
class Slide:
    """A slide of a cohort.

    Attributes
    ----------
    path : path
        The same for all machines.
    stem : str
        Name of its results.
    formats : tuple of str
    """

    path: Path
    stem: str
    formats: tuple[str, ...]


@dataclass(frozen=True)
class Cohort:
    """Slides, and what is done with all of them.

    Attributes
    ----------
    slides : tuple of Slide
    model : Model
    model_name : str
        Name or path under which the workers find it.
    device : str
    mpp : Mpp or None
        Where it was stated by the user.
    out : path
        Shared by all machines.
    options : Options
    load : callable
        How workers load the model.
    """

    slides: tuple[Slide, ...]
    model: Model
    model_name: str
    device: str
    mpp: Mpp | None
    out: Path
    options: Options = field(default_factory=Options)
    load: Load = Loaded.of


@dataclass(frozen=True)
class CohortProgress:
    """How far a cohort is.

    Attributes
    ----------
    done, total : int
        Tiles of the slides begun so far.
    nuclei : int
        Of the tiles done.
    slides : int
        Finished, in whatever way.
    """

    done: int
    total: int
    nuclei: int
    slides: int


@dataclass(frozen=True)
class SlideEnd:
    """A slide that is finished.

    Attributes
    ----------
    slide : Slide
    summary : Summary or None
    error : Exception or None
        Why there is no summary.
    seconds : float
        Since it was begun.
    note : str
        Something to tell the user, such as that an earlier run was gone on with.
    """

    slide: Slide
    summary: Summary | None
    error: Exception | None
    seconds: float
    note: str = ""


def segment_cohort(cohort: Cohort, client: Any) -> Generator[CohortProgress | SlideEnd, None, None]:
    """Segment slides on a cluster.

    Parameters
    ----------
    cohort : Cohort
    client : distributed.Client

    Yields
    ------
    CohortProgress
        Now and then.
    SlideEnd
        For every slide, also for one that failed. Closing the generator cancels what is left, and keeps the tiles.

    Raises
    ------
    NucSegError
        The cluster cannot be reached any more; tiles that are done are kept.
    """
    desk = _Desk(cohort, client)
    try:
        yield from desk.work()
    finally:
        desk.close()


class _Active:
    """A slide in work."""

    def __init__(self, cohort: Cohort, slide: Slide) -> None:
        self.slide, self.began, self.clock = slide, time.perf_counter(), Clock()
        self.workers: set[str] = set()
        self.runtimes: set[str] = set()
        self.error: Exception | None = None
        self.stack = ExitStack()
        try:
            self._open(cohort)
        except BaseException:
            self.stack.close()
            raise
        self.clock.lap("tissue")
        plan = self.run.prepared.plan
        missing = (tuple(i for i in block if i not in self.run.finished) for block in plan.blocks)
        self.blocks = deque(block for block in missing if block)
        self.waiting = len(self.blocks)

    def _open(self, cohort: Cohort) -> None:
        slide = self.slide
        check_formats(slide.formats)
        work = self.stack.enter_context(WorkFolder(cohort.out.absolute(), slide.stem))
        image = self.stack.enter_context(read_image(slide.path.absolute()))
        runtime = cluster_runtime(cohort.device)
        prepared = prepare(
            as_source(image, cohort.mpp), cohort.model, NO_RUNTIME, cohort.options, device=runtime
        )
        self.run = SlideRun(prepared, work, slide.formats)
        self.stack.callback(self.run.assembler.stop)
        self.note = self.run.note
        self.task = SlideTask(
            slide.path.absolute(),
            cohort.mpp,
            cohort.model_name,
            cohort.device,
            cohort.options,
            prepared.tissue,
            prepared.facts,
            self.run.store.folder,
            cohort.load,
        )

    def take(self, record: Record) -> None:
        """Take what a worker has done."""
        self.workers.add(record.worker)
        self.runtimes.add(record.runtime)
        for index, count in record.nuclei.items():
            self.run.finished[index] = count
            self.run.assembler.arrived(index)
        for index, reason in record.failed:
            self.run.take(Failure(index, reason, RuntimeError(reason)))

    def give_up(self, tiles: Iterable[Index], reason: str) -> None:
        """Name tiles that no worker could compute."""
        for index in tiles:
            self.run.take(Failure(index, reason, RuntimeError(reason)))

    def finish(self) -> Summary:
        """Complete the results."""
        with self.stack:
            self.run.check()
            self.clock.lap("segment")
            runtime = ", ".join(sorted(self.runtimes)) or "an earlier run"
            return self.run.close(self.clock, runtime, tuple(sorted(self.workers)))


def cluster_runtime(device: str) -> str:
    """Return what stands for the runtime of a cluster in the settings of a slide."""
    return f"device {device} of a cluster"


class _Desk:
    """Hands out blocks, takes what comes back, and closes slides whose blocks are all there."""

    def __init__(self, cohort: Cohort, client: Any) -> None:
        self._cohort, self._client = cohort, client
        self._todo = deque(cohort.slides)
        self._active: list[_Active] = []
        self._out: dict[Any, tuple[_Active, tuple[Index, ...], int]] = {}
        self._ends: dict[LocalFuture[Summary], _Active] = {}
        self._closing = ThreadPoolExecutor(1, "nucseg-close")
        self._finished = self._tiles = self._nuclei = 0

    def work(self) -> Generator[CohortProgress | SlideEnd, None, None]:
        while self._todo or self._active or self._ends:
            yield from self._fill()
            yield from self._collect()
            yield from self._ended()
            yield self._progress()

    def close(self) -> None:
        """Cancel what is left."""
        try:
            self._client.cancel(list(self._out), force=True)
        except Exception:  # the cluster may be gone, which has been told
            self._out.clear()
        self._closing.shutdown(wait=True)
        for active in [*self._active, *self._ends.values()]:
            active.stack.close()

    def _limit(self) -> int:
        return max(4, _AHEAD * sum(self._client.nthreads().values()))

    def _fill(self) -> Generator[SlideEnd, None, None]:
        """Hand out blocks as long as workers could otherwise run out of them."""
        limit = _reached(self._limit)
        while len(self._out) < limit:
            active = next((a for a in self._active if a.blocks), None)
            if active is not None:
                self._submit(active, active.blocks.popleft(), 1)
            elif self._todo:
                yield from self._begin(self._todo.popleft())
            else:
                return

    def _begin(self, slide: Slide) -> Generator[SlideEnd, None, None]:
        began = time.perf_counter()
        try:
            active = _Active(self._cohort, slide)
        except Exception as error:  # one slide must not cost the others
            self._finished += 1
            yield SlideEnd(slide, None, error, time.perf_counter() - began)
            return
        self._active.append(active)
        self._settle(active)

    def _submit(self, active: _Active, tiles: tuple[Index, ...], attempt: int) -> None:
        future = _reached(
            lambda: self._client.submit(compute_block, active.task, tiles, pure=False, retries=1)
        )
        self._out[future] = active, tiles, attempt

    def _collect(self) -> Generator[SlideEnd, None, None]:
        """Wait a moment for blocks to come back, and take them."""
        from distributed import wait

        if not self._out:
            time.sleep(0.05)
            return
        try:
            done = wait(list(self._out), timeout=1, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            return
        for future in done:
            active, tiles, attempt = self._out.pop(future)
            self._take(future, active, tiles, attempt)
        yield from ()

    def _take(self, future: Any, active: _Active, tiles: tuple[Index, ...], attempt: int) -> None:
        from distributed import KilledWorker

        if future.status == "finished":
            try:
                active.take(future.result())
            except Exception as error:  # such as a disk that is full
                active.error = active.error or error
        elif active.error is None:
            failure = _reached(lambda: future.exception(timeout=10)) if future.status == "error" else None
            if failure is None:
                raise _gone("it has dropped blocks of work")
            if isinstance(failure, KilledWorker) and attempt < _TRIES:
                self._submit(active, tiles, attempt + 1)
                return
            if isinstance(failure, KilledWorker):
                active.give_up(tiles, "the workers that computed it died, perhaps for want of memory")
            else:
                active.error = failure
        active.waiting -= 1
        if active.error is not None:
            active.waiting -= len(active.blocks)
            active.blocks.clear()
        self._settle(active)

    def _settle(self, active: _Active) -> None:
        """Close a slide when nothing of it is out any more."""
        if active.waiting:
            return
        self._active.remove(active)
        if active.error is not None:
            error = active.error

            def fail() -> Summary:
                active.stack.close()
                raise error

            self._ends[self._closing.submit(fail)] = active
        else:
            self._ends[self._closing.submit(active.finish)] = active

    def _ended(self) -> Generator[SlideEnd, None, None]:
        for future in [f for f in self._ends if f.done()]:
            active = self._ends.pop(future)
            self._finished += 1
            seconds = time.perf_counter() - active.began
            error = future.exception()
            if isinstance(error, Exception):
                yield SlideEnd(active.slide, None, error, seconds, active.note)
                continue
            self._tiles += len(active.run.finished)
            self._nuclei += sum(active.run.finished.values())
            yield SlideEnd(active.slide, future.result(), None, seconds, active.note)

    def _progress(self) -> CohortProgress:
        here = [*self._active, *self._ends.values()]
        done = sum(len(a.run.finished) + len(a.run.failures) for a in here)
        total = sum(len(a.run.prepared.order) for a in here)
        nuclei = sum(sum(a.run.finished.values()) for a in here)
        return CohortProgress(self._tiles + done, self._tiles + total, self._nuclei + nuclei, self._finished)


def _reached(ask: Any) -> Any:
    """Return the answer of the cluster; `NucSegError` where there is none."""
    try:
        return ask()
    except (OSError, TimeoutError) as error:
        raise _gone(str(error) or type(error).__name__) from error


def _gone(reason: str) -> NucSegError:
    return NucSegError(
        f"The cluster cannot be reached any more ({reason}); finished tiles are kept: start it again and repeat the "
        "command with --resume."
    )
