"""kill -9 at any moment: the same command goes on, and nothing shows in the result."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slides.conftest import FORMATS, TILE, TILES, contents

ROOT = Path(__file__).parents[2]


def command(slide, out, *more):
    args = ["segment", str(slide), "-o", str(out), "--tile", str(TILE), "--format", ",".join(FORMATS), *more]
    return [sys.executable, "-m", "tests.slides.slow_run", *args]


def start(slide, out, sleep=0.0, die=""):
    env = os.environ | {"NUCSEG_TEST_SLEEP": str(sleep), "NUCSEG_TEST_DIE": die}
    return subprocess.Popen(
        command(slide, out), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def tiles_in(out):
    return len(list(out.glob("slide.nucseg-partial/tiles-*/*.nst")))


def end(process):
    said, complained = process.communicate(timeout=200)
    return process.returncode, said, complained


@pytest.fixture(scope="module")
def straight(slide, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight")
    code, _, complained = end(start(slide, out))
    assert code == 0, complained
    return contents(out)


def test_killed_five_times_and_gone_on_with(slide, straight, tmp_path):
    dice = random.Random()
    out, before = tmp_path / "out", 0
    for _ in range(5):
        process = start(slide, out, sleep=0.2)
        goal = before + dice.randint(1, max(1, (TILES - before) // 6))
        while process.poll() is None and tiles_in(out) < goal:
            time.sleep(0.01)
        time.sleep(dice.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        tiles = tiles_in(out)
        assert tiles >= goal  # what was finished stays, and each run adds to it
        before = tiles
        assert [p.name for p in out.iterdir()] == ["slide.nucseg-partial"]
    code, said, complained = end(start(slide, out))
    assert code == 0
    assert f"goes on where an earlier run stopped, at {before} of {TILES} tiles" in complained
    assert "slide.tif: " in said
    assert contents(out) == straight
    assert not any(p.name.startswith(".") or p.name.endswith("partial") for p in out.iterdir())


@pytest.mark.parametrize("die", ["2", "4", "8"])
def test_killed_while_the_results_are_put_in_place(slide, straight, tmp_path, die):
    """2: before anything is moved; 4: in between; 8: all are in place, but that was not noted yet."""
    out = tmp_path / "out"
    process = start(slide, out, die=die)
    assert end(process)[0] == 9
    placed = [p.name for p in out.iterdir() if not p.name.endswith("partial")]
    assert len(placed) == {"2": 0, "4": 2, "8": 6}[die]
    code, _, complained = end(start(slide, out))
    assert code == 0, complained
    assert contents(out) == straight
    assert sorted(p.name for p in out.iterdir()) == sorted(
        {n.split("/")[0] for n in straight} | {"slide_summary.json"}
    )
    if die == "8":
        code, _, complained = end(start(slide, out))
        assert code == 2
        assert "exists already" in complained
