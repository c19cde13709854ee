"""Evaluation on a tiny data set with predictions whose scores are known."""

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_nucseg.errors import NucSegError
from napari_nucseg.models import registry
from napari_nucseg.models.registry import Model
from tests.fakes import CLASSES, fake_card
from train import evaluate as ev
from train.data import SetConfig, load_image
from train.scores import PER_IMAGE, POOLED, Figure, bootstrap, figures, score_image

NAMES = ("im_0", "im_1", "im_2", "im_3")


@pytest.fixture
def consep(dataset, tmp_path):
    """The toy set with the merges of CoNSeP."""
    folder = tmp_path / "consep"
    shutil.copytree(dataset / "toy", folder)
    meta = json.loads((folder / "dataset.json").read_text())
    meta["merge_pannuke"] = {name: [name] for name in CLASSES}
    meta["merge_consep4"] = {
        "miscellaneous": ["other"],
        "inflammatory": ["inflammatory"],
        "epithelial": ["neoplastic", "epithelial"],
        "spindle": ["connective"],
    }
    (folder / "dataset.json").write_text(json.dumps(meta))
    return folder


def truth_of(folder, image):
    """Labels and classes of the image that has these pixels."""
    for name in NAMES:
        item = load_image(folder, "test", name, SetConfig(), CLASSES)
        if (item.image == image).all():
            ids = np.unique(item.labels)[1:]
            return item.labels, ids, [CLASSES[k - 1] for k in item.nuclei[:, 2]]
    raise AssertionError("no such image")


def predictor(folder, change=lambda labels, ids, names: (labels, ids, names)):
    def segment(image, mpp):
        labels, ids, names = change(*truth_of(folder, image))
        return labels.astype(np.uint32), pd.DataFrame({"id": ids, "class": names})

    return segment


def score(folder, segment):
    chosen = ev.select(folder, "test")
    schemes = ev.schemes_for(chosen.folder, "test", CLASSES)
    scores = list(ev.evaluate(chosen, schemes, segment))
    return scores, schemes, {f.name: f for f in figures(scores, schemes)}


def test_a_perfect_prediction_scores_one_everywhere(consep):
    _, _, found = score(consep, predictor(consep))
    seen = [f for f in found.values() if not np.isnan(f.value)]
    assert len(seen) > 12
    assert all(f.value == pytest.approx(1) for f in seen)
    assert {"F1_c spindle (consep4)", "mPQ (shipped)", "mPQ+ (shipped)", "AJI+"} <= set(found)


def test_half_of_the_nuclei_give_the_f1_of_half_recall(consep):
    def drop(labels, ids, names):
        kept = ids[::2]
        return np.where(np.isin(labels, kept), labels, 0), kept, names[::2]

    scores, _, found = score(consep, predictor(consep, drop))
    true, pred = sum(s.true_nuclei for s in scores), sum(s.pred_nuclei for s in scores)
    assert found["F1_d"].value == pytest.approx(2 * pred / (true + pred))
    per_image = [2 * s.pred_nuclei / (s.true_nuclei + s.pred_nuclei) for s in scores]
    assert found["bPQ"].value == pytest.approx(np.mean(per_image))
    assert found["SQ"].value == pytest.approx(1)
    assert found["bPQ"].averaging == PER_IMAGE
    assert found["F1_d"].averaging == POOLED


def test_classes_confused_within_a_merge_cost_only_the_finer_scheme(consep):
    def mistake(labels, ids, names):
        return labels, ids, ["neoplastic" if n == "epithelial" else n for n in names]

    _, _, found = score(consep, predictor(consep, mistake))
    assert found["F1_c epithelial (shipped)"].value == 0
    assert found["F1_c neoplastic (shipped)"].value < 1
    assert found["F1_c epithelial (consep4)"].value == pytest.approx(1)
    assert found["mPQ (consep4)"].value == pytest.approx(1)
    assert found["mPQ+ (shipped)"].value < 1
    assert found["F1_d"].value == pytest.approx(1)


def test_ids_of_a_prediction_may_be_any_and_in_any_order(consep):
    def renumber(labels, ids, names):
        new = {i: 90_000 - 7 * i for i in ids.tolist()}
        out = np.zeros(labels.shape, np.int64)
        for old, i in new.items():
            out[labels == old] = i
        return out, np.array([new[i] for i in ids.tolist()])[::-1], names[::-1]

    _, _, found = score(consep, predictor(consep, renumber))
    assert found["F1_c inflammatory (shipped)"].value == pytest.approx(1)
    assert found["mPQ (shipped)"].value == pytest.approx(1)


def test_an_empty_prediction_is_zero_and_no_error(consep):
    def nothing(labels, ids, names):
        return np.zeros_like(labels), ids[:0], []

    _, _, found = score(consep, predictor(consep, nothing))
    assert [found[n].value for n in ("Dice", "AJI", "bPQ", "F1_d", "mPQ (shipped)")] == [0] * 5


