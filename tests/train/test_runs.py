"""What the training commands share."""

import json
import shutil

import pytest
import torch

from napari_nucseg.errors import NucSegError
from tests.train.conftest import TOY
from train import fit, teach
from train.loop_words import figures_in_short
from train.runlog import RunLog
from train.runs import choose_device, load_run


@pytest.fixture
def copied(toy_run, tmp_path, monkeypatch):
    """A copy of the toy run, and what starts it again."""
    monkeypatch.setattr(RunLog, "curves", lambda self: None)
    run = shutil.copytree(toy_run, tmp_path / "run")
    return run, lambda *extra: fit.main(
        ["--config", str(toy_run.parent / "toy.toml"), f"run={run}", *TOY, *extra]
    )


def test_a_finished_run_says_so_and_what_comes_next(copied, capsys, caplog):
    run, again = copied
    caplog.set_level("INFO")
    assert again() == 0
    assert "goes on at step 3 of 3" in caplog.text
    assert "done: 3 steps; bPQ was highest at step 3 (best.pt, " in caplog.text
    assert f"'{run}' stands for last.pt" in caplog.text
    assert capsys.readouterr().out.endswith(f"Next: python -m train.thresholds --run {run}\n")
    assert again("loop.patience=9") == 0
    assert f"'{run}' stands for best.pt" in caplog.text


def test_moved_data_is_the_same_data(copied, dataset, tmp_path):
    moved = shutil.copytree(dataset, tmp_path / "moved")
    assert copied[1](f"data.root={moved}") == 0


def test_a_config_of_another_shape_is_named(copied):
    run, _ = copied
    text = (run / "config.json").read_text()
    config = json.loads(text)
    config["model"]["widths"] = [8, 8, 8, 8]
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        NucSegError, match=r"last\.pt' does not fit the config\.json beside it \(size mismatch"
    ) as told:
        load_run(run)
    assert "\n" not in str(told.value)


def test_a_run_never_goes_into_a_data_set(copied, dataset, capsys):
    before = sorted(dataset.rglob("*"))
    assert copied[1](f"run={dataset / 'toy'}") == 2
    assert "holds no run but 'dataset.json'" in capsys.readouterr().err
    assert sorted(dataset.rglob("*")) == before


@pytest.mark.parametrize("module", [fit, teach])
def test_a_command_without_a_config_asks_for_one(module, tmp_path, capsys):
    assert module.main([f"run={tmp_path / 'run'}"]) == 2
    assert "give --config FILE.toml" in capsys.readouterr().err


def test_a_warm_up_without_end_is_told(copied, caplog):
    copied[1]()
    assert "loop.warmup=300 leaves none of loop.steps=3" in caplog.text


def test_a_validation_is_one_readable_line():
    values = {"bPQ": 0.51234, "mine/Dice": 0.9, "mine/AJI": 0.6, "mine/F1_d": 0.7, "mine/F1_c a/b (own)": 0.1,
              "mine/mPQ (own)": float("nan"), "mine/mPQ+ (own)": 0.2, "b/AJI": 0.3, "loss_total": 1.0}  # fmt: skip
    assert figures_in_short(values) == "bPQ 0.512; mine: AJI 0.600, F1_d 0.700, mPQ nan; b: AJI 0.300"
    assert figures_in_short({}) == ""


def test_devices_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [choose_device(name) for name in ("auto", "cpu", "cuda", "cuda:0")] == [
        "cuda",
        "cpu",
        "cuda",
        "cuda:0",
    ]
    with pytest.raises(NucSegError, match="device='cuda:1' is not there: torch finds 1"):
        choose_device("cuda:1")
    with pytest.raises(NucSegError, match="device='gpu' is not known; choose auto"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(NucSegError, match="torch finds 0"):
        choose_device("cuda")
