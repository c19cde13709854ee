"""Run a command and see what it takes, with all processes that it starts."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

STEP_S = 0.1
"""Between two looks at the memory."""

PSS_EVERY = 10
"""Looks of which one also asks for shares of shared pages, which takes the system some milliseconds per GB."""


@dataclass(frozen=True)
class Usage:
    """What a command took.

    Attributes
    ----------
    code : int
        That it ended with.
    seconds, cpu_seconds : float
        By the clock, and of all cores.
    rss : int
        Bytes: the most that the resident memory of its processes came to, pages that they share counted in each.
    pss : int or None
        Bytes: the same with shared pages counted once, looked at less often; None where the system does not tell.
    processes : int
        The most at a time.
    output : str
        What it printed, errors included.
    """

    code: int
    seconds: float
    cpu_seconds: float
    rss: int
    pss: int | None
    processes: int
    output: str


def watch(command: Sequence[str], env: Mapping[str, str] | None = None) -> Usage:
    """Run a command to its end.

    Parameters
    ----------
    command
        Program and arguments.
    env
        Variables beside those of this process.
    """
    before = _children_seconds()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )
        rss, pss, processes, looks = 0, 0, 0, 0
        try:
            while True:
                tree = _tree(process.pid)
                rss = max(rss, sum(_rss(p) for p in tree))
                processes = max(processes, len(tree))
                if looks % PSS_EVERY == 0:
                    pss = max(pss, sum(_pss(p) for p in tree))
                looks += 1
                try:
                    process.wait(STEP_S)
                    break
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - began
        output.seek(0)
        text = output.read()
    cpu = _children_seconds() - before
    return Usage(process.returncode, seconds, cpu, rss, pss or None, processes, text)


def _children_seconds() -> float:
    """Return the processor time of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _pss(process: psutil.Process) -> int:
    try:
        return int(getattr(process.memory_full_info(), "pss", 0))
    except psutil.Error:
        return 0
