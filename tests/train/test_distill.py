"""From a teacher to a distilled student by the commands, read back and checked."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.card import Card
from napari_nucseg.models.checkpoint import save_checkpoint
from napari_nucseg.models.student import Student
from tests.train.toys import DATA, STUDENT, TEACHER
from train import distill, fit, teach
from train.config import load_config
from train.distil_task import DistillTask
from train.distill import DistillRunConfig, frequencies, open_teacher
from train.runlog import RunLog
from train.runs import class_weights, draft_card, load_run, resolved
from train.seen import settings_of, trained_on
from train.task import MapTask
from train.teacher import Teacher

CONFIG = f"""{DATA}[loop]
steps = 3
batch_size = 2
warmup = 2
workers = 0
log_every = 1
checkpoint_every = 3
validate_every = 3
validation_crops = 2
amp = "off"
{TEACHER}[distill]
pool = 4
[distill.distil]
warmup = 2
[distill.model]
{STUDENT}"""


@pytest.fixture(scope="module", autouse=True)
def no_curves():
    """Drawing dozens of curves takes longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "curves", lambda self: None)
        yield


@pytest.fixture(scope="module")
def work(dataset, tmp_path_factory):
    """A folder with a config, a teacher's run and a student's run distilled from it."""
    folder = tmp_path_factory.mktemp("distil")
    path = folder / "c.toml"
    path.write_text(CONFIG.format(root=dataset))
    assert teach.main(["--config", str(path), f"run={folder / 'teacher'}"]) == 0
    assert run(folder) == 0
    return folder


def run(folder, *extra, name="student"):
    given = [f"run={folder / name}", f"teacher={folder / 'teacher'}", f"cache={folder / 'cache'}", *extra]
    return distill.main(["--config", str(folder / "c.toml"), *given])


def logged(folder):
    with (folder / "metrics.csv").open() as handle:
        return [(r["step"], r["name"], r["value"]) for r in csv.DictReader(handle)]


def test_a_run_tells_what_it_learnt_from(work):
    names = {name for _, name, _ in logged(work / "student")}
    assert {"train/kd", "train/kd_type", "train/features", "train/labels", "val/bPQ"} <= names
    assert {"train/total", "val/bPQ"} <= {name for _, name, _ in logged(work / "teacher")}
    assert json.loads((work / "student" / "config.json").read_text())["command"] == "distill"
    assert len(list((work / "cache").rglob("*.safetensors"))) >= 4


def test_runs_of_every_command_are_read_back(work):
    config, task = load_run(work / "teacher")
    assert isinstance(config, teach.TeachConfig)
    assert isinstance(task.network, Teacher)
    assert task.layout.angles == (0, 45, 90, 135)
    config, task = load_run(work / "student" / "last.pt")
    assert isinstance(config, DistillRunConfig)
    assert type(task) is MapTask
    assert isinstance(task.network, Student)
    state = torch.load(work / "student" / "last.pt", weights_only=True)["average"]
    assert all(torch.equal(value, state[f"task.{name}"]) for name, value in task.state_dict().items())
    assert load_run(work / "student" / "best.pt")[1].layout == task.layout


