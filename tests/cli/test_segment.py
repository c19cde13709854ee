"""`napari-nucseg segment` on slides: formats, breaks, --resume."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_nucseg import cli
from napari_nucseg._cli import batch, inputs
from napari_nucseg.io.omezarr import open_labels
from napari_nucseg.models.registry import Model
from napari_nucseg.slides.loaded import Loaded
from tests.fakes import FakeRuntime
from tests.slides.conftest import CARD, TILE, TILES, contents, write_slide


@pytest.fixture
def runtimes(monkeypatch):
    """A network without weights in place of the real one; the runtimes made."""
    made = []

    def load(model, device):
        made.append(FakeRuntime())
        return Loaded(Model(Path("fake.safetensors"), CARD), made[-1])

    monkeypatch.setattr(batch.Loaded, "of", load)
    return made


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def run(*args):
    return cli.main(["segment", *map(str, args), "--tile", str(TILE)])


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_all_formats_can_be_asked_for(slide, out, runtimes):
    assert run(slide, "-o", out, "--format", "tif,csv,geojson,zarr,parquet") == 0
    assert names(out) == [
        "slide_instances.tif", "slide_labels.zarr", "slide_nuclei.csv", "slide_nuclei.geojson",
        "slide_nuclei.parquet", "slide_summary.json",
    ]  # fmt: skip
    table = pd.read_parquet(out / "slide_nuclei.parquet")
    labels = np.asarray(open_labels(out / "slide_labels.zarr")[0][:])
    assert set(table["id"]) == set(np.unique(labels)) - {0}


def test_what_is_usual_depends_on_the_size(slide, out, runtimes, monkeypatch):
    assert inputs.usual_formats(slide) == ("tif", "csv", "geojson")
    assert inputs.usual_formats(out / "missing.tif") == ("tif", "csv", "geojson")
    monkeypatch.setattr(inputs, "_PICTURE", 1000)
    assert inputs.usual_formats(slide) == ("zarr", "csv", "parquet", "geojson")
    assert run(slide, "-o", out) == 0
    assert not (out / "slide_instances.tif").exists()
    assert (out / "slide_labels.zarr").is_dir()
    monkeypatch.setattr(inputs, "parquet_is_there", lambda: False)
    assert inputs.usual_formats(slide) == ("zarr", "csv", "geojson")


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(
    slide, out, runtimes, capsys, monkeypatch, tmp_path
):
    assert run(slide, "-o", tmp_path / "straight") == 0
    real, count = FakeRuntime.__call__, []

    def interrupt(self, rgb):
        count.append(1)
        if len(count) > 10:
            raise KeyboardInterrupt
        return real(self, rgb)

    with monkeypatch.context() as patch:
        patch.setattr(FakeRuntime, "__call__", interrupt)
        assert run(slide, "-o", out) == 130
    assert "the same command goes on where it was" in capsys.readouterr().err
    assert names(out) == ["slide.nucseg-partial"]
    assert run(slide, "-o", out) == 0
    said = capsys.readouterr()
    assert f" of {TILES} tiles in " in said.out
    assert "slide: goes on where an earlier run stopped, at " in said.err
    assert contents(out) == contents(tmp_path / "straight")


def test_resume_leaves_what_is_complete_and_does_what_is_missing(slide, out, runtimes, capsys):
    assert run(slide, "-o", out) == 0
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    capsys.readouterr()
    assert run(slide, "-o", out, "--resume") == 0
    said = capsys.readouterr().out
    assert "1 of 1 images skipped: their results are complete" in said
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before
    kept = (out / "slide_nuclei.geojson").read_bytes()
    (out / "slide_nuclei.geojson").unlink()
    assert run(slide, "-o", out, "--resume") == 0
    assert (out / "slide_nuclei.geojson").read_bytes() == kept
    assert (out / "slide_nuclei.csv").stat().st_mtime_ns == before[out / "slide_nuclei.csv"]


def test_resume_does_tiles_that_failed_and_refuses_results_of_other_settings(
    pixels,
    out,
    runtimes,
    capsys,
    monkeypatch,
    tmp_path,
):
    image = pixels.copy()
    image[40, 40] = (0, 255, 0)
    path = write_slide(tmp_path / "marked.tif", image)
    real = FakeRuntime.__call__

    def fail(self, rgb):
        if (rgb == (0, 255, 0)).all(2).any():
            raise RuntimeError("no memory")
        return real(self, rgb)

    with monkeypatch.context() as patch:
        patch.setattr(FakeRuntime, "__call__", fail)
        assert run(path, "-o", out) == 1
    said = capsys.readouterr()
    assert "marked.tif: " in said.err
    assert "tiles failed and are blank: rows 0.." in said.err
    assert json.loads((out / "marked_summary.json").read_text())["complete"] is False
    windows = runtimes[-1].windows
    assert run(path, "-o", out) == 2  # as ever: results are there
    assert "--resume" in capsys.readouterr().err
    assert run(path, "-o", out, "--resume") == 0
    assert runtimes[-1].windows < windows + 2 * TILES
    assert json.loads((out / "marked_summary.json").read_text())["complete"] is True
    capsys.readouterr()
    assert run(path, "-o", out, "--resume", "--mpp", "0.3") == 2
    error = capsys.readouterr().err
    assert "made with other settings" in error
    assert "--overwrite" in error


def test_resume_knows_which_results_are_of_the_settings_asked_for(slide, out, runtimes, capsys):
    assert run(slide, "-o", out, "--format", "csv", "--mpp", "0.3") == 0
    assert run(slide, "-o", out, "--format", "tif", "--overwrite") == 0
    assert run(slide, "-o", out, "--format", "tif,geojson", "--resume") == 0
    told = json.loads((out / "slide_summary.json").read_text())
    assert told["outputs"] == ["slide_instances.tif", "slide_nuclei.geojson", "slide_summary.json"]
    assert run(slide, "-o", out, "--format", "tif,csv,geojson", "--resume") == 2
    assert "made with other settings" in capsys.readouterr().err


def test_resume_adds_nothing_to_a_result_that_was_reviewed(slide, out, runtimes, capsys):
    assert run(slide, "-o", out, "--format", "csv") == 0
    path = out / "slide_summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "reviewed": [{"box": [0, 9, 0, 9]}]}))
    assert run(slide, "-o", out, "--format", "csv", "--resume") == 0
    assert run(slide, "-o", out, "--format", "csv,tif", "--resume") == 2
    assert "were reviewed since" in capsys.readouterr().err
    assert json.loads(path.read_text())["reviewed"]


def test_results_are_complete_whatever_computed_them_and_a_refusal_leaves_the_manifest(
    slide, out, runtimes, tmp_path, capsys, monkeypatch
):
    other = tmp_path / "other.tif"
    other.write_bytes(slide.read_bytes())
    assert run(slide, other, "-o", out, "--format", "csv") == 0
    manifest = (out / "manifest.csv").read_bytes()
    monkeypatch.setattr(FakeRuntime, "name", "another machine")
    assert run(slide, other, "-o", out, "--format", "csv", "--resume") == 0
    before = (out / "slide_nuclei.csv").stat().st_mtime_ns
    assert run(slide, other, "-o", out, "--format", "csv", "--resume", "--mpp", "0.3") == 2
    assert (out / "manifest.csv").read_bytes() == manifest
    assert run(slide, "-o", out, "--format", "csv,geojson", "--resume") == 0
    assert (out / "slide_nuclei.csv").stat().st_mtime_ns > before  # not of two machines


def test_a_manifest_that_cannot_be_written_costs_no_slide(slide, out, runtimes, tmp_path, capsys):
    other = tmp_path / "other.tif"
    other.write_bytes(slide.read_bytes())
    (out / "manifest.csv").mkdir(parents=True)
    assert run(slide, other, "-o", out, "--format", "csv") == 0
    assert {"slide_nuclei.csv", "other_nuclei.csv"} <= set(names(out))
    assert "manifest.csv can't be written" in capsys.readouterr().err


def test_several_images_have_a_manifest(slide, out, runtimes, tmp_path):
    bad = tmp_path / "bad.tif"
    bad.write_text("none")
    assert run(slide, bad, "-o", out, "--format", "csv") == 1
    with (out / "manifest.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows["slide"]["status"] == "done"
    assert rows["bad"]["status"] == "failed"
    assert "bad.tif" in rows["bad"]["reason"]


def test_the_log_of_a_job_says_how_far_it_is(slide, out, runtimes, capsys, monkeypatch):
    monkeypatch.setattr(batch, "_MINUTE", 0)
    assert run(slide, "-o", out, "--format", "csv") == 0
    said = capsys.readouterr().err
    assert f"slide: 3 of {TILES} tiles, " in said
    assert f"slide: {TILES} of {TILES} tiles, " in said


def test_a_tile_that_is_too_small_is_told(slide, out, runtimes, capsys):
    assert cli.main(["segment", str(slide), "-o", str(out), "--tile", "5"]) == 2
    said = capsys.readouterr().err
    assert "5 pixels" in said
    assert runtimes == []  # before the model is loaded
    assert not out.exists()


def test_our_own_pictures_in_a_folder_are_not_images(tmp_path):
    for name in ("a.png", "a_tissue.png", "a_instances.tif"):
        (tmp_path / name).touch()
    assert inputs.find_images([str(tmp_path)])[0] == [tmp_path / "a.png"]
