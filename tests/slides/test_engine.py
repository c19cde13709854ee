"""Whole slides: results, stops, failures, disks that are full."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_nucseg.core.tissue import TissueConfig
from napari_nucseg.errors import NucSegError
from napari_nucseg.inference import collect, make_plan, no_nuclei, run
from napari_nucseg.io.atomic import told
from napari_nucseg.io.omezarr import open_labels
from napari_nucseg.slides import careful, outputs
from napari_nucseg.slides.assemble import Assembler
from napari_nucseg.slides.engine import segment_slide
from napari_nucseg.slides.store import TileStore, cannot_write
from napari_nucseg.slides.transaction import settle
from napari_nucseg.slides.workdir import WorkFolder
from tests.fakes import FakeRuntime
from tests.slides.conftest import CARD, FORMATS, TILE, TILES, contents, finish, write_slide


class Faulty(FakeRuntime):
    """Fails for windows that hold a mark (a pixel of pure green), the first `times` times."""

    def __init__(self, times=10**9):
        super().__init__()
        self.times = times

    def __call__(self, rgb):
        if (rgb == (0, 255, 0)).all(2).any() and self.times > 0:
            self.times -= 1
            raise RuntimeError("the network burst\nat length")
        return super().__call__(rgb)


@pytest.fixture
def marked(tmp_path, pixels):
    image = pixels.copy()
    image[40, 40] = (0, 255, 0)
    return write_slide(tmp_path / "marked.tif", image)


@pytest.fixture(scope="module")
def whole(pixels):
    plan = make_plan(pixels, FakeRuntime(), CARD, mpp=0.25, tile=TILE)
    return collect(run(plan), plan, "slide")


def test_results_are_those_of_the_pipeline_in_memory(ask, whole, tmp_path):
    steps, summary = finish(segment_slide(ask()))
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == sorted(summary.outputs)
    labels = tifffile.imread(out / "slide_instances.tif")
    np.testing.assert_array_equal(labels, whole.labels)
    np.testing.assert_array_equal(np.asarray(open_labels(out / "slide_labels.zarr")[0][:]), labels)
    table = pd.read_csv(out / "slide_nuclei.csv")
    assert table["id"].tolist() == list(range(1, len(table) + 1))
    pd.testing.assert_frame_equal(table, whole.nuclei.astype({"id": "int64"}), rtol=1e-6, check_dtype=False)
    parquet = pd.read_parquet(out / "slide_nuclei.parquet")
    np.testing.assert_allclose(parquet["centre_y"], whole.nuclei["centre_y"])
    features = json.loads((out / "slide_nuclei.geojson").read_text())["features"]
    assert len(features) == len(table) > 100
    assert [f["properties"]["measurements"]["NucSeg id"] for f in features] == table["id"].tolist()
    # what is told on the way
    done = [s.done for s in steps if s.stage == "segment"]
    assert done == list(range(len(done)))
    assert done[-1] == steps[-1].total == summary.tiles > 10
    assert steps[-1].nuclei == summary.nuclei == len(table)
    assert steps[5].eta > 0
    # and in the summary
    assert summary.complete
    assert summary.area_mm2 == pytest.approx(512 * 640 * 0.25**2 / 1e6)
    assert summary.nuclei_per_mm2 == pytest.approx(len(table) / summary.area_mm2, rel=1e-4)
    assert sum(summary.classes.values()) == len(table)
    assert json.loads((out / "slide_summary.json").read_text())["nuclei"] == len(table)
    assert {"tissue", "segment", "write", "total"} <= set(summary.seconds)


def test_a_slide_without_any_nucleus_has_results_with_columns(ask, tmp_path):
    blank = write_slide(tmp_path / "blank.tif", np.full((600, 700, 3), 245, np.uint8))
    finish(segment_slide(ask(blank, out=tmp_path / "a")))
    config = TissueConfig(whole_below=0)
    _, summary = finish(segment_slide(ask(blank, out=tmp_path / "b", tissue=config)))  # no tile at all
    assert (summary.tiles, summary.nuclei, summary.area_mm2, summary.nuclei_per_mm2) == (0, 0, 0, 0)
    tables = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert tifffile.imread(folder / "slide_instances.tif").max() == 0
        assert json.loads((folder / "slide_nuclei.geojson").read_text())["features"] == []
        tables += [pd.read_csv(folder / "slide_nuclei.csv"), pd.read_parquet(folder / "slide_nuclei.parquet")]
    for table in tables:
        assert list(table.columns) == list(tables[0].columns)
        assert len(table) == 0
    assert tables[1].dtypes.equals(tables[3].dtypes)
    assert (tmp_path / "b" / "slide_tissue.png").is_file()


def test_the_empty_table_has_the_columns_and_types_of_a_full_one(whole):
    empty = no_nuclei(CARD.classes)
    assert empty.columns.tolist() == whole.nuclei.columns.tolist()
    numbers = [c for c in empty.columns if c != "class"]
    assert empty[numbers].dtypes.equals(whole.nuclei[numbers].dtypes)


def test_glass_is_left_out_and_the_area_says_so(ask, tmp_path, pixels):
    image = np.full((512, 1024, 3), 245, np.uint8)
    image[:, :500] = pixels[:, :500]
    path = write_slide(tmp_path / "half.tif", image)
    _, summary = finish(segment_slide(ask(path, tissue=TissueConfig(whole_below=0))))
    _, all_of_it = finish(segment_slide(ask(path, out=tmp_path / "all", tissue=None)))
    assert summary.tiles < all_of_it.tiles
    assert 0.45 < summary.area_mm2 / all_of_it.area_mm2 < 0.75
    assert all_of_it.area_mm2 == pytest.approx(all_of_it.image_mm2)
    assert summary.nuclei == all_of_it.nuclei


@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_run_that_was_closed_goes_on_where_it_was(ask, tmp_path, after):
    finish(segment_slide(ask(out=tmp_path / "straight")))
    runtime = FakeRuntime()
    steps = segment_slide(ask(runtime=runtime))
    while next(steps).done < after:
        pass
    steps.close()
    out = tmp_path / "out"
    kept = sorted(out.rglob("*.nst"))
    assert len(kept) >= after
    assert [p.name for p in out.iterdir()] == (["slide.nucseg-partial"] if after else [])
    again, summary = finish(segment_slide(ask()))
    assert again[-1].resumed == len(kept)
    notes = [s.note for s in again if s.note]
    assert notes == (
        [f"slide: goes on where an earlier run stopped, at {len(kept)} of {TILES} tiles"] if kept else []
    )
    assert summary.complete
    assert contents(out) == contents(tmp_path / "straight")


def test_damaged_tiles_are_computed_again_and_those_of_other_settings_are_not_used(ask, tmp_path):
    _, straight = finish(segment_slide(ask(out=tmp_path / "straight")))
    steps = segment_slide(ask())
    while next(steps).done < 8:
        pass
    steps.close()
    kept = sorted((tmp_path / "out").rglob("*.nst"))
    kept[1].write_bytes(kept[1].read_bytes()[:-7])
    kept[2].write_bytes(b"")
    other = segment_slide(ask(tile=160))
    told = [next(other), next(other)]
    assert "not used" in told[1].note
    assert told[1].resumed == 0
    other.close()
    again, summary = finish(segment_slide(ask()))
    assert again[-1].resumed == len(kept) - 2
    assert summary.fingerprint == straight.fingerprint
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_a_failing_tile_is_tried_again(ask, marked, tmp_path):
    finish(segment_slide(ask(marked, out=tmp_path / "straight")))
    _, summary = finish(segment_slide(ask(marked, runtime=Faulty(times=2))))
    assert summary.complete
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_a_tile_that_fails_for_good_is_named_never_silently_blank_and_can_be_done_later(
    ask, marked, tmp_path
):
    finish(segment_slide(ask(marked, out=tmp_path / "straight")))
    steps, summary = finish(segment_slide(ask(marked, runtime=Faulty())))
    out = tmp_path / "out"
    assert not summary.complete
    assert 1 <= len(summary.failed) < TILES  # the tiles that need the maps around the mark
    assert all(place.reason == "RuntimeError: the network burst" for place in summary.failed)
    assert steps[-1].done == steps[-1].total
    assert summary.area_mm2 < 0.96 * summary.image_mm2
    assert "tiles failed and are blank: rows 0.." in summary.complaints()[0]
    got, true = (pd.read_csv(f / "slide_nuclei.csv") for f in (out, tmp_path / "straight"))
    lost = np.zeros(len(true), bool)
    for y0, y1, x0, x1 in (place.box for place in summary.failed):
        lost |= true["centre_y"].between(y0 - 0.5, y1 - 0.5) & true["centre_x"].between(x0 - 0.5, x1 - 0.5)
    assert 0 < lost.sum() < len(true)
    np.testing.assert_array_equal(got["area_um2"], true["area_um2"][~lost])
    failed = len(summary.failed)
    assert len(list(out.rglob("*.nst"))) == TILES - failed
    again, summary = finish(segment_slide(ask(marked)))
    assert summary.complete
    assert again[-1].resumed == TILES - failed
    assert contents(out) == contents(tmp_path / "straight")


def test_where_every_tile_fails_the_error_is_told(ask, tmp_path, monkeypatch):
    class Broken(FakeRuntime):
        def __call__(self, rgb):
            raise RuntimeError("no such device")

    with pytest.raises(RuntimeError, match="no such device"):
        finish(segment_slide(ask(runtime=Broken())))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("where", ["tile", "csv", "geojson", "zarr", "tif", "summary"])
def test_a_full_disk_is_one_sentence_keeps_tiles_and_is_survived(ask, tmp_path, monkeypatch, where):
    finish(segment_slide(ask(out=tmp_path / "straight")))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    def sentence(*args, **kwargs):
        with told("file"):
            full()

    places = {
        "csv": (outputs.TableWriter, "close", sentence),
        "geojson": (outputs.GeoJsonWriter, "add", sentence),
        "zarr": (outputs.LabelPyramid, "close", sentence),
        "tif": (outputs, "write_labels", sentence),
        "summary": (WorkFolder, "_say", full),
    }
    with monkeypatch.context() as patch:
        if where == "tile":
            real, count = TileStore.write, []

            def write(self, path, data):
                count.append(path)
                if len(count) > 9:
                    raise cannot_write(self.folder, OSError(28, "No space left on device"))
                real(self, path, data)

            patch.setattr(TileStore, "write", write)
        else:
            patch.setattr(*places[where])
        with pytest.raises(NucSegError, match="No space left on device") as error:
            finish(segment_slide(ask()))
    assert "\n" not in str(error.value)
    assert "what is finished is kept" in str(error.value)
    out = tmp_path / "out"
    assert [p.name for p in out.iterdir()] == ["slide.nucseg-partial"]
    kept = len(list(out.rglob("*.nst")))
    assert kept >= 1
    again, _ = finish(segment_slide(ask()))
    assert again[-1].resumed == kept
    assert contents(out) == contents(tmp_path / "straight")


def test_a_source_that_vanishes_is_one_sentence_and_the_rest_is_kept(ask, slide, pixels, tmp_path):
    finish(segment_slide(ask(out=tmp_path / "straight")))
    path = tmp_path / "slide.tif"
    path.write_bytes(slide.read_bytes())

    class Vanishing:
        """Reads as long as the file is there, as over a network."""

        def __init__(self, source):
            self.source = source

        def __getattr__(self, name):
            return getattr(self.source, name)

        def read(self, *args):
            if not path.exists():
                raise OSError(116, "Stale file handle")
            return self.source.read(*args)

    source = Vanishing(ask(path).source)
    steps = segment_slide(ask(source))
    while next(steps).done < 5:
        pass
    moved = path.rename(tmp_path / "elsewhere.tif")
    with pytest.raises(NucSegError, match="has gone") as error:
        finish(steps)
    assert "\n" not in str(error.value)
    kept = len(list((tmp_path / "out").rglob("*.nst")))
    assert kept >= 5
    moved.rename(path)
    again, summary = finish(segment_slide(ask(path)))
    assert again[-1].resumed == kept
    assert summary.complete
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_a_file_that_is_changed_meanwhile_is_noticed_though_it_can_be_read(ask, slide, pixels, tmp_path):
    finish(segment_slide(ask(out=tmp_path / "straight")))
    path = tmp_path / "slide.tif"
    path.write_bytes(slide.read_bytes())
    before = path.stat()
    steps = segment_slide(ask(path))
    while next(steps).done < 5:
        pass
    write_slide(path, np.flip(pixels, 0))
    with pytest.raises(NucSegError, match="was changed"):
        finish(steps)
    path.write_bytes(slide.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again, _ = finish(segment_slide(ask(path)))
    assert again[-1].resumed >= 5
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_damage_of_the_file_is_told_also_after_a_break(ask, slide, tmp_path):
    path = tmp_path / "slide.tif"
    with tifffile.TiffFile(slide) as tiff:
        at = tiff.pages[0].dataoffsets[6]  # second row, second column
    data = bytearray(slide.read_bytes())
    data[at : at + 300] = bytes(300)
    path.write_bytes(data)
    _, straight = finish(segment_slide(ask(path, out=tmp_path / "straight")))
    assert [place.box for place in straight.damaged] == [(128, 256, 128, 256)]
    assert straight.complete
    assert straight.area_mm2 == pytest.approx((512 * 640 - 128**2) * 0.25**2 / 1e6, rel=2e-3)
    assert "1 place cannot be read" in straight.complaints()[0]
    steps = segment_slide(ask(path))
    while next(steps).done < TILES - 3:
        pass
    steps.close()
    _, summary = finish(segment_slide(ask(path)))
    assert summary.damaged == straight.damaged
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_two_runs_of_one_output_are_refused(ask):
    steps = segment_slide(ask())
    while next(steps).done < 2:
        pass
    with pytest.raises(NucSegError, match="Another run is writing the results of 'slide'"):
        finish(segment_slide(ask()))
    assert finish(steps)[1].complete


def test_unknown_formats_and_parquet_without_pyarrow_are_refused_before_anything_is_made(
    ask, tmp_path, monkeypatch
):
    with pytest.raises(NucSegError, match="'xlsx' is no format"):
        finish(segment_slide(ask(formats=("xlsx",))))
    monkeypatch.setattr(outputs, "parquet_is_there", lambda: False)
    with pytest.raises(NucSegError, match="pyarrow"):
        finish(segment_slide(ask(formats=FORMATS)))
    assert not (tmp_path / "out").exists()


def test_older_results_are_replaced_at_the_end_and_not_before(ask, tmp_path):
    out = tmp_path / "out"
    (out / "slide_labels.zarr").mkdir(parents=True)
    (out / "slide_labels.zarr" / "old").touch()
    (out / "slide_geojson").mkdir()
    (out / "slide_nuclei.csv").write_text("old")
    steps = segment_slide(ask())
    while next(steps).done < TILES:
        pass
    assert (out / "slide_nuclei.csv").read_text() == "old"
    assert (out / "slide_labels.zarr" / "old").exists()
    _, summary = finish(steps)
    assert sorted(p.name for p in out.iterdir()) == sorted(summary.outputs)
    assert not (out / "slide_labels.zarr" / "old").exists()


def test_a_name_that_begins_with_a_point_is_one_like_any_other(ask, tmp_path):
    _, summary = finish(segment_slide(ask(stem=".slide", formats=("tif", "csv"))))
    names = [".slide_instances.tif", ".slide_nuclei.csv", ".slide_summary.json"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names == list(summary.outputs)


def test_a_review_that_was_not_put_back_to_its_end_does_not_come_after_a_new_run(ask, tmp_path):
    out = tmp_path / "out"
    (out / ".slide.putting-back").mkdir(parents=True)
    (out / ".slide.putting-back" / "slide_nuclei.csv").write_text("reviewed")
    finish(segment_slide(ask(formats=("csv",))))
    settle(out, "slide")
    assert (out / "slide_nuclei.csv").read_text().startswith("id,")


def test_a_tile_that_vanishes_while_the_run_goes_on_is_one_sentence(tmp_path):
    assembler = Assembler([(0, 0)], TileStore(tmp_path), None, ready=[(0, 0)])
    with pytest.raises(NucSegError, match="repeat the command"):
        assembler.wait(10)


def test_failures_are_one_line(monkeypatch):
    assert careful.reason_of(RuntimeError("a\nb")) == "RuntimeError: a"
    assert careful.reason_of(KeyError()) == "KeyError"
    assert careful.reason_of(NucSegError("Sentence.")) == "Sentence."
