"""Averaging of runs: the mean of their weights is a run like any other; what can't be averaged is refused."""

import json

import pytest
import torch

from napari_nucseg.models.registry import open_model
from tests.train.conftest import TOY
from train import average, export, fit
from train.runlog import RunLog
from train.runs import load_run


@pytest.fixture(scope="module")
def second_run(toy_run, toy_model, tmp_path_factory):
    """A run that went on from the model of the first, with another share of the set."""
    folder = tmp_path_factory.mktemp("second") / "run"
    begin = f"begin={toy_model.weights.parent}"
    arguments = [
        "--config",
        str(toy_run.parent / "toy.toml"),
        f"run={folder}",
        begin,
        "data.sets.toy.weight=2",
        *TOY,
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "curves", lambda self: None)
        assert fit.main([*arguments, "loop.lr=0.1"]) == 0
    return folder


def weights(run):
    return load_run(run)[1].state_dict()


def run(*words):
    return average.main([str(word) for word in words])


def test_the_mean_of_weights_is_a_run(toy_run, second_run, tmp_path):
    out = tmp_path / "mean"
    assert run("--runs", toy_run, second_run, "--out", out, "--weights", 1, 3) == 0
    first, second, mean = weights(toy_run), weights(second_run), weights(out)
    changed = 0
    for name, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.25 * first[name] + 0.75 * second[name])
            changed += not torch.equal(first[name], second[name])
        else:
            assert torch.equal(value, first[name])
    assert changed > 20
    config, _ = load_run(out)
    assert config.data.sets["toy"].held_out == ("im_3",)
    assert run("--runs", toy_run, second_run, "--out", out) == 0  # again, with equal shares
    model = tmp_path / "model"
    card = toy_run.parent / "card.toml"
    assert export.main(["--run", str(out), "--card", str(card), "--out", str(model)]) == 0
    told = open_model(model).card.training["averaged"]
    assert told == {str(toy_run): {"steps": 3, "share": 0.5}, str(second_run): {"steps": 3, "share": 0.5}}


def test_a_run_averaged_with_itself_is_itself(second_run, tmp_path):
    assert run("--runs", second_run, second_run / "last.pt", "--out", tmp_path / "same") == 0
    for a, b in zip(weights(second_run).values(), weights(tmp_path / "same").values(), strict=True):
        torch.testing.assert_close(a, b)


def changed_copy(folder, to, change):
    """Return a copy of a run with other settings."""
    to.mkdir()
    data = json.loads((folder / "config.json").read_text())
    change(data)
    (to / "config.json").write_text(json.dumps(data))
    (to / "last.pt").write_bytes((folder / "last.pt").read_bytes())
    return to


def test_what_makes_no_sense_is_refused_in_a_sentence(toy_run, second_run, tmp_path, capsys):
    def divided(data):
        data["data"]["sets"]["toy"]["held_out"] = ["im_2"]

    other = changed_copy(second_run, tmp_path / "other", divided)
    scaled = changed_copy(second_run, tmp_path / "scaled", lambda data: data["crop"].update(mpp=0.5))
    kept = changed_copy(toy_run, tmp_path / "kept", lambda data: None)
    cases = {
        "two runs or more": ["--runs", toy_run, "--out", tmp_path / "m"],
        "given twice": ["--runs", toy_run, toy_run, "--out", tmp_path / "m"],
        "2 runs and 1 weights": ["--runs", toy_run, second_run, "--weights", 1, "--out", tmp_path / "m"],
        "not all 0": ["--runs", toy_run, second_run, "--weights", 0, 0, "--out", tmp_path / "m"],
        "divide toy differently": ["--runs", toy_run, other, "--out", tmp_path / "m"],
        "differ in shape": ["--runs", toy_run, scaled, "--out", tmp_path / "m"],
        "began with chance": ["--runs", toy_run, kept, "--out", tmp_path / "m"],
        "holds a run that was trained": ["--runs", toy_run, second_run, "--out", kept],
        "no checkpoint": ["--runs", toy_run, tmp_path / "none", "--out", tmp_path / "m"],
    }
    for word, arguments in cases.items():
        assert run(*arguments) == 2
        assert word in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
