"""Whole slides in the panel: runs in the background, results that are read where they are seen, reviews of parts."""

from __future__ import annotations

import json
import shutil
import threading
from collections import deque
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from qtpy.QtWidgets import QLabel

from napari_nucseg._plugin import place as places
from napari_nucseg._plugin import slide_review
from napari_nucseg._plugin.questions import Choice
from napari_nucseg._plugin.reader import get_reader, read_result
from napari_nucseg._plugin.review_keeper import close_all, keeper_of
from napari_nucseg._plugin.slide_results import add_result, slides_in
from napari_nucseg._plugin.slide_run import default_folder, remaining
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.session_autosave import Autosave
from napari_nucseg.io.slide import as_source
from napari_nucseg.models.registry import Model
from napari_nucseg.slides.engine import Request as SlideRequest
from napari_nucseg.slides.engine import segment_slide
from napari_nucseg.slides.loaded import Loaded
from napari_nucseg.slides.result import SlideResult
from tests.fakes import FakeRuntime, fake_card
from tests.slides.test_result import consistent


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory, synthetic):
    """A pyramid of 1536 x 2048 pixels, tissue all over but at the right."""
    path = tmp_path_factory.mktemp("slides") / "case 7.tif"
    image = np.tile(synthetic.image, (3, 4, 1))
    image[:, 1700:] = 243
    with tifffile.TiffWriter(path) as tif:
        common = {"tile": (256, 256), "compression": "zlib", "photometric": "rgb", "metadata": None}
        tif.write(image, subifds=2, resolution=(40000, 40000), resolutionunit=3, **common)
        for step in (4, 8):
            level = np.ascontiguousarray(image[::step, ::step])
            tif.write(level, subfiletype=1, **common)
    return path


@pytest.fixture
def slide(make_panel, slide_file, tmp_path, monkeypatch):
    """A panel on a slide in a folder of its own, which is held for a large one."""
    monkeypatch.setattr(places, "LARGE", 1_000_000)
    monkeypatch.setattr(places, "CONTEXT", 128)
    path = tmp_path / "scans" / slide_file.name
    path.parent.mkdir()
    shutil.copy(slide_file, path)
    made = make_panel(show=True)
    made.viewer.open(str(path), plugin="napari-nucseg")
    made.viewer.reset_view()
    made.path = path
    return made


def run(panel):
    panel.widget.run_bar.run_button.click()
    panel.until(lambda: panel.widget.slides.busy is None)


def shown(panel):
    (found,) = slides_in(panel.viewer.layers)
    panel.until(lambda: found.is_resting and found.view is not None)
    return found


@pytest.fixture(scope="module")
def results(slide_file, tmp_path_factory):
    """Results of the slide in a folder, made once."""
    folder = tmp_path_factory.mktemp("results") / "case 7_nucseg"
    loaded = Loaded(Model(Path("fake/weights.safetensors"), fake_card()), FakeRuntime())
    formats = ("zarr", "parquet", "csv", "geojson")
    source = as_source(slide_file, 0.25)
    deque(segment_slide(SlideRequest(source, loaded, folder, "case 7", formats)), maxlen=0)
    return folder


@pytest.fixture
def done(slide, results):
    """The slide is segmented, and its results are shown."""
    folder = slide.path.parent / "case 7_nucseg"
    shutil.copytree(results, folder)
    slide.widget.slides.open(folder)
    slide.until(lambda: slide.widget.slides.busy is None)
    return slide


