"""Run the suite; arguments go on to pytest, such as ``-k decode`` or ``--benchmark-autosave --benchmark-compare``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.timing import cores, limit_threads

OPTIONS = (
    *("-o", "python_files=bench_*.py"),
    *("-o", "python_functions=bench_*"),
    "--no-xvfb",
    *("--benchmark-columns", "min,median,stddev,rounds"),
    *("--benchmark-warmup", "on", "--benchmark-warmup-iterations", "1"),
    *("--benchmark-sort", "fullname"),
    *("--benchmark-max-time", "2", "--benchmark-min-rounds", "3"),
)


def main(argv: Sequence[str]) -> int:
    """Entry point of ``python -m benchmarks.suite``."""
    limit_threads(cores())
    import pytest

    return int(pytest.main([str(Path(__file__).parent), *OPTIONS, *argv]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
