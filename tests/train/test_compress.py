"""Compression of a tiny student, from the command line to the model that comes out."""

import json
import time

import numpy as np
import pytest

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.checkpoint import load_student
from napari_nucseg.models.registry import open_model
from train import compress, compression, loaded, quantise
from train.flags import parse
from train.speed import machine, race

QUICK = ["draws=5", "size=64", "rounds=2", "calibration=2", "crop.size=32"]


@pytest.fixture
def command(toy_model, dataset, tmp_path):
    training = tmp_path / "toy.toml"
    training.write_text(
        f'[data]\nroot = "{dataset}"\n[data.sets.toy]\nheld_out = ["im_3"]\n[crop]\nsize = 32\n'
    )

    def go(method, *more):
        out = tmp_path / method
        arguments = [f"method={method}", "--training", str(training), "--out", str(out), *QUICK[:4]]
        return compress.main([*arguments, "--model", str(toy_model.weights.parent), *more]), out

    return go


def test_a_pruned_student_is_trained_on_scored_and_raced(command, toy_model, capsys):
    loop = ["loop.steps=2", "loop.workers=0", "loop.batch_size=2", "loop.checkpoint_every=1", "device=cpu"]
    code, out = command("prune", "widths=[2,3,2,4]", *loop)
    text = capsys.readouterr().out
    assert code == 0
    small = open_model(out)
    assert load_student(small).config.widths == (2, 3, 2, 4)
    assert small.name == "prune"
    assert small.card.training["compressed"]["from"] == toy_model.card.sha256
    assert small.card.metrics == {}
    assert small.card.decode == toy_model.card.decode
    report = json.loads((out / "compress.json").read_text())
    assert report["compressed"]["parameters"] < report["compressed"]["parameters_before"]
    (found,) = report["accuracy"].values()
    assert {"bPQ", "AJI", "F1_d", "mPQ (own)"} <= {d["name"] for d in found}
    assert [p["name"] for p in report["speed"]][-1] == "after"
    assert report["machine"] in text
    assert loaded.load(str(out / "finetune")).card.mpp == toy_model.card.mpp  # a run like any other


def test_eight_bits_stay_near_the_network(command, toy_model):
    pytest.importorskip("nncf")
    code, out = command("int8")
    assert code == 0
    small = loaded.load(str(out / "int8.xml"))
    assert not list(out.glob("float*"))
    rgb = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = loaded.load_model(toy_model, "cpu-torch").runtime(rgb)
    assert np.abs(small.runtime(rgb) - whole).mean() < 0.05
    report = json.loads((out / "compress.json").read_text())
    assert report["compressed"]["calibration_crops"] == 2


def test_the_run_of_a_model_says_what_it_was_trained_on(toy_run, toy_model, tmp_path):
    config = compression.CompressConfig("prune", toy_run, tmp_path, loop=compression.ShortLoop(steps=7))
    found = compression.fit_config(config, toy_model)
    assert found.crop.size == 32
    assert found.data.sets["toy"].held_out == ("im_3",)
    assert found.model.widths == (4, 4, 4, 4)
    assert (found.loop.steps, found.run) == (7, tmp_path / "finetune")


def test_a_model_is_never_written_over(command, toy_model, tmp_path, capsys):
    own = str(toy_model.weights.parent)
    card = toy_model.weights.with_name("card.json").read_bytes()
    assert command("int8", "--out", own)[0] == 2
    assert command("prune", "--out", own)[0] == 2
    assert capsys.readouterr().err.count("holds a model; give another --out") == 2
    assert toy_model.weights.with_name("card.json").read_bytes() == card


def test_a_training_with_unlabelled_images_can_be_used_too(toy_model, dataset, tmp_path):
    path = tmp_path / "c.toml"
    more = "[distill.data.sets.bare]\nlabelled = false\n[data.sets.bare]\nlabelled = false\n"
    path.write_text(f'[data]\nroot = "{dataset}"\n[data.sets.toy]\nheld_out = ["im_3"]\n{more}')
    config = compression.CompressConfig("int8", path, tmp_path)
    assert set(compression.fit_config(config, toy_model).data.sets) == {"toy"}


def test_a_set_that_cannot_be_scored_is_told_and_not_left_out(command, dataset, tmp_path, toy_model):
    training = tmp_path / "two.toml"
    training.write_text(
        f'[data]\nroot = "{dataset}"\n[data.sets.toy]\nheld_out = ["im_3"]\n[data.sets.gone]\n'
    )
    model = loaded.load_model(toy_model, "cpu-torch")
    config = compression.CompressConfig("int8", training, tmp_path, draws=2)
    with pytest.raises(NucSegError, match="gone"):
        compress.accuracy(config, model, model)


def test_one_setting_of_the_training_leaves_the_others_gentle(tmp_path):
    given = ["method=prune", "training=x", "out=y", "loop.steps=9"]
    loop = parse(compression.CompressConfig, given, prog="x", about="", example="").loop
    assert (loop.steps, loop.lr, loop.warmup) == (9, 5e-4, 50)


def test_a_missing_package_and_bad_settings_are_one_sentence(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quantise, "find_spec", lambda name: None if name == "nncf" else True)
    assert command("int8")[0] == 2
    assert command("zip")[0] == 2
    assert command("int8", "size=100")[0] == 2
    assert command("prune", "keep=2.0")[0] == 2
    other = tmp_path / "other.toml"
    other.write_text('[data]\nclasses = ["a"]\n')
    assert command("prune", "widths=[2,2,2,2]", "training=" + str(other))[0] == 2
    lines = capsys.readouterr().err.splitlines()
    wanted = [
        "pip install nncf",
        "'zip' is not one of int8, prune",
        "multiple of 16",
        "between 0 and 1",
        "trains",
    ]
    assert [w in line for w, line in zip(wanted, lines, strict=True)] == [True] * 5


def test_quantisation_needs_images(toy_model, tmp_path):
    with pytest.raises(NucSegError, match=r"calibration images|pip install"):
        quantise.quantise(toy_model, [], tmp_path / "x.xml")


def test_a_race_tells_how_many_times_faster():
    class Sleeper:
        def __init__(self, seconds):
            self.name, self.seconds, self.shapes = f"{seconds} s", seconds, set()

        def __call__(self, rgb):
            self.shapes.add(rgb.shape)
            time.sleep(self.seconds)

    slow, fast = Sleeper(0.06), Sleeper(0.02)
    one, two = race({"slow": slow, "fast": fast}, size=608, rounds=3)
    assert slow.shapes == {(608, 608, 3)}
    assert one.ratio == 1
    assert 1.2 < two.ratio < 6
    assert two.low <= two.ratio <= two.high
    assert one.ms >= 60
    assert "cores" in machine()