def test_a_slide_is_segmented_to_its_folder_and_shown(slide, world):
    assert slide.widget.slides.target.isVisible()
    run(slide)
    folder = slide.path.parent / "case 7_nucseg"
    assert {p.name for p in folder.iterdir()} >= {
        "case 7_labels.zarr", "case 7_nuclei.csv", "case 7_nuclei.geojson", "case 7_summary.json",
    }  # fmt: skip
    found = shown(slide)
    result = found.result
    assert found.labels.multiscale
    assert found.labels.data[0].shape == (1536, 2048)
    assert len(found.points.data) == len(result.centres) > 100
    assert slide.status.startswith(f"{len(result.centres):,} nuclei")
    np.testing.assert_allclose(
        found.labels.data_to_world((5, 7)), slide.layer("case 7").data_to_world((5, 7))
    )
    assert found.counts() == found.counts_in_view()
    name, count = next(iter(found.counts().items()))
    assert slide.widget.slides.box.legend.count_text(name) == f"{count:,} / {count:,}"
    # what is drawn is what is on the disk
    level = found.labels.data_level
    expected = np.asarray(result.levels[level][:]) > 0
    raw = found.labels._slice.image.raw
    assert (raw > 0).sum() == expected[tuple(slice(0, n) for n in raw.shape)].sum() > 0
    assert world.asked == []


def test_a_run_that_is_stopped_goes_on(slide, world, gated, monkeypatch):
    from napari_nucseg.slides import prepare

    options = prepare.Options
    monkeypatch.setattr(prepare, "Options", lambda **about: options(tile=256, **about))
    slide.widget.run_bar.run_button.click()
    slide.until(lambda: slide.widget.slides.run.running)
    gated.let(12)
    slide.until(lambda: slide.widget.slides.run.ticker.done >= 2)
    slide.widget.run_bar.cancel_button.click()
    gated.let(8)
    slide.until(lambda: not slide.widget.slides.run.running)
    assert slide.status.startswith("Stopped: ")
    labels = slide.widget.slides.target.findChildren(QLabel)
    assert any("of an earlier run" in label.text() for label in labels)
    assert slides_in(slide.viewer.layers) == []
    gated.let(1000)
    before = gated.windows
    run(slide)
    assert slides_in(slide.viewer.layers)
    assert gated.windows > before
    assert not any("of an earlier run" in label.text() for label in labels)


def test_a_review_goes_on_while_a_slide_is_segmented(slide, gated):
    slide.widget.region.box.setCurrentIndex(1)
    gated.let(1000)
    slide.run()
    gated.gate = threading.Semaphore(0)
    slide.widget.region.box.setCurrentIndex(0)
    slide.widget.run_bar.run_button.click()
    assert slide.widget.slides.run.running
    assert not slide.widget.run_bar.run_button.isEnabled()
    assert slide.widget.results.review is not None
    assert slide.widget.review.panel._busy is None
    gated.let(1000)
    slide.until(lambda: not slide.widget.slides.run.running)


def test_only_the_centres_in_view_are_in_the_layer(done):
    found = shown(done)
    camera = done.viewer.scene.camera
    camera.zoom = 20.0
    camera.center = tuple(found.labels.data_to_world((400, 600)))
    done.qtbot.wait(150)
    done.until(lambda: found.is_resting)
    total = len(found.result.centres)
    assert 0 < len(found.points.data) < total
    assert found.view.total < total
    assert sum(found.counts_in_view().values()) == found.view.total
    assert sum(found.counts().values()) == total
    np.testing.assert_array_equal(found.points.border_color, found.points.face_color)
    hidden = found.result.classes[1]
    done.widget.slides.box.legend.set_shown(hidden, False)
    done.qtbot.wait(150)
    done.until(lambda: found.is_resting)
    assert hidden not in set(found.points.features["class"])


def test_results_open_by_the_panel_and_by_file_open(done, make_panel, world):
    folder = done.path.parent / "case 7_nucseg"
    world.result = folder / "case 7_summary.json"
    other = make_panel(show=True)
    other.widget.slides.box.open_button.click()
    other.until(lambda: bool(slides_in(other.viewer.layers)) and other.widget.slides.busy is None)
    assert other.names[0] == "case 7"  # the slide comes with its results
    third = make_panel(show=True)
    third.viewer.open(str(folder / "case 7_labels.zarr"), plugin="napari-nucseg")
    third.until(lambda: bool(slides_in(third.viewer.layers)))
    assert len(shown(third).points.data) == len(shown(done).points.data)
    third.viewer.layers.clear()
    third.viewer.open(str(world.result), plugin="napari-nucseg")
    third.until(lambda: bool(slides_in(third.viewer.layers)))


