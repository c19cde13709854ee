from dataclasses import replace

import pytest
import torch

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.checkpoint import load_student
from napari_nucseg.models.student import Student, activate
from train import fit
from train.begin import begun, take_weights
from train.fit import FitConfig, ModelConfig
from train.runlog import RunLog
from train.runs import load_run

IMAGE = torch.randn(1, 3, 32, 32)


@pytest.fixture
def config(toy_model):
    data = replace(FitConfig().data, classes=toy_model.card.classes)
    return FitConfig(begin=str(toy_model.weights.parent), data=data)


def maps(student):
    with torch.inference_mode():
        return student.eval()(IMAGE)


def test_shape_and_normalisation_are_the_models(config, toy_model):
    own, model = begun(replace(config, model=ModelConfig(mean=(1, 2, 3))))
    assert model.card == toy_model.card
    assert own.model.widths == (4, 4, 4, 4)
    assert own.model.mean == toy_model.card.mean
    assert begun(FitConfig()) == (FitConfig(), None)


def test_all_weights_are_taken_for_the_same_classes(config, toy_model):
    theirs = load_student(toy_model)
    student = Student(theirs.config)
    assert take_weights(student, toy_model.card.classes, toy_model) == ()
    assert torch.equal(maps(student), maps(theirs))


def test_classes_are_found_by_name(toy_model):
    theirs, known = load_student(toy_model), toy_model.card.classes
    classes = (known[2], "mitosis", known[0])
    layout = MapLayout(theirs.config.layout.angles, 3)
    student = Student(replace(theirs.config, layout=layout))
    assert take_weights(student, classes, toy_model) == ("mitosis",)
    mine, other = maps(student), maps(theirs)
    start = layout.type.start
    assert torch.equal(mine[:, : start + 1], other[:, : start + 1])
    assert torch.equal(mine[:, start + 1], other[:, start + 3])
    assert torch.equal(mine[:, start + 3], other[:, start + 1])
    assert not torch.equal(mine[:, start + 2], other[:, start + 2])
    assert torch.isfinite(activate(mine, layout)).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"begin": "nowhere"}, "'nowhere'"),
        ({"crop": replace(FitConfig().crop, mpp=0.5)}, "set crop.mpp=0.25"),
        ({"model": ModelConfig(without=("centre",))}, r"model\.without"),
    ],
)
def test_what_does_not_fit_is_told(config, change, says):
    with pytest.raises(NucSegError, match=says):
        begun(replace(config, **change))


def test_a_run_goes_on_from_a_model_and_is_read_back(toy_run, toy_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(RunLog, "curves", lambda self: None)
    said = [
        "--config", str(toy_run.parent / "toy.toml"), f"run={tmp_path / 'run'}", f"begin={toy_model.weights.parent}",
        "crop.size=32", "loop.batch_size=2", "loop.steps=1", "loop.lr=1e-9", "loop.workers=0", "loop.warmup=1",
        "device=cpu", "loop.validation_crops=2", "loop.amp=off", "data.classes=['inflammatory', 'mitosis']",
    ]  # fmt: skip
    assert fit.main(said) == 0
    network = load_run(tmp_path / "run")[1].network
    ours, theirs = network.state_dict(), load_student(toy_model).state_dict()
    assert torch.allclose(ours["stem.conv.weight"], theirs["stem.conv.weight"], atol=1e-6)
    assert network.config.layout.n_classes == 2
    # another beginning is another run
    assert fit.main([*said, "begin="]) == 2
    assert "begin" in capsys.readouterr().err
