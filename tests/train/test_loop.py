"""The loop learns, and a killed run goes on exactly where it was."""

import csv
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from tests.train.toy_run import MadeUp, Plain, gradients, make_loop, make_task, nothing
from train.best import Best
from train.fit import main
from train.loop import Loop, LoopConfig
from train.loop_words import difference
from train.runlog import RunLog
from train.step import Stopwatch

ROOT = Path(__file__).resolve().parents[2]
OVERRIDES = [
    "crop.size=32", "model.widths=[4,4,4,4]", "model.blocks=[1,1,1,1]", "loop.batch_size=2", "loop.warmup=2",
    "loop.workers=0", "loop.validation_crops=2", "loop.log_every=1",
    "loop.checkpoint_every=3", "loop.validate_every=3", "device=cpu",
]  # fmt: skip
CONFIG = """
[data]
root = "{root}"
[data.sets.toy]
held_out = ["im_3"]
"""


@pytest.fixture
def config(dataset, tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(CONFIG.format(root=dataset))
    return path


@pytest.fixture(autouse=True)
def quick_curves(monkeypatch):
    """Drawing takes longer than all the rest; test_runlog does it."""
    monkeypatch.setattr(RunLog, "curves", lambda self: (self.folder / "curves.png").write_text("drawn"))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(config, run, *extra):
    return main(["--config", str(config), f"run={run}", *OVERRIDES, *extra])


KILL = """
import os, signal, sys
from train import fit, loop
gradients = loop.Loop._gradients

def killed(self, batches):
    out = gradients(self, batches)
    if self.step == 5:  # two steps after the checkpoint at 3: the gradients of the next are there, not its weights
        os.kill(os.getpid(), signal.SIGKILL)
    return out

loop.Loop._gradients = killed
fit.main(sys.argv[1:])
"""


def assert_equal_states(a, b):
    assert a["step"] == b["step"]
    assert a["best"] == b["best"]
    for key in ("task", "average"):
        assert a[key].keys() == b[key].keys()
        for name, value in a[key].items():
            assert torch.equal(value, b[key][name]), name
    for one, other in zip(*(s["optimiser"]["state"].values() for s in (a, b)), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def measured(run):
    with (run / "metrics.csv").open(newline="") as handle:
        rows = [(r["step"], r["name"], r["value"]) for r in csv.DictReader(handle)]
    return [row for row in rows if not row[1].startswith("speed/")]


def test_a_killed_run_resumes_exactly(config, tmp_path, one_thread):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    extra = ("loop.steps=6", "threads=1", "loop.workers=1")
    assert train(config, whole, *extra) == 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    arguments = ["--config", str(config), f"run={parts}", *OVERRIDES, *extra]
    done = subprocess.run([sys.executable, "-c", KILL, *arguments], env=environment, cwd=ROOT, check=False,
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert torch.load(parts / "last.pt", weights_only=True)["step"] == 3
    assert max(int(step) for step, *_ in measured(parts)) == 5
    with (parts / "metrics.csv").open("a") as handle:
        handle.write("1.0,6,train/to")  # as a kill in the middle of a line leaves it
    assert train(config, parts, *extra) == 0
    a, b = (torch.load(run / "last.pt", weights_only=True) for run in (whole, parts))
    assert a["step"] == 6
    assert_equal_states(a, b)
    assert measured(whole) == measured(parts)  # and nothing twice
    for run in (whole, parts):
        assert {p.name for p in run.iterdir()} == {
            "config.json",
            "metrics.csv",
            "last.pt",
            "best.pt",
            "curves.png",
        }
    names = {name for _, name, _ in measured(whole)}
    assert {"train/total", "train/type", "val/bPQ", "val/toy/AJI"} <= names


def test_a_kill_before_the_first_checkpoint_leaves_no_second_beginning(tmp_path):
    loop = make_loop(tmp_path, steps=2, checkpoint_every=2)
    loop.run.metrics(1, {"train/total": 1.0})
    make_loop(tmp_path, steps=2, checkpoint_every=2).fit(nothing)
    assert [step for step, name, _ in measured(tmp_path) if name == "train/total"] == ["1", "2"]


def test_a_run_does_not_go_on_as_another(config, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(config, run, "loop.steps=3") == 0
    before = (run / "config.json").read_text()
    assert train(config, run, "loop.steps=3", "loop.lr=0.5") == 2
    assert "begun with loop.lr=" in capsys.readouterr().err
    assert (run / "config.json").read_text() == before
    assert train(config, run, "loop.steps=3", "loop.workers=1") == 0  # that changes nothing


def test_a_run_of_an_earlier_version_goes_on_without_the_settings_that_came_later(tmp_path):
    def loop(**identity):
        config = LoopConfig(steps=1, batch_size=2, workers=0, amp="off", warmup=1)
        return Loop(make_task(), MadeUp(), config, Plain(tmp_path), "cpu", identity)

    loop(teacher="a").fit(nothing)
    assert loop(teacher="a", ensemble=[], turned=False).step == 1
    assert loop(teacher="a", **{"teacher.light": [48, 64, 96, 128]}).step == 1  # there were no such teachers
    with pytest.raises(NucSegError, match=r"begun with ensemble=None, not \['b'\]"):
        loop(teacher="a", ensemble=["b"])
    with pytest.raises(NucSegError, match="begun with teacher=a"):
        loop(ensemble=[])


def test_a_run_that_was_averaged_is_not_trained_on(tmp_path):
    make_loop(tmp_path, steps=1).run.save("last.pt", {"average": {}, "step": 3})
    with pytest.raises(NucSegError, match="was averaged from others"):
        make_loop(tmp_path, steps=1)


@pytest.mark.parametrize(
    ("key", "before", "now", "said"),
    [
        ("loop.lr", 0.5, None, "loop.lr=0.5, not None"),
        ("model.widths", [4, 8], [4, 4], "model.widths=[4, 8], not [4, 4]"),
        ("images", ["a", "b", "c", "d", "e"], ["a", "b", "c", "d"], "5 images, with 'e', not these 4"),
        ("images", list("abcde"), list("abcxde"), "5 images, without 'x', not these 6"),
        ("images", list("abcde"), list("abced"), "images in another order or number"),
    ],
)
def test_what_differs_is_told_without_long_lists(key, before, now, said):
    assert difference(key, before, now) == said


def test_the_loss_falls(config, tmp_path, one_thread):
    extra = ("loop.steps=40", "loop.lr=0.01", "loop.validate_every=100", "loop.amp=off", "threads=1")
    assert train(config, tmp_path / "run", *extra) == 0
    with (tmp_path / "run" / "metrics.csv").open() as handle:
        total = [float(r["value"]) for r in csv.DictReader(handle) if r["name"] == "train/total"]
    assert sum(total[-8:]) < 0.8 * sum(total[:8])


def test_bad_input_exits_with_2_and_one_sentence(config, tmp_path, capsys):
    assert train(config, tmp_path / "run", "loop.step=3") == 2
    assert "did you mean 'loop.steps'" in capsys.readouterr().err
    assert train(config, tmp_path / "run", "loop.amp=fp8") == 2
    assert train(config, tmp_path / "run", f"data.root={tmp_path / 'none'}") == 2
    assert "does not exist" in capsys.readouterr().err


def test_layout_follows_the_config(dataset):
    from train.config import load_config
    from train.data import load_split
    from train.fit import FitConfig, build_task
    from train.runs import nucleus_counts

    path = Path(__file__).parents[2] / "train" / "configs" / "student.toml"
    config = load_config(FitConfig, path, ["model.angles=[0,45,90,135]"])
    images = load_split(dataset, {"toy": config.data.sets["gbm40"]}, config.data.classes, held_out=False)
    task = build_task(config, nucleus_counts(images, 5))
    assert task.network.config.layout == MapLayout((0, 45, 90, 135), 5)
    assert task.class_weights[1:].mean() == pytest.approx(1.0)
    with pytest.raises(NucSegError):
        load_config(FitConfig, path, ["model.angles=[7.5]"])


class Stop(Exception):
    """Of a test."""


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2, "amp": "bf16"}, {"amp": "fp16"}])
def test_dropout_and_scaler_go_on_as_they_were(tmp_path, monkeypatch, settings):
    settings = {"steps": 5, "checkpoint_every": 2, "validate_every": 2} | settings
    figures = [{"bPQ": v} for v in (0.2, 0.1, 0.3)]
    whole = make_loop(tmp_path / "whole", make_task(True, 0.5), **settings)
    given = iter(figures)
    whole.fit(lambda task: next(given))
    parts = make_loop(tmp_path / "parts", make_task(True, 0.5), **settings)
    given = iter(figures)
    check = parts._check

    def stops(*values):
        if parts.step == 3:
            raise Stop
        check(*values)

    monkeypatch.setattr(parts, "_check", stops)
    with pytest.raises(Stop):
        parts.fit(lambda task: next(given))
    torch.rand(7)  # what else the process draws does not matter
    make_loop(tmp_path / "parts", make_task(True, 0.5), **settings).fit(lambda task: next(given))
    a, b = (torch.load(tmp_path / run / "last.pt", weights_only=True) for run in ("whole", "parts"))
    assert a["scaler"] == b["scaler"]
    assert_equal_states(a, b)
    best = torch.load(tmp_path / "parts" / "best.pt", weights_only=True)
    assert (best["step"], best["bPQ"]) == (5, 0.3)


def test_accumulated_parts_make_one_step():
    """The mean of the gradients of the parts, whatever the losses are."""
    whole, first, second = (make_loop(Path("none")) for _ in range(3))
    batches = [
        {k: torch.stack([MadeUp()[i][k] for i in pair]) for k in MadeUp()[0]} for pair in ((0, 1), (2, 3))
    ]
    object.__setattr__(whole.config, "accumulate", 2)
    losses = [loop._gradients(iter(given)) for loop, given in
              ((whole, batches), (first, batches[:1]), (second, batches[1:]))]  # fmt: skip
    for name, value in gradients(whole).items():
        wanted = (gradients(first)[name] + gradients(second)[name]) / 2
        assert torch.allclose(value, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max())), name
    assert losses[0]["total"] == pytest.approx((losses[1]["total"] + losses[2]["total"]) / 2, rel=1e-5)