def test_a_folder_is_opened_if_it_holds_the_results_of_one_slide(results, tmp_path):
    assert get_reader(str(results)) is read_result
    ((data, _, kind),) = read_result(str(results))
    assert (data[0].shape, kind) == ((1536, 2048), "labels")
    assert get_reader(str(tmp_path)) is None  # somebody else's
    for name in ("a", "b"):
        (tmp_path / f"{name}_labels.zarr").mkdir()
        (tmp_path / f"{name}_summary.json").touch()
    assert get_reader(str(tmp_path)) is None  # which one is for the user to say


@pytest.fixture
def small(slide_file, tmp_path):
    """Results of an image of moderate size, as the command line writes them."""
    loaded = Loaded(Model(Path("fake/weights.safetensors"), fake_card()), FakeRuntime())
    request = SlideRequest(as_source(slide_file, 0.25), loaded, tmp_path, "case 7", ("tif", "csv"))
    deque(segment_slide(request), maxlen=0)
    return tmp_path / "case 7_summary.json"


@pytest.mark.parametrize("by", ["summary", "folder", "panel"])
def test_results_of_a_small_image_open_as_labels_and_centres_by_class(small, make_panel, world, by):
    panel = make_panel()
    if by == "panel":
        world.result = small
        panel.widget.slides.box.open_button.click()
    else:
        panel.viewer.open(str(small if by == "summary" else small.parent), plugin="napari-nucseg")
    assert panel.names == ["case 7 nuclei", "case 7 centres"]
    labels, centres = panel.viewer.layers
    panel.until(lambda: labels.contour == 2)
    np.testing.assert_array_equal(labels.data, tifffile.imread(small.with_name("case 7_instances.tif")))
    table = pd.read_csv(small.with_name("case 7_nuclei.csv")).set_index("id")
    rows = table.loc[centres.features["id"]]
    assert len(rows) == len(table) > 100
    np.testing.assert_allclose(centres.data, rows[["centre_y", "centre_x"]], rtol=1e-6)
    colours = json.loads(small.read_text())["colours"]
    expected = np.array([colours[name] for name in rows["class"]]) / 255
    for found in (centres.face_color, centres.border_color, labels.colormap.map(rows.index.to_numpy())):
        np.testing.assert_allclose(found[:, :3], expected, atol=1e-6)
    np.testing.assert_allclose(labels.scale, (0.25, 0.25))


@pytest.mark.parametrize(("gone", "words"), [("instances.tif", "no labels"), ("nuclei.csv", "no table")])
def test_results_that_cannot_be_shown_say_what_is_missing(small, gone, words):
    small.with_name(f"case 7_{gone}").unlink()
    with pytest.raises(NucSegError, match=rf"{words}.*segment"):
        get_reader(str(small))(str(small))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("nuclei.csv", "centre_y", "y"), ("summary.json", '"mpp": 0.25', '"mpp": "fine"')],
)
def test_results_that_are_damaged_are_told_so(small, name, old, new):
    file = small.with_name(f"case 7_{name}")
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(NucSegError, match="case 7 is damaged"):
        get_reader(str(small))(str(small))


def test_results_that_are_there_are_asked_about(done, world):
    world.answer = Choice.RESUME
    before = shown(done)
    run(done)
    ((folder, count, reviewed),) = world.asked
    assert (folder.name, count, reviewed) == ("case 7_nucseg", len(before.result.centres), 0)
    assert shown(done) is not before
    world.answer = Choice.CANCEL
    run(done)
    assert done.status == "Nothing was run; the results are as they were."


