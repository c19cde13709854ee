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

from napari_nucseg import cli
from napari_nucseg.io.slide import read_image
from napari_nucseg.slides.engine import Request, segment_slide
from napari_nucseg.slides.loaded import Loaded
from napari_nucseg.slides.prepare import Options
from tests.slides import slow_run
from tests.slides.conftest import FORMATS, TILE, TILES, contents, finish

ROOT = Path(__file__).parents[2]


def command(slide, out):
    return ["segment", str(slide), "-o", str(out), "--tile", str(TILE), "--format", ",".join(FORMATS)]


def start(slide, out, sleep=0.0, die="", told=subprocess.DEVNULL):
    """Begin in a process of its own."""
    env = os.environ | {"NUCSEG_TEST_SLEEP": str(sleep), "NUCSEG_TEST_DIE": die}
    args = [sys.executable, "-m", "tests.slides.slow_run", *command(slide, out)]
    return subprocess.Popen(args, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=told)


@pytest.fixture
def again(slide, monkeypatch, capsys):
    """Give the same command here, which takes a fraction of the time of a process."""
    monkeypatch.setattr(Loaded, "of", slow_run.load)

    def run(out):
        code = cli.main(command(slide, out))
        return code, capsys.readouterr()

    return run


def tiles_in(out):
    return len(list(out.glob("slide.nucseg-partial/tiles-*/*.nst")))


@pytest.fixture(scope="module")
def straight(slide, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight")
    with read_image(slide) as image:
        finish(
            segment_slide(Request(image, slow_run.load("", ""), out, "slide", FORMATS, Options(tile=TILE)))
        )
    return contents(out)


def test_what_a_scheduler_sends_first_stops_it_with_a_word(slide, tmp_path):
    process = start(slide, tmp_path / "out", sleep=0.2, told=subprocess.PIPE)
    while process.poll() is None and tiles_in(tmp_path / "out") < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 130
    assert b"stopped; no file is half written, and the same command goes on" in said


def test_killed_five_times_and_gone_on_with(slide, straight, again, tmp_path):
    dice = random.Random()
    out, before = tmp_path / "out", 0
    for _ in range(5):
        process = start(slide, out, sleep=0.2)
        goal = before + dice.randint(1, max(1, (TILES - before) // 6))
        while process.poll() is None and tiles_in(out) < goal:
            time.sleep(0.01)
        time.sleep(dice.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        tiles = tiles_in(out)
        assert tiles >= goal  # what was finished stays, and each run adds to it
        before = tiles
        assert [p.name for p in out.iterdir()] == ["slide.nucseg-partial"]
    code, said = again(out)
    assert code == 0
    assert f"goes on where an earlier run stopped, at {before} of {TILES} tiles" in said.err
    assert "slide.tif: " in said.out
    assert contents(out) == straight
    assert not any(p.name.startswith(".") or p.name.endswith("partial") for p in out.iterdir())


@pytest.mark.parametrize("die", ["2", "4", "8"])
def test_killed_while_the_results_are_put_in_place(slide, straight, again, tmp_path, die):
    """2: before anything is moved; 4: in between; 8: all are in place, but that was not noted yet."""
    out = tmp_path / "out"
    assert start(slide, out, die=die).wait(200) == 9
    placed = [p.name for p in out.iterdir() if not p.name.endswith("partial")]
    assert len(placed) == {"2": 0, "4": 2, "8": 6}[die]
    code, said = again(out)
    assert code == 0, said.err
    assert contents(out) == straight
    assert sorted(p.name for p in out.iterdir()) == sorted(
        {n.split("/")[0] for n in straight} | {"slide_summary.json"}
    )
    if die == "8":
        code, said = again(out)
        assert code == 2
        assert "exists already" in said.err
