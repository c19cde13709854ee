"""The command line: what it writes, what it refuses and how it says so."""

from __future__ import annotations

import builtins
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

import napari_nucseg
from napari_nucseg import cli, doctor
from napari_nucseg._cli import batch, inputs, sample
from napari_nucseg.core.synthetic import synthetic_he
from napari_nucseg.errors import NucSegError
from napari_nucseg.models import registry, runtime
from napari_nucseg.models.registry import Model
from tests.fakes import FakeRuntime, fake_card

KINDS = ("instances.tif", "nuclei.csv", "nuclei.geojson")
DPI = (101600, 101600)  # 0.25 um per pixel


@pytest.fixture
def loads(monkeypatch):
    """Put a network without weights in place of the real one; return the list of loads."""
    asked = []

    def load(cls, model, device):
        asked.append((model, device))
        return cls(Model(Path("fake.safetensors"), fake_card(caution="A threshold.")), FakeRuntime())

    monkeypatch.setattr(batch.Loaded, "of", classmethod(load))
    return asked


@pytest.fixture
def image():
    return synthetic_he((96, 128)).image


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def save(path, image, known=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **({"dpi": DPI} if known else {}))
    return path


def run(*args):
    return cli.main([str(a) for a in args])


def written(folder):
    """The results in a folder, without the reports on them."""
    reports = ("_summary.json", "manifest.csv")
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(reports)) if folder.is_dir() else []


def one_sentence(text):
    lines = [line for line in text.splitlines() if line]
    return len(lines) == 1 and "Traceback" not in text


# segment: what it writes


def test_segment_writes_the_three_files_and_says_so(tmp_path, out, image, loads, capsys):
    assert run("segment", save(tmp_path / "a.png", image), "-o", out) == 0
    assert written(out) == [f"a_{kind}" for kind in KINDS]
    labels = tifffile.imread(out / "a_instances.tif")
    table = pd.read_csv(out / "a_nuclei.csv")
    assert labels.shape == image.shape[:2]
    assert labels.dtype == np.uint32
    assert len(table) > 3
    assert set(table["id"]) == set(np.unique(labels)) - {0}
    assert len(json.loads((out / "a_nuclei.geojson").read_text())["features"]) == len(table)
    line, density, where = capsys.readouterr().out.splitlines()
    assert f"segmented, {len(table)} nuclei, " in density
    assert line.startswith(f"a.png: {len(table)} nuclei, 0.01 MP in ")
    assert "0.25 µm/px (PNG resolution), fake (CPU)" in line
    assert "MP/s" in line
    assert "Results in" in where


def test_formats_are_those_asked_for(tmp_path, out, image, loads):
    assert run("segment", save(tmp_path / "a.png", image), "-o", out, "--format", "CSV, geojson") == 0
    assert written(out) == ["a_nuclei.csv", "a_nuclei.geojson"]


def test_stated_mpp_overrides_the_file(tmp_path, out, image, loads, capsys):
    assert run("segment", save(tmp_path / "a.png", image), "-o", out, "--mpp", "0.5", "--format", "csv") == 0
    assert "0.5 µm/px (stated by the user)" in capsys.readouterr().out


def test_several_images_load_the_model_once(tmp_path, out, image, loads):
    paths = [save(tmp_path / f"{name}.png", image) for name in "abc"]
    assert run("segment", *paths, "-o", out, "--device", "cpu", "--model", "m") == 0
    assert loads == [("m", "cpu")]
    assert len(written(out)) == 9


def test_a_folder_stands_for_its_images(tmp_path, out, image, loads):
    folder = tmp_path / "scans"
    for name in ("b.png", "a.JPG.png", ".hidden.png", "x_instances.tif", "deeper/c.png"):
        if name.endswith("tif"):
            tifffile.imwrite(folder / name, np.zeros((32, 32), np.uint32))
        else:
            save(folder / name, image)
    (folder / "notes.txt").write_text("no image")
    assert run("segment", folder, folder / "b.png", "-o", out, "--format", "csv") == 0
    assert written(out) == ["a.JPG_nuclei.csv", "b_nuclei.csv"]


def test_ome_tif_loses_both_extensions(tmp_path, out, image, loads):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path,
        image,
        photometric="rgb",
        metadata={
            "axes": "YXS",
            "PhysicalSizeX": 0.25,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": 0.25,
            "PhysicalSizeYUnit": "µm",
        },
    )
    assert run("segment", path, "-o", out, "--format", "csv") == 0
    assert written(out) == ["a_nuclei.csv"]


