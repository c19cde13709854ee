"""Teachers, distilled students and checkpoints are scored and exported like any other model."""

import json

import numpy as np
import pytest

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.registry import open_model
from tests.train.toys import DATA, STUDENT, TEACHER
from train import distill, evaluate, export, loaded, teach
from train.runlog import RunLog

CONFIG = f"""{DATA}[loop]
steps = 2
batch_size = 2
workers = 0
validation_crops = 0
amp = "off"
{TEACHER}[distill]
teacher = "{{folder}}/teacher"
[distill.model]
{STUDENT}[evaluate]
data = "{{root}}/toy"
split = "test"
limit = 2
draws = 0
out = "{{folder}}/results"
"""


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory):
    """Runs of a teacher and of a student distilled from it, and the config of both."""
    folder = tmp_path_factory.mktemp("loaded")
    path = folder / "c.toml"
    path.write_text(CONFIG.format(root=dataset, folder=folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "curves", lambda self: None)
        assert teach.main(["--config", str(path), f"run={folder / 'teacher'}"]) == 0
        assert distill.main(["--config", str(path), f"run={folder / 'student'}"]) == 0
    return folder


def test_a_teacher_and_its_student_are_compared_by_one_config(folder, capsys):
    runs = ["--model", str(folder / "teacher"), "--compare", str(folder / "student" / "last.pt")]
    assert evaluate.main(["--config", str(folder / "c.toml"), *runs]) == 0
    name = "teacher_vs_student-last_toy_test_first_2_of_4.json"
    report = json.loads((folder / "results" / name).read_text())
    assert report["images"] == 2
    assert report["model"]["run"] == str(folder / "teacher")
    assert {d["name"] for d in report["comparison"]["differences"]} >= {"bPQ", "mPQ (own)"}
    assert "Intervals from fewer" not in capsys.readouterr().out  # none were asked for


def test_a_runs_own_thresholds_are_used(folder):
    rules = folder / "teacher" / "decode.json"
    try:
        rules.write_text('{"foreground": 0.61}')
        assert loaded.load(str(folder / "teacher")).card.decode.foreground == 0.61
    finally:
        rules.unlink()


def test_a_distilled_student_is_exported_and_a_teacher_is_not(folder, toy_run, capsys):
    card = ["--card", str(toy_run.parent / "card.toml")]
    out = folder / "model"
    assert export.main(["--run", str(folder / "student"), *card, "--out", str(out)]) == 0
    rgb = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    run = loaded.load(str(folder / "student"), "cpu").runtime(rgb)
    assert np.abs(loaded.load_model(open_model(out), "cpu-torch").runtime(rgb) - run).max() < 0.05
    assert export.main(["--run", str(folder / "teacher"), *card, "--out", str(out)]) == 2
    assert "did not train a student" in capsys.readouterr().err


def test_what_is_not_there_is_one_sentence(folder, toy_model):
    for what, said in (
        (folder / "none.pt", "holds no"),
        (folder / "teacher" / "best.pt.pt", "no checkpoint"),
        (folder / "none.xml", "does not exist"),
        (folder / "none", "is not a model"),
    ):
        with pytest.raises(NucSegError, match=said):
            loaded.load(str(what))
    pytest.importorskip("openvino")
    (folder / "bad.xml").write_text("<net>")
    (folder / "card.json").write_text(toy_model.weights.with_name("card.json").read_text())
    with pytest.raises(NucSegError, match="cannot read"):
        loaded.load(str(folder / "bad.xml"))
