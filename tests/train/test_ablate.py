"""Small ablations by the command."""

import csv
import json
import shutil
from dataclasses import replace

import pytest
import torch

from napari_nucseg.errors import NucSegError
from tests.train.toys import DATA, STUDENT, TEACHER
from train import ablate, export, fit, teach
from train.arms import decoder, distillation
from train.config import load_config
from train.distill import DistillRunConfig
from train.fit import FitConfig
from train.runlog import RunLog

CONFIG = f"""{DATA}[loop]
steps = 2
batch_size = 2
workers = 0
validation_crops = 2
amp = "off"
patience = 1
validate_every = 1
{TEACHER}[distill]
teacher = "{{folder}}/teacher"
[distill.model]
{STUDENT}[fit.model]
{STUDENT}"""


@pytest.fixture(scope="module")
def work(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablate")
    (folder / "c.toml").write_text(CONFIG.format(root=dataset, folder=folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "curves", lambda self: None)
        assert teach.main(["--config", str(folder / "c.toml"), f"run={folder / 'teacher'}"]) == 0
        yield folder


def run(work, *extra):
    return ablate.main(["--training", str(work / "c.toml"), "--out", str(work / "out"), *extra])


def rows(path):
    with path.open() as handle:
        return list(csv.DictReader(handle))


def test_every_arm_of_the_distillation_is_trained_and_resumed(work, capsys, monkeypatch):
    assert run(work, "--seeds", "0", "1") == 0
    said = capsys.readouterr().out
    assert said.count("| + output") == 4
    out = work / "out" / "distillation"
    assert [r["seed"] for r in rows(out / "runs.csv")] == ["0"] * 5 + ["1"] * 5
    assert all(float(r["bPQ"]) >= 0 for r in rows(out / "runs.csv"))
    # the same budget for all, whatever the patience in the file
    steps = {torch.load(p, weights_only=True)["step"] for p in out.glob("*/last.pt")}
    assert steps == {2}
    table, made = (out / "table.csv").read_text(), {p: p.stat().st_mtime_ns for p in out.glob("*/last.pt")}
    assert run(work, "--seeds", "0", "1") == 0
    assert (out / "table.csv").read_text() == table
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/last.pt")} == made


def test_arms_begin_with_the_same_weights(work):
    """A step of almost no length leaves them as they were at the start."""
    assert (
        run(work, "--seeds", "5", "--out", str(work / "lr"), "--settings", "loop.lr=1e-12", "loop.steps=1")
        == 0
    )
    states = [
        torch.load(p, weights_only=True)["task"]
        for p in sorted((work / "lr" / "distillation").glob("*/last.pt"))
    ]
    first = {k: v for k, v in states[0].items() if k.endswith("conv.weight")}
    assert len(first) > 10
    for state in states[1:]:
        assert all(torch.allclose(state[k], v, atol=1e-9) for k, v in first.items())


def test_the_decoder_study_does_without_maps(work, capsys, tmp_path):
    assert run(work, "--study", "decoder", "--seeds", "0", "--figures", "bPQ", "toy/Dice") == 0
    assert "| configuration | runs | bPQ | toy/Dice | bPQ above the first |" in capsys.readouterr().out
    out = work / "out" / "decoder"
    without = {
        p.parent.name: json.loads(p.read_text())["model"]["without"] for p in out.glob("*/config.json")
    }
    assert without == {
        "base-seed0": ["centre", "boundary"], "centre-seed0": ["boundary"], "boundary-seed0": [], "angles-seed0": [],
    }  # fmt: skip
    card = tmp_path / "card.toml"
    card.write_text("")
    assert (
        export.main(["--run", str(out / "base-seed0"), "--card", str(card), "--out", str(tmp_path / "m")])
        == 2
    )


def test_arms_differ_in_one_thing_each(work):
    base = load_config(DistillRunConfig, work / "c.toml", [], "distill")
    arms = distillation(base)
    assert all(replace(a.config, distil=base.distil) == base for a in arms)
    alone, output, mse, hcl, balance = (a.config.distil for a in arms)
    assert not alone.output
    assert not alone.compares_features
    assert replace(alone, output=base.distil.output) == output
    assert not output.compares_features
    assert replace(mse, feature_loss="hcl") == hcl
    assert mse.compares_features
    assert replace(hcl, class_balanced=True) == balance
    fits = decoder(load_config(FitConfig, work / "c.toml", [], "fit"))
    assert [a.config.model.angles for a in fits] == [(0, 90)] * 3 + [(0, 45, 90, 135)]
    assert all(a.train is fit.fit for a in fits)


def test_only_the_chosen_arms_are_run(work):
    config = ablate.AblateConfig(work / "c.toml", arms=("hcl", "student"))
    assert [a.key for a in ablate.arms_of(config)] == ["student", "hcl"]


def test_sets_without_labels_are_left_out(work):
    settings = ("data.sets.bare.labelled=false", "data.sets.bare.weight=0.5")
    arms = ablate.arms_of(ablate.AblateConfig(work / "c.toml", settings=settings))
    assert all(list(a.config.data.sets) == ["toy"] for a in arms)


def test_a_decoder_begins_with_chance(work, capsys):
    """A trained model has its own maps and angles, so that two arms would be the same."""
    begun = ["--study", "decoder", "--settings", "begin=default"]
    assert run(work, *begun) == 2
    assert "begin='default' settles the maps and angles" in capsys.readouterr().err
    config = ablate.AblateConfig(work / "c.toml", study="decoder", settings=("begin=default", "begin="))
    assert [a.config.begin for a in ablate.arms_of(config)] == [""] * 4


def test_figures_are_those_of_the_validation_images(work, dataset, tmp_path):
    """Not of a set without any, nor by class of one without classes."""
    shutil.copytree(dataset, tmp_path / "data")
    shutil.copytree(tmp_path / "data" / "toy", tmp_path / "data" / "bare")
    shutil.rmtree(tmp_path / "data" / "bare" / "train" / "types")
    root, bare = f"data.root={tmp_path / 'data'}", "data.sets.bare.held_out=['im_3']"
    both = ablate.AblateConfig(work / "c.toml", "decoder", (root, bare))
    ablate.check_figures(["bPQ", "bare/AJI", "toy/mPQ (own)"], ablate.arms_of(both))
    with pytest.raises(NucSegError, match=r"'bare/mPQ \(own\)' is none of a validation"):
        ablate.check_figures(["bare/mPQ (own)"], ablate.arms_of(both))
    one = ablate.AblateConfig(work / "c.toml", "decoder", (root, bare, "data.sets.toy.held_out=[]"))
    with pytest.raises(NucSegError, match="'toy/AJI' is none of a validation"):
        ablate.check_figures(["toy/AJI"], ablate.arms_of(one))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--study", "decoders"], "study='decoders'"),
        (["--arms", "mes"], "Arm 'mes'"),
        (["--seeds", "1", "1"], "each once"),
        (["--settings", "distil.output=0"], "nothing to ablate"),
        (["--figures", "bPQ", "toy/Aji"], "'toy/Aji' is none of a validation; did you mean 'toy/AJI'?"),
        (["--figures", "toy/mPQ (shipped)"], "did you mean 'toy/mPQ (own)'?"),
        (["--settings", "lop.steps=1"], "did you mean 'loop'"),
    ],
)
def test_mistakes_are_one_sentence(work, capsys, given, says):
    assert run(work, *given) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1  # and no run was begun


def test_a_training_without_comparisons_has_nothing_to_ablate(work):
    base = load_config(DistillRunConfig, work / "c.toml", ["distil.feature=0"], "distill")
    with pytest.raises(NucSegError, match=r"distil\.feature"):
        distillation(base)
