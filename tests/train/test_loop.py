"""The loop learns, and a killed run goes on exactly where it was."""

import csv
import itertools
from pathlib import Path

import pytest
import torch

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from train.fit import main
from train.optim import learning_rate, update_ema

OVERRIDES = [
    "crop.size=32", "model.widths=[4,4,4,4]", "model.blocks=[1,1,1,1]", "loop.batch_size=2", "loop.warmup=2",
    "loop.workers=0", "loop.log_every=1", "loop.checkpoint_every=3", "loop.validate_every=3", "device=cpu",
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


def train(config, run, *extra):
    return main(["--config", str(config), f"run={run}", *OVERRIDES, *extra])


def test_a_killed_run_resumes_exactly(config, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(config, whole, "loop.steps=6") == 0

    from train.loop import Loop

    step = Loop._train_step

    def dies(self, batches):
        if self.step == 5:  # after the checkpoint at step 3
            raise KeyboardInterrupt
        return step(self, batches)

    monkeypatch.setattr(Loop, "_train_step", dies)
    assert train(config, parts, "loop.steps=6") == 1
    monkeypatch.setattr(Loop, "_train_step", step)
    assert train(config, parts, "loop.steps=6") == 0
    a, b = (torch.load(run / "last.pt", weights_only=True) for run in (whole, parts))
    assert a["step"] == b["step"] == 6
    for key in ("task", "average"):
        for name, value in a[key].items():
            assert torch.equal(value, b[key][name]), name
    rows = []
    for run in (whole, parts):
        with (run / "metrics.csv").open() as handle:
            found = [(r["step"], r["name"], r["value"]) for r in csv.DictReader(handle)]
        rows.append([row for row in found if not row[1].startswith("speed/")])
    assert rows[0] == rows[1]  # nothing is logged twice
    for run in (whole, parts):
        assert {p.name for p in run.iterdir()} >= {"config.json", "metrics.csv", "last.pt", "curves.png"}
    with (whole / "metrics.csv").open() as handle:
        names = {row["name"] for row in csv.DictReader(handle)}
    assert {
        "train/total",
        "train/type",
        "val/bPQ",
        "val/toy/AJI",
        "speed/images_per_s",
        "speed/data_wait",
    } <= names


def test_a_run_does_not_go_on_as_another(config, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(config, run, "loop.steps=3") == 0
    before = (run / "config.json").read_text()
    assert train(config, run, "loop.steps=3", "loop.lr=0.5") == 2
    assert "begun with loop.lr=" in capsys.readouterr().err
    assert (run / "config.json").read_text() == before
    assert train(config, run, "loop.steps=3", "loop.workers=1") == 0  # that changes nothing


def test_the_loss_falls(config, tmp_path):
    assert train(config, tmp_path / "run", "loop.steps=40", "loop.lr=0.01", "loop.validate_every=100") == 0
    with (tmp_path / "run" / "metrics.csv").open() as handle:
        total = [float(r["value"]) for r in csv.DictReader(handle) if r["name"] == "train/total"]
    assert sum(total[-8:]) < 0.8 * sum(total[:8])


def test_bad_input_exits_with_2_and_one_sentence(config, tmp_path, capsys):
    assert train(config, tmp_path / "run", "loop.step=3") == 2
    assert "did you mean 'loop.steps'" in capsys.readouterr().err
    assert train(config, tmp_path / "run", "loop.amp=fp8") == 2
    assert train(config, tmp_path / "run", f"data.root={tmp_path / 'none'}") == 2
    assert "does not exist" in capsys.readouterr().err


def test_schedule_and_average():
    rates = [learning_rate(1.0, 10, 100, s) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[-1] < 0.02
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    a, b = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(b.weight, 3.0)
    b.num_batches_tracked += 5
    update_ema(a, b, 0.75)
    assert a.weight.tolist() == [1.5, 1.5]
    assert a.num_batches_tracked == 5


def test_layout_follows_the_config(dataset):
    from train.config import load_config
    from train.data import load_split
    from train.fit import FitConfig, build

    path = Path(__file__).parents[2] / "train" / "configs" / "student.toml"
    config = load_config(FitConfig, path, ["model.angles=[0,45,90,135]"])
    images = load_split(dataset, {"toy": config.data.sets["gbm40"]}, config.data.classes, held_out=False)
    task, student = build(config, images)
    assert student.config.layout == MapLayout((0, 45, 90, 135), 5)
    assert task.class_weights[1:].mean() == pytest.approx(1.0)
    with pytest.raises(NucSegError):
        load_config(FitConfig, path, ["model.angles=[7.5]"])
