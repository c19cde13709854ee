"""Run from the panel: what comes into the layers, and what is seen."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import dask.array as da
import numpy as np
import pytest

import napari_nucseg as nn
from napari_nucseg.core.tiling import Box
from napari_nucseg.inference import Region, collect, make_plan, run
from tests.fakes import CLASSES, FakeRuntime, fake_card


def expected(image, mpp=0.25, region=None):
    plan = make_plan(image, FakeRuntime(), fake_card(), mpp=mpp, region=region)
    return collect(run(plan), plan)


def test_a_run_gives_what_the_pipeline_gives(panel, synthetic):
    panel.run()
    labels, points = panel.layer("tissue nuclei"), panel.layer("tissue centres")
    truth = expected(synthetic.image)
    assert labels.data.dtype == np.uint32
    np.testing.assert_array_equal(labels.data > 0, truth.labels > 0)
    assert len(points.data) == len(truth.nuclei) > 50
    np.testing.assert_allclose(
        np.sort(points.data, axis=0), np.sort(truth.nuclei[["centre_y", "centre_x"]].to_numpy(), axis=0)
    )
    assert panel.status.startswith(f"{len(truth.nuclei):,} nuclei in ")
    assert panel.status.endswith("s (fake (CPU)).")
    assert panel.names == ["tissue", "tissue nuclei", "tissue centres"]
    assert list(points.features.columns) == ["id", "class", "score", "state", "area_um2"]


def test_layers_lie_on_the_image_and_describe_the_run(panel):
    image = panel.layer("tissue")
    image.translate = (30, -20)
    panel.run()
    for name in ("tissue nuclei", "tissue centres"):
        layer = panel.layer(name)
        np.testing.assert_allclose(layer.scale, image.scale)
        np.testing.assert_allclose(layer.translate, image.translate)
        assert layer.units == image.units
        about = layer.metadata["napari_nucseg"]
        assert about["model"] == "fake"
        assert about["mpp"] == 0.25
        assert about["runtime"] == "fake (CPU)"
        assert about["image"] == "tissue"
        assert about["region"] == "whole image"


def test_hover_shows_class_score_and_area(panel, centre_of):
    panel.run()
    labels = panel.layer("tissue nuclei")
    nuclei = labels.metadata["napari_nucseg"]["nuclei"]
    row, pixel = centre_of(labels.data, nuclei)
    text = labels.get_status(pixel * 0.25, world=True)["coordinates"]
    assert f"class: {row['class']}" in text
    assert f"area_um2: {row['area_um2']:.3g}" in text
    assert "score: " in text
    background = np.argwhere(labels.data == 0)[0]
    assert "class" not in labels.get_status(background * 0.25, world=True)["coordinates"]
    assert panel.viewer.layers.selection.active == panel.layer("tissue centres")  # a key edits at once


def pixel_on_canvas(viewer, world_point, shape):
    """Return where a point of the world lies in a screenshot of the canvas."""
    camera = viewer.scene.camera
    offset = (np.array(world_point) - camera.center[-2:]) * camera.zoom
    return np.round(np.array(shape[:2]) / 2 + offset * shape[0] / viewer.canvas.size[0]).astype(int)


def look_at(panel, position):
    panel.viewer.scene.camera.center = (0, *position)
    panel.viewer.scene.camera.zoom = 20
    panel.qtbot.wait(50)
    picture = panel.viewer.screenshot(flash=False)
    y, x = pixel_on_canvas(panel.viewer, position, picture.shape)
    return picture[y - 1 : y + 2, x - 1 : x + 2, :3].reshape(-1, 3).mean(0)


def test_nuclei_are_seen_in_the_colour_of_their_class(make_panel, synthetic, centre_of):
    panel = make_panel(show=True)
    panel.viewer.add_image(synthetic.image, name="tissue", scale=(0.25, 0.25), units=("um", "um"))
    panel.widget.legend.set_outlines(False)
    panel.run()
    labels, points = panel.layer("tissue nuclei"), panel.layer("tissue centres")
    row, pixel = centre_of(labels.data, labels.metadata["napari_nucseg"]["nuclei"])
    points.visible = False
    labels.opacity = 1
    seen = look_at(panel, pixel * 0.25)
    np.testing.assert_allclose(seen, fake_card().colours[row["class"]], atol=3)
    panel.widget.legend.set_shown(row["class"], False)
    np.testing.assert_allclose(look_at(panel, pixel * 0.25), synthetic.image[tuple(pixel)], atol=30)
    panel.widget.legend.set_shown(row["class"], True)
    panel.widget.legend.set_by("instance")
    assert np.abs(look_at(panel, pixel * 0.25) - fake_card().colours[row["class"]]).max() > 20
    points.visible, labels.visible = True, False
    at = row[["centre_y", "centre_x"]].to_numpy(float) * 0.25
    np.testing.assert_allclose(look_at(panel, at), fake_card().colours[row["class"]], atol=3)


def test_counts_are_in_the_legend_and_classes_can_be_hidden(panel):
    panel.run()
    points = panel.layer("tissue centres")
    legend, classes = panel.widget.legend, points.features["class"].to_numpy()
    for name in CLASSES:
        assert legend.count_text(name).split()[0] == str((classes == name).sum())
    present = classes[0]
    legend.set_shown(present, False)
    np.testing.assert_array_equal(points.shown, classes != present)
    labels = panel.layer("tissue nuclei")
    ids = points.features["id"].to_numpy()
    assert labels.colormap.map(int(ids[0]))[3] == 0
    other = ids[classes != present]
    assert all(labels.colormap.map(int(i))[3] == 1 for i in other)
    legend.set_by("instance")
    assert labels.colormap.map(int(ids[0]))[3] == 0
    legend.set_shown(present, True)
    assert points.shown.all()
    assert labels.colormap.map(int(ids[0]))[3] == 1


def test_tiles_appear_also_when_the_next_ones_are_long_in_coming(tall, gated, monkeypatch):
    """Updates that take long are rare; the last tiles before a pause are shown nevertheless."""
    monkeypatch.setattr("napari_nucseg._plugin.results.PATIENCE", 1e6)
    tall.widget.run_bar.run_button.click()
    gated.let(6)
    tall.until(lambda: "tissue centres" in tall.names and len(tall.layer("tissue centres").data) > 0)
    assert tall.running
    gated.let(6)
    tall.wait()


def test_tiles_appear_as_they_finish(tall, gated):
    tall.widget.run_bar.run_button.click()
    gated.let(6)
    tall.until(lambda: "tissue centres" in tall.names and len(tall.layer("tissue centres").data) > 0)
    part = len(tall.layer("tissue centres").data)
    assert tall.running
    labels = tall.layer("tissue nuclei")
    assert labels.data[:256].max() > 0
    assert labels.data[1024:].max() == 0
    bar = tall.widget.run_bar.bar
    assert bar.isVisibleTo(tall.widget)
    tall.until(lambda: bar.value() == 6)
    assert bar.maximum() == 12
    gated.let(6)
    tall.wait()
    assert not bar.isVisibleTo(tall.widget)
    assert len(tall.layer("tissue centres").data) > 2 * part
    assert labels.data[1400:].max() > 0
    assert not tall.widget.results.edited
    found = labels.metadata["napari_nucseg"]["nuclei"]
    np.testing.assert_array_equal(np.unique(labels.data)[1:], np.sort(found["id"]))


def test_the_current_view_alone(make_panel, synthetic):
    panel = make_panel(show=True)
    panel.viewer.add_image(
        synthetic.image, name="tissue", scale=(0.25, 0.25), translate=(100, 50), units=("um", "um")
    )
    panel.viewer.scene.camera.center = (0, 100 + 64, 50 + 32)
    panel.viewer.scene.camera.zoom = 12
    panel.qtbot.wait(50)
    panel.widget.region.box.setCurrentIndex(1)
    area = panel.widget.region.area()
    low, high = panel.viewer.layers["tissue"].corner_pixels
    np.testing.assert_allclose((area.box.y0, area.box.x0, area.box.y1, area.box.x1), (*low, *high), atol=2)
    panel.run()
    centres = panel.layer("tissue centres").data
    truth = expected(synthetic.image, region=Region(area.box)).nuclei
    assert 0 < len(centres) == len(truth) < len(expected(synthetic.image).nuclei)
    panel.viewer.scene.camera.center = (0, 9000, 9000)
    panel.widget.run_bar.run_button.click()
    assert "shows nothing of 'tissue'" in panel.status
    assert not panel.running


@pytest.mark.parametrize("kind", ["rectangle", "ellipse", "polygon"])
def test_drawn_shapes_alone(panel, synthetic, kind):
    panel.layer("tissue").translate = (10, 0)
    corners = np.array([[100, 200], [100, 400], [300, 400], [300, 200]], float)
    # in pixels of the shapes' own layer, which are twice as large as the image's and elsewhere
    drawn = (corners * 0.25 + (10, 0) - (4, 6)) / 0.5
    shapes = panel.viewer.add_shapes(
        [drawn, drawn + 300], shape_type=kind, scale=(0.5, 0.5), translate=(4, 6), units=("um", "um")
    )
    shapes.selected_data = {0}
    panel.widget.region.box.setCurrentIndex(2)
    panel.run()
    centres = panel.layer("tissue centres").data
    box = Region(Box(100, 301, 200, 401))
    inside = expected(synthetic.image, region=box).nuclei[["centre_y", "centre_x"]].to_numpy()
    if kind == "ellipse":
        inside = inside[(((inside - (200, 300)) / 100) ** 2).sum(1) < 0.98]
        centres = centres[(((centres - (200, 300)) / 100) ** 2).sum(1) < 0.98]
    assert abs(len(centres) - len(inside)) <= 1
    assert len(centres) > 3
    assert panel.layer("tissue nuclei").metadata["napari_nucseg"]["region"] == "1 selected shape"


def test_a_multiscale_layer_is_segmented_at_level_0(make_panel, synthetic):
    panel = make_panel()
    levels = [da.from_array(synthetic.image[::step, ::step], chunks=(128, 128, 3)) for step in (1, 2, 4)]
    panel.viewer.add_image(
        levels, name="slide", multiscale=True, rgb=True, scale=(0.25, 0.25), units=("um", "um")
    )
    panel.run()
    truth = expected(synthetic.image)
    np.testing.assert_array_equal(panel.layer("slide nuclei").data, truth.labels)
    assert not panel.layer("slide nuclei").multiscale


def test_grey_channels_first_are_taken_as_rgb(make_panel, synthetic):
    panel = make_panel()
    stack = np.ascontiguousarray(np.moveaxis(synthetic.image, 2, 0))
    panel.viewer.add_image(stack, name="stack", scale=(1, 0.25, 0.25), units=("pixel", "um", "um"))
    panel.run()
    labels = panel.layer("stack nuclei")
    assert labels.ndim == 2
    np.testing.assert_allclose(labels.scale, (0.25, 0.25))
    np.testing.assert_array_equal(labels.data, expected(synthetic.image).labels)


def test_the_runtime_is_kept_for_the_next_run(panel, world):
    panel.run()
    panel.run()
    assert [device for _, device in world.loaded] == ["auto"]
    panel.widget.device.set_device("cpu-torch")
    panel.run()
    assert [device for _, device in world.loaded] == ["auto", "cpu-torch"]


def test_thresholds_reach_the_decoder(panel):
    panel.widget.advanced.centre.setValue(0.9)
    panel.run()
    few = len(panel.layer("tissue centres").data)
    assert panel.layer("tissue nuclei").metadata["napari_nucseg"]["settings"] == {"centre": 0.9}
    panel.widget.advanced._on_reset()
    panel.run()
    assert few < len(panel.layer("tissue centres [1]").data)


def test_no_nuclei_are_said(make_panel):
    panel = make_panel()
    white = np.full((64, 64, 3), 255, np.uint8)
    panel.viewer.add_image(white, name="glass", scale=(0.25, 0.25), units=("um", "um"))
    panel.run()
    assert panel.status.startswith("No nuclei found in ")
    assert not panel.widget.save_button.isEnabled()


def test_opening_the_panel_is_quick_and_imports_no_torch():
    code = textwrap.dedent(
        """
        import sys, time
        import napari
        viewer = napari.Viewer(show=False)
        began = time.perf_counter()
        _, panel = viewer.window.add_plugin_dock_widget("napari-nucseg", "NucSeg")
        print(time.perf_counter() - began, "torch" in sys.modules, "openvino" in sys.modules)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, torch, openvino = done.stdout.split()
    assert float(seconds) < 1.5  # half of it where nothing else runs on the machine
    assert (torch, openvino) == ("False", "False")


@pytest.mark.slow
def test_end_to_end_with_the_shipped_model(make_napari_viewer, qtbot, synthetic):
    from napari_nucseg._plugin.widget import NucSegWidget

    if not nn.available_models():
        pytest.skip("the weights are not in this checkout")
    viewer = make_napari_viewer()
    viewer.add_image(synthetic.image, name="tissue", scale=(0.25, 0.25), units=("um", "um"))
    widget = NucSegWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.run()
    qtbot.waitUntil(lambda: not widget.flow.controller.running, timeout=120_000)
    assert " in " in widget.run_bar.status, widget.run_bar.status
    assert viewer.layers["tissue nuclei"].data.shape == (512, 512)
