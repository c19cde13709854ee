"""A whole slide segmented in the background, to a folder; nothing here touches a layer."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg._plugin import work
from napari_nucseg._plugin.compute import Loader, Request, Ticker
from napari_nucseg._plugin.images import level0_shape
from napari_nucseg.errors import NucSegError
from napari_nucseg.slides.result import LABELS, SlideResult

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Image

    from napari_nucseg.io.slide import ImageSource

ON_STOP = "Stop after the tiles under way; those that are finished are kept, and the next Run goes on there."


@dataclass(frozen=True)
class Target:
    """Where the results of a slide go, and how.

    Attributes
    ----------
    folder : Path
    stem : str
    tissue : bool
        Whether glass is left out.
    again : bool
        Whether parts that were reviewed are carried over from the result that is there.
    """

    folder: Path
    stem: str
    tissue: bool = True
    again: bool = False


@dataclass(frozen=True)
class Done:
    """What came of a run.

    Attributes
    ----------
    result : SlideResult or None
        With its columns read; None where the run was stopped.
    summary : object
        See `napari_nucseg.slides.report.Summary`.
    carried : int
        Reviewed nuclei that were carried over.
    done, total : int
        Tiles.
    """

    result: SlideResult | None
    summary: Any = None
    carried: int = 0
    done: int = 0
    total: int = 0


def path_of(image: Image) -> Path | None:
    """Return the file of an image layer, None where there is none."""
    known = image.metadata.get("napari_nucseg")
    told = known.get("path") if isinstance(known, dict) else None
    path = told or image.source.path
    return Path(path) if path and Path(path).is_file() else None


def stem_for(image: Image) -> str:
    """Return the stem of the files of an image's results."""
    path = path_of(image)
    name = image.name if path is None else path.stem.removesuffix(".ome")
    return re.sub(r"[^\w.\- ]+", "_", name).strip(" .") or "slide"


def default_folder(image: Image) -> Path:
    """Return where results of an image go by default: beside its file, or into the cache where that can't be."""
    from platformdirs import user_cache_path

    from napari_nucseg.io.session_places import is_writable

    path, stem = path_of(image), stem_for(image)
    if path is not None:
        beside = path.parent / f"{stem}_nucseg"
        if beside.is_dir() or is_writable(path.parent):
            return beside
    return Path(user_cache_path("napari-nucseg", appauthor=False)) / "slides" / f"{stem}_nucseg"


def existing(folder: Path, stem: str) -> bool:
    """Return whether there is a result in a folder."""
    return (folder / f"{stem}_{LABELS}").is_dir()


def formats() -> tuple[str, ...]:
    """Return the formats to write: all that can be, but label images."""
    from napari_nucseg.slides.outputs import parquet_is_there

    return ("zarr", *(("parquet",) if parquet_is_there() else ()), "csv", "geojson")


def open_source(image: Image, request: Request) -> ImageSource:
    """Return the pixels of a slide: its file where there is one, since several threads read that best."""
    from napari_nucseg.io.slide import as_source, read_image

    path = path_of(image)
    if path is not None:
        with suppress(NucSegError):
            slide = read_image(path)
            if slide.shape == level0_shape(image):
                return as_source(slide, request.mpp)
    return as_source(request.image, request.mpp, request.axes)


class SlideRun:
    """Segments one slide at a time.

    Parameters
    ----------
    load : callable (model, device) -> Runtime
        Called in another thread.

    Attributes
    ----------
    ticker : Ticker
        How far it is.
    """

    def __init__(self, load: Loader) -> None:
        self._load = load
        self._worker: Any = None
        self.ticker = Ticker(on_stop=ON_STOP)

    @property
    def running(self) -> bool:
        """Whether a slide is being segmented."""
        return self._worker is not None

    def start(
        self, image: Image, request: Request, target: Target, done: Callable[[work.Outcome], None]
    ) -> None:
        """Begin; `done` gets a `Done` in the thread of the window."""
        self.ticker = Ticker(on_stop=ON_STOP)
        task = partial(
            _segment, partial(open_source, image, request), request, target, self._load, self.ticker
        )
        self._worker = work.start(task, partial(self._on_done, done), self.ticker.stop)

    def cancel(self) -> None:
        """Stop soon; the finished tiles are kept."""
        self.ticker.stop()

    def _on_done(self, done: Callable[[work.Outcome], None], outcome: work.Outcome) -> None:
        self._worker = None
        done(outcome)


def _segment(
    open_image: Callable[[], ImageSource], request: Request, target: Target, load: Loader, ticker: Ticker
) -> Done:
    from napari_nucseg.slides.again import carry_over, replace_result, work_folder
    from napari_nucseg.slides.transaction import settle
    from napari_nucseg.slides.workdir import WorkFolder

    folder = work_folder(target.folder, target.stem) if target.again else target.folder
    folder.mkdir(parents=True, exist_ok=True)
    steps = _steps(open_image(), request, Target(folder, target.stem, target.tissue), load)
    done = total = 0
    summary = None
    with closing(steps):
        while not ticker.stopped:
            try:
                step = next(steps)
            except StopIteration as end:
                summary = end.value
                break
            done, total = step.done, step.total
            _tell(ticker, step)
    if summary is None:
        return Done(None, done=done, total=total)
    ticker.start("Reading the results", "")
    carried = 0
    if target.again:
        with WorkFolder(
            target.folder, target.stem
        ):  # no window puts a part back into what is about to be replaced
            settle(target.folder, target.stem)
            old, new = (SlideResult.open(at, target.stem) for at in (target.folder, folder))
            carried = carry_over(old, new)
            replace_result(old, new)
        with suppress(OSError):
            folder.rmdir()
    result = SlideResult.open(target.folder, target.stem)
    _ = result.centres
    return Done(result, summary, carried, done, total)


def _steps(source: ImageSource, request: Request, target: Target, load: Loader) -> Generator[Any, None, Any]:
    from napari_nucseg.core.tissue import TissueConfig
    from napari_nucseg.inference import adjusted
    from napari_nucseg.slides.engine import Request as SlideRequest
    from napari_nucseg.slides.engine import segment_slide
    from napari_nucseg.slides.loaded import Loaded
    from napari_nucseg.slides.prepare import Options

    loaded = Loaded(request.model, load(request.model, request.device))
    options = Options(
        config=adjusted(request.model.card, **request.settings),
        tissue=TissueConfig() if target.tissue else None,
    )
    return segment_slide(SlideRequest(source, loaded, target.folder, target.stem, formats(), options))


STAGES = {"tissue": "Looking for tissue", "write": "Writing the results"}


def _tell(ticker: Ticker, step: Any) -> None:
    """Pass on how far it is."""
    doing = STAGES.get(step.stage)
    if doing is not None:
        if ticker.doing != doing or ticker.total:
            ticker.start(doing, "")
        return
    if not ticker.total:
        ticker.start("Segmenting", "tiles")
    ticker.total, ticker.done = step.total, step.done
    left = "" if step.eta is None else f", {remaining(step.eta)} left"
    ticker.note = f"{step.nuclei:,} nuclei{left}"


def remaining(seconds: float) -> str:
    """Return a time in words as short as its precision is."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
