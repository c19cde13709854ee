"""Work in another thread, whose end is told once in the thread of the window, errors included."""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  its threads must end after the work that uses them, see below
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QThreadPool
from superqt.utils import WorkerBase

_running: set[Any] = set()
"""Workers under way: one whose panel is closed meanwhile must not lose its Qt half before its thread ends."""


@dataclass(frozen=True)
class Outcome:
    """How work has ended.

    Attributes
    ----------
    value : object
        What it returned.
    error : Exception or None
        What it raised. superqt's workers would swallow a RuntimeError, even one that is returned.
    """

    value: Any = None
    error: Exception | None = None


THREADS = 12
"""Of Qt's pool, whose own number is that of the cores: a run on a slide holds one for hours, and others mostly wait."""


def make_room() -> None:
    """Have enough threads, so that small work never waits for long work to end."""
    pool = QThreadPool.globalInstance()
    pool.setMaxThreadCount(max(THREADS, pool.maxThreadCount()))


def start(
    work: Callable[[], Any], done: Callable[[Outcome], None], stop: Callable[[], None] | None = None
) -> Any:
    """Begin work in another thread.

    Parameters
    ----------
    work : callable ()
    done : callable (Outcome)
        Called in the thread of the window.
    stop : callable (), optional
        Makes the work end soon. napari asks for that when it is closed, and then waits for all work to end.

    Returns
    -------
    napari worker
        To be held until `done` is called.
    """
    make_room()
    worker = create_worker(_attempt, work, _start_thread=False, _worker_class=None)
    if stop is not None:
        worker.quit = stop
    worker.returned.connect(done)
    worker.finished.connect(lambda: _running.discard(worker))
    _running.add(worker)
    worker.start()
    return worker


def _attempt(work: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(work())
    except Exception as error:
        return Outcome(error=error)


def _settle(owner: int) -> None:
    """End all work before the process does; a fork of it has the hook, but not the threads."""
    if os.getpid() == owner:
        WorkerBase.await_workers()


# A script that ends without napari.run() never tells Qt so. PyQt would then delete the signals of workers under way,
# and the next one emitted aborts it. Of Python's hooks this is the one before executors and zarr end their threads.
getattr(threading, "_register_atexit", atexit.register)(_settle, os.getpid())