def review(panel, y=600, x=700, zoom=8.0):
    found = shown(panel)
    panel.viewer.scene.camera.zoom = zoom
    panel.viewer.scene.camera.center = tuple(found.labels.data_to_world((y, x)))
    panel.widget.slides.box.review_button.click()
    panel.until(lambda: panel.widget.slides.busy is None)
    assert panel.widget.slides.review.is_open, panel.status
    return panel.widget.slides.review.results


def put_back(panel):
    panel.widget.slides.box.put_button.click()
    panel.until(lambda: panel.widget.slides.busy is None and not panel.widget.slides.review.is_open)


def edit(panel, results):
    """Delete one nucleus, accept one, and add one by a click."""
    review = results.review
    live = review.session.records[review.session.live]
    middle = np.array(results.labels.data.shape) / 2
    near = np.argsort(np.abs(np.stack([live["y"], live["x"]], 1) - middle).sum(1))
    gone, kept = int(live["id"][near[0]]), int(live["id"][near[1]])
    y, x = float(live["y"][near[0]]), float(live["x"][near[0]])
    review.edits.do(lambda: review.session.reject([gone]))
    panel.until(lambda: not review.edits.waiting and review.session.at(y, x) != gone)
    review.session.accept([kept])
    review.points.add([[y, x]])
    panel.until(lambda: not review.edits.waiting and review.session.at(y, x) > 0)
    return gone, kept, int(review.session.at(y, x)), (y, x)


def test_a_part_is_reviewed_and_put_back(done):
    found = shown(done)
    before = np.asarray(found.result.levels[0][:])
    results = review(done)
    place = results.place
    # the slide's own layers leave the part to the review
    assert (np.asarray(found.labels.data[0])[place.slices] > 0).sum() < (before[place.slices] > 0).sum()
    shown_here = np.asarray(found.labels.data[0])[place.slices]
    assert not ((shown_here > 0) & (results.labels.data > 0)).any()
    gone, kept, new, (y, x) = edit(done, results)
    assert new > before.max()
    put_back(done)
    assert done.status.startswith("Put back: ")
    result = SlideResult.open(found.result.folder, "case 7")
    table = consistent(result).set_index("id")
    assert gone not in table.index
    assert str(table["state"][kept]) == "accepted"
    assert str(table["state"][new]) == "edited"
    after = np.asarray(result.levels[0][:])
    assert after[int(y) + place.y0, int(x) + place.x0] == new
    outside = np.ones(before.shape, bool)
    outside[place.slices] = False
    np.testing.assert_array_equal(after[outside], before[outside])
    # shown at once, without the layers of the review
    assert not any("review" in name for name in done.names)
    np.testing.assert_array_equal(np.asarray(found.labels.data[0]), after)
    assert "older than the review" in done.widget.slides.box._outdated.text()
    done.widget.slides.box.export_button.click()
    done.until(lambda: done.widget.slides.busy is None)
    text = json.loads((result.folder / "case 7_nuclei.geojson").read_text())
    assert len(text["features"]) == len(table)
    assert done.widget.slides.box._outdated.text() == ""
    # the session is kept, and not offered again
    assert [p.name for p in result.reviews.iterdir()] == ["put-back.nucseg"]
    assert done.widget.slides.box.review_button.isVisible()


def test_an_untouched_part_put_back_changes_no_pixel(done):
    found = shown(done)
    before = np.asarray(found.result.levels[0][:])
    rows = found.result.table.read(found.result.table.columns).set_index("id")
    review(done)
    put_back(done)
    again = SlideResult.open(found.result.folder, "case 7")
    np.testing.assert_array_equal(np.asarray(again.levels[0][:]), before)
    now = again.table.read(rows.columns).set_index(again.table.read(("id",))["id"]).loc[rows.index]
    numbers = rows.select_dtypes("number").columns
    np.testing.assert_allclose(now[numbers], rows[numbers], rtol=1e-5)


