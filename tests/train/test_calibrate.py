"""Calibration finds what was put in, and goes from images to the card."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_nucseg.core.calibration import calibrated, tempered
from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.models.registry import open_model
from train import calibrate, calibration, export, export_checks, loaded, reliability, thresholds
from train.calibration import (
    CLASS,
    FOLDS,
    SCORE,
    STAGES,
    Calibration,
    Found,
    Outcome,
    bins,
    expected_calibration_error,
    fit,
    fit_scores,
    fit_temperature,
    weights_of,
)
from train.truth import Truth


def simulated(seed, n, truth=None, name="a", dataset="one"):
    """Return an image of which `truth` is the calibration that makes scores and probabilities frequencies."""
    rng, truth = np.random.default_rng(seed), truth or Calibration()
    raw = rng.beta(2, 1.2, n)
    right = rng.random(n) < calibrated(raw, truth.score_slope, truth.score_shift)
    probabilities = rng.dirichlet(np.full(4, 0.5), n).clip(1e-9)
    chances = tempered(probabilities, truth.type_temperature).cumsum(1)
    classes = (rng.random((n, 1)) > chances).sum(1).clip(0, 3)
    return Found(dataset, name, raw, right, probabilities, classes)


def test_known_slope_shift_and_temperature_are_found():
    wanted = Calibration(1.7, -0.6, 1.8)
    found = fit([simulated(k, 8000, wanted, str(k)) for k in range(3)])
    assert found.score_slope == pytest.approx(1.7, abs=0.1)
    assert found.score_shift == pytest.approx(-0.6, abs=0.1)
    assert found.type_temperature == pytest.approx(1.8, abs=0.08)


def test_what_is_calibrated_has_no_error_and_what_is_not_has_one():
    images = [simulated(9, 60_000)]
    for kind in (SCORE, CLASS):
        assert expected_calibration_error(Outcome.of(images).bins(kind, "before")) < 0.01
    off = Outcome.of([simulated(k, 15_000, Calibration(0.5, -1.0, 2.5), str(k)) for k in range(4)])
    score, kind = off.rows()
    assert (score["what"], kind["what"]) == ("score", "class")
    for row in (score, kind):
        assert row["nuclei"] == 60_000
        assert row["before"] > 0.1
        assert row["after"] < 0.02
        assert row["left out"] < 0.02


def test_each_image_is_judged_by_a_fit_without_it_and_many_share_few_fits(monkeypatch):
    fitted = []
    monkeypatch.setattr(
        calibration, "fit", lambda some: fitted.append({im.name for im in some}) or len(fitted)
    )
    for count, fits in ((1, 0), (2, 2), (FOLDS, FOLDS), (FOLDS + 3, FOLDS)):
        fitted.clear()
        images = [simulated(k, 3, name=str(k)) for k in range(count)]
        others = Outcome.of(images).others
        assert len(fitted) == fits + 1
        assert len(others) == (count if fits else 0)
        for image, number in zip(images, others, strict=False):
            assert image.name not in fitted[number - 1]


def test_the_error_is_the_mean_distance_of_the_bins():
    confidence = np.array([0.05, 0.09, 0.95, 1.0])
    found = bins(confidence, np.array([True, False, True, True]), np.array([1.0, 1.0, 1.0, 3.0]))
    assert [b.count for b in found] == [2, *[0] * 8, 2]
    assert found[0].right == 0.5
    assert np.isnan(found[4].right)
    assert found[9].confidence == pytest.approx(0.9875)
    assert expected_calibration_error(found) == pytest.approx((2 * 0.43 + 4 * 0.0125) / 6)
    assert np.isnan(expected_calibration_error(bins(np.zeros(0), np.zeros(0, bool), np.zeros(0))))


def test_data_sets_weigh_the_same_whatever_their_size():
    small, large = simulated(0, 50, dataset="small"), simulated(1, 450, dataset="large")
    weights = weights_of([small, large], "right")
    assert weights[:50].sum() == pytest.approx(weights[50:].sum())
    assert weights.mean() == pytest.approx(1)
    rows = [row for row in Outcome.of([small, large]).rows() if row["what"] == "score"]
    assert [row["data"] for row in rows] == ["small", "large", "all, as one set", "mean over the sets"]
    assert rows[3]["before"] == pytest.approx((rows[0]["before"] + rows[1]["before"]) / 2)
    assert rows[2]["before"] <= rows[3]["before"]


def test_nuclei_that_tell_nothing_give_finite_answers():
    scores, ones = np.linspace(0, 1, 40), np.ones(40)
    for right in (scores > 0.5, np.zeros(40, bool), np.ones(40, bool), scores < 0.5):
        slope, shift = fit_scores(scores, right, ones)
        assert 0 < slope < 21
        assert abs(shift) <= 20
    assert fit_scores(ones[:0], ones[:0] > 0, ones[:0]) == (1, 0)
    sure = np.tile(np.array([[1.0, 0.0]]), (40, 1))
    assert 0 < fit_temperature(sure, np.zeros(40, int), ones) < 21
    assert fit_temperature(sure[:, :1], np.zeros(40, int), ones) == 1
    alone = replace(simulated(0, 30), probabilities=np.zeros((0, 4)), classes=np.zeros(0, int))
    outcome = Outcome.of([alone])
    assert outcome.values.type_temperature == 1
    (row,) = outcome.rows()
    assert np.isnan(row["left out"])  # there is no other image


def test_a_nucleus_is_right_if_it_matches_and_has_a_class_if_the_true_one_has():
    true, labels = np.zeros((2, 20, 40), np.int32)
    types = np.zeros((20, 40), np.uint8)
    true[2:8, 2:8], types[2:8, 2:8] = 7, 2
    true[2:8, 20:26], types[2:8, 20:26] = 9, 255
    labels[2:8, 3:9], labels[2:8, 20:26], labels[12:18, 2:8] = 1, 2, 3
    table = pd.DataFrame(
        {"id": [1, 2, 3], "score": [0.9, 0.8, 0.3], "prob_a": [0.6, 1, 0], "prob_b": [0.4, 0, 1]}
    )
    truth = Truth("set", "im", np.zeros((20, 40, 3), np.uint8), true, types, 0.25)
    found = calibrate.judge(truth, labels, table, ("a", "b"))
    assert found.right.tolist() == [True, True, False]
    assert found.scores.tolist() == [0.9, 0.8, 0.3]
    assert found.classes.tolist() == [1]
    assert found.probabilities.tolist() == [[0.6, 0.4]]
    bare = calibrate.judge(replace(truth, types=None), labels, table, ("a", "b"))
    assert bare.classes.size == 0


def test_the_diagram_has_the_error_of_each_stage_and_every_nucleus():
    """Of several sets the mean over them; of one image alone there is no fit without it."""
    off = Calibration(0.5, -1.0, 2.5)
    several = Outcome.of([simulated(k, 300, off, str(k), dataset) for k, dataset in enumerate("aab")])
    for outcome, last in ((several, "left out"), (Outcome.of([simulated(0, 300, off)]), "after")):
        axes = reliability.draw(outcome).axes
        for column, kind in enumerate((SCORE, CLASS)):
            (*_, error) = [row for row in outcome.rows() if row["what"] == kind.name]
            said = [text.get_text() for text in axes[column].get_legend().get_texts()]
            assert said == [f"{STAGES[by]}: ECE {error[by]:.3f}" for by in ("before", last)]
            heights = sum(bar.get_height() for bar in axes[column + 2].patches)
            assert heights == 2 * 300 * len(outcome.images)


@pytest.fixture
def run(toy_run, tmp_path, monkeypatch):
    """A run with thresholds; its network is asked, but answers with the truth of the images, more or less."""
    folder = tmp_path / "run"
    shutil.copytree(toy_run, folder)
    shutil.copy(toy_run.parent / "card.toml", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["sets"]["toy"]["held_out"] = ["im_2", "im_3"]
    (folder / "config.json").write_text(json.dumps(config))
    rules = {"foreground": 0.45, "chosen": {"images": {"toy": [["train", "im_3"]]}}}
    (folder / "decode.json").write_text(json.dumps(rules))
    data = Path(config["data"]["root"]) / "toy" / "train"
    images = {p.name: np.asarray(Image.open(p)) for p in (data / "images").glob("*.png")}

    def segment(self, image, mpp):
        assert self.card.decode == self.card.decode.uncalibrated()
        (name,) = (name for name, pixels in images.items() if (pixels == image).all())
        labels = np.asarray(Image.open(data / "instances" / name)).astype(np.uint32)
        ids, rng = np.unique(labels[labels > 0]), np.random.default_rng(int(image.sum()))
        scores = rng.random(len(ids)).astype(np.float32)
        for id_ in ids[rng.random(len(ids)) > scores]:  # these are wrong
            rows, cols = np.nonzero(labels == id_)
            labels[rows[1:], cols[1:]] = 0
        probabilities = rng.dirichlet(np.ones(len(self.card.classes)), len(ids))
        named = {f"prob_{name}": probabilities[:, k] for k, name in enumerate(self.card.classes)}
        return labels, pd.DataFrame({"id": ids, "score": scores, **named})

    monkeypatch.setattr(loaded.Loaded, "segment", segment)
    return folder


def test_a_run_is_calibrated_beside_its_thresholds_and_exported_so(run, tmp_path, capsys, caplog):
    out = tmp_path / "results"
    assert calibrate.main(["--run", str(run), "--out", str(out), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "run, 2 images" in said
    assert "| ECE (10 bins), before | ECE (10 bins), after, on these images |" in said
    assert "| score | toy |" in said
    assert "| class | toy |" in said
    assert f"Written: {run / 'decode.json'} (score_slope" in said
    assert "Fewer than 5 images" in caplog.text
    assert (out / "run_calibration.png").stat().st_size > 10_000
    report = json.loads((out / "run_calibration.json").read_text())
    assert report["images"] == {"toy": [["train", "im_2"], ["train", "im_3"]]}
    assert sum(b["count"] for b in report["bins"]["score"]["before"]) == report["ECE"][0]["nuclei"]
    rules = json.loads((run / "decode.json").read_text())
    assert rules["foreground"] == 0.45
    assert rules["chosen"]["images"] == {"toy": [["train", "im_3"]]}
    assert rules["calibrated"]["images"] == report["images"]
    values = {name: rules[name] for name in ("score_slope", "score_shift", "type_temperature")}
    assert values == pytest.approx(report["values"], rel=1e-4)
    assert loaded.decode_of(run) == DecodeConfig(foreground=0.45, **values)
    own = ["--run", str(run), "--card", str(tmp_path / "card.toml"), "--out", str(tmp_path / "model")]
    assert export.main(own) == 0
    card = open_model(tmp_path / "model").card
    assert card.decode == loaded.decode_of(run)
    assert card.training["calibration"] == rules["calibrated"]
    assert card.training["thresholds"] == rules["chosen"]
    assert (
        calibrate.main(["--run", str(run), "--out", str(out), "--device", "cpu"]) == 0
    )  # from the raw scores
    assert json.loads((run / "decode.json").read_text()) == rules


def test_thresholds_keep_a_calibration_that_was_fitted_with_them_and_no_other(run, caplog):
    how = {"score_slope": 2.0, "type_temperature": 1.5, "calibrated": {"images": {}}}
    (run / "decode.json").write_text(json.dumps({"foreground": 0.45, **how}))
    assert thresholds.calibration_of(run, DecodeConfig(foreground=0.45)) == how
    assert not caplog.text
    assert thresholds.calibration_of(run, DecodeConfig(foreground=0.5)) == {}
    assert f"is taken away; fit it anew by python -m train.calibrate --run {run}" in caplog.text
    (run / "decode.json").write_text("{")
    assert thresholds.calibration_of(run, DecodeConfig()) == {}


@pytest.mark.parametrize("command", ["thresholds", "calibrate"])
def test_what_is_made_for_another_checkpoint_than_the_runs_own_is_told(
    run, tmp_path, caplog, monkeypatch, command
):
    found = thresholds.Chosen(DecodeConfig(), 0.5, 0.5, {})
    monkeypatch.setattr(thresholds, "search", lambda config: found)
    more = ["--out", str(tmp_path / "r")] if command == "calibrate" else []
    main = {"thresholds": thresholds, "calibrate": calibrate}[command].main
    said = f"'{run}' stands for last.pt, but its decode.json will be made for best.pt, and last.pt will be used with it"
    for place, told in ((run, False), (run / "last.pt", False), (run / "best.pt", True)):
        caplog.clear()
        assert main(["--run", str(place), "--device", "cpu", *more]) == 0
        assert (said in caplog.text) == told
        assert (run / "decode.json").is_file()


def test_of_a_model_the_values_are_printed_only(run, toy_model, dataset, tmp_path, capsys):
    before = (toy_model.weights.parent / "card.json").read_text()
    model = ["--model", str(toy_model.weights.parent), "--device", "cpu", "--out", str(tmp_path / "r")]
    assert calibrate.main([*model, "--data", str(dataset / "toy"), "--split", "train", "--limit", "2"]) == 0
    said = capsys.readouterr().out
    assert 'Put these into "decode" of the model\'s card.json: "score_slope": ' in said
    assert (toy_model.weights.parent / "card.json").read_text() == before


def test_what_cannot_be_done_is_one_sentence(run, dataset, tmp_path, capsys, monkeypatch):
    def nothing(self, image, mpp):
        names = ("id", "score", *(f"prob_{name}" for name in self.card.classes))
        return np.zeros(image.shape[:2], np.uint32), pd.DataFrame({name: [] for name in names})

    own = ["--run", str(run), "--out", str(tmp_path / "r"), "--device", "cpu"]
    for arguments, said in (
        ([*own, "--split", "test"], "split='test' is for final figures"),
        (["--model", "default", "--out", str(tmp_path)], "No images are given"),
        ([*own, "--model", "other"], "Give either --run or --model"),
        ([*own, "--limit", "0"], "limit=0 must be at least 1"),
        ([*own, "--data", str(dataset / "toy"), str(dataset / "toy")], "Two data sets are called 'toy'"),
        (["--run", str(tmp_path / "none"), "--out", str(tmp_path)], "none' is not the folder of a run"),
    ):
        assert calibrate.main(arguments) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr(loaded.Loaded, "segment", nothing)
    assert calibrate.main(own) == 2
    assert "finds no nucleus in these images" in capsys.readouterr().err


def test_metrics_measured_before_a_calibration_are_still_the_models(tmp_path):
    now = DecodeConfig(centre=0.5, score_slope=2.0)
    model = export_checks.Exported(tmp_path, "w", "s", now.to_dict())
    path = tmp_path / "a.json"
    about = {"model": {"sha256": "s"}, "thresholds": now.uncalibrated().to_dict()}
    path.write_text(json.dumps(about))
    assert list(export_checks.read_reports([path], model)) == ["a"]
