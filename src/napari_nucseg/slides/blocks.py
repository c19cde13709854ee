"""What a worker of a cluster does: compute the tiles of a block into the shared folder of a slide."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import as_source, read_image
from napari_nucseg.slides.careful import Failure, compute
from napari_nucseg.slides.loaded import Loaded
from napari_nucseg.slides.prepare import Options, Prepared, prepare
from napari_nucseg.slides.store import TileStore

if TYPE_CHECKING:
    from napari_nucseg.core.tiling import Index
    from napari_nucseg.core.tissue import TissueMask
    from napari_nucseg.io.mpp import Mpp
    from napari_nucseg.io.slide import SlideImage

Load = Callable[[str, str], Loaded]
"""From the name or path of a model and a device to a model that is ready."""

_OPEN = 2
"""Slides that a worker keeps open."""


@dataclass(frozen=True)
class SlideTask:
    """A slide as the workers are told of it.

    Attributes
    ----------
    path : path
        Absolute, the same for all machines.
    mpp : Mpp or None
        Where it was stated by the user.
    model, device : str
        What to load.
    options : Options
    tissue : TissueMask or None
        Found once, by the one who gives out the blocks.
    facts : dict
        What the settings come to there; a worker that comes to others does nothing.
    store : path
        Folder of the tiles, shared.
    load : callable
    """

    path: Path
    mpp: Mpp | None
    model: str
    device: str
    options: Options
    tissue: TissueMask | None
    facts: dict[str, Any]
    store: Path
    load: Load = Loaded.of


@dataclass(frozen=True)
class Record:
    """What became of a block.

    Attributes
    ----------
    nuclei : dict
        Number of nuclei of every tile that is in the store.
    failed : tuple of (Index, str)
        Tiles that are not, and why.
    worker, runtime : str
    seconds : float
    """

    nuclei: dict[Index, int]
    failed: tuple[tuple[Index, str], ...]
    worker: str
    runtime: str
    seconds: float


_busy = (
    threading.Lock()
)  # the network uses all threads of the process; two blocks at once would only need more memory
_models: dict[tuple[str, str], Loaded] = {}
_slides: OrderedDict[Path, tuple[SlideImage, Prepared]] = OrderedDict()


def compute_block(task: SlideTask, tiles: tuple[Index, ...]) -> Record:
    """Compute those tiles of a block that are not in the store yet, in this process.

    The model is loaded once per process, and the slides used last stay open.

    Parameters
    ----------
    task : SlideTask
    tiles : tuple of Index

    Raises
    ------
    NucSegError
        The slide or the model cannot be used on this machine, or the tiles not be written.
    """
    began = time.perf_counter()
    with _busy:
        prepared = _opened(task)
        store = TileStore(task.store, shared=True)
        done = {index: count for index, (count, _) in store.finished(tiles).items()}
        failed: list[tuple[Index, str]] = []
        try:
            with closing(compute(prepared.plan, [index for index in tiles if index not in done])) as items:
                for item in items:
                    if isinstance(item, Failure):
                        failed.append((item.index, item.reason))
                    else:
                        prepared.source.check()
                        store.put(item, prepared.notes())
                        done[item.index] = len(item.nuclei)
        except Exception:
            _slides.pop(task.store)[
                0
            ].close()  # opened anew for the next block, should the slide be back by then
            raise
    runtime = prepared.plan.runtime.name
    return Record(done, tuple(failed), _worker(), runtime, time.perf_counter() - began)


def _worker() -> str:
    """Return the name of this worker in its cluster."""
    import socket

    try:
        from distributed import get_worker

        return str(get_worker().address)
    except (ImportError, ValueError):
        return socket.gethostname()


def _opened(task: SlideTask) -> Prepared:
    """Return the slide of a task, open, with its model."""
    if task.store in _slides:
        _slides.move_to_end(task.store)
        return _slides[task.store][1]
    loaded = _loaded(task)
    image = read_image(task.path)
    try:
        prepared = prepare(
            as_source(image, task.mpp), loaded.model, loaded.runtime, task.options,
            device=task.facts["runtime"], tissue=task.tissue,
        )  # fmt: skip
        if differing := [k for k, told in prepared.facts.items() if str(told) != str(task.facts[k])]:
            raise NucSegError(
                f"The worker {_worker()} sees another {differing[0]} of {task.path} than the command that was given; "
                "let all machines see the same files and have the same version."
            )
    except BaseException:
        image.close()
        raise
    _slides[task.store] = image, prepared
    while len(_slides) > _OPEN:
        _slides.popitem(last=False)[1][0].close()
    return prepared


def _loaded(task: SlideTask) -> Loaded:
    key = str(task.facts["model"][0]) or task.model, task.device
    if key not in _models:
        _models[key] = task.load(task.model, task.device)
    return _models[key]