# segment: what it refuses


def test_unknown_mpp_is_refused_before_anything_is_computed(tmp_path, out, image, loads, capsys):
    assert run("segment", save(tmp_path / "b.png", image, known=False), "-o", out) == 2
    error = capsys.readouterr().err
    assert "b.png" in error
    assert "--mpp 0.25" in error
    assert one_sentence(error)
    assert not loads
    assert not out.exists()


def test_an_image_of_unknown_mpp_does_not_stop_the_others(tmp_path, out, image, loads, capsys):
    known, unknown = save(tmp_path / "a.png", image), save(tmp_path / "b.png", image, known=False)
    assert run("segment", known, unknown, "-o", out, "--format", "csv") == 1
    assert "b.png" in capsys.readouterr().err
    assert (out / "a_nuclei.csv").is_file()
    assert "--mpp 0.25" in (out / "manifest.csv").read_text()


@pytest.mark.parametrize("mpp", ["abc", "0", "-1", "nan", "250"])
def test_an_impossible_mpp_is_refused(tmp_path, out, image, loads, capsys, mpp):
    assert run("segment", save(tmp_path / "a.png", image), "-o", out, "--mpp", mpp) == 2
    assert f"'{mpp}'" in capsys.readouterr().err


def test_an_empty_folder_and_one_without_images(tmp_path, out, loads, capsys):
    (tmp_path / "empty").mkdir()
    assert run("segment", tmp_path / "empty", "-o", out) == 2
    error = capsys.readouterr().err
    assert "is empty" in error
    assert one_sentence(error)
    (tmp_path / "empty" / "a.csv").touch()
    assert run("segment", tmp_path / "empty", "-o", out) == 2
    assert "holds no image" in capsys.readouterr().err


@pytest.mark.parametrize("mpp", [(), ("--mpp", "0.25")])
def test_bad_images_cost_a_sentence_each_and_not_the_others(tmp_path, out, image, loads, capsys, mpp):
    good = save(tmp_path / "good.png", image)
    cut, text, tiny = tmp_path / "cut.png", tmp_path / "text.tif", tmp_path / "tiny.png"
    cut.write_bytes(good.read_bytes()[:500])
    text.write_text("no image")
    save(tiny, image[:1, :1])
    bad = (cut, text, tiny, tmp_path / "missing.png")
    assert run("segment", *bad, good, "-o", out, *mpp) == 1
    said = capsys.readouterr()
    complaints = [line for line in said.err.splitlines() if not line.startswith("fake 1 on")]
    assert sorted(c.split()[0].rstrip(":").rpartition("/")[2] for c in complaints) == sorted(
        p.name for p in bad
    )
    assert "(1 of 5 images)" in said.out
    assert written(out) == [f"good_{kind}" for kind in KINDS]
    assert run("segment", *bad, "-o", out, *mpp) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_existing_results_are_kept_unless_told_otherwise(tmp_path, out, image, loads, capsys):
    path = save(tmp_path / "a.png", image)
    assert run("segment", path, "-o", out) == 0
    (out / "a_nuclei.csv").write_text("edited by hand")
    capsys.readouterr()
    assert run("segment", path, "-o", out) == 2
    error = capsys.readouterr().err
    assert "--overwrite" in error
    assert one_sentence(error)
    assert run("segment", path, "-o", out, "--skip-existing") == 0
    assert (out / "a_nuclei.csv").read_text() == "edited by hand"
    assert len(loads) == 1
    assert run("segment", path, "-o", out, "--overwrite") == 0
    assert (out / "a_nuclei.csv").read_text() != "edited by hand"


def test_skip_existing_writes_only_what_is_not_there(tmp_path, out, image, loads):
    a, b = save(tmp_path / "a.png", image), save(tmp_path / "b.png", image)
    assert run("segment", a, "-o", out) == 0
    (out / "a_nuclei.csv").unlink()
    before = (out / "a_instances.tif").stat().st_mtime_ns
    assert run("segment", a, b, "-o", out, "--skip-existing") == 0
    assert len(written(out)) == 6
    assert (out / "a_instances.tif").stat().st_mtime_ns == before


