"""Evaluation on a tiny data set with predictions whose scores are known."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_nucseg.core.metrics import average_pq
from napari_nucseg.errors import NucSegError
from tests.fakes import CLASSES, fake_card
from train import evaluate as ev
from train import loaded, report
from train.data import SetConfig, load_image
from train.intervals import Difference
from train.loaded import Loaded
from train.scores import PER_IMAGE, PER_ORGAN, POOLED, Figure, figures, score_image
from train.selection import training_data
from train.tally import Tally


def select(folder, split="", **more):
    return ev.select(ev.Wanted(folder, split, **more))


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
    chosen = select(folder, "test")
    schemes = ev.schemes_for(chosen, CLASSES)
    scores = list(ev.evaluate(chosen, schemes, segment))
    return scores, schemes, {f.name: f for f in figures(scores, schemes)}


def test_a_perfect_prediction_scores_one_everywhere(consep):
    _, _, found = score(consep, predictor(consep))
    seen = [f for f in found.values() if not np.isnan(f.value)]
    assert len(seen) > 12
    assert all(f.value == pytest.approx(1) for f in seen)
    assert {"F1_c spindle (consep4)", "mPQ (own)", "mPQ+ (own)", "AJI+"} <= set(found)


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
    assert found["F1_c epithelial (own)"].value == 0
    assert found["F1_c neoplastic (own)"].value < 1
    assert found["F1_c epithelial (consep4)"].value == pytest.approx(1)
    assert found["mPQ (consep4)"].value == pytest.approx(1)
    assert found["mPQ+ (own)"].value < 1
    assert found["F1_d"].value == pytest.approx(1)


def test_ids_of_a_prediction_may_be_any_and_in_any_order(consep):
    def renumber(labels, ids, names):
        new = {i: 90_000 - 7 * i for i in ids.tolist()}
        out = np.zeros(labels.shape, np.int64)
        for old, i in new.items():
            out[labels == old] = i
        return out, np.array([new[i] for i in ids.tolist()])[::-1], names[::-1]

    _, _, found = score(consep, predictor(consep, renumber))
    assert found["F1_c inflammatory (own)"].value == pytest.approx(1)
    assert found["mPQ (own)"].value == pytest.approx(1)


def test_an_empty_prediction_is_zero_and_no_error(consep):
    def nothing(labels, ids, names):
        return np.zeros_like(labels), ids[:0], []

    _, _, found = score(consep, predictor(consep, nothing))
    assert [found[n].value for n in ("Dice", "AJI", "bPQ", "F1_d", "mPQ (own)")] == [0] * 5


@pytest.mark.parametrize(("mpp", "paired"), [(0.25, True), (0.5, False)])
def test_centroids_are_paired_within_3_um(consep, mpp, paired):
    """10 px are 2.5 um at 0.25 um/px and 5 um at 0.5."""
    meta = json.loads((consep / "dataset.json").read_text())
    (consep / "dataset.json").write_text(json.dumps(meta | {"mpp": mpp}))
    chosen = select(consep, "test", limit=1)
    blank = np.zeros((128, 128), np.uint16)
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
    del meta["merge_pannuke"]["connective"], meta["merge_consep4"]
    meta["classes"][meta["classes"].index("connective")] = "stroma"
    (consep / "dataset.json").write_text(json.dumps(meta))

    def all_other(labels, ids, names):
        return labels, ids, [n if n != "connective" else "inflammatory" for n in names]

    segment = predictor(consep, all_other)
    _, _, found = score(consep, segment)
    for name in ("F1_c inflammatory", "PQ inflammatory", "mPQ", "mPQ+"):
        assert found[f"{name} (own)"].value == pytest.approx(1), name

    def invent(labels, ids, names):
        labels, ids, names = all_other(labels, ids, names)
        row, col = np.argwhere(labels == 0)[0]
        labels = labels.copy()
        labels[row, col] = labels.max() + 1
        return labels, np.append(ids, labels.max()), [*names, "inflammatory"]

    _, _, found = score(consep, predictor(consep, invent))
    assert found["mPQ+ (own)"].value < 1  # what lies on no nucleus is invented whatever its class


# selection


def test_a_set_without_classes_has_no_class_figures(consep):
    shutil.rmtree(consep / "test" / "types")
    assert ev.schemes_for(select(consep, "test"), CLASSES) == []


def test_held_out_images_are_those_of_the_config(consep, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('[data.sets.consep]\nheld_out = ["im_1", "im_3"]\nmerge = "merge_pannuke"\n')
    assert select(consep, "train", held_out=config).names == ("im_1", "im_3")
    assert select(consep, held_out=config, limit=1).what == "consep/validation (first 1 of 2)"
    assert select(consep, held_out=config).config.merge == "merge_pannuke"
    with pytest.raises(NucSegError, match="No image"):
        select(consep, "test", held_out=config)
    config.write_text('[distill.data.sets.consep]\nheld_out = ["im_2"]\n[teach]\nrun = "t"\n')
    assert select(consep, held_out=config).names == ("im_2",)
    shared = '[data.sets.consep]\nheld_out = ["im_1"]\n'
    more = "[distill.data.sets.monuseg]\nlabelled = false\n[teach.data.sets.consep]\nweight = 3\n"
    config.write_text(shared + more)
    assert select(consep, held_out=config).names == ("im_1",)
    assert set(training_data(config).sets) == {"consep", "monuseg"}
    config.write_text("[data.sets.monuseg]\nweight = 1\n")
    with pytest.raises(NucSegError, match="has no data set 'consep'"):
        select(consep, "train", held_out=config)


def test_what_one_command_holds_out_and_another_trains_on_is_no_validation(consep, tmp_path):
    config = tmp_path / "c.toml"
    shared = '[data.sets.consep]\nheld_out = ["im_1"]\n'
    config.write_text(shared + '[distill.data.sets.consep]\nheld_out = ["im_2"]\n')
    with pytest.raises(
        NucSegError, match=r"divides 'consep' differently for fit and distill; give the folder"
    ):
        select(consep, held_out=config)
    config.write_text(shared + '[teach.data]\nroot = "elsewhere"\n')
    with pytest.raises(NucSegError, match="different things of the data"):
        select(consep, held_out=config)


def test_a_stated_resolution_is_heeded_whatever_the_data_say(consep):
    (consep / "index.csv").write_text("name,mpp\nim_1,0.3\n")
    for given, wanted in ((None, [0.25, 0.3]), (0.5, [0.5, 0.5])):
        chosen = select(consep, "test", mpp=given)
        assert [chosen.load(i, None).mpp for i in chosen.items[:2]] == wanted
    with pytest.raises(NucSegError):
        select(consep, "test", mpp=-1.0)


def test_bad_selections_are_one_sentence(consep, tmp_path):
    with pytest.raises(NucSegError, match="is not a data set"):
        select(tmp_path / "consep" / "test" / "types", "test")
    with pytest.raises(NucSegError, match="is not a folder"):
        select(tmp_path / "none")
    with pytest.raises(NucSegError, match=r"not a folder; did you mean 'consep'\?"):
        select(tmp_path / "consap")
    with pytest.raises(NucSegError, match="No image"):
        select(consep, "test", limit=0)
    with pytest.raises(NucSegError, match="choose one with --split: test, train"):
        select(consep)
    with pytest.raises(NucSegError, match="no split 'tset'; there are test, train"):
        select(consep, "tset")
    with pytest.raises(NucSegError, match="plain folder, leave --split out"):
        select(consep / "test", "test")


def test_the_merge_with_most_of_the_models_classes_is_found_or_named(consep):
    chosen = select(consep, "test")
    own, four = ev.schemes_for(chosen, CLASSES)
    assert (own.merge, four.merge) == ("merge_pannuke", "merge_consep4")
    (two,) = ev.schemes_for(chosen, ("neoplastic", "inflammatory", "lymphocyte"), "merge_two")
    assert two.merge == "merge_two"
    assert ev.schemes_for(chosen, ("grain", "dust")) == []
    with pytest.raises(NucSegError, match=r"'merge_x' is not in dataset\.json; there are: merge_two"):
        ev.schemes_for(chosen, CLASSES, "merge_x")


# plain folders


def item(chosen, name):
    return next(i for i in chosen.items if i.name == name)


@pytest.fixture
def plain(consep, tmp_path):
    """The test images without anything that says what they are."""
    folder = tmp_path / "tiles"
    shutil.copytree(consep / "test", folder)
    return folder


def test_a_plain_folder_is_scored_with_stated_resolution_and_classes(plain, consep):
    names = tuple(json.loads((consep / "dataset.json").read_text())["classes"][1:])
    chosen = select(plain, classes=names, mpp=0.25)
    assert chosen.what == "tiles"
    schemes = ev.schemes_for(chosen, CLASSES)
    scores = list(ev.evaluate(chosen, schemes, predictor(consep)))
    found = {f.name: f.value for f in figures(scores, schemes)}
    assert found["mPQ (own)"] == pytest.approx(1)
    assert found["bPQ"] == 1


def test_a_plain_folder_that_says_nothing_is_asked_for_its_resolution_and_scored_without_classes(plain):
    chosen = select(plain)
    assert ev.schemes_for(chosen, CLASSES) == []
    with pytest.raises(NucSegError, match=r"resolution of .*im_0\.png' is not known"):
        chosen.load(item(chosen, "im_0"), None)


def test_truth_that_does_not_fit_is_one_sentence(plain):
    chosen = select(plain, classes=("a",), mpp=0.25)
    scheme = ev.Scheme("x", ("a",), {"a": "a"})
    with pytest.raises(NucSegError, match=r"has class [2-5], but only 1 have names"):
        chosen.load(item(chosen, "im_0"), scheme)
    Image.fromarray(np.zeros((5, 7), np.uint16)).save(plain / "instances" / "im_1.png")
    with pytest.raises(NucSegError, match="7 x 5 pixels but its image of 128 x 128"):
        chosen.load(item(chosen, "im_1"), None)
    (plain / "index.csv").write_text("name,mpp\nim_3,fine\n")
    chosen = select(plain)
    with pytest.raises(NucSegError, match="'fine' is stated as mpp"):
        chosen.load(item(chosen, "im_3"), None)
    (plain / "instances" / "im_2.png").unlink()
    with pytest.raises(NucSegError, match="has no labels"):
        select(plain)


def test_a_class_map_brings_the_truth_to_the_classes_of_the_model(consep, tmp_path):
    mapping = {"tumour": ["neoplastic"], "round": ["inflammatory"]}
    rest = [c for c in CLASSES if c not in ("neoplastic", "inflammatory")]
    path = tmp_path / "map.toml"
    lines = [f"{k} = {json.dumps(v)}" for k, v in mapping.items()]
    path.write_text("\n".join([f"ignore = {json.dumps(rest)}", "[classes]", *lines]))
    chosen = select(consep, "test", class_map=path)
    (scheme,) = ev.schemes_for(chosen, ("round", "other thing", "tumour"))
    own = chosen.load(chosen.items[0], ev.schemes_for(select(consep, "test"), CLASSES)[0]).types
    got = chosen.load(chosen.items[0], scheme).types
    assert (got[own == CLASSES.index("neoplastic") + 1] == 3).all()
    assert (got[own == CLASSES.index("inflammatory") + 1] == 1).all()
    assert set(np.unique(got)) <= {0, 1, 3, 255}


# organs


def test_means_over_organs_weigh_each_organ_the_same(consep):
    rows = ["split,name,mpp,organ", *(f"test,{n},0.25,{o}" for n, o in zip(NAMES, "AAAB", strict=True))]
    (consep / "index.csv").write_text("\n".join([*rows, "train,im_0,0.25,C"]))

    def drop(labels, ids, names):
        kept = ids[:: 1 + len(ids) % 3]
        return np.where(np.isin(labels, kept), labels, 0), kept, names[:: 1 + len(ids) % 3]

    scores, schemes, found = score(consep, predictor(consep, drop))
    assert [s.organ for s in scores] == ["A", "A", "A", "B"]
    tally = Tally(scores, schemes)
    organs = tally.by_organ()
    assert list(organs) == ["A", "B"]
    means = {f.name: f for f in tally.organ_means()}
    both = [{f.name: f.value for f in organs[o]}["AJI"] for o in "AB"]
    assert means["AJI"].value == pytest.approx(np.mean(both))
    assert means["AJI"].value != pytest.approx(found["AJI"].value)
    assert {f.averaging for f in means.values()} == {PER_ORGAN}
    published = average_pq([s.typed["own"].pq for s in scores], list("AAAB"))
    assert means["bPQ"].value == pytest.approx(published.bpq_tissues)
    assert means["mPQ (own)"].value == pytest.approx(published.mpq_tissues)


def test_the_organ_of_a_whole_set_is_known_from_its_description(consep):
    chosen = select(consep, "test")
    assert chosen.organ(chosen.items[0]) is None
    meta = json.loads((consep / "dataset.json").read_text())
    (consep / "dataset.json").write_text(json.dumps(meta | {"organ": "colon"}))
    chosen = select(consep, "test")
    assert chosen.organ(chosen.items[0]) == "colon"


# the command


def half(labels, ids, names):
    return np.where(np.isin(labels, ids[::2]), labels, 0), ids[::2], names[::2]


@pytest.fixture
def command(consep, monkeypatch, tmp_path):
    class Fake(Loaded):
        def segment(self, image, mpp):
            change = half if self.name == "worse" else lambda *same: same
            return predictor(consep, change)(image, mpp)

    class Runtime:
        name = "nothing"

    def load(what, device):
        return Fake(what, fake_card(), Runtime(), {"name": what})

    monkeypatch.setattr(loaded, "load", load)

    def run(*args):
        out = tmp_path / "results"
        return ev.main(["--data", str(consep), "--out", str(out), "--draws", "20", *args]), out

    return run


def test_the_command_prints_a_row_for_the_readme_and_writes_both_files(command, capsys):
    code, out = command("--split", "test", "model=fake")
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
    assert report["command"].endswith("--split test model=fake")
    with (out / "fake_consep_test_images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["name"] for r in rows] == list(NAMES)
    assert float(rows[0]["AJI"]) == 1
    assert {"PQ inflammatory (own)", "mPQ (consep4)"} <= set(rows[0])


def test_two_models_are_compared_on_the_same_images(command, consep, capsys):
    (consep / "index.csv").write_text(
        "name,mpp,organ\n" + "".join(f"{n},0.25,{o}\n" for n, o in zip(NAMES, "ABAB", strict=True))
    )
    code, out = command("--split", "test", "--model", "fake", "--compare", "worse")
    assert code == 0
    text = capsys.readouterr().out
    assert "fake 1 minus worse 1, the same 4 images: above 0, fake 1 is better" in text
    assert "bPQ of fake 1 is higher on 4 of 4 images" in text
    assert "computed differently" not in text
    assert "| A | 2 |" in text
    report = json.loads((out / "fake_vs_worse_consep_test.json").read_text())
    found = {(d["name"], d["averaging"]): d for d in report["comparison"]["differences"]}
    for averaging in (PER_IMAGE, PER_ORGAN):
        d = found["bPQ", averaging]
        assert d["value"] == 1
        assert d["difference"] == pytest.approx(1 - d["base"])
        assert 0 < d["low"] <= d["difference"] <= d["high"]
    assert report["second"]["model"] == {"name": "worse"}
    with (out / "fake_vs_worse_consep_test_images.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["bPQ [1-2]"]) == pytest.approx(float(row["bPQ"]) - float(row["bPQ [2]"]))
    assert int(row["pred_nuclei [2]"]) < int(row["pred_nuclei"])


def test_both_tables_give_a_model_the_same_figures_and_leave_out_what_is_not_defined(command, consep, capsys):
    """Also of a class that no image holds and that a model made up."""
    meta = json.loads((consep / "dataset.json").read_text())
    del meta["merge_consep4"], meta["merge_pannuke"]["other"]
    meta["merge_pannuke"]["connective"] = ["connective", "other"]
    (consep / "dataset.json").write_text(json.dumps(meta))
    models = ["--model", "fake", "--compare", "worse", "--merge", "merge_pannuke"]
    code, out = command("--split", "test", *models)
    assert code == 0
    text = capsys.readouterr().out
    assert "These images hold no nuclei for F1_c other (own), PQ other (own), which are left out" in text
    assert not any("other (own)" in line for line in text.splitlines() if line.startswith("|"))
    report = json.loads((out / "fake_vs_worse_consep_test.json").read_text())
    alone = {f["name"]: f["value"] for f in report["figures"]}
    assert alone["F1_c other (own)"] is None
    assert alone == {d["name"]: d["value"] for d in report["comparison"]["differences"]}


@pytest.mark.parametrize(
    ("models", "device", "wanted"),
    [
        (("run", "default"), "cpu", "cpu-torch"),
        (("default", "run"), "cpu", "cpu-torch"),
        (("run", "run/last.pt"), "cpu", "cpu"),
        (("default", None), "cpu", "cpu"),
        (("run", None), "cpu", "cpu"),
    ],
)
def test_a_run_is_compared_with_a_model_by_the_same_runtime(tmp_path, monkeypatch, models, device, wanted):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert ev.alike(ev.EvaluateConfig(tmp_path, model=models[0], compare=models[1], device=device)) == wanted


def test_models_that_are_computed_differently_are_told(command, monkeypatch, capsys):
    class Other:
        name = "something else"

    fake = loaded.load
    changed = lambda what, device: dataclasses.replace(fake(what, device), runtime=Other())  # noqa: E731
    monkeypatch.setattr(
        loaded, "load", lambda what, device: (changed if what == "worse" else fake)(what, device)
    )
    assert command("--split", "test", "--model", "fake", "--compare", "worse")[0] == 0
    assert (
        "fake 1 by nothing and worse 1 by something else: a part of the difference" in capsys.readouterr().out
    )


def test_a_config_file_does_what_the_flags_do(command, tmp_path):
    path = tmp_path / "evaluate.toml"
    path.write_text('split = "test"\nmodel = "fake"\nlimit = 2\n')
    code, out = command("--config", str(path), "limit=1")
    assert code == 0
    report = json.loads((out / "fake_consep_test_first_1_of_4.json").read_text())
    assert report["images"] == 1


def test_a_part_of_the_images_does_not_replace_the_report_on_all(command):
    for more in ([], ["limit=1"]):
        code, out = command("--split", "test", "model=fake", *more)
        assert code == 0
    assert json.loads((out / "fake_consep_test.json").read_text())["images"] == 4


@pytest.mark.parametrize(
    ("held", "count", "said"),
    [
        (None, None, "may be training images of fake"),
        (["im_1", "im_3"], 2, "training of fake, or of what it learnt from, had 2 of these 4 images"),
    ],
)
def test_images_of_the_training_are_told(command, consep, monkeypatch, capsys, held, count, said):
    own = {"data": {"sets": {"consep": {"held_out": held}}}} if held else {}
    card = dataclasses.replace(fake_card(), training={"config": own})
    shutil.rmtree(consep / "train")
    shutil.copytree(consep / "test", consep / "train")
    fake = loaded.load("fake", "cpu")
    monkeypatch.setattr(loaded, "load", lambda *given: dataclasses.replace(fake, card=card))
    code, out = command("--split", "train", "model=fake")
    assert code == 0
    assert said in capsys.readouterr().out
    assert json.loads((out / "fake_consep_train.json").read_text())["trained_on"] == count


def test_the_command_tells_errors_in_one_sentence(command, consep, capsys):
    assert command()[0] == 2  # a data set is never opened without saying which split
    assert command("--split", "test", "--held-out", "nothing.toml")[0] == 2
    assert command("--split", "test", "spilt=test")[0] == 2
    (consep / "dataset.json").write_text("{")
    assert command("--split", "test")[0] == 2
    error = capsys.readouterr().err
    assert "did you mean 'split'?" in error
    assert len(error.splitlines()) == 4
    assert "Traceback" not in error


def test_help_lists_every_key_with_its_meaning(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "held_out = not set" in text
    assert "first minus second" in text


def test_score_image_takes_an_image_without_classes(consep):
    item = load_image(consep, "test", "im_0", SetConfig(), ())
    got = score_image({"": item}, item.labels, pd.DataFrame({"id": [], "class": []}), [])
    assert got.binary.bpq == 1
    assert got.typed == {}


def test_tables_know_a_class_with_brackets_from_the_scheme_behind_it():
    found = [Figure("Dice", PER_IMAGE, 0.5), Figure("PQ T (CD8) (own)", PER_IMAGE, 0.25)]
    first, second = report.readme_rows(found, "x/val", 3).split("\n\n")
    assert "| x/val | 3 | 0.500 |" in first
    assert "| set | images | PQ T (CD8) |" in second
    assert "| x/val, classes own | 3 | 0.250 |" in second


def test_tables_say_which_model_is_better_and_what_is_not_there():
    nan = float("nan")
    rows = report.difference_table(
        [
            Difference("a", PER_IMAGE, 0.5, 0.4, -0.1, -0.2, -0.05),
            Difference("b", PER_IMAGE, 0.5, 0.6, 0.1, -0.1, 0.3),
            Difference("c", PER_IMAGE, 0.0, nan, nan),
            Difference("d", PER_IMAGE, nan, nan, nan),
        ],
        "other", "mine 1",
    ).splitlines()  # fmt: skip
    assert rows[0] == "| figure | other | mine 1 | mine 1 minus other | 95 % interval | better | averaging |"
    assert rows[2] == f"| a | 0.500 | 0.400 | -0.100 | -0.200 to -0.050 | other | {PER_IMAGE} |"
    assert "| not clear |" in rows[3]
    assert rows[4] == f"| c | 0.000 | - | - | - | not clear | {PER_IMAGE} |"
    assert "- in place of a figure: these images hold no such nuclei." in rows
    assert rows[-1].startswith("These images hold no nuclei for d, which are left out")
    assert "nan" not in report.table([Figure("a", PER_IMAGE, nan)])
    assert "hold no nuclei" not in report.table([Figure("a", PER_IMAGE, 0.5)])
    words = [report.counted(n, what) for n in (1, 2000) for what in ("image", "nucleus")]
    assert words == ["1 image", "1 nucleus", "2,000 images", "2,000 nuclei"]
