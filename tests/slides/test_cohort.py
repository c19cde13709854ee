"""Many slides on a Dask cluster of processes on this machine."""

from __future__ import annotations

import builtins
import csv
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from napari_nucseg import cli
from napari_nucseg._cli import cluster
from napari_nucseg._cli.cluster import client_of
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.registry import Model
from napari_nucseg.slides.cohort import Cohort, CohortProgress, Slide, SlideEnd, segment_cohort
from napari_nucseg.slides.engine import segment_slide
from napari_nucseg.slides.manifest import Manifest, Row
from napari_nucseg.slides.prepare import Options
from tests.slides import slow_run
from tests.slides.conftest import CARD, FORMATS, TILE, TILES, contents, finish

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    os.environ["NUCSEG_TEST_SLEEP"] = "0.15"
    try:
        with client_of("local:2") as client:
            yield client
    finally:
        del os.environ["NUCSEG_TEST_SLEEP"]


@pytest.fixture
def cohort(slide, tmp_path):
    """Three slides, the second of which is none."""
    paths = [tmp_path / f"{name}.tif" for name in "abc"]
    for path in (paths[0], paths[2]):
        shutil.copy2(slide, path)
    paths[1].write_text("no image")
    slides = tuple(Slide(path, path.stem, FORMATS) for path in paths)
    model = Model(Path("fake.safetensors"), CARD)
    return Cohort(slides, model, "fake", "auto", None, tmp_path / "out", Options(tile=TILE), slow_run.load)


@pytest.fixture
def straight(ask, tmp_path):
    """What a run without a cluster makes of the slides."""
    for stem in "ac":
        finish(segment_slide(ask(out=tmp_path / "straight", stem=stem)))
    return contents(tmp_path / "straight")


def test_a_worker_that_is_killed_and_a_slide_that_fails_cost_nothing_else(client, cohort, straight, tmp_path):
    steps = segment_cohort(cohort, client)
    ends, killed = {}, None
    for step in steps:
        if isinstance(step, SlideEnd):
            ends[step.slide.stem] = step
        elif killed is None and list(tmp_path.glob("out/*/tiles-*/*.nst")):
            killed = client.run(os.getpid)
            os.kill(next(iter(killed.values())), signal.SIGKILL)
    assert killed
    assert set(ends) == {"a", "b", "c"}
    assert isinstance(ends["b"].error, NucSegError)
    assert "b.tif" in str(ends["b"].error)
    for stem in "ac":
        summary = ends[stem].summary
        assert summary is not None, ends[stem].error
        assert summary.complete
        assert summary.workers
    assert contents(tmp_path / "out") == straight
    assert not list(tmp_path.glob("out/*partial"))


def test_a_cohort_that_was_stopped_goes_on(client, cohort, straight, tmp_path):
    steps = segment_cohort(cohort, client)
    for _ in steps:
        if list(tmp_path.glob("out/a.*/tiles-*/*.nst")):
            break
    steps.close()
    time.sleep(0.5)
    kept = len(list(tmp_path.glob("out/a.*/tiles-*/*.nst")))
    assert kept >= 1
    ends = {s.slide.stem: s for s in segment_cohort(cohort, client) if isinstance(s, SlideEnd)}
    assert ends["a"].note.startswith("a: goes on where an earlier run stopped, at ")
    assert contents(tmp_path / "out") == straight


def test_progress_adds_up(client, cohort):
    seen = [s for s in segment_cohort(cohort, client) if isinstance(s, CohortProgress)]
    assert seen[-1].done == seen[-1].total == 2 * TILES
    assert seen[-1].slides == 3
    assert [s.done for s in seen] == sorted(s.done for s in seen)


def test_the_command_line_writes_a_manifest_and_resumes(client, slide, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster.Loaded, "of", slow_run.load)
    monkeypatch.setattr(cluster, "find_model", lambda name: Model(Path("fake.safetensors"), CARD))
    address = client.scheduler.address
    good, other, bad = tmp_path / "good.tif", tmp_path / "other.tif", tmp_path / "bad.tif"
    for path in (good, other):
        shutil.copy2(slide, path)
    bad.write_text("no image")

    def run(*more):
        paths = (good, other, bad)
        code = cli.main(
            ["segment", *map(str, paths), "-o", str(tmp_path / "out"), "--tile", str(TILE), "--format", "csv",
             "--scheduler", address, *more]
        )  # fmt: skip
        return code, capsys.readouterr()

    code, said = run()
    assert code == 1
    assert "bad.tif" in said.err
    assert said.out.count(" nuclei, 0.33 MP in ") == 2
    with (tmp_path / "out" / "manifest.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "good": "done",
        "other": "done",
        "bad": "failed",
    }
    assert int(rows["good"]["nuclei"]) > 50
    assert float(rows["good"]["area_mm2"]) == pytest.approx(512 * 640 * 0.25**2 / 1e6, rel=1e-5)
    assert rows["good"]["workers"].startswith("tcp://")
    assert "bad.tif" in rows["bad"]["reason"]
    before = (tmp_path / "out" / "good_nuclei.csv").stat().st_mtime_ns
    (tmp_path / "out" / "other_nuclei.csv").unlink()
    code, said = run("--resume")
    assert code == 1  # the bad one is still bad
    assert "1 of 3 images skipped: their results are complete" in said.out
    assert said.out.count(" nuclei, 0.33 MP in ") == 1
    assert (tmp_path / "out" / "good_nuclei.csv").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "other_nuclei.csv").read_bytes() == (
        tmp_path / "out" / "good_nuclei.csv"
    ).read_bytes()


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ("tcp://127.0.0.1:1", "No Dask scheduler answers at 'tcp://127.0.0.1:1'"),
        ("local:x", "no number of processes"),
    ],
)
def test_no_cluster_is_one_sentence(scheduler, words, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 1)
    with pytest.raises(NucSegError, match=words) as error, client_of(scheduler):
        pass
    assert "\n" not in str(error.value)


def test_without_distributed_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def fail(name, *args, **kwargs):
        if name.split(".")[0] == "distributed":
            raise ImportError("No module named 'distributed'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(NucSegError, match=r"napari-nucseg\[cluster\]"), client_of("local:2"):
        pass


def test_the_manifest_keeps_rows_of_other_slides_and_survives_damage(tmp_path):
    manifest = Manifest(tmp_path)
    assert manifest.rows() == {}
    manifest.put(Row.failed("a", "a.tif", 'a "quoted", reason\nof two lines'))
    manifest.put(Row.failed("b", "b.tif", "x"))
    manifest.put(Row.failed("b", "b.tif", "y"))
    rows = Manifest(tmp_path).rows()
    assert (rows["a"].reason, rows["b"].reason) == ('a "quoted", reason\nof two lines', "y")
    manifest.path.write_bytes(b"\xff\x00")
    assert manifest.rows() == {}
