"""Averaging of runs: the mean of their weights is a run like any other; what can't be averaged is refused."""

import json

import pytest
import torch

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.models.registry import open_model
from tests.train.conftest import TOY
from train import average, export, fit
from train.loaded import decode_of
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
    copy = changed_copy(second_run, tmp_path / "copy", lambda data: None)
    assert run("--runs", second_run, copy, "--out", tmp_path / "same") == 0
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


def test_two_checkpoints_of_a_run_that_began_with_chance(toy_run, tmp_path):
    both = changed_copy(toy_run, tmp_path / "both", lambda data: None)
    (both / "best.pt").write_bytes((both / "last.pt").read_bytes())
    assert run("--runs", both, both / "best.pt", "--out", tmp_path / "m") == 0


def test_what_any_of_the_runs_learnt_from_is_told(toy_run, second_run, tmp_path):
    def distilled(*teachers):
        def change(data):
            data.update(command="distill", teacher=teachers[0], ensemble=teachers[1:])
            data["data"]["sets"][teachers[0]] = {"held_out": ["x"]}

        return change

    a = changed_copy(second_run, tmp_path / "a", distilled("s", "t"))
    b = changed_copy(second_run, tmp_path / "b", distilled("u", "t"))
    assert run("--runs", toy_run, a, b, "--out", tmp_path / "m") == 0
    config, _ = load_run(tmp_path / "m")
    assert [path.name for path in (config.teacher, *config.ensemble)] == ["s", "t", "u"]
    assert config.begin == load_run(second_run)[0].begin != ""
    assert set(config.data.sets) == {"toy", "s", "u"}
    assert config.run == tmp_path / "m"


def test_thresholds_of_an_earlier_average_do_not_stay(toy_run, second_run, tmp_path, caplog):
    command = "--runs", toy_run, second_run, "--out", tmp_path / "m"
    assert run(*command) == 0
    assert "earlier average" not in caplog.text
    (tmp_path / "m" / "decode.json").write_text('{"score_slope": 2.0}')
    assert run(*command) == 0
    assert "decode.json was of the earlier average" in caplog.text
    assert decode_of(tmp_path / "m") == DecodeConfig()


def test_of_several_beginnings_one_is_kept_and_the_others_are_told(toy_run, second_run, tmp_path, caplog):
    other = changed_copy(second_run, tmp_path / "other", lambda data: data.update(begin="default"))
    assert run("--runs", toy_run, second_run, "--out", tmp_path / "one") == 0
    assert "The runs began with" not in caplog.text
    assert run("--runs", toy_run, second_run, other, "--out", tmp_path / "m") == 0
    begin = load_run(second_run)[0].begin
    assert (
        f"The runs began with {begin}, default, and '{tmp_path / 'm'}' can tell of the first" in caplog.text
    )
    assert load_run(tmp_path / "m")[0].begin == begin


def test_what_makes_no_sense_is_refused_in_a_sentence(toy_run, second_run, tmp_path, capsys):
    def divided(data):
        data["data"]["sets"]["toy"]["held_out"] = ["im_2"]

    other = changed_copy(second_run, tmp_path / "other", divided)
    scaled = changed_copy(second_run, tmp_path / "scaled", lambda data: data["crop"].update(mpp=0.5))
    begun = tmp_path / "begun"  # and not saved yet
    begun.mkdir()
    (begun / "config.json").write_text((toy_run / "config.json").read_text())
    elsewhere = changed_copy(second_run, tmp_path / "elsewhere", lambda data: data["data"].update(sets={}))
    kept = changed_copy(toy_run, tmp_path / "kept", lambda data: None)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    cases = {
        "two runs or more": ["--runs", toy_run, "--out", tmp_path / "m"],
        "given twice": ["--runs", toy_run, toy_run, "--out", tmp_path / "m"],
        "last.pt' is given twice": ["--runs", toy_run / "last.pt", toy_run, "--out", tmp_path / "m"],
        "is one of the runs": ["--runs", toy_run, second_run / "last.pt", "--out", second_run],
        "2 runs and 1 weights": ["--runs", toy_run, second_run, "--weights", 1, "--out", tmp_path / "m"],
        "not all 0": ["--runs", toy_run, second_run, "--weights", 0, 0, "--out", tmp_path / "m"],
        "weights=[nan, 1.0]": ["--runs", toy_run, second_run, "--weights", "nan", 1, "--out", tmp_path / "m"],
        "weights=[-1.0, 2.0]": ["--runs", toy_run, second_run, "weights=[-1, 2]", "--out", tmp_path / "m"],
        "read toy differently": ["--runs", toy_run, other, "--out", tmp_path / "m"],
        f"'{second_run}' and '{other}'": ["--runs", elsewhere, second_run, other, "--out", tmp_path / "m"],
        "differ in shape": ["--runs", toy_run, scaled, "--out", tmp_path / "m"],
        "began with chance": ["--runs", toy_run, kept, "--out", tmp_path / "m"],
        "holds a run that was trained": ["--runs", toy_run, second_run, "--out", kept],
        "begun' holds a run that": ["--runs", toy_run, second_run, "--out", begun],
        "'a.txt'; give a new or empty one.": ["--runs", toy_run, second_run, "--out", tmp_path / "notes"],
        "no checkpoint": ["--runs", toy_run, tmp_path / "none", "--out", tmp_path / "m"],
    }
    for word, arguments in cases.items():
        assert run(*arguments) == 2
        assert word in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
