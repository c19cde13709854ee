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
from napari_nucseg._plugin.colouring import BY_INSTANCE, Look, labels_colormap, rgba
from napari_nucseg._plugin.compute import Request, Started
from napari_nucseg._plugin.questions import Choice
from napari_nucseg._plugin.results import ResultLayers
from napari_nucseg._plugin.saving import SHAPE_COLUMNS, Snapshot, free_stem, remeasured, stem_of
from napari_nucseg.core.measure import measure
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.inference import TileResult
from napari_nucseg.io.mpp import Mpp
from tests.fakes import CLASSES, fake_card

COLOURS = {"a": (255, 0, 0), "b": (0, 0, 255)}


def test_colours_by_class_and_by_instance():
    ids, names = np.array([3, 5, 9]), ["a", "b", "a"]
    cmap = labels_colormap(Look(), ids, names, COLOURS)
    np.testing.assert_allclose(cmap.map(np.array([0, 3, 5, 9, 77])), [
        [0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1],
    ])  # fmt: skip
    hidden = labels_colormap(Look(hidden=frozenset("a")), ids, names, COLOURS)
    np.testing.assert_allclose(hidden.map(np.array([3, 5, 9]))[:, 3], [0, 1, 0])
    cyclic = labels_colormap(Look(BY_INSTANCE), ids, names, COLOURS)
    part = labels_colormap(Look(BY_INSTANCE, frozenset("a")), ids, names, COLOURS)
    np.testing.assert_allclose(part.map(5), cyclic.map(5), atol=1e-6)
    assert part.map(9)[3] == 0
    np.testing.assert_allclose(rgba(COLOURS, ["b", "?"]), [[0, 0, 1, 1], [1, 1, 1, 1]])


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
def test_a_tile_that_comes_under_the_brush_leaves_the_history_alone(results, monkeypatch, contour):
    from napari_nucseg._plugin import results as module

    monkeypatch.setattr(module, "SMALL", 0)
    labels, (first, second, third) = results.labels, list(many(3000))
    labels.contour = contour
    drawn = []
    labels.events.labels_update.connect(lambda event: drawn.append((event.offset, event.data.shape)))
    corner = (np.array([1199]), np.array([1199]))
    results._cost, results._shown_at = 1e9, 0.0  # no full update
    labels.data_setitem(corner, 5)
    with labels.block_history():
        results.add(first)
        labels.data_setitem(corner, 6)
        results.add(second)
    labels.undo()
    results.add(third)
    labels.redo()
    assert labels.data[corner] == 6
    labels.undo()
    labels.undo()
    assert labels.data[corner] == 0
    for tile in (first, second, third):
        np.testing.assert_array_equal(labels.data[tile.box.slices], tile.labels)
    assert len(drawn) == 5  # two strokes and three tiles
    assert max(shape[0] for _, shape in drawn) <= first.labels.shape[0] + 2 * contour
    if not contour:
        expected = labels.colormap._data_to_texture(labels.data)
        np.testing.assert_array_equal(labels._slice.image.view, expected)


def test_ten_thousand_nuclei_are_shown_in_few_updates(results, monkeypatch):
    """By a clock on which an update takes 1 s and a tile comes every 0.6 s."""
    from napari_nucseg._plugin import results as module

    now, updates, refreshed = [100.0], [], []

    def slow_colormap(*about):
        updates.append(now[0])
        now[0] += 1.0
        return labels_colormap(*about)

    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(module, "labels_colormap", slow_colormap)
    results.labels.events.set_data.connect(refreshed.append)
    for tile in many(10_000):
        results.add(tile)
        now[0] += 0.6
    np.testing.assert_allclose(updates, [100, 105.2])  # the first at once, the next after four times its cost
    results.show()
    assert len(updates) == 3
    assert results.total() == len(results.points.data) == 10_000
    assert sum(results.counts().values()) == 10_000
    results.show(Look(hidden=frozenset(["other"])))
    assert len(updates) == 4
    assert len(refreshed) <= 2 * len(updates)
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
    for answer in Choice:
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


def test_the_saved_table_follows_edited_labels(panel, world, tmp_path, synthetic):
    panel.run()
    labels, run = panel.layer("tissue nuclei"), panel.widget.results.nuclei.copy()
    gone, cut, new = int(run["id"].iloc[0]), int(run["id"].iloc[-1]), int(run["id"].max()) + 7
    labels.data_setitem(np.nonzero(labels.data == gone), 0)
    rows, columns = np.nonzero(labels.data == cut)
    labels.data_setitem((rows[:20], columns[:20]), 0)
    labels.data_setitem(tuple(np.mgrid[3:7, 500:511].reshape(2, -1)), new)
    panel.layer("tissue centres").add([[5.0, 5.0]])
    world.folder = tmp_path
    panel.widget.save_button.click()
    at_save = labels.data.copy()
    labels.data_setitem(np.nonzero(labels.data == new), 0)  # too late for this file
    panel.until(lambda: panel.status.startswith("Saved "))
    assert "Centres that you moved, added or deleted are not in the files yet" in panel.status
    saved = pd.read_csv(tmp_path / "tissue_nuclei.csv")
    assert list(saved.columns) == list(run.columns)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "tissue_instances.tif"), at_save)
    np.testing.assert_array_equal(np.sort(saved["id"]), np.unique(at_save)[1:])
    truth = measure(at_save, synthetic.image, 0.25)
    saved = saved.set_index("id").loc[truth.id]
    for name in SHAPE_COLUMNS:
        np.testing.assert_allclose(saved[name], getattr(truth, name), rtol=1e-6)
    painted, kept = saved.loc[new], saved.drop(index=new)
    assert painted["class"] == "unclassified"
    assert (painted["centre_y"], painted["centre_x"], painted["area_um2"]) == (4.5, 505, 44 * 0.25**2)
    assert painted[["score", *(f"prob_{name}" for name in CLASSES)]].isna().all()
    before = run.set_index("id").loc[kept.index]
    unmeasured = [name for name in before.columns if name not in SHAPE_COLUMNS]
    pd.testing.assert_frame_equal(
        kept[unmeasured], before[unmeasured], check_dtype=False, check_index_type=False, rtol=1e-6
    )
    objects = json.loads((tmp_path / "tissue_nuclei.geojson").read_text())["features"]
    [mine] = [o["properties"] for o in objects if o["properties"]["measurements"]["NucSeg id"] == new]
    assert mine["classification"]["name"] == "unclassified"
    assert "score" not in mine["measurements"]


def test_saving_after_all_labels_were_erased_and_after_the_image_has_changed(panel):
    panel.run()
    results = panel.widget.results
    image = panel.layer("tissue").data
    empty = Snapshot(np.zeros_like(results.labels.data), results.nuclei, results.about, image, "YXC")
    assert remeasured(empty).equals(results.nuclei[:0])
    other = Snapshot(results.labels.data, results.nuclei, results.about, image[:100], "YXC")
    with pytest.raises(NucSegError, match="give both one shape"):
        remeasured(other)


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
    assert questions.ask_existing(None, "x nuclei", 1234, True) is choice
    assert "'x nuclei' with 1,234 nuclei" in seen[0]
    assert "loses these edits" in seen[0]
    assert seen[0].replace("&", "").endswith("Keep both (new layers)")
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
