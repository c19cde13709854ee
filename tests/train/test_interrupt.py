"""Ctrl+C and SIGTERM end a training between two steps, and nothing is lost."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.train.toy_run import make_loop, make_task
from train.interrupt import Interrupt, Stopped
from train.loop import Loop
from train.loop_words import where_it_goes_on

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"steps": 6, "checkpoint_every": 50, "validate_every": 4, "log_every": 3}


@pytest.fixture(autouse=True)
def heeded():
    """Also where the tests are a background job, which ignores Ctrl+C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def figures(task):
    return {"bPQ": 0.5}


@pytest.fixture
def signalled(monkeypatch):
    """Let signals come in the middle of a step."""

    def at(step, *numbers):
        gradients = Loop._gradients

        def changed(self, batches):
            out = gradients(self, batches)
            for number in numbers if self.step == step else ():
                os.kill(os.getpid(), number)
            return out

        monkeypatch.setattr(Loop, "_gradients", changed)
        return lambda: monkeypatch.setattr(Loop, "_gradients", gradients)

    return at


def measured(folder):
    with (folder / "metrics.csv").open(newline="") as handle:
        rows = [(r["step"], r["name"], r["value"]) for r in csv.DictReader(handle)]
    return [row for row in rows if not row[1].startswith("speed/")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stop", [2, 4, 6])  # between validations, before one, before the last
def test_the_first_signal_ends_after_the_step_and_nothing_is_lost(tmp_path, signalled, number, stop):
    make_loop(tmp_path / "whole", make_task(True, 0.5), **SETTINGS).fit(figures)
    again = signalled(stop - 1, number)
    with pytest.raises(Stopped, match=f"step {stop} of 6, which is saved"):
        make_loop(tmp_path / "parts", make_task(True, 0.5), **SETTINGS).fit(figures)
    again()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    make_loop(tmp_path / "parts", make_task(True, 0.5), **SETTINGS).fit(figures)
    a, b = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts"))
    assert a["step"] == b["step"] == 6
    assert a["best"] == b["best"]
    assert all(torch.equal(value, b["average"][name]) for name, value in a["average"].items())
    assert measured(tmp_path / "whole") == measured(tmp_path / "parts")


def test_the_second_signal_ends_at_once(tmp_path, signalled, monkeypatch):
    monkeypatch.setattr("train.interrupt.ECHO", -1.0)
    signalled(3, signal.SIGINT, signal.SIGINT)
    with pytest.raises(Stopped, match=r"at step 3 of 6, before anything was saved; .* anew"):
        make_loop(tmp_path / "new", **SETTINGS).fit(figures)
    with pytest.raises(Stopped, match=r"at step 3 of 6; .* goes on from step 2"):
        make_loop(tmp_path / "saved", **{**SETTINGS, "checkpoint_every": 2}).fit(figures)


def test_one_wish_may_come_twice(capfd):
    with Interrupt() as interrupt:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):  # of a scheduler, and of torchrun
            os.kill(os.getpid(), number)
        assert interrupt.wanted
    assert capfd.readouterr().err.count("Stopping") == 1


def test_what_is_ignored_stays_ignored():
    """As Ctrl+C in the background job of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            assert not interrupt.wanted
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_crop_maker_leaves_signals_to_the_training(tmp_path, signalled):
    """Ctrl+C in a terminal reaches it too."""
    gradients = Loop._gradients

    def changed(self, batches):
        import multiprocessing

        out = gradients(self, batches)
        if self.step == 1:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGINT)
                os.kill(child.pid, signal.SIGTERM)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_gradients", changed)
        loop = make_loop(tmp_path, **{**SETTINGS, "workers": 1})
        loop.fit(figures)
    assert loop.step == 6


LEFT = """
import torch.utils.data._utils as torch_data
from tests.train.toy_run import MadeUp
from train import interrupt
from train.crops import loader
torch_data.MP_STATUS_CHECK_INTERVAL = 0.2  # for which torch waits before it sends SIGTERM
interrupt.GRACE = 1
left = iter(loader(MadeUp(), 0, 80, 2, 1))
next(left)
print("end")
"""


def test_a_crop_maker_that_is_left_over_does_not_keep_python_from_ending():
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run([sys.executable, "-c", LEFT], env={**os.environ, "PYTHONPATH": path}, cwd=ROOT,
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr[-2000:]


def test_where_a_run_goes_on_is_told_truthfully():
    assert "begins anew" in where_it_goes_on(3, 9, None)
    assert "goes on from there" in where_it_goes_on(3, 9, 3)
    assert "goes on from step 2, the last" in where_it_goes_on(3, 9, 2)


def test_a_command_stopped_during_its_imports_shows_no_traceback(tmp_path):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src"), str(ROOT)])
    done = subprocess.run([sys.executable, "-m", "train.fit"], env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path,
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode != 0
    assert done.stderr == "Stopped before anything was done.\n"


def test_weights_that_are_trained_are_validated_before_the_first_step(tmp_path):
    make_loop(tmp_path / "plain", **SETTINGS).fit(figures)
    loop = make_loop(tmp_path / "begun", **SETTINGS)
    seen = []
    loop.fit(lambda task: seen.append(loop.step) or {"bPQ": 0.7 if not loop.step else 0.5}, at_start=True)
    assert seen == [0, 4, 6]
    assert ("0", "val/bPQ", "0.7") in measured(tmp_path / "begun")
    assert torch.load(tmp_path / "begun" / "best.pt", weights_only=True)["step"] == 0
    a, b = (torch.load(tmp_path / name / "last.pt", weights_only=True)["task"] for name in ("plain", "begun"))
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    make_loop(tmp_path / "begun", **SETTINGS).fit(figures, at_start=True)  # finished: nothing is done again
    assert len([row for row in measured(tmp_path / "begun") if row[1] == "val/bPQ"]) == 3