def test_a_run_stops_for_want_of_a_better_bpq_and_keeps_the_best(tmp_path):
    seen = {}
    given = iter([0.2, 0.5, float("nan"), 0.5, 0.9])
    loop = make_loop(tmp_path, steps=20, validate_every=2, patience=2, checkpoint_every=20)

    def validate(task):
        seen[loop.step] = {k: v.clone() for k, v in task.state_dict().items()}
        return {"bPQ": next(given)}

    loop.fit(validate)
    assert loop.step == 8  # best at 4; neither NaN at 6 nor as good at 8 is better
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert (best["step"], best["bPQ"]) == (4, 0.5)
    assert all(torch.equal(value, seen[4][name]) for name, value in best["average"].items())
    again = make_loop(tmp_path, steps=20, validate_every=2, patience=2, checkpoint_every=20)
    again.fit(validate)
    assert again.step == 8  # it has stopped, and starts not again
    longer = make_loop(tmp_path, steps=20, validate_every=2, patience=3, checkpoint_every=20)
    given = iter([0.9, *[0.1] * 9])
    longer.fit(lambda task: {"bPQ": next(given)})
    assert longer.step == 16  # best at 10


def test_patience_needs_something_to_go_by():
    assert Best(0).update(3, {"AJI": 1.0}) is False
    with pytest.raises(NucSegError, match="goes by bPQ"):
        Best(1).update(3, {"AJI": 1.0})


