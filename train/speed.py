"""Race networks on this machine, side by side: taking turns, so that a busy moment hits all of them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_nucseg.core.synthetic import synthetic_he

if TYPE_CHECKING:
    from napari_nucseg.models.runtime import Runtime


@dataclass(frozen=True)
class Pace:
    """How fast one network was.

    Attributes
    ----------
    ms
        Median milliseconds for one tile.
    ratio
        Median over the rounds of the first network's time over this one's: how many times faster it is.
    low, high
        Smallest and largest of these.
    """

    name: str
    runtime: str
    ms: float
    ratio: float
    low: float
    high: float


def machine() -> str:
    """Name the processor, the cores and threads that may be used, and the system."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("NUCSEG_THREADS")
    limit = f", {threads} threads" if threads else ""
    return f"{name}, {cores} cores{limit}, {platform.system()} {platform.machine()}"


def race(runtimes: Mapping[str, Runtime], size: int = 1024, rounds: int = 9) -> list[Pace]:
    """Time networks on one tile of drawn tissue.

    Parameters
    ----------
    runtimes
        By name; the first is the one that the others are compared with.
    size
        Side of the tile in pixels, a multiple of 16.
    rounds
        Each runs all networks once, in turn; one more before them warms up.
    """
    part = synthetic_he().image
    times = -(-size // part.shape[0])
    tile = np.ascontiguousarray(np.tile(part, (times, times, 1))[:size, :size])
    spent: dict[str, list[float]] = {name: [] for name in runtimes}
    for _ in range(rounds + 1):
        for name, runtime in runtimes.items():
            began = time.perf_counter()
            runtime(tile)
            spent[name].append(time.perf_counter() - began)
    taken = {name: np.array(values[1:]) for name, values in spent.items()}
    base = next(iter(taken.values()))
    out = []
    for name, values in taken.items():
        ratios = base / values
        runtime = runtimes[name]
        out.append(
            Pace(
                name,
                runtime.name,
                float(np.median(values)) * 1000,
                float(np.median(ratios)),
                float(ratios.min()),
                float(ratios.max()),
            )
        )
    return out
