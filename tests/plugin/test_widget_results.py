"""Colours, speed of showing many nuclei, saving, and the questions."""

from __future__ import annotations

import json
import types

import numpy as np
import pandas as pd
import pytest
import tifffile
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QMessageBox

from napari_nucseg._plugin import questions
from napari_nucseg._plugin.colouring import BY_INSTANCE, Look, NucleusColormap, rgba
from napari_nucseg._plugin.compute import Request, Started
from napari_nucseg._plugin.questions import Choice
from napari_nucseg._plugin.results import ResultLayers, hover_table
from napari_nucseg._plugin.saving import SHAPE_COLUMNS, free_stem, full_table, snapshot, stem_of
from napari_nucseg.core.measure import measure
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.inference import TileResult
from napari_nucseg.io.mpp import Mpp
from tests.fakes import CLASSES, fake_card

COLOURS = {"a": (255, 0, 0), "b": (0, 0, 255)}


def test_colours_by_class_and_by_instance():
    ids = np.array([3, 5, 9])
    cmap = NucleusColormap()
    assert not cmap.set_look(Look(), COLOURS, ("a", "b"))
    np.testing.assert_array_equal(cmap.set_kinds(ids, np.array([0, 1, 0])), [True, True, True])
    shown = [[0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    np.testing.assert_allclose(cmap.map(np.array([0, 3, 5, 9, 77, 10**9])), shown)
    assert not cmap.set_look(Look(hidden=frozenset("a")), COLOURS, ("a", "b"))  # only the palette is another
    np.testing.assert_allclose(cmap.map(ids)[:, 3], [0, 1, 0])
    assert cmap.set_look(Look(BY_INSTANCE), COLOURS, ("a", "b"))
    each = cmap.map(ids)
    assert len(np.unique(each, axis=0)) == 3
    assert cmap.set_look(Look(BY_INSTANCE, frozenset("a")), COLOURS, ("a", "b"))
    np.testing.assert_allclose(cmap.map(ids)[:, 3], [0, 1, 0])
    np.testing.assert_allclose(cmap.map(5), each[1])
    np.testing.assert_array_equal(cmap.set_kinds(np.array([5, 5000]), np.array([1, 0])), [False, True])
    assert cmap.map(5000)[3] == 0
    np.testing.assert_allclose(rgba(COLOURS, ["b", "?"]), [[0, 0, 1, 1], [1, 1, 1, 1]])


def test_the_texture_stands_for_the_colours():
    """What napari uploads, read with the palette that it uploads, gives the colours of the labels."""
    rng = np.random.default_rng(0)
    cmap = NucleusColormap()
    cmap.set_look(Look(hidden=frozenset("a")), COLOURS, ("a", "b"))
    cmap.set_kinds(np.arange(1, 3000), rng.integers(-1, 2, 2999))
    labels = rng.integers(0, 3100, (70, 90)).astype(np.uint32)
    for chosen in (None, 7, 2000):
        cmap.use_selection, cmap.selection = chosen is not None, chosen or 0
        texture, palette = cmap._data_to_texture(labels), cmap._values_mapping_to_minimum_values_set()[1]
        assert texture.dtype == np.uint8
        seen = np.array([palette[k] for k in range(len(palette))])[texture]
        np.testing.assert_allclose(seen, cmap.map(labels))
        assert (seen.any(-1) <= (labels > 0)).all()


def many(n, side=100):
    """n square nuclei in rows, as tiles of 1000."""
    ids = np.arange(1, n + 1)
    y, x = (ids - 1) // side * 12, (ids - 1) % side * 12
    table = pd.DataFrame({"id": ids.astype(np.uint32), "centre_y": y + 4.0, "centre_x": x + 4.0})
    table["class"] = np.array(CLASSES, object)[ids % 5]
    table["score"], table["area_um2"] = 0.5, 20.0
    for start in range(0, n, 1000):
        part = table[start : start + 1000].reset_index(drop=True)
        rows = part["centre_y"].to_numpy(int) - 4
        labels = np.zeros((rows.max() + 12 - rows.min(), side * 12), np.uint32)
        for id_, top, left in zip(
            part["id"], rows - rows.min(), part["centre_x"].to_numpy(int) - 4, strict=True
        ):
            labels[top : top + 9, left : left + 9] = id_
        box = Box(int(rows.min()), int(rows.min()) + labels.shape[0], 0, labels.shape[1])
        yield TileResult(box, labels, part, start // 1000 + 1, -(-n // 1000))


@pytest.fixture
def results(world):
    """Results on an empty image of 1.4 megapixels."""
    shape = (1200, 1200)
    image = Image(np.zeros((*shape, 3), np.uint8), scale=(0.25, 0.25))
    request = Request(image.data, "YXC", Mpp(0.25, "test"), world.model)
    return ResultLayers.create(image, request, Started(shape, "test", 10))


@pytest.mark.parametrize("contour", [0, 2])
def test_a_tile_is_drawn_alone(results, contour):
    labels = results.labels
    labels.contour = contour
    drawn = []
    labels.events.labels_update.connect(lambda event: drawn.append((event.offset, event.data.shape)))
    for tile in many(3000):
        results.add(tile)
        np.testing.assert_array_equal(labels.data[tile.box.slices], tile.labels)
    assert len(drawn) == 3
    assert max(shape[0] for _, shape in drawn) <= tile.labels.shape[0] + 2 * contour
    if not contour:
        expected = labels.colormap._data_to_texture(labels.data)
        np.testing.assert_array_equal(labels._slice.image.view, expected)
    assert not labels._undo_history


def test_ten_thousand_nuclei_are_shown_in_few_updates(results, monkeypatch):
    """By a clock on which an update takes 1 s and a tile comes every 0.6 s."""
    from napari_nucseg._plugin import results as module

    now, updates, refreshed = [100.0], [], []

    def slow_table(*about):
        updates.append(now[0])
        now[0] += 1.0
        return hover_table(*about)

    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(module, "hover_table", slow_table)
    results.labels.events.set_data.connect(refreshed.append)
    for tile in many(10_000):
        results.add(tile)
        now[0] += 0.6
    np.testing.assert_allclose(updates, [100, 105.2])  # the first at once, the next after four times its cost
    results.show()
    assert len(updates) == 3
    assert results.total() == len(results.points.data) == 10_000
    assert sum(results.counts().values()) == 10_000
    assert len(refreshed) <= 1  # the outlines, which are on from now on
    results.show(Look(hidden=frozenset(["other"])))
    assert len(refreshed) <= 1
    assert not results.edited
    np.testing.assert_array_equal(results.points.features["id"], np.arange(1, 10_001))
    np.testing.assert_allclose(
        results.points.face_color,
        rgba(fake_card().colours, list(results.points.features["class"])),
        atol=1e-6,
    )


def test_saving_writes_the_three_files(panel, world, tmp_path):
    button = panel.widget.save_button
    assert not button.isEnabled()
    assert button.toolTip() == "There are no results to save."
    panel.run()
    assert button.isEnabled()
    world.folder = tmp_path / "new"
    button.click()
    panel.until(lambda: panel.status.startswith("Saved "))
    names = ["tissue_instances.tif", "tissue_nuclei.csv", "tissue_nuclei.geojson"]
    assert sorted(p.name for p in world.folder.iterdir()) == names
    np.testing.assert_array_equal(tifffile.imread(world.folder / names[0]), panel.layer("tissue nuclei").data)
    assert len(pd.read_csv(world.folder / names[1])) == panel.widget.results.total()
    assert button.isEnabled()


def test_saving_asks_before_it_replaces_files(panel, world, tmp_path):
    panel.run()
    for answer in (Choice.KEEP, Choice.REPLACE, Choice.CANCEL):
        world.folder, world.answer = tmp_path / answer.name, answer
        world.folder.mkdir()
        world.asked.clear()
        old = world.folder / "tissue_nuclei.csv"
        old.write_text("mine")
        panel.widget.save_button.click()
        assert world.asked == [([old],)]
        if answer is not Choice.CANCEL:
            panel.until(lambda: panel.status.startswith("Saved ") and str(world.folder) in panel.status)
        assert (old.read_text() == "mine") == (answer is not Choice.REPLACE)
        assert (world.folder / "tissue (2)_nuclei.csv").exists() == (answer is Choice.KEEP)


@pytest.mark.parametrize("few", [0, 500])
def test_the_saved_table_follows_the_review(panel, world, tmp_path, synthetic, monkeypatch, few):
    from napari_nucseg._plugin import saving

    monkeypatch.setattr(saving, "FEW", few)
    panel.run()
    labels, run = panel.layer("tissue nuclei"), panel.widget.results.nuclei.copy()
    review = panel.widget.results.review
    gone, typed, new = int(run["id"].iloc[0]), int(run["id"].iloc[-1]), review.session.next_id
    review.session.reject([gone])
    review.session.retype([typed], 4)
    labels.data_setitem(tuple(np.mgrid[3:7, 500:511].reshape(2, -1)), new)
    world.folder = tmp_path
    panel.widget.save_button.click()
    at_save, kind = labels.data.copy(), int(review.session.record(new)["kind"])
    review.session.reject([new])  # too late for this file
    panel.until(lambda: panel.status.startswith("Saved "))
    saved = pd.read_csv(tmp_path / "tissue_nuclei.csv")
    assert list(saved.columns) == [*run.columns, "state", "origin"]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "tissue_instances.tif"), at_save)
    np.testing.assert_array_equal(saved["id"], np.unique(at_save)[1:])
    truth = measure(at_save, synthetic.image, 0.25)
    saved = saved.set_index("id").loc[truth.id]
    for name in SHAPE_COLUMNS:
        np.testing.assert_allclose(saved[name], getattr(truth, name), rtol=1e-5)
    painted = saved.loc[new]
    assert (painted["class"], painted["state"], painted["origin"]) == (
        review.session.classes[kind].name,
        "drawn",
        "brush",
    )
    assert painted["area_um2"] == 44 * 0.25**2
    assert saved.loc[typed, "class"] == CLASSES[4]
    assert saved.loc[typed, "state"] == "edited"
    objects = json.loads((tmp_path / "tissue_nuclei.geojson").read_text())["features"]
    [mine] = [o["properties"] for o in objects if o["properties"]["measurements"]["NucSeg id"] == new]
    assert mine["classification"]["name"] == review.session.classes[kind].name
    assert "score" not in mine["measurements"]


def test_saving_after_all_was_deleted_and_after_the_image_has_changed(panel):
    panel.run()
    results, image = panel.widget.results, panel.layer("tissue")
    ids = results.review.session.table()["id"].tolist()
    results.review.session.retype(ids[:1], 2)
    results.labels.data_setitem(np.nonzero(results.labels.data == ids[1]), 0)
    shot = snapshot(results, image)
    image.data = image.data[:100]
    assert len(full_table(shot)) == len(ids) - 1
    results.labels.data_setitem((np.array([2, 3]), np.array([300, 300])), results.review.session.next_id)
    with pytest.raises(NucSegError, match="give both one shape"):
        full_table(snapshot(results, image))
    results.review.session.reject(results.review.session.table()["id"].tolist())
    assert full_table(snapshot(results, image)).empty


def test_a_folder_that_cannot_be_written_is_said(panel, world, tmp_path, notes, monkeypatch):
    from napari_nucseg._plugin import flow

    monkeypatch.setattr(
        flow.notification_manager, "receive_error", lambda *about: notes.append(str(about[1]))
    )
    panel.run()
    (tmp_path / "file").write_text("")
    world.folder = tmp_path / "file"
    panel.widget.save_button.click()
    panel.until(lambda: bool(notes))
    assert "file" in panel.status


def test_names_of_files(tmp_path):
    assert stem_of("a/b: c [1]") == "a_b_ c _1_"
    assert stem_of("..") == "image"
    assert free_stem(tmp_path, "x") == "x"
    (tmp_path / "x_nuclei.csv").touch()
    assert free_stem(tmp_path, "x") == "x (2)"


def answer_with(text):
    """Press a button of the message box that is about to open; return the box's texts."""
    seen = []

    def press():
        box = QApplication.activeModalWidget()
        assert isinstance(box, QMessageBox)
        seen.append(f"{box.text()} {box.informativeText()} {box.defaultButton().text()}")
        next(b for b in box.buttons() if text in b.text().replace("&", "")).click()

    QTimer.singleShot(200, press)
    return seen


@pytest.mark.parametrize(
    ("button", "choice"), [("Keep both", Choice.KEEP), ("Replace", Choice.REPLACE), ("Cancel", Choice.CANCEL)]
)
def test_the_questions(qtbot, tmp_path, button, choice):
    seen = answer_with(button)
    assert questions.ask_existing(None, "x nuclei", 1234, "Set 0.25.") is choice
    assert "'x nuclei' with 1,234 nuclei" in seen[0]
    assert "loses these edits" in seen[0]
    assert seen[0].replace("&", "").endswith("Keep both (new layers)")
    seen = answer_with(button.replace("Replace", "Update"))
    picked = Choice.UPDATE if choice is Choice.REPLACE else choice
    assert questions.ask_update(None, "x nuclei", 1234, 56) is picked
    assert "reviewed 56 nuclei in 'x nuclei', which holds 1,234" in seen[0]
    assert "Update: keep what you have reviewed" in seen[0].replace("&", "")
    seen = answer_with(button)
    assert questions.ask_files(None, [tmp_path / "a.csv"]) is choice
    assert "a.csv" in seen[0]


def test_the_panel_of_the_manifest_opens_by_its_command(make_napari_viewer):
    viewer = make_napari_viewer()
    _, panel = viewer.window.add_plugin_dock_widget("napari-nucseg", "NucSeg")
    assert type(panel).__name__ == "NucSegWidget"


def test_the_demo_has_the_sample_and_the_panel_ready(monkeypatch, tmp_path, qtbot, synthetic):
    from PIL import Image as Picture

    from napari_nucseg._plugin import demo
    from napari_nucseg.errors import NucSegError

    viewer, panel = demo.make_demo(show=False)
    assert viewer.layers[0].name == "synthetic H&E"
    assert panel.run_bar.run_button.isEnabled()
    viewer.close()
    path = tmp_path / "tissue.png"
    Picture.fromarray(synthetic.image).save(path)
    viewer, panel = demo.make_demo(path, 0.5, show=False)
    assert panel.mpp.mpp.value == 0.5
    assert panel.image.layer.name == "tissue"
    viewer.close()
    with pytest.raises(NucSegError, match="does not exist"):
        demo.make_demo(tmp_path / "none.png")
    with pytest.raises(NucSegError, match="no usable mpp"):
        demo.make_demo(path, 40.0)