def test_removing_the_layers_puts_the_review_back(done):
    found = shown(done)
    results = review(done)
    gone, _, _, _ = edit(done, results)
    done.viewer.layers.remove(results.labels)
    done.until(lambda: done.widget.slides.busy is None and not done.widget.slides.review.is_open)
    assert gone not in set(SlideResult.open(found.result.folder, "case 7").centres.ids.tolist())
    done.until(lambda: [p.name for p in found.result.reviews.iterdir()] == ["put-back.nucseg"])


def test_a_review_that_was_not_put_back_is_resumed(done, make_panel, world):
    results = review(done)
    gone, _, new, place = edit(done, results)
    keeper = keeper_of(results.review)
    done.until(lambda: keeper.saved_at is not None)
    close_all()  # as at the end of the program
    other = make_panel(show=True)
    world.result = done.path.parent / "case 7_nucseg" / "case 7_summary.json"
    other.widget.slides.box.open_button.click()
    other.until(lambda: bool(slides_in(other.viewer.layers)) and other.widget.slides.busy is None)
    assert other.widget.slides.box.resume_button.isVisible()
    assert not other.widget.slides.box.review_button.isVisible()
    other.widget.slides.box.resume_button.click()
    other.until(lambda: other.widget.slides.review.is_open)
    session = other.widget.slides.review.results.review.session
    assert session.at(*place) == new
    put_back(other)
    found = set(SlideResult.open(world.result).centres.ids.tolist())
    assert new in found
    assert gone not in found


def test_a_review_that_can_not_be_put_back_is_offered_again(done, monkeypatch):
    """Its layers were removed, and the disk is full just then."""
    found = shown(done)
    results = review(done)
    gone, _, _, _ = edit(done, results)

    def full(*_):
        raise NucSegError("no space left")

    gate, close = threading.Event(), Autosave.close

    def slow(*args):
        assert gate.wait(30)
        return close(*args)

    monkeypatch.setattr(SlideResult, "put_back", full)
    monkeypatch.setattr(Autosave, "close", slow)
    done.viewer.layers.remove(results.labels)
    done.until(lambda: done.widget.slides.busy is None and not done.widget.slides.review.is_open)
    assert done.status == "no space left"
    assert not done.widget.slides.box.resume_button.isVisible()  # its folder is still written to
    monkeypatch.undo()
    gate.set()
    done.until(done.widget.slides.box.resume_button.isVisible)
    done.widget.slides.box.resume_button.click()
    done.until(lambda: done.widget.slides.review.is_open)
    put_back(done)
    assert gone not in set(SlideResult.open(found.result.folder, "case 7").centres.ids.tolist())


def test_layers_removed_while_they_are_put_back(done, monkeypatch):
    found = shown(done)
    results = review(done)
    gone, _, _, _ = edit(done, results)
    gate, puts, put = threading.Event(), [], SlideResult.put_back

    def slow(*args):
        puts.append(args)
        assert gate.wait(30)
        return put(*args)

    monkeypatch.setattr(SlideResult, "put_back", slow)
    done.widget.slides.box.put_button.click()
    done.viewer.layers.remove(results.labels)
    gate.set()
    done.until(lambda: done.widget.slides.busy is None and not done.widget.slides.review.is_open)
    assert len(puts) == 1
    assert done.status.startswith("Put back: ")
    assert gone not in set(found.result.centres.ids.tolist())


def test_where_no_review_can_be_saved_beside_the_results_it_is_saved_elsewhere(done):
    found = shown(done)
    found.result.reviews.touch()  # in the place of the folder
    results = review(done)
    edit(done, results)
    keeper = keeper_of(results.review)
    done.until(lambda: keeper.saved_at is not None)
    assert keeper.problem is None
    assert keeper.folder.is_dir()