@pytest.mark.parametrize("second", ["other/a.png", "a.jpg", "other/A.PNG"])
def test_two_images_of_one_name_are_refused(tmp_path, out, image, loads, capsys, second):
    first, other = save(tmp_path / "a.png", image), save(tmp_path / second, image)
    assert run("segment", first, other, "-o", out) == 2
    error = capsys.readouterr().err
    assert str(first) in error
    assert str(other) in error
    assert one_sentence(error)
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(tmp_path, image, loads, capsys):
    path = save(tmp_path / "a.png", image)
    assert run("segment", path, "-o", path) == 2
    error = capsys.readouterr().err
    assert "it is a file" in error
    assert one_sentence(error)
    assert not loads


@pytest.mark.parametrize("formats", ["", "png", "tif,xlsx"])
def test_an_unknown_format_is_refused(tmp_path, out, image, loads, capsys, formats):
    assert run("segment", save(tmp_path / "a.png", image), "-o", out, "--format", formats) == 2
    assert "tif,csv,geojson" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [(("--model", "nope"), "Model 'nope' is not known"), (("--model", "no/such"), "is not a model")],
)
def test_a_model_that_is_not_there(tmp_path, out, image, capsys, args, words):
    assert run("segment", save(tmp_path / "a.png", image), "-o", out, *args) == 2
    error = capsys.readouterr().err
    assert words in error
    assert one_sentence(error)


@pytest.mark.parametrize(
    "args", [[], ["segment"], ["segment", "a.png"], ["segment", "a.png", "-o", "x", "--device", "tpu"]]
)
def test_wrong_usage_exits_with_2(args):
    with pytest.raises(SystemExit) as stop:
        run(*args)
    assert stop.value.code == 2


def test_a_fault_of_the_program_is_one_sentence_and_a_traceback_only_with_v(
    tmp_path, out, image, loads, capsys, monkeypatch
):
    def burst(self, rgb):
        raise RuntimeError("the network burst\nsecond line")

    monkeypatch.setattr(FakeRuntime, "__call__", burst)
    path = save(tmp_path / "a.png", image)
    assert run("segment", path, "-o", out) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "a.png: RuntimeError: the network burst; run with -v for the details"
    assert run("segment", path, "-o", out, "-v") == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_stops_with_130_and_leaves_no_half_written_file(
    tmp_path, out, image, loads, capsys, monkeypatch
):
    def interrupt(self, rgb):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeRuntime, "__call__", interrupt)
    assert run("segment", save(tmp_path / "a.png", image), "-o", out) == 130
    assert "stopped" in capsys.readouterr().err
    assert written(out) == []


def test_too_little_memory_is_told_in_a_sentence(tmp_path, out, image, loads, capsys, monkeypatch):
    def greedy(self, rgb):
        raise MemoryError

    monkeypatch.setattr(FakeRuntime, "__call__", greedy)
    assert run("segment", save(tmp_path / "a.png", image), "-o", out) == 2
    assert "128 x 96 pixels do not fit" in capsys.readouterr().err


# the other commands


def test_models_are_listed_with_what_one_must_know(capsys, monkeypatch):
    model = Model(Path("w.safetensors"), fake_card(caution="Of colon alone.", licence="research only"))
    monkeypatch.setattr(registry, "available", lambda: {"fake": model})
    assert run("models") == 0
    text = capsys.readouterr().out
    for word in ("fake", "0.25", "neoplastic, inflammatory", "research only", "caution: Of colon alone."):
        assert word in text
    assert run("models", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["licence"] == "research only"
    assert entry["classes"] == list(model.card.classes)
    assert entry["mpp"] == 0.25


def test_no_model_at_all_is_said(capsys, monkeypatch):
    monkeypatch.setattr(registry, "available", dict)
    assert run("models") == 2
    assert "No model is installed" in capsys.readouterr().err


def test_doctor_reports_versions_devices_and_folders(capsys):
    run("doctor")
    text = capsys.readouterr().out
    for word in (
        "napari-nucseg",
        "python",
        "torch",
        "numba",
        "Qt binding",
        "CUDA",
        "'auto' chooses",
        "cache",
    ):
        assert word in text


def test_doctor_survives_missing_packages_and_names_the_remedy(capsys, monkeypatch):
    real = doctor.version_of
    gone = {"openvino", "onnx", "torch", "PyQt6", "PySide6", "PyQt5", "PySide2"}
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name in gone else real(name))
    real_import = builtins.__import__

    def fail(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail)
    assert run("doctor") == 1
    text = capsys.readouterr().out
    assert "Missing (required): torch" in text
    assert "Missing for the extra 'desktop': PyQt6, openvino, onnx" in text
    assert 'pip install "napari-nucseg[desktop]"' in text
    assert "No module named 'torch'" in text