def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(tmp_path):
    loop = make_loop(tmp_path, steps=4, checkpoint_every=1)
    loop.fit(nothing)
    before = (tmp_path / "last.pt").read_bytes()
    worse = make_loop(tmp_path, steps=6, checkpoint_every=1)
    with torch.no_grad():
        next(worse.task.parameters()).fill_(float("nan"))
    with pytest.raises(NucSegError, match="loss at step 4 is nan; lower"):
        worse.fit(nothing)
    assert (tmp_path / "last.pt").read_bytes() == before


class Spoilt(torch.autograd.Function):
    """A value that passes, and a gradient that does not."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("inf")


def spoil(loop, monkeypatch, steps, change):
    """Let the losses of some steps be changed."""
    forward = loop.task.forward

    def changed(batch):
        losses = forward(batch)
        spoilt = change(losses["total"]) if loop.step in steps and loop.task.training else losses["total"]
        return {**losses, "total": spoilt}

    monkeypatch.setattr(loop.task, "forward", changed)


def test_a_gradient_that_is_no_number_stops_the_run_before_it_is_saved(tmp_path, monkeypatch):
    loop = make_loop(tmp_path, steps=6, checkpoint_every=1)
    spoil(loop, monkeypatch, {3}, Spoilt.apply)
    with pytest.raises(NucSegError, match=r"gradient's norm at step 3 is (nan|inf); lower"):
        loop.fit(nothing)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["step"] == 3
    assert all(torch.isfinite(value).all() for value in state["task"].values())


def test_fp16_goes_on_after_an_overflow_and_keeps_nothing_of_it(tmp_path, monkeypatch):
    """Neither in the weights, nor in the statistics of batch norm, nor in their averages."""
    loop = make_loop(tmp_path, make_task(norm=True), steps=6, amp="fp16")
    spoil(loop, monkeypatch, {2}, Spoilt.apply)
    run_norm = loop.task.network[1].forward
    seen = []

    def overflows(x):
        seen.append(loop.step)
        return run_norm(x * float("inf") if loop.step == 4 and loop.task.training else x)

    monkeypatch.setattr(loop.task.network[1], "forward", overflows)
    loop.fit(nothing)
    assert max(seen) == 5
    for module in (loop.task, loop.average):
        assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    assert loop.scaler.get_scale() <= 2.0**14  # halved twice at least


def test_fp16_does_not_go_on_for_ever_without_a_gradient(tmp_path, monkeypatch):
    monkeypatch.setattr("train.loop.BAD_STEPS", 3)
    loop = make_loop(tmp_path, steps=9, amp="fp16")
    spoil(loop, monkeypatch, range(9), Spoilt.apply)
    with pytest.raises(NucSegError, match="gradient's norm at step 3"):
        loop.fit(nothing)


def test_a_batch_larger_than_the_held_crops_measures_all_of_them(tmp_path):
    loop = make_loop(tmp_path, steps=1, batch_size=8, held=MadeUp(), validation_crops=3)
    items = [MadeUp()[i] for i in range(3)]
    with torch.no_grad():
        wanted = loop.average({k: torch.stack([item[k] for item in items]) for k in items[0]})
    assert loop._held_losses()["loss_total"] == pytest.approx(float(wanted["total"]), rel=1e-4)
    assert make_loop(tmp_path, steps=1, held=MadeUp(), validation_crops=0)._held_losses() == {}


def test_held_crops_are_measured_by_the_same_step(tmp_path):
    loop = make_loop(tmp_path, steps=1, held=MadeUp(), validation_crops=5, amp="bf16")
    loop.fit(nothing)
    items = [MadeUp()[i] for i in range(4)]  # whole batches of 2
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = [
            loop.average({k: torch.stack([item[k] for item in items[n : n + 2]]) for k in items[0]})
            for n in (0, 2)
        ]
    found = {name: float(value) for _, name, value in measured(tmp_path)}
    for name in wanted[0]:
        mean = (wanted[0][name] + wanted[1][name]) / 2
        assert found[f"val/loss_{name}"] == pytest.approx(float(mean), rel=1e-4)


def test_the_log_tells_whether_crops_are_waited_for(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("train.step.time.perf_counter", lambda: now[0])

    def slow_crops():
        while True:
            now[0] += 3.0
            yield {}

    watch, crops = Stopwatch(), slow_crops()
    for _ in range(2):
        watch.waiting(crops)
        watch.add(4.0, 10)
    assert watch.read() == {"images_per_s": 20 / 8, "data_wait": 6 / 8}
    watch.add(2.0, 4)
    assert watch.read() == {"images_per_s": 2.0, "data_wait": 0.0}
    monkeypatch.undo()
    make_loop(tmp_path, steps=2, accumulate=3).fit(nothing)
    with (tmp_path / "metrics.csv").open(newline="") as handle:
        rows = {(r["step"], r["name"]): float(r["value"]) for r in csv.DictReader(handle)}
    assert 0 < rows["2", "speed/data_wait"] < 1
    assert rows["2", "speed/images_per_s"] > 0


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named_in_one_sentence(tmp_path, monkeypatch, workers):
    def broken(self, index):
        raise NucSegError("Image 'a.png' cannot be read; replace it.")

    monkeypatch.setattr(MadeUp, "__getitem__", broken)
    with pytest.raises(NucSegError, match=r"^Image 'a\.png' cannot be read; replace it\.$") as error:
        make_loop(tmp_path, steps=1, workers=workers).fit(nothing)
    assert error.tb is not None
    assert multiprocessing.active_children() == []  # even while the error holds on to the batches


def test_a_worker_that_is_killed_is_told_in_one_sentence(tmp_path, monkeypatch):
    def killed(self, index):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(MadeUp, "__getitem__", killed)
    with pytest.raises(NucSegError, match="makes crops was killed"):
        make_loop(tmp_path, steps=1, workers=1).fit(nothing)


def test_a_precision_that_the_device_has_not_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("train.loop.native_precision", lambda device: None)
    make_loop(tmp_path, amp="off")
    assert not caplog.text
    make_loop(tmp_path, amp="bf16")
    assert "may be slow on this device (cpu); try loop.amp=off" in caplog.text


def test_the_statistics_of_several_gpus_are_read_by_one_processor():
    plain, theirs = make_task(norm=True), make_task(norm=True)
    theirs.network[0].weight.data.mul_(2)
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(theirs)
    assert isinstance(converted.network[1], torch.nn.SyncBatchNorm)
    plain.load_state_dict(converted.state_dict())
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(plain.eval().predict(image), converted.eval().predict(image))


@pytest.mark.parametrize("name", ["steps", "batch_size", "accumulate", "validate_every", "lr", "clip"])
def test_lengths_are_checked(name):
    with pytest.raises(NucSegError, match=f"loop.{name}=0 is too small"):
        LoopConfig(**{name: 0})


@pytest.mark.parametrize(
    ("name", "value"),
    [("workers", -1), ("warmup", -1), ("clip", -2.0), ("lr", float("nan")), ("ema", 1.0), ("ema", -0.1),
     ("patience", -1), ("weight_decay", -0.1), ("seed", -1)],
)  # fmt: skip
def test_settings_that_make_no_sense_are_named(name, value):
    with pytest.raises(NucSegError, match=f"loop.{name}={value} "):
        LoopConfig(**{name: value})