def test_a_distillation_goes_on_exactly_where_it_was(work, monkeypatch, capsys):
    """Killed in the fourth of four steps, with the warm-up at its end and a pool that comes again."""
    short = ("loop.steps=4", "loop.checkpoint_every=2")
    assert run(work, *short, name="whole") == 0
    forward = DistillTask.forward

    def dies(self, batch):
        if self.training and self.passes == 3:
            raise KeyboardInterrupt
        return forward(self, batch)

    monkeypatch.setattr(DistillTask, "forward", dies)
    assert run(work, *short, name="parts") == 130
    assert "at step 3 of 4, which is saved" in capsys.readouterr().err  # before the validation
    monkeypatch.setattr(DistillTask, "forward", forward)
    assert torch.load(work / "parts" / "last.pt", weights_only=True)["step"] == 3
    assert run(work, *short, name="parts") == 0
    a, b = (torch.load(work / name / "last.pt", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(v, b["task"][k]) for k, v in a["task"].items())
    assert a["task"]["passes"] == 4
    wanted = [row for row in logged(work / "whole") if not row[1].startswith("speed/")]
    assert wanted == [row for row in logged(work / "parts") if not row[1].startswith("speed/")]


def test_another_teacher_makes_it_another_run(work, capsys):
    assert teach.main(["--config", str(work / "c.toml"), f"run={work / 'other'}", "loop.seed=1"]) == 0
    assert run(work, f"teacher={work / 'other'}") == 2
    assert "begun with teacher=" in capsys.readouterr().err
    both = f'ensemble=["{work}/other"]'
    assert run(work, both) == 2
    assert "begun with" in capsys.readouterr().err
    assert run(work, both, "loop.steps=1", name="of-two") == 0


def test_a_turned_teacher_is_another_one(work, capsys):
    assert run(work, "turned=true", "loop.steps=1", name="turned") == 0
    assert run(work, "turned=false", "loop.steps=1", name="turned") == 2
    assert "begun with t" in capsys.readouterr().err
    folders = {path.parent.parent.name for path in (work / "cache").rglob("*.safetensors")}
    assert sum(name.startswith("turned-") for name in folders) == 1


def test_a_model_folder_teaches_too(work, tmp_path):
    config, task = load_run(work / "student")
    card = draft_card(config, task)
    colours = dict.fromkeys(card.classes, (1, 2, 3))
    save_checkpoint(tmp_path, task.network, Card(**{**card.__dict__, "colours": colours}), half=False)
    known = open_teacher(tmp_path)
    assert known.classes == config.data.classes
    assert known.mpp == config.crop.mpp
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(known.task.eval().predict(image), task.predict(image))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("teacher=none", "'none' does not exist"),
        ('ensemble=["none"]', "'none' does not exist"),
        ("crop.mpp=0.5", "set crop.mpp=0.25"),
        ("crop.size=40", "crop.size=40 doesn't fit the network; it must be a multiple of 16"),
        ('data.classes=["a","b"]', "set data.classes"),
        ("model.angles=[0,90,30]", "30"),
        ("distil.featre=1", "did you mean 'distil.feature'"),
        ("pool=-1", "pool=-1"),
    ],
)
def test_what_does_not_fit_is_one_sentence(work, capsys, given, says):
    assert run(work, given, name="new") == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1


def test_a_teacher_that_lacks_a_map_is_refused(work, capsys):
    small = (
        f"run={work / 'bare'}",
        'model.without=["boundary"]',
        "model.widths=[4,4,4,4]",
        "model.blocks=[1,1,1,1]",
    )
    assert fit.main(["--config", str(work / "c.toml"), *small, "loop.steps=1"]) == 0
    assert run(work, f"teacher={work / 'bare'}", name="new") == 2
    assert "did without the map 'boundary'" in capsys.readouterr().err


def test_the_teacher_is_asked_for(work, capsys):
    assert distill.main(["--config", str(work / "c.toml")]) == 2
    assert "'teacher' is missing" in capsys.readouterr().err