@pytest.mark.parametrize(("mpp", "paired"), [(0.25, True), (0.5, False)])
def test_centroids_are_paired_within_3_um(consep, mpp, paired):
    """10 px are 2.5 um at 0.25 um/px and 5 um at 0.5."""
    meta = json.loads((consep / "dataset.json").read_text())
    (consep / "dataset.json").write_text(json.dumps(meta | {"mpp": mpp}))
    chosen = ev.select(consep, "test", limit=1)
    blank = np.zeros((64, 64), np.uint16)
    blank[10:14, 10:14] = 1
    Image.fromarray(blank).save(consep / "test" / "instances" / "im_0.png")
    moved = np.roll(blank, 10, axis=1).astype(np.uint32)

    def segment(image, found):
        assert found.value == mpp
        return moved, pd.DataFrame({"id": [1], "class": ["other"]})

    (one,) = ev.evaluate(chosen, [], segment)
    assert one.detection.f1_d == float(paired)


def test_nuclei_without_a_class_are_neither_right_nor_wrong(consep):
    meta = json.loads((consep / "dataset.json").read_text())
    del meta["merge_pannuke"]["connective"]
    (consep / "dataset.json").write_text(json.dumps(meta))

    def all_other(labels, ids, names):
        return labels, ids, [n if n != "connective" else "inflammatory" for n in names]

    segment = predictor(consep, all_other)
    _, _, found = score(consep, segment)
    assert found["F1_c inflammatory (shipped)"].value == pytest.approx(1)


def test_the_interval_covers_the_value_and_is_seeded(consep):
    rng = np.random.default_rng(3)

    def spoil(labels, ids, names):
        kept = ids[rng.random(len(ids)) < rng.random()]
        return np.where(np.isin(labels, kept), labels, 0), kept, [names[list(ids).index(i)] for i in kept]

    scores, schemes, _ = score(consep, predictor(consep, spoil))
    once, again = (bootstrap(scores, lambda s: figures(s, schemes), 100, seed=5) for _ in range(2))
    assert [(f.low, f.high) for f in once][:7] == [(f.low, f.high) for f in again][:7]
    assert all(f.low <= f.value <= f.high for f in once[:7])
    assert once[0].low < once[0].high
    (alone,) = bootstrap(scores[:1], lambda s: [Figure("n", POOLED, float(len(s)))])
    assert np.isnan(alone.low)


def test_bootstrap_of_a_mean_matches_theory():
    class Draw(float):
        pass

    values = [Draw(v) for v in np.random.default_rng(0).normal(5, 2, 400)]
    (mean,) = bootstrap(values, lambda s: [Figure("mean", PER_IMAGE, float(np.mean(s)))], 2000)
    half = 1.96 * np.std(values) / 20
    assert mean.high - mean.low == pytest.approx(2 * half, rel=0.1)


# selection


def test_a_set_without_classes_has_no_class_figures(consep):
    shutil.rmtree(consep / "test" / "types")
    assert ev.schemes_for(consep, "test", CLASSES) == []


def test_held_out_images_are_those_of_the_config(consep, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('[data.sets.consep]\nheld_out = ["im_1", "im_3"]\nmerge = "merge_pannuke"\n')
    assert ev.select(consep, "train", config).names == ("im_1", "im_3")
    assert ev.select(consep, "train", config, limit=1).what == "consep/validation (first 1 of 2)"
    with pytest.raises(NucSegError, match="--split train"):
        ev.select(consep, "test", config)
    config.write_text("[data.sets.monuseg]\nweight = 1\n")
    with pytest.raises(NucSegError, match="has no data set 'consep'"):
        ev.select(consep, "train", config)


def test_bad_selections_are_one_sentence(consep, tmp_path):
    with pytest.raises(NucSegError, match="is not a data set"):
        ev.select(tmp_path, "test")
    with pytest.raises(NucSegError, match="No image"):
        ev.select(consep, "test", limit=0)


# the command


@pytest.fixture
def command(consep, monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "find_model", lambda name: Model(tmp_path, fake_card()))
    monkeypatch.setattr(ev, "pipeline", lambda model, device: (predictor(consep), "fake"))

    def run(*args):
        out = tmp_path / "results"
        return ev.main(["--data", str(consep), "--out", str(out), "--draws", "20", *args]), out

    return run


def test_the_command_prints_a_row_for_the_readme_and_writes_both_files(command, capsys):
    code, out = command("--split", "test")
    assert code == 0
    text = capsys.readouterr().out
    assert "| consep/test | 4 | 1.000 |" in text
    assert "mean over images" in text
    assert "pooled over images" in text
    report = json.loads((out / "fake_consep_test.json").read_text())
    assert report["images"] == 4
    assert report["figures"][0] == {
        "name": "Dice", "averaging": PER_IMAGE, "value": 1.0, "low": 1.0, "high": 1.0,
    }  # fmt: skip
    with (out / "fake_consep_test_images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["name"] for r in rows] == list(NAMES)
    assert float(rows[0]["AJI"]) == 1


def test_the_test_split_is_opened_only_when_asked(command, capsys):
    with pytest.raises(SystemExit):
        command()


def test_the_command_tells_errors_in_one_sentence(command, consep, capsys):
    assert command("--split", "test", "--held-out", "nothing.toml")[0] == 2
    (consep / "dataset.json").write_text("{")
    assert command("--split", "test")[0] == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 2
    assert "Traceback" not in error


def test_score_image_takes_an_image_without_classes(consep):
    item = load_image(consep, "test", "im_0", SetConfig(), ())
    got = score_image({"": item}, item.labels, pd.DataFrame({"id": [], "class": []}), [])
    assert got.binary.bpq == 1
    assert got.typed == {}
