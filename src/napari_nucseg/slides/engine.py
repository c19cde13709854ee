"""Segment a slide of any size with constant memory, so that it can be stopped, killed and gone on with."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.tissue import save_tissue
from napari_nucseg.slides.assemble import Assembler
from napari_nucseg.slides.careful import Failure, compute
from napari_nucseg.slides.existing import still_valid
from napari_nucseg.slides.outputs import (
    SUMMARY,
    TISSUE,
    Canvas,
    Outputs,
    check_formats,
    names_of,
    older_names,
)
from napari_nucseg.slides.prepare import Options, Prepared, asked, corners, prepare
from napari_nucseg.slides.report import Place, Summary, covered_px, damages_in, versions
from napari_nucseg.slides.store import cannot_write
from napari_nucseg.slides.workdir import WorkFolder

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from napari_nucseg.core.tiling import Index
    from napari_nucseg.io.slide import ImageSource
    from napari_nucseg.slides.loaded import Loaded
    from napari_nucseg.slides.store import TileStore

_HOPELESS = 50
"""So many tiles that fail, while none succeeds, are a fault of the program or the machine, not of the slide."""


@dataclass(frozen=True)
class Request:
    """A slide to segment.

    Attributes
    ----------
    source : ImageSource
        With a known mpp.
    loaded : Loaded
    out : path
        Folder of the results.
    stem : str
        Name of the image; it also makes the UUIDs of the GeoJSON objects.
    formats : tuple of str
        Some of `napari_nucseg.slides.outputs.FORMATS`. Results that exist are replaced.
    options : Options
    """

    source: ImageSource
    loaded: Loaded
    out: Path
    stem: str
    formats: tuple[str, ...]
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Progress:
    """How far a slide is.

    Attributes
    ----------
    stage : {"tissue", "segment", "write"}
    done, total : int
        Tiles; those of an earlier run count as done.
    nuclei : int
        So far.
    seconds : float
        Since the start of this run.
    eta : float or None
        Seconds until all tiles are computed, as far as one can tell.
    resumed : int
        Tiles of an earlier run, which was interrupted.
    note : str
        Something to tell the user once, such as that an earlier run is gone on with.
    """

    stage: str
    done: int = 0
    total: int = 0
    nuclei: int = 0
    seconds: float = 0.0
    eta: float | None = None
    resumed: int = 0
    note: str = ""


def segment_slide(request: Request) -> Generator[Progress, None, Summary]:
    """Segment a slide and write its results.

    Tiles are saved in ``<stem>.nucseg-partial`` as they are finished. A run that is stopped (by closing this
    generator), killed or fails leaves them there, and the same request goes on with them; its results are those of a
    run that was not interrupted. A tile that fails again and again is left out and named in the summary.

    Parameters
    ----------
    request : Request

    Yields
    ------
    Progress
        At the start, for every tile, and while what is left is written.

    Returns
    -------
    Summary
        Also saved, as ``<stem>_summary.json``.

    Raises
    ------
    NucSegError
        The slide cannot be read (any more), the results cannot be written, or another run is writing them.
    """
    check_formats(request.formats)
    with WorkFolder(request.out, request.stem) as work:
        yield Progress("tissue")
        clock = Clock()
        prepared = prepare(request.source, request.loaded.model, request.loaded.runtime, request.options)
        clock.lap("tissue")
        run = SlideRun(prepared, work, request.formats)
        try:
            yield run.progress("segment", note=run.note)
            for block in prepared.plan.blocks:
                missing = [index for index in block if index not in run.finished]
                with closing(compute(prepared.plan, missing)) as items:
                    for item in items:
                        run.take(item)
                        yield run.progress("segment")
            run.check()
            clock.lap("segment")
            while not run.assembler.wait(0.5):
                yield run.progress("write")
            summary = run.close(clock, request.loaded.runtime.name)
        except MemoryError as error:
            height, width = request.source.shape
            raise NucSegError(
                f"{request.stem}: {width} x {height} pixels do not fit into the memory of this machine; free some, or "
                "give a smaller --tile."
            ) from error
        finally:
            run.assembler.stop()
    return summary


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self._began = self._lap = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._lap, 3)
        self._lap = now

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began


class SlideRun:
    """The tiles and outputs of one slide while they come into being.

    Parameters
    ----------
    prepared : Prepared
    work : WorkFolder
        Entered.
    formats : tuple of str
    """

    def __init__(self, prepared: Prepared, work: WorkFolder, formats: tuple[str, ...]) -> None:
        self.prepared, self.work, self.formats = prepared, work, formats
        self.store: TileStore = work.tiles(prepared.fingerprint)
        self.finished = {index: count for index, (count, _) in self._look(prepared.order).items()}
        self.resumed = len(self.finished)
        self.failures: list[Failure] = []
        self._began = time.perf_counter()
        plan = prepared.plan
        self.store.describe(prepared.facts)
        outputs = Outputs(
            work.stage,
            work.stem,
            formats,
            Canvas(prepared.source.shape, plan.image.mpp, plan.card.classes, plan.card.colours),
            prepared.bounds,
        )
        self.assembler = Assembler(prepared.order, self.store, outputs, self.finished)

    def _look(self, tiles: Iterable[Index]) -> dict[Index, tuple[int, dict[str, Any]]]:
        return self.store.finished(tiles)

    @property
    def note(self) -> str:
        """What to tell of an earlier run that was interrupted, if there was one."""
        total = len(self.prepared.order)
        if self.resumed:
            return (
                f"{self.work.stem}: goes on where an earlier run stopped, at {self.resumed} of {total} tiles"
            )
        if others := self.work.others(self.prepared.fingerprint):
            return (
                f"{self.work.stem}: {others} tiles of an earlier run are not used, since its settings or its image "
                "were others"
            )
        return ""

    def take(self, item: Any) -> None:
        """Take a tile or a failure from `compute`."""
        if isinstance(item, Failure):
            self.failures.append(item)
            self.assembler.leave_out(item.index)
            if len(self.failures) >= _HOPELESS:
                self._check_hope()
            return
        self.prepared.source.check()  # before the tile is kept, lest it show parts of another image
        self.finished[item.index] = len(item.nuclei)
        self.assembler.submit(item, self.prepared.notes())

    def progress(self, stage: str, note: str = "") -> Progress:
        """Say how far it is."""
        seconds = time.perf_counter() - self._began
        done, total = len(self.finished) + len(self.failures), len(self.prepared.order)
        fresh = done - self.resumed
        eta = seconds / fresh * (total - done) if fresh else None
        nuclei = sum(self.finished.values())
        return Progress(stage, done, total, nuclei, seconds, eta, self.resumed, note)

    def check(self) -> None:
        """Raise the error of the first tile where no tile at all could be computed."""
        if self.failures:
            self._check_hope()

    def _check_hope(self) -> None:
        if not self.finished:
            raise self.failures[0].error

    def close(self, clock: Clock, runtime: str, workers: tuple[str, ...] = ()) -> Summary:
        """Complete the outputs, write the summary and put all of them in place.

        Raises
        ------
        NucSegError
            Something cannot be written.
        """
        self.assembler.close()
        stage, stem, tissue = self.work.stage, self.work.stem, self.prepared.tissue
        if tissue is not None and tissue.mask.size > 1:
            save_tissue(tissue, stage / f"{stem}_{TISSUE}")
        clock.lap("write")
        summary = self._summary(clock, runtime, workers)
        name = f"{stem}_{SUMMARY}"
        try:
            (stage / name).write_text(summary.to_json(), encoding="utf-8")
        except OSError as error:
            raise cannot_write(self.work.out, error) from error
        self.work.place(name, older_names(stem, self.formats))
        if summary.complete:
            self.work.finish()
        else:
            self.work.unsay()
        return summary

    def _summary(self, clock: Clock, runtime: str, workers: tuple[str, ...]) -> Summary:
        prepared, plan = self.prepared, self.prepared.plan
        source = prepared.source
        notes = [told for _, told in self._look(prepared.order).values()] + [self.prepared.notes()]
        damaged = damages_in(notes)
        failed = tuple(
            Place(corners(prepared.owned(f.index)), 0, f.reason)
            for f in sorted(self.failures, key=lambda f: f.index)
        )
        lost = [prepared.owned(f.index) for f in self.failures]
        lost += [
            prepared.level0(place.level, Box(*place.box))
            for place in damaged
            if place.level == plan.image.level
        ]
        mm2 = (plan.image.mpp / 1000) ** 2
        area = covered_px(source.shape, prepared.tissue, plan.region, lost) * mm2
        counted = self.assembler.classes
        here = {p.name for p in self.work.stage.iterdir()} | {f"{self.work.stem}_{SUMMARY}"}
        outputs = here | still_valid(self.work.out, self.work.stem, asked(prepared.facts), runtime)
        return Summary(
            name=self.work.stem,
            image=str(getattr(source, "path", None) or "array"),
            shape=source.shape,
            mpp=plan.image.mpp,
            mpp_origin=str(source.mpp),
            complete=not failed,
            area_mm2=round(area, 6),
            image_mm2=round(source.shape[0] * source.shape[1] * mm2, 6),
            nuclei=self.assembler.nuclei,
            nuclei_per_mm2=round(self.assembler.nuclei / area, 2) if area else 0.0,
            classes={name: counted[name] for name in plan.card.classes if counted[name]},
            tiles=len(prepared.order) - len(failed),
            failed=failed,
            damaged=damaged,
            seconds={**clock.seconds, "total": round(clock.total, 3)},
            versions=versions(
                runtime,
                {
                    "name": plan.card.name,
                    "version": plan.card.version,
                    "sha256": str(prepared.facts["model"][0]),
                },
            ),
            outputs=tuple(sorted(outputs)),
            fingerprint=asked(prepared.facts),
            colours={name: plan.card.colours[name] for name in plan.card.classes},
            workers=workers,
            resumed=self.resumed,
        )


__all__ = ["Clock", "Progress", "Request", "SlideRun", "names_of", "segment_slide"]