def test_folders_without_a_run_are_named(tmp_path):
    with pytest.raises(NucSegError, match="holds no checkpoint"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text('{"command": "fit"}')
    with pytest.raises(NucSegError, match=r"last\.pt"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text('{"command": "cook"}')
    with pytest.raises(NucSegError, match="cook"):
        load_run(tmp_path)


def test_sets_without_labels_are_for_distillation(work, capsys):
    assert (
        fit.main(["--config", str(work / "c.toml"), f"run={work / 'fit'}", "data.sets.toy.labelled=false"])
        == 2
    )
    assert "'toy' has no labels" in capsys.readouterr().err


def test_public_weights_without_their_normalisation_are_warned_of(tmp_path, capsys, caplog):
    weights = (f"teacher.weights={tmp_path / 'dino.pth'}", f"data.root={tmp_path}")
    teach.main([*weights])
    assert "public weights expect their own" in caplog.text
    caplog.clear()
    teach.main([*weights, "mean=[127.5,127.5,127.5]", "std=[127.5,127.5,127.5]"])
    assert "public weights" not in caplog.text


def test_public_weights_are_read_once(work, tmp_path):
    """A run that goes on does not need their file."""
    weights = tmp_path / "public.pt"
    shutil.copy(work / "teacher" / "last.pt", weights)
    given = ["--config", str(work / "c.toml"), f"run={tmp_path / 'run'}", f"teacher.weights={weights}"]
    assert teach.main([*given]) == 0
    weights.unlink()
    assert teach.main([*given]) == 0


def test_a_cache_may_move_but_not_come_later(work, tmp_path, capsys):
    assert run(work, name="cached") == 0
    assert run(work, f"cache={tmp_path}", name="cached") == 0
    without = ["--config", str(work / "c.toml"), f"run={work / 'cached'}", f"teacher={work / 'teacher'}"]
    assert distill.main(without) == 2
    assert "begun with cached=True, not False" in capsys.readouterr().err


def test_unlabelled_images_are_counted_apart(work, dataset, tmp_path, caplog):
    caplog.set_level("INFO")
    root = shutil.copytree(dataset, tmp_path / "data")
    shutil.copytree(dataset / "toy" / "train" / "images", root / "bare" / "images")
    (root / "bare" / "dataset.json").write_text('{"mpp": 0.25}')
    assert run(work, f"data.root={root}", "data.sets.bare.labelled=false", name="bare_too") == 0
    assert "3 training images and 4 without labels, 1 for validation" in caplog.text


def test_a_cache_that_may_not_fit_is_warned_of(work, caplog, monkeypatch):
    full = shutil.disk_usage(work)._replace(free=1000)
    monkeypatch.setattr("train.distill.shutil.disk_usage", lambda path: full)
    assert run(work, "loop.steps=1", "pool=0", name="full") == 0
    assert "where 0 are free; limit the crops" in caplog.text


def test_what_a_cache_takes_is_what_it_holds(work, tmp_path):
    given = [f"teacher={work / 'teacher'}", f"cache={tmp_path}", "pool=0"]
    config = resolved(load_config(DistillRunConfig, work / "c.toml", given, "distill"))
    teacher = distill.teacher_of(config)
    counts = np.ones(len(config.data.classes))
    task = DistillTask(distill.build_task(config, counts), teacher, config.distil, frequencies(counts))
    teacher(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), task.levels)
    (kept,) = tmp_path.rglob("*.safetensors")
    crops = config.loop.steps * config.loop.batch_size
    assert 0 < kept.stat().st_size - distill.kept_bytes(config, teacher, task) / crops < 1000


def test_background_is_as_frequent_as_the_commonest_class():
    assert frequencies(np.array([3.0, 0, 10])).tolist() == [10, 3, 0, 10]
    assert frequencies(np.zeros(3)) is None
    weights = class_weights(np.array([4.0, 16.0, 0.0]))
    assert weights.tolist() == pytest.approx([0.75, 1.5, 0.75, 0.75])


@pytest.mark.parametrize("module", [fit, teach, distill])
def test_help_explains_every_key(module, capsys):
    with pytest.raises(SystemExit):
        module.main(["--help"])
    text = capsys.readouterr().out
    lines = text[text.index("keys of the config") :].splitlines()[1:]
    keys = [k for k, line in enumerate(lines) if " = " in line and line.startswith("  ") and line[2] != " "]
    silent = [lines[k] for k in keys if k + 1 == len(lines) or not lines[k + 1].startswith("      ")]
    own = [line for line in silent if not line.strip().startswith(("augment.", "crop.", "loss.", "data."))]
    assert own == []


@pytest.mark.parametrize("name", ["laptop", "pannuke"])
def test_the_shipped_configs_serve_both_commands(name):
    path = Path(distill.__file__).parent / "configs" / f"{name}.toml"
    teacher = load_config(teach.TeachConfig, path, [], "teach")
    student = load_config(DistillRunConfig, path, [], "distill")
    assert student.teacher == teacher.run
    assert student.data.classes == teacher.data.classes
    angles = teach.network_config(teacher).layout.angles
    assert set(student.model.angles) <= set(angles)


def test_a_teacher_that_knows_the_validation_images_is_told(work, caplog):
    held = 'data.sets.toy.held_out=["im_0", "im_3"]'
    assert run(work, held, name="leak") == 0
    assert "trained with 1 of the 2 validation images" in caplog.text
    caplog.clear()
    assert run(work, name="clean") == 0
    assert "validation images, which" not in caplog.text


def test_what_a_model_was_trained_with_is_known_from_its_settings(work, dataset):
    toy = dataset / "toy"
    everything = {("train", f"im_{k}") for k in range(4)}
    assert trained_on(settings_of(work / "teacher"), toy) == everything - {("train", "im_3")}
    student = settings_of(work / "student" / "last.pt")
    student = {**student, "data": {"sets": {"toy": {"held_out": ["im_0", "im_3"]}}}}
    assert trained_on({**student, "teacher": str(work / "gone")}, toy) == {
        ("train", "im_1"),
        ("train", "im_2"),
    }
    assert trained_on(student, toy) == everything - {("train", "im_3")}  # the teacher's im_0 too
    other = {
        **student,
        "teacher": str(work / "gone"),
        "ensemble": [str(work / "gone"), str(work / "teacher")],
    }
    assert trained_on(other, toy) == everything - {("train", "im_3")}
    assert trained_on(student, dataset) == set()
    assert trained_on({}, toy) is None
    assert trained_on({"data": {"sets": {"toy": {"held_out": ["of another time"]}}}}, toy) is None
    assert settings_of("no such model") == {}
    assert settings_of("default")["data"]["sets"]["consep"]["merge"] == "merge_pannuke"
