"""The suite of `make bench` holds a benchmark for every part, and they run."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*options):
    command = [sys.executable, "-m", "benchmarks.suite", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)


def test_every_part_has_a_benchmark():
    found = run("--collect-only").stdout
    for part in (
        *("unpack_bf16", "unpack_f32", "centres", "flood", "vote", "decode", "measure", "window_of_1024"),
        *("label_pyramid", "geojson", "parquet", "csv", "jpeg_tiles", "resampled", "tissue"),
    ):
        assert f"::bench_{part}\n" in found


def test_the_benchmarks_run():
    done = run("-k", "tissue or jpeg", "--benchmark-disable")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