def test_no_run_replaces_what_is_under_review(done, world):
    results = review(done)
    done.widget.run_bar.run_button.click()
    assert world.asked == []
    assert done.status == "A part of this slide is under review; put it back first."
    assert done.widget.slides.review.results is results


def test_a_run_again_keeps_the_reviewed_parts(done, world):
    found = shown(done)
    results = review(done)
    place = results.place
    _, _, _, (y, x) = edit(done, results)
    put_back(done)
    labels = np.asarray(found.result.levels[0][:])
    world.answer = Choice.UPDATE
    done.widget.run_bar.run_button.click()
    done.until(lambda: done.widget.slides.busy is None)
    assert world.asked[-1][-1] == 1
    assert "in reviewed regions were kept" in done.status
    result = SlideResult.open(found.result.folder, "case 7")
    table = consistent(result)
    assert result.reviewed == [place]
    again = np.asarray(result.levels[0][:])
    np.testing.assert_array_equal(again > 0, labels > 0)
    at = int(again[int(y) + place.y0, int(x) + place.x0])
    assert str(table.set_index("id")["state"][at]) == "edited"
    assert len(list(result.folder.glob("case 7_earlier-*"))) == 1
    assert len(shown(done).result.centres) == len(table)
    assert not any("[1]" in name for name in done.names)


def test_another_part_puts_the_first_one_back(done):
    results = review(done, 500, 500)
    gone, _, _, _ = edit(done, results)
    done.viewer.scene.camera.center = tuple(shown(done).labels.data_to_world((1000, 1200)))
    done.widget.slides.box.review_button.click()
    second = lambda: done.widget.slides.review.results  # noqa: E731
    done.until(lambda: done.widget.slides.busy is None and second() not in (None, results))
    assert second().place != results.place
    assert gone not in set(shown(done).result.centres.ids.tolist())


def test_a_part_that_is_too_large_is_refused(done, monkeypatch):
    monkeypatch.setattr(slide_review, "MOST", 10_000)
    done.widget.slides.box.review_button.click()
    assert "megapixels, and a review takes" in done.status
    assert not done.widget.slides.review.is_open


def test_tissue_is_shown_and_hidden(slide):
    slide.widget.slides.target.show_button.click()
    slide.until(lambda: slide.widget.slides.busy is None)
    assert slide.names[-1] == "case 7 tissue"
    tissue = slide.layer("case 7 tissue")
    high = tissue.extent.world[1]
    whole = slide.layer("case 7").extent.world[1]
    assert (np.abs(high - whole) <= np.array(tissue.scale) * 1.01).all()
    slide.widget.slides.target.show_button.click()
    assert "case 7 tissue" not in slide.names


def test_folders(slide, tmp_path, world, monkeypatch):
    from napari_nucseg.io import session_places

    image = slide.layer("case 7")
    assert default_folder(image) == slide.path.parent / "case 7_nucseg"
    monkeypatch.setattr(session_places, "is_writable", lambda _folder: False)
    assert default_folder(image).parts[-2:] == ("slides", "case 7_nucseg")
    world.folder = tmp_path / "mine"
    slide.widget.slides.target._change.click()
    assert slide.widget.slides.folder(image) == tmp_path / "mine"


def test_a_failure_is_told_and_nothing_is_lost(slide, world, notes):
    world.error = RuntimeError("out of luck")
    run(slide)
    assert "out of luck" in slide.status
    assert "Tiles that were finished are kept." in slide.status
    world.error = None
    run(slide)
    assert slides_in(slide.viewer.layers)


def test_results_without_a_panel(make_napari_viewer, done):
    viewer = make_napari_viewer()
    added = add_result(viewer, done.path.parent / "case 7_nucseg")
    assert [type(layer).__name__ for layer in viewer.layers] == ["Labels", "Points"]
    viewer.layers.remove(added.labels)
    assert not added.is_open


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")])
def test_remaining(seconds, text):
    assert remaining(seconds) == text