def test_doctor_knows_the_packages_of_pyproject():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    groups.pop("all")
    listed = {
        (requirement.partition(">")[0].lower(), extra)
        for extra, names in groups.items()
        for requirement in names
    }
    assert listed == {(p.name.lower(), p.extra) for p in doctor.PACKAGES}


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (runtime.DeviceReport("H100", "2026.1", "f32"), "torch on CUDA"),
        (runtime.DeviceReport(None, "2026.1", "bf16"), "OpenVINO on the CPU in bf16"),
        (runtime.DeviceReport(None, None, "f32"), "torch on the CPU"),
    ],
)
def test_doctor_says_what_auto_chooses(report, words):
    assert doctor.chosen(report).startswith(words)


def test_demo_without_a_display_leaves_results_to_look_at(tmp_path, loads, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sample, "why_no_window", lambda: "there is no display")
    for _ in range(2):  # a second demo replaces the first
        assert run("demo") == 0
    files = written(tmp_path / "nucseg-demo")
    assert files == [
        "synthetic_he.png",
        *(f"synthetic_he_{kind}" for kind in KINDS),
        "synthetic_he_overlay.png",
    ]
    text = capsys.readouterr().out
    assert "there is no display" in text
    assert "nucseg-demo" in text
    drawn = np.asarray(Image.open(tmp_path / "nucseg-demo" / "synthetic_he_overlay.png"))
    colours = {tuple(c) for c in drawn.reshape(-1, 3)}
    assert colours & set(fake_card().colours.values())


def test_demo_of_an_own_image_needs_its_mpp(tmp_path, image, loads, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sample, "why_no_window", lambda: "there is no display")
    path = save(tmp_path / "mine.png", image, known=False)
    assert run("demo", path) == 2
    assert "--mpp" in capsys.readouterr().err
    assert run("demo", path, "--mpp", "0.25") == 0
    assert "mine_overlay.png" in written(tmp_path / "nucseg-demo")


def test_demo_opens_the_window_where_there_is_one(monkeypatch):
    opened = []

    class Opener:
        @staticmethod
        def open_demo(image, mpp):
            opened.append((image, mpp))

    monkeypatch.setattr(sample, "why_no_window", lambda: None)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: Opener)
    assert run("demo", "a.png", "--mpp", "0.5") == 0
    assert run("demo") == 0
    assert opened == [(Path("a.png"), 0.5), (None, None)]


def test_why_no_window(monkeypatch):
    monkeypatch.setattr(sample.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(sample.sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":7")
    assert sample.why_no_window() is None
    monkeypatch.delenv("DISPLAY")
    assert "no display" in sample.why_no_window()
    monkeypatch.setattr(sample.importlib.util, "find_spec", lambda name: None)
    assert "napari is not installed" in sample.why_no_window()


# start, and agreement with the rest of the package


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom napari_nucseg.cli import main\n"
        "try:\n    main(['segment', '--help'])\nexcept SystemExit: pass\n"
        "bad = {'torch', 'numpy', 'numba', 'napari', 'qtpy', 'openvino'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "_instances.tif" in done.stdout


def test_python_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "napari_nucseg", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"napari-nucseg {napari_nucseg.__version__}"


def test_the_help_names_the_devices_and_formats_there_are():
    assert cli.DEVICES == runtime.DEVICES
    assert inputs.parse_formats("tif,csv,geojson,zarr,parquet") == tuple(inputs.FORMATS)
    assert inputs.parse_formats("auto") is None
    with pytest.raises(NucSegError):
        inputs.parse_formats(",")


def test_the_shipped_model_segments_from_the_command_line(tmp_path, out, image):
    if not registry.available() or importlib.util.find_spec("torch") is None:
        pytest.skip("no weights here")
    path = save(tmp_path / "a.png", image)
    assert run("segment", path, "-o", out, "--device", "cpu-torch") == 0
    assert len(pd.read_csv(out / "a_nuclei.csv")) > 3
