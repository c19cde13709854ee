import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import Mpp
from napari_nucseg.models.checkpoint import load_student
from napari_nucseg.models.registry import find_model, open_model
from train import evaluate, export, export_checks, formats, loaded, thresholds
from train.colours import class_colours

CONFIGS = Path(export.__file__).parent / "configs"


def test_thresholds_are_searched_on_held_out_images_and_exported_with_the_weights(
    toy_run, monkeypatch, tmp_path, capsys, caplog
):
    caplog.set_level("INFO", "train")
    run = tmp_path / "run"  # a copy, because it is written to
    shutil.copytree(toy_run, run)
    shutil.copy(toy_run.parent / "card.toml", tmp_path)
    monkeypatch.setattr(thresholds, "GRID", {"foreground": (0.05, 0.5), "centre": (0.05,)})
    seen = []
    real = thresholds.Predicted.of
    watched = lambda item, task, card: seen.append(item.name) or real(item, task, card)  # noqa: E731
    monkeypatch.setattr(thresholds.Predicted, "of", watched)
    assert thresholds.main(["--run", str(run / "last.pt"), "--limit", "5"]) == 0
    assert set(seen) == {"im_3"}
    said = capsys.readouterr().out
    assert "over images, then over data sets: 0." in said
    assert "on 1 image." in said
    assert f"Written: {run / 'decode.json'} (foreground 0.05" in said
    assert "fewer than 5 images" in caplog.text
    assert "1 image of toy" in caplog.text
    rules = json.loads((run / "decode.json").read_text())
    how = rules.pop("chosen")
    assert how["images"] == {"toy": [["train", "im_3"]]}
    assert how["after"] > how["before"]
    chosen = DecodeConfig(**rules)
    data = str(json.loads((run / "config.json").read_text())["data"]["root"]) + "/toy"
    wanted = ["--model", str(run), "--data", data, "--split", "train", "--out", str(tmp_path / "results")]
    assert evaluate.main([*wanted, "--draws", "0"]) == 0
    assert "thresholds of run were chosen on 1 of these 4 images" in capsys.readouterr().out
    report = tmp_path / "results" / "run_toy_train.json"
    assert json.loads(report.read_text())["thresholds_chosen_on"] == 1
    out = tmp_path / "model"
    arguments = ["--run", str(run), "--card", str(run.parent / "card.toml"), "--out", str(out)]
    assert export.main([*arguments, "--metrics", str(report)]) == 0
    model = open_model(out)
    assert model.name == "model"  # the folder's
    assert model.card.decode == chosen
    assert list(model.card.metrics) == ["toy/train"]
    assert model.card.training["thresholds"] == how
    assert model.card.training["steps"] == 3
    assert load_student(model).config.widths == (4, 4, 4, 4)


def test_classes_without_a_colour_get_one(toy_run, tmp_path):
    card = tmp_path / "card.toml"
    texts = (toy_run.parent / "card.toml").read_text().partition("[colours]")[0]
    card.write_text(texts + '[colours]\nother = "#E69f00"\n')
    assert export.main(["--run", str(toy_run), "--card", str(card), "--out", str(tmp_path / "m")]) == 0
    colours = open_model(tmp_path / "m").card.colours
    shipped = find_model().card.colours
    assert colours == {name: shipped[name] for name in colours if name != "other"} | {"other": (230, 159, 0)}
    assert class_colours(["a", "b"], {"b": (230, 159, 0)}) == {"a": (86, 180, 233), "b": (230, 159, 0)}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.card.toml")), ids=lambda path: path.name)
def test_the_card_files_there_are_can_be_read(path):
    texts = export_checks.card_texts(path, find_model().card.classes)
    assert texts.licence


