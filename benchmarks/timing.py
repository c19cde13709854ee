"""Clocks, and the machine they ran on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

from napari_nucseg.doctor import cpu_name


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Give every library so many threads; call it before torch, numba or OpenVINO are imported."""
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "NUCSEG_THREADS",
    ):
        os.environ[name] = str(threads)


def machine(threads: int) -> str:
    """Name the processor, its cores, the threads used and how busy it was."""
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{cpu_name()}, {cores()} cores, {threads} threads{load}"


@dataclass(frozen=True)
class Times:
    """Seconds of repeated runs of one thing."""

    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """Fastest run."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """Middle run."""
        return median(self.seconds)


BUDGET_S = 60.0
"""No further round is begun that would go beyond this."""


def in_turns(works: Sequence[Callable[[], object]], rounds: int, budget: float = BUDGET_S) -> list[Times]:
    """Time several works in turns, so that whatever else the machine does meanwhile meets all of them alike.

    Parameters
    ----------
    works
        Warmed up by the caller.
    rounds
        How often each is run; fewer where that would take longer than the budget, but once at least.
    budget
        Seconds.

    Returns
    -------
    list of Times
        One for each work.
    """
    seconds: list[list[float]] = [[] for _ in works]
    began = time.perf_counter()
    for done in range(rounds):
        spent = time.perf_counter() - began
        if done and spent * (done + 1) / done > budget:
            break
        for work, taken in zip(works, seconds, strict=True):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
    return [Times(tuple(taken)) for taken in seconds]


@dataclass
class Stages:
    """Seconds by stage, summed over tiles."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
