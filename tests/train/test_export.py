import json

import pytest

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.models.checkpoint import load_student
from napari_nucseg.models.registry import open_model
from tests.train.test_loop import CONFIG, train
from train import export, thresholds

CARD = """
version = "0.1"
title = "A toy"
licence = "none"
caution = "knows nothing"
training_data = ["toy"]
cite = []
[colours]
neoplastic = [1, 2, 3]
inflammatory = [1, 2, 3]
connective = [1, 2, 3]
epithelial = [1, 2, 3]
other = [1, 2, 3]
"""


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    (folder / "toy.toml").write_text(CONFIG.format(root=dataset))
    (folder / "card.toml").write_text(CARD)
    assert train(folder / "toy.toml", folder / "run", "loop.steps=3") == 0
    return folder / "run"


def test_thresholds_are_searched_on_held_out_images_and_exported_with_the_weights(run, monkeypatch, tmp_path):
    monkeypatch.setattr(thresholds, "GRID", {"foreground": (0.05, 0.5), "centre": (0.05,)})
    seen = []
    real = thresholds.Predicted.of
    watched = lambda item, task, card: seen.append(item.name) or real(item, task, card)  # noqa: E731
    monkeypatch.setattr(thresholds.Predicted, "of", watched)
    assert thresholds.main(["--run", str(run)]) == 0
    assert set(seen) == {"im_3"}
    chosen = DecodeConfig(**json.loads((run / "decode.json").read_text()))
    (tmp_path / "scores.json").write_text('{"aji": 0.5}')
    out = tmp_path / "model"
    arguments = ["--run", str(run), "--card", str(run.parent / "card.toml"), "--out", str(out)]
    assert export.main([*arguments, "--metrics", str(tmp_path / "scores.json")]) == 0
    model = open_model(out)
    assert model.name == "model"  # the folder's
    assert model.card.decode == chosen
    assert model.card.metrics == {"scores": {"aji": 0.5}}
    assert model.card.training["steps"] == 3
    assert load_student(model).config.widths == (4, 4, 4, 4)


def test_missing_runs_and_cards_are_told_in_one_sentence(run, tmp_path, capsys):
    assert thresholds.main(["--run", str(tmp_path / "none")]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    (tmp_path / "card.toml").write_text('title = "x"\n')
    bad = ["--run", str(run), "--card", str(tmp_path / "card.toml"), "--out", str(tmp_path / "m")]
    assert export.main(bad) == 2
    assert "lacks 'version'" in capsys.readouterr().err