def test_weaknesses_may_be_told(toy_run, tmp_path):
    card = tmp_path / "card.toml"
    card.write_text('weaknesses = ["Blind."]\n' + (toy_run.parent / "card.toml").read_text())
    for file, told in ((card, ("Blind.",)), (toy_run.parent / "card.toml", ())):
        out = tmp_path / f"m{len(told)}"
        assert export.main(["--run", str(toy_run), "--card", str(file), "--out", str(out)]) == 0
        assert open_model(out).card.weaknesses == told


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('title = "A toy"', 'title = "A toy"\ntitel = "A toy"', "did you mean 'title'"),
        ("cite = []", 'cite = "Us 2020"', "cite='Us 2020' is not of the kind list of text"),
        *(
            (
                "other = [1, 2, 3]",
                f"other = {bad}",
                "of 'other' is none; give three whole numbers of 0 to 255",
            )
            for bad in ("[1, 2, 300]", "[1, 2]", "'red'", "'#ff00'", "[1.0, 2, 3]", "true")
        ),
        (
            "other = [1, 2, 3]",
            "otter = [1, 2, 3]",
            "'otter', which is no class of the model; did you mean 'other'?",
        ),
        ("other = [1, 2, 3]", "blood = [1, 2, 3]", "its classes are neoplastic, inflammatory"),
    ],
)
def test_a_card_file_with_a_slip_is_one_sentence(toy_run, tmp_path, capsys, old, new, said):
    path = tmp_path / "card.toml"
    path.write_text((toy_run.parent / "card.toml").read_text().replace(old, new))
    assert export.main(["--run", str(toy_run), "--card", str(path), "--out", str(tmp_path / "m")]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert said in error
    assert str(path) in error


def test_openvino_is_made_of_the_model_and_not_of_an_onnx_file_that_lies_there(toy_model, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    stale = tmp_path / "model.onnx"
    stale.write_bytes(b"of other weights")
    arguments = ["--model", str(toy_model.weights.parent), "--out", str(tmp_path), "--formats", "openvino"]
    assert export.main(arguments) == 0
    assert stale.read_bytes() == b"of other weights"


def test_two_reports_on_the_same_images(tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        path.write_text('{"data": "toy/test", "AJI": 0.5}')
    model = export_checks.Exported(Path("r"), "w", "s", {})
    with pytest.raises(NucSegError, match="don't say which model"):
        export_checks.read_reports(paths, model)
    for path in paths:
        path.write_text('{"data": "toy/test", "AJI": 0.5, "model": {"sha256": "s"}}')
    with pytest.raises(NucSegError, match=r"a\.json' and .*b\.json' are both of toy/test"):
        export_checks.read_reports(paths, model)


def test_figures_of_another_model_never_go_on_a_card(tmp_path):
    model = export_checks.Exported(tmp_path / "run", "w", "s", {"centre": 0.5})
    path = tmp_path / "a.json"
    for about, of_this in (
        ({"model": {"name": "x", "run": "elsewhere", "weights": "w"}}, True),
        ({"model": {"name": "x", "sha256": "s"}, "thresholds": {"centre": 0.5}}, True),
        ({"model": {"name": "x", "run": str(tmp_path / "y" / ".." / "run")}}, True),  # of an earlier version
        ({"model": {"name": "x", "run": str(tmp_path / "run"), "weights": "v"}}, False),  # it trained on
        ({"model": {"name": "x", "run": "runs/other"}}, False),
        ({"model": {"name": "x", "sha256": "t"}}, False),
        ({"model": {"name": "x", "sha256": "s"}, "thresholds": {"centre": 0.4}}, False),
    ):
        path.write_text(json.dumps(about))
        if of_this:
            assert list(export_checks.read_reports([path], model)) == ["a"]
            continue
        with pytest.raises(NucSegError, match=r"of other weights|with other thresholds.*train\.evaluate"):
            export_checks.read_reports([path], model)


def test_an_export_keeps_away_from_what_is_no_model_and_checks_first(toy_run, tmp_path, capsys):
    own = ["--run", str(toy_run), "--card", str(toy_run.parent / "card.toml")]
    for folder, said in ((toy_run, "no model"), (toy_run / "config.json", "is a file")):
        assert export.main([*own, "--out", str(folder)]) == 2
        assert said in capsys.readouterr().err
    assert not (toy_run / "card.json").exists()
    out = tmp_path / "m"
    assert export.main([*own, "--out", str(out), "--formats", "torchscript", "tflite"]) == 2
    assert "'tflite' is not one of onnx, openvino, torchscript" in capsys.readouterr().err
    assert not out.exists()
    assert export.main([*own, "--out", str(out)]) == 0
    assert export.main([*own, "--out", str(out)]) == 0  # an earlier export of the same run
    card = out / "card.json"
    card.write_text(card.read_text().replace('"run": ', '"run": "of/another", "was": '))
    assert export.main([*own, "--out", str(out)]) == 2
    assert "holds another model, m 0.1; give another --out, or write over it by" in capsys.readouterr().err
    assert export.main([*own, "--replace", "--out", str(out)]) == 0
    card.write_text("{")
    assert export.main([*own, "--out", str(out)]) == 2
    assert "with a damaged card" in capsys.readouterr().err.splitlines()[-1]


def test_a_report_on_the_exported_model_goes_on_its_own_card(toy_run, tmp_path, dataset):
    own = ["--run", str(toy_run), "--card", str(toy_run.parent / "card.toml"), "--out", str(tmp_path / "m")]
    assert export.main(own) == 0
    wanted = ["--data", str(dataset / "toy"), "--split", "test", "--limit", "1", "--draws", "0"]
    made = tmp_path / "results"
    assert evaluate.main(["--model", str(tmp_path / "m"), *wanted, "--out", str(made)]) == 0
    (report,) = made.glob("*.json")
    assert export.main([*own, "--metrics", str(report)]) == 0
    assert list(open_model(tmp_path / "m").card.metrics) == ["toy/test (first 1 of 4)"]


def test_converted_files_never_go_under_the_card_of_another_model(toy_run, toy_model, tmp_path, capsys):
    own = ["--model", str(toy_model.weights.parent), "--out", str(tmp_path), "--formats", "torchscript"]
    for unused in (["--card", "card.toml"], ["--metrics", "figures.json"]):
        assert export.main([*own, *unused]) == 2
        assert "--card and --metrics go with --run" in capsys.readouterr().err
    assert export.main(own) == 0
    assert export.main(own) == 0  # again, of the same
    card = tmp_path / "card.json"
    card.write_text(card.read_text().replace('"mpp": 0.25', '"mpp": 0.5'))
    assert export.main(own) == 2
    assert "holds another model than toy 0.1" in capsys.readouterr().err
    run = ["--run", str(toy_run), "--card", str(toy_run.parent / "card.toml"), "--out", str(tmp_path)]
    assert export.main(run) == 0  # an earlier export of the same run
    assert "model.torchscript' is of earlier weights" in capsys.readouterr().out


def test_damaged_thresholds_and_devices_that_are_not_there_are_one_sentence(toy_run, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(toy_run, run)
    (run / "decode.json").write_text('{"foregruond": 0.5}')
    with pytest.raises(NucSegError, match=r"decode\.json' cannot be read .*foregruond.*train\.thresholds"):
        loaded.load(str(run), "cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for device, said in (("cuda", "finds no CUDA device"), ("gpu", "not one of auto, cuda, cpu, cpu-torch")):
        with pytest.raises(NucSegError, match=said):
            loaded.load(str(toy_run), device)
        assert thresholds.main(["--run", str(toy_run), "--device", device]) == 2


@pytest.mark.parametrize("name", ["onnx", "openvino", "torchscript"])
def test_a_converted_file_agrees_with_the_network_for_other_sizes_and_batches(
    name, toy_model, tmp_path, capsys
):
    if name != "torchscript":
        pytest.importorskip("onnx")
        pytest.importorskip("openvino")
    out = tmp_path / "converted"
    arguments = ["--model", str(toy_model.weights.parent), "--out", str(out), "--formats", name]
    assert export.main(arguments) == 0
    file, _, load = formats.FORMATS[name]
    assert f"{file} (" in capsys.readouterr().out
    assert not list(out.glob("*tmp*"))
    _, network = load(out / file)
    maps = network(np.zeros((5, 48, 16, 3), np.uint8))
    assert maps.shape == (5, toy_model.card.layout.channels, 48, 16)


def test_a_converted_file_that_differs_is_refused_and_taken_away(toy_model, tmp_path, monkeypatch, capsys):
    file, write, load = formats.FORMATS["torchscript"]

    def wrong(path):
        by, network = load(path)
        return by, lambda rgb: network(rgb) + np.float32(0.01)

    monkeypatch.setitem(formats.FORMATS, "torchscript", (file, write, wrong))
    arguments = ["--model", str(toy_model.weights.parent), "--out", str(tmp_path), "--formats", "torchscript"]
    assert export.main(arguments) == 2
    error = capsys.readouterr().err
    assert "largest difference 1.0e-02" in error
    assert "above the limit of 0.001" in error
    assert not (tmp_path / file).exists()
    assert export.main([*arguments, "limit=0.02"]) == 0


def test_maps_that_are_no_numbers_are_never_accepted(toy_model, tmp_path):
    path = formats.to_torchscript(toy_model, tmp_path / "t")
    broken = lambda path: ("nothing", lambda rgb: formats.run_torchscript(path)[1](rgb) * np.nan)  # noqa: E731
    assert formats.check(toy_model, path, broken).worst == float("inf")


def test_a_missing_package_is_told_in_one_sentence(toy_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    arguments = ["--model", str(toy_model.weights.parent), "--out", str(tmp_path), "--formats"]
    assert export.main([*arguments, "onnx"]) == 2
    assert export.main([*arguments, "openvino"]) == 2
    assert export.main([*arguments, "coreml"]) == 2
    assert export.main(arguments[:-1]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [("pip install onnx" in lines[0]), ("pip install openvino" in lines[1])] == [True, True]
    assert "'coreml' is not one of onnx, openvino, torchscript" in lines[2]
    assert len(lines) == 4


def test_an_exported_ir_can_be_evaluated(toy_model, tmp_path):
    pytest.importorskip("openvino")
    folder = str(toy_model.weights.parent)
    assert export.main(["--model", folder, "--out", str(tmp_path), "--formats", "openvino"]) == 0
    found = loaded.load(str(tmp_path / "model.xml"))
    assert found.card == toy_model.card
    rgb = np.random.default_rng(0).integers(0, 255, (32, 64, 3), dtype=np.uint8)
    wanted = loaded.load(folder, "cpu-torch").runtime(rgb)
    assert np.abs(found.runtime(rgb) - wanted).max() < 0.1  # bf16 where the CPU has it
    assert str(found) == "toy-model 0.1"


def test_runs_and_their_checkpoints_can_be_evaluated(toy_run):
    for path, name in ((toy_run, "run"), (toy_run / "last.pt", "run-last")):
        found = loaded.load(str(path), "cpu")
        assert found.name == name
        assert found.runtime(np.zeros((32, 32, 3), np.uint8)).shape == (13, 32, 32)
    labels, nuclei = found.segment(np.full((64, 64, 3), 200, np.uint8), Mpp(0.25, "test"))
    assert labels.shape == (64, 64)
    assert len(nuclei) == len(np.unique(labels)) - 1


def test_missing_runs_and_cards_are_told_in_one_sentence(toy_run, tmp_path, capsys):
    assert thresholds.main(["--run", str(tmp_path / "none")]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    (tmp_path / "card.toml").write_text('title = "x"\n')
    bad = ["--run", str(toy_run), "--card", str(tmp_path / "card.toml"), "--out", str(tmp_path / "m")]
    assert export.main(bad) == 2
    assert "lacks 'version'" in capsys.readouterr().err
    assert export.main(["--out", str(tmp_path / "m")]) == 2
    assert export.main(["--out", str(tmp_path / "m"), "--run", str(toy_run)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert ["either --run" in errors[0], "--card is missing" in errors[1]] == [True, True]
