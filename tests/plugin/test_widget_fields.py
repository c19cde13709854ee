"""What the fields of the panel show, allow, and explain."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_nucseg._plugin import images
from napari_nucseg._plugin.widget import NucSegWidget
from napari_nucseg.models.registry import Model
from napari_nucseg.models.runtime import DeviceReport
from tests.fakes import CLASSES, fake_card

RGB = np.zeros((40, 50, 3), np.uint8)


def items(box):
    return [box.itemText(k) for k in range(box.count())]


def tip(box, index):
    return box.model().item(index).toolTip()


def test_without_an_image_everything_explains_itself(make_panel):
    panel = make_panel()
    widget = panel.widget
    button = widget.run_bar.run_button
    assert not button.isEnabled()
    assert "There is no image" in button.toolTip()
    assert "Open an H&E image" in widget.image._hint.text()
    assert not widget.image._box.isEnabled()
    assert not widget.run_bar.cancel_button.isEnabled()
    assert not widget._results_box.isVisibleTo(widget)
    widget.run()
    assert not panel.running


def test_only_images_are_listed_as_they_come_go_and_are_renamed(make_panel):
    panel = make_panel()
    box = panel.widget.image._box
    first = panel.viewer.add_image(RGB, name="first")
    panel.viewer.add_labels(np.zeros((5, 5), int))
    assert items(box) == ["first"]
    second = panel.viewer.add_image(RGB, name="second")
    assert items(box) == ["second", "first"]
    panel.widget.image.choose(first)
    second.name = "renamed"
    assert items(box) == ["renamed", "first"]
    assert panel.widget.image.layer == first  # the choice stays
    panel.viewer.layers.remove(first)
    assert panel.widget.image.layer == second
    panel.viewer.layers.clear()
    assert panel.widget.image.layer is None
    assert not panel.widget.run_bar.run_button.isEnabled()


def test_the_image_that_was_added_or_selected_is_chosen(panel, gated):
    image, active = panel.widget.image, panel.viewer.layers.selection
    first = panel.layer("tissue")
    second = panel.viewer.add_image(RGB, name="second", scale=(0.25, 0.25), units=("um", "um"))
    assert image.layer == second
    active.active = first
    assert image.layer == first
    active.active = panel.viewer.add_labels(np.zeros((5, 5), int))
    assert image.layer == first
    panel.widget.run()
    panel.viewer.add_image(RGB, name="third")
    active.active = second
    assert image.layer == first  # the run goes on
    gated.let(100)
    panel.wait()
    assert image.layer == first
    active.active = first
    active.active = second
    assert image.layer == second


def test_the_panel_opens_with_the_selected_image(make_napari_viewer_proxy, world):
    viewer = make_napari_viewer_proxy()
    lower = viewer.add_image(RGB, name="lower")
    viewer.add_image(RGB, name="upper")
    viewer.layers.selection.active = lower
    widget = NucSegWidget(viewer, world.services())
    assert widget.image.layer == lower
    widget.close_down()


@pytest.mark.parametrize(
    ("options", "value", "source"),
    [
        ({"scale": (0.5, 0.5), "units": ("um", "um")}, 0.5, "layer scale"),
        ({"scale": (0.00025, 0.00025), "units": ("mm", "mm")}, 0.25, "layer scale"),
        ({"scale": (0.5, 0.5)}, None, "unknown"),
        ({}, None, "unknown"),
        ({"scale": (0.25, 0.5), "units": ("um", "um")}, None, "pixels must be square"),
        ({"scale": (90, 90), "units": ("um", "um")}, None, "no scan of nuclei"),
        (
            {"metadata": {"napari_nucseg": {"mpp": 0.499, "mpp_source": "Aperio header"}}},
            0.499,
            "Aperio header",
        ),
        (
            {"metadata": {"napari_nucseg": {"mpp": None, "mpp_source": "unknown (TIFF says 900)"}}},
            None,
            "900",
        ),
    ],
)
def test_mpp_is_shown_with_its_source(make_panel, options, value, source):
    panel = make_panel()
    panel.viewer.add_image(RGB, name="image", **options)
    mpp = panel.widget.mpp.mpp
    assert mpp.value == (None if value is None else pytest.approx(value))
    assert source in mpp.source
    assert panel.widget.mpp.edit.text() == ("" if value is None else f"{value:g}")
    shown = panel.widget.mpp._source.text()
    assert shown == f"Source: {source}" if value else "state it: 0.25 for a 40x scan" in shown
    assert panel.widget.run_bar.run_button.isEnabled() == (value is not None)


def test_the_file_is_asked_where_another_reader_was_silent(make_panel, tmp_path, monkeypatch):
    asked = []

    def file_mpp(path, shape):
        asked.append(threading.current_thread())
        return real(path, shape)

    real = images.file_mpp
    monkeypatch.setattr(images, "file_mpp", file_mpp)
    panel = make_panel()
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", resolution=(40000, 40000), resolutionunit=3)
    (layer,) = panel.viewer.open(path, plugin="napari")
    field = panel.widget.mpp
    panel.until(lambda: field.mpp.value is not None)
    assert (field.mpp.value, field.mpp.source) == (pytest.approx(0.25), "TIFF resolution tag")
    assert panel.widget.run_bar.run_button.isEnabled()
    other = panel.viewer.add_image(RGB)
    panel.widget.image.choose(layer)
    panel.widget.image.choose(other)
    assert field.mpp.value is None
    assert len(asked) == 1
    assert asked[0] is not threading.main_thread()


def test_a_file_that_cannot_be_read_says_no_resolution(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"nonsense")
    assert images.file_mpp(str(tmp_path / "a.tif"), (40, 50)).value is None
    assert images.file_mpp("https://no.where/a.tif", (40, 50)).value is None
    tifffile.imwrite(tmp_path / "b.tif", RGB, photometric="rgb", resolution=(40000, 40000), resolutionunit=3)
    assert images.file_mpp(str(tmp_path / "b.tif"), (20, 25)).value is None  # another level


def type_in(field, text):
    field.edit.setText(text)
    field.edit.editingFinished.emit()


def test_unknown_mpp_forbids_a_run_until_it_is_stated(make_panel):
    panel = make_panel()
    panel.viewer.add_image(RGB, name="one")
    button, field = panel.widget.run_bar.run_button, panel.widget.mpp
    assert "0.25 for a 40x scan, 0.5 for 20x" in button.toolTip()
    assert "border" in field.edit.styleSheet()
    panel.widget.run()
    assert not panel.running
    type_in(field, "0,25")
    assert (field.mpp.value, field.mpp.source) == (0.25, "stated by the user")
    assert button.isEnabled()
    assert field.edit.styleSheet() == ""
    for wrong in ("40", "abc", "-1", "nan"):
        type_in(field, wrong)
        assert "no usable mpp" in field._source.text()
        assert field.mpp.value is None
        assert images.STATED not in panel.layer("one").metadata
        assert "border" in field.edit.styleSheet()
        assert field.edit.text() == wrong
        assert not button.isEnabled()
        assert button.toolTip() == field._source.text()
    type_in(field, "0.3")
    assert field.mpp.value == 0.3
    assert button.isEnabled()
    assert "no usable" not in field._source.text()


def test_no_figure_of_the_file_is_used_instead_of_a_wrong_one(panel):
    field, button = panel.widget.mpp, panel.widget.run_bar.run_button
    field.edit.setText("-1")
    panel.widget.run()  # the text was not left yet
    assert not panel.running
    assert not button.isEnabled()
    assert "no usable mpp" in button.toolTip()
    type_in(field, "")
    assert (field.mpp.value, field.edit.text()) == (0.25, "0.25")
    assert button.isEnabled()


def test_what_the_user_states_wins_and_is_remembered_per_layer(make_panel):
    panel = make_panel()
    first = panel.viewer.add_image(RGB, name="first", scale=(0.5, 0.5), units=("um", "um"))
    second = panel.viewer.add_image(RGB, name="second", scale=(0.25, 0.25), units=("um", "um"))
    field = panel.widget.mpp
    panel.widget.image.choose(first)
    assert field.mpp.value == 0.5
    type_in(field, "0.4")
    panel.widget.image.choose(second)
    assert field.mpp.value == 0.25
    panel.widget.image.choose(first)
    assert (field.mpp.value, field.mpp.source) == (0.4, "stated by the user")
    first.scale = (2, 2)
    assert field.mpp.value == 0.4
    field.state(None)
    assert (field.mpp.value, field.mpp.source) == (2, "layer scale")


def test_a_new_scale_is_taken_over(make_panel):
    panel = make_panel()
    layer = panel.viewer.add_image(RGB)
    assert not panel.widget.run_bar.run_button.isEnabled()
    layer.units = ("um", "um")
    layer.scale = (0.5, 0.5)
    assert panel.widget.mpp.edit.text() == "0.5"


def test_the_stated_mpp_is_the_one_used(panel):
    panel.widget.mpp.state(0.5)
    panel.run()
    assert panel.layer("tissue nuclei").metadata["napari_nucseg"]["mpp"] == 0.5
    coarse = panel.layer("tissue nuclei").metadata["napari_nucseg"]["nuclei"]
    panel.widget.mpp.state(None)
    panel.run()
    fine = panel.layer("tissue nuclei [1]").metadata["napari_nucseg"]["nuclei"]
    assert coarse["area_um2"].sum() > 2 * fine["area_um2"].sum()


def test_regions_which_are_not_there_say_why(panel):
    region = panel.widget.region
    assert "draw a rectangle" in tip(region.box, 2)
    assert not region.box.model().item(2).isEnabled()
    shapes = panel.viewer.add_shapes(name="drawn")
    assert not region.box.model().item(2).isEnabled()
    shapes.add_lines(np.array([[0, 0], [9, 9]]))
    assert not region.box.model().item(2).isEnabled()
    shapes.add_rectangles(np.array([[0, 0], [90, 90]]))
    assert region.box.model().item(2).isEnabled()
    region.box.setCurrentIndex(2)
    assert region._hint.text().lower() in ("1 selected shape.", "1 drawn shape.")
    shapes.selected_data = {0, 1}
    shapes.remove_selected()
    assert not panel.widget.run_bar.run_button.isEnabled()
    assert "draw a rectangle" in panel.widget.run_bar.run_button.toolTip()
    panel.viewer.layers.remove(shapes)
    assert region.box.currentIndex() == 0
    assert panel.widget.run_bar.run_button.isEnabled()
    panel.viewer.dims.ndisplay = 3
    assert "switch to 2-D" in tip(region.box, 1)


def test_hidden_shapes_do_not_count(panel):
    shapes = panel.viewer.add_shapes([np.array([[0, 0], [9, 9]])], shape_type="rectangle")
    assert panel.widget.region.box.model().item(2).isEnabled()
    shapes.visible = False
    assert not panel.widget.region.box.model().item(2).isEnabled()


def test_the_card_of_the_model_is_shown(panel):
    facts = panel.widget.model._facts.text()
    assert all(name in facts for name in CLASSES)
    assert "0.25 µm/px" in facts
    assert "BSD-3-Clause" in facts
    assert panel.widget.model._caution.text() == "Learnt on nothing."
    assert "Threshold on haematoxylin" in panel.widget.model._box.toolTip()


def test_without_a_model_there_is_no_run(make_panel, world, synthetic):
    world.model = None
    panel = make_panel()
    panel.viewer.add_image(synthetic.image, scale=(0.25, 0.25), units=("um", "um"))
    assert "No model is installed" in panel.widget.run_bar.run_button.toolTip()
    assert not panel.widget.advanced.isEnabled()


def test_a_model_is_added_from_a_folder(panel, world, tmp_path, notes):
    world.folder = tmp_path
    panel.widget.model._add.click()
    assert "is not a model" in notes[0]
    assert "is not a model" in panel.status
    card = dataclasses.replace(fake_card(), name="mine", classes=("one", "two"))
    card = dataclasses.replace(card, colours={"one": (1, 2, 3), "two": (4, 5, 6)})
    (tmp_path / "weights.safetensors").write_bytes(b"")
    (tmp_path / "card.json").write_text(card.to_json(), encoding="utf-8")
    panel.widget.model._add.click()
    assert panel.widget.model.model.name == "mine"
    assert "one, two" in panel.widget.model._facts.text()
    assert panel.status == ""


def test_a_model_that_is_in_the_list_is_chosen_and_another_of_its_name_is_told_apart(panel, world, tmp_path):
    field, box = panel.widget.model, panel.widget.model._box
    before = items(box)
    for name, text in (("a", "one"), ("copy of a", "one"), ("b", "two")):
        card = dataclasses.replace(
            world.model.card, caution=text, weaknesses=(f"Weak: {text}.",), sha256="1" * 64
        )
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_bytes(b"")
        (tmp_path / name / "card.json").write_text(card.to_json(), encoding="utf-8")
        field.add(tmp_path / name)
    added = items(box)[len(before) :]
    assert added == [f"fake 1 ({tmp_path / name})" for name in ("a", "b")]
    field.add(tmp_path / "copy of a")
    assert (len(items(box)), field._caution.text()) == (len(before) + 2, "one")
    assert "Weak: one." in box.toolTip()


def test_a_run_or_a_damaged_card_is_refused_in_a_sentence(panel, world, tmp_path):
    world.folder, before = tmp_path, items(panel.widget.model._box)
    (tmp_path / "config.json").write_text("{}")
    panel.widget.model._add.click()
    assert "is the run of a training, not yet a model" in panel.status
    (tmp_path / "weights.safetensors").write_bytes(b"")
    bad = world.model.card.to_json().replace('"colours": {', '"colours": {"x": ["#", "f", "f"], ')
    (tmp_path / "card.json").write_text(bad, encoding="utf-8")
    panel.widget.model._add.click()
    assert "of 'x' is none" in panel.status
    assert items(panel.widget.model._box) == before


def test_devices_that_are_not_there_say_why(panel):
    box = panel.widget.device._box
    assert not box.model().item(1).isEnabled()
    assert "Looking for a GPU" in tip(box, 1)
    panel.widget.device.set_device("cuda")
    panel.until(lambda: items(box)[0] != "Auto")
    assert items(box) == ["Auto (CPU, bf16)", "GPU (CUDA)", "CPU (OpenVINO, bf16)", "CPU (torch)"]
    assert not box.model().item(1).isEnabled()
    assert "no CUDA device" in tip(box, 1)
    assert panel.widget.device.device == "auto"
    panel.widget.device.show_report(DeviceReport("NVIDIA X", None, "f32"))
    assert items(box)[0] == "Auto (GPU)"
    assert box.model().item(1).isEnabled()
    assert "OpenVINO is not installed" in tip(box, 2)


def test_a_machine_that_cannot_be_looked_over_has_no_gpu(make_panel, world):
    del world.report  # asking for it is an error
    panel = make_panel()
    box = panel.widget.device._box
    panel.widget.device.set_device("cuda")
    panel.until(lambda: "failed" in tip(box, 1))
    assert not box.model().item(1).isEnabled()
    assert panel.widget.device.device == "auto"


def test_thresholds_come_from_the_card_and_go_back_to_it(panel):
    advanced = panel.widget.advanced
    assert not advanced.isExpanded()
    assert (advanced.foreground.value(), advanced.centre.value()) == (0.5, 0.35)
    assert advanced.settings == {}
    assert not advanced._reset.isEnabled()
    assert advanced._reset.toolTip() == "The thresholds are the model's own."
    advanced.foreground.setValue(0.6)
    assert advanced.settings == {"foreground": 0.6}
    assert advanced._reset.isEnabled()
    advanced._reset.click()
    assert advanced.settings == {}
    assert advanced.foreground.value() == 0.5


def test_level0_shape_and_axes_of_kinds_of_layers():
    from napari.layers import Image

    grey = Image(np.zeros((40, 50)))
    colour = Image(RGB)
    pyramid = Image(
        [np.zeros((40, 50, 3), np.uint8), np.zeros((20, 25, 3), np.uint8)], multiscale=True, rgb=True
    )
    assert [images.level0_shape(x) for x in (grey, colour, pyramid)] == [(40, 50)] * 3
    assert [images.axes_of(x) for x in (grey, colour, pyramid)] == [None, "YXC", "YXC"]
    assert isinstance(images.pixels_of(pyramid), list)
    assert images.image_id(grey) == images.image_id(grey) != images.image_id(colour)


@pytest.mark.parametrize(
    ("shape", "multiscale", "allowed"),
    [
        ((20, 40, 50), False, False),
        ((6, 40, 50, 3), False, False),
        ((6, 40, 50, 3), True, False),
        ((40, 50), False, True),
        ((3, 40, 50), False, True),
        ((40, 50, 3), True, True),
    ],
)
def test_stacks_forbid_a_run(make_panel, shape, multiscale, allowed):
    panel = make_panel()
    data = np.zeros(shape, np.uint8)
    levels = [data, np.zeros((*shape[:-3], 20, 25, 3), np.uint8)] if multiscale else data
    metadata = {"napari_nucseg": {"mpp": 0.25}}
    panel.viewer.add_image(levels, rgb=shape[-1] == 3, multiscale=multiscale, metadata=metadata)
    button = panel.widget.run_bar.run_button
    assert button.isEnabled() == allowed
    assert button.toolTip().startswith("This is a stack: choose one plane") != allowed


def test_every_disabled_widget_has_a_tooltip(make_panel):
    from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit

    panel = make_panel()
    for kind in (QAbstractButton, QComboBox, QAbstractSpinBox, QLineEdit):
        for child in panel.widget.findChildren(kind):
            if not child.isEnabled() and child.isVisibleTo(panel.widget):
                parents = [child.parent(), child.parent().parent()]
                assert any(w.toolTip() for w in (child, *parents)), (child, getattr(child, "text", str)())


def test_a_folder_that_is_given_up_changes_nothing(panel, world):
    world.folder = None
    panel.widget.model._add.click()
    assert panel.widget.model.model == Model(Path("fake/weights.safetensors"), world.model.card)
