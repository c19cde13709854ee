"""A review by mouse: click, drag, delete and paint in a real viewer, seen in pixels, points and table."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_nucseg.core.nuclei import State
from tests.fakes import fake_card
from tests.plugin.desk import Desk
from tests.plugin.hand import CTRL, SHIFT
from tests.session.boards import assert_sound, state_of


def test_a_click_adds_a_nucleus_and_undo_takes_it_away(desk):
    before, pixel = desk.labels.data.copy(), desk.empty()
    desk.panel.widget.legend.set_outlines(False)
    desk.labels.opacity = 1
    desk.panel.widget.review.panel.click.click()
    assert desk.points.mode == "add"
    assert desk.viewer.layers.selection.active is desk.points
    desk.hand.see(pixel)
    desk.hand.click(pixel)
    new = int(desk.labels.data[int(pixel[0]), int(pixel[1])])
    assert new == desk.session.records["id"][-1]
    assert (desk.labels.data != before).any()
    assert State(int(desk.session.record(new)["state"])) is State.EDITED
    desk.agree()
    assert list(desk.points.selected_data) == [len(desk.points.data) - 1]
    assert desk.labels.selected_label == new
    desk.points.visible = False
    kind = desk.session.classes[desk.session.record(new)["kind"]].name
    np.testing.assert_allclose(desk.seen(pixel), fake_card().colours[kind], atol=3)
    desk.hand.key("z", CTRL)
    np.testing.assert_array_equal(desk.labels.data, before)
    desk.agree()
    assert np.abs(desk.seen(pixel) - fake_card().colours[kind]).max() > 20
    desk.hand.key("z", CTRL | SHIFT)
    assert desk.session.at(*pixel) == new
    desk.agree()


def test_a_click_inside_a_nucleus_splits_it(desk):
    [id_] = desk.nuclei()
    y, x = desk.centre(id_)
    rows, cols = np.nonzero(desk.labels.data == id_)
    far = np.hypot(rows - y, cols - x).argmax()
    pixel = (float(rows[far] + 2 * y) / 3, float(cols[far] + 2 * x) / 3)
    pixel = (float(round(pixel[0])), float(round(pixel[1])))
    desk.hand.see(pixel)
    assert desk.viewer.layers.selection.active is desk.points  # as a run leaves it
    desk.hand.key("c")
    assert desk.review.clicking
    desk.hand.click(pixel)
    new = desk.session.at(*pixel)
    assert new not in (0, id_)
    assert desk.session.at(y, x) == id_
    desk.agree()


def test_a_click_on_a_centre_is_refused_and_said(desk):
    [id_] = desk.nuclei()
    before = desk.session.records.copy()
    desk.activate(desk.points, "add")
    desk.hand.see(desk.centre(id_))
    desk.hand.click(desk.centre(id_))
    assert "has its centre here already" in desk.panel.status
    np.testing.assert_array_equal(desk.session.records, before)
    desk.agree()


def test_a_drag_segments_again_while_it_goes_on_and_is_one_step(desk):
    [id_] = desk.nuclei()
    before, records, start = desk.labels.data.copy(), desk.session.records.copy(), desk.centre(id_)
    desk.activate(desk.points, "select")
    desk.hand.see(start)
    desk.hand.press(start)
    changes = []
    desk.session.changed.connect(changes.append)
    stop = (start[0] + 12, start[1] + 9)
    for part in (0.25, 0.5, 0.75, 1):
        desk.hand.move((start[0] + 12 * part, start[1] + 9 * part))
        assert desk.session.at(*desk.points.data[desk.points.features["id"] == id_][0]) == id_
    assert len(changes) >= 3
    desk.hand.release(stop)
    np.testing.assert_allclose(desk.centre(id_), stop, atol=0.2)
    desk.agree()
    assert desk.session.can_undo == "Move"
    desk.hand.key("z", CTRL)
    np.testing.assert_array_equal(desk.labels.data, before)
    np.testing.assert_array_equal(desk.session.records, records)
    assert desk.session.can_undo is None
    desk.agree()


def test_undo_in_the_midst_of_a_drag_ends_it(desk):
    [id_] = desk.nuclei()
    before, start = desk.labels.data.copy(), desk.centre(id_)
    desk.activate(desk.points, "select")
    desk.hand.see(start)
    desk.hand.press(start)
    desk.hand.move((start[0] + 6, start[1]))
    desk.hand.key("z", CTRL)
    desk.hand.move((start[0] + 12, start[1]))
    desk.hand.release((start[0] + 12, start[1]))
    np.testing.assert_array_equal(desk.labels.data, before)
    assert desk.session.can_undo is None
    desk.agree()


def test_a_drag_out_of_the_image_stays_at_its_edge(desk):
    border = desk.session.table().sort_values("centre_y").iloc[0]
    start, id_ = (border["centre_y"], border["centre_x"]), int(border["id"])
    desk.activate(desk.points, "select")
    desk.hand.see(start)
    desk.hand.drag(start, (start[0] - 25, start[1]))
    assert "outside the image" in desk.panel.status
    assert desk.session.at(*desk.centre(id_)) == id_
    desk.agree()


def test_delete_one_then_many_by_a_box(desk):
    [id_] = desk.nuclei()
    before, start = desk.labels.data.copy(), desk.centre(id_)
    desk.activate(desk.points, "select")
    desk.hand.see(start)
    desk.hand.click(start)
    assert desk.review.selected() == [id_]
    desk.hand.key(Qt.Key.Key_Delete)
    assert not (desk.labels.data == id_).any()
    desk.agree()
    desk.hand.key("z", CTRL)
    np.testing.assert_array_equal(desk.labels.data, before)
    desk.agree()
    desk.hand.see((256, 256), zoom=5)
    inside = ((np.abs(desk.points.data - 256)) < 100).all(1)
    desk.hand.press((156, 156))
    for k in (200, 300, 356):
        desk.hand.move((k, k))
    desk.hand.release((356, 356))
    picked = set(desk.review.selected())
    if not picked:  # the box began on a centre
        pytest.fail("nothing in the box")
    assert len(picked) >= inside.sum() > 3
    desk.hand.key(Qt.Key.Key_Backspace)
    assert not np.isin(desk.labels.data, list(picked)).any()
    assert desk.session.can_undo == "Delete"
    desk.agree()
    desk.hand.key("z", CTRL)
    np.testing.assert_array_equal(desk.labels.data, before)
    assert desk.session.can_undo is None
    desk.agree()


def test_a_stroke_corrects_a_nucleus_and_is_one_step(desk):
    [id_] = desk.nuclei()
    before, (_, x) = desk.labels.data.copy(), desk.centre(id_)
    desk.activate(desk.labels, "paint")
    desk.labels.brush_size = 6
    desk.labels.selected_label = id_
    low = float(np.nonzero(before == id_)[0].max())
    desk.hand.see((low, x))
    desk.hand.drag((low - 4, x), (low + 4, x), (low + 4, x + 8))
    assert (desk.labels.data == id_).sum() > (before == id_).sum()
    record = desk.session.record(id_)
    assert (State(int(record["state"])), bool(record["locked"])) == (State.DRAWN, True)
    assert record["area"] == (desk.labels.data == id_).sum()
    desk.agree()
    desk.activate(desk.labels, "erase")
    desk.hand.drag((low - 4, x - 4), (low - 4, x + 3))
    assert desk.session.can_undo == "Paint"
    desk.agree()
    desk.hand.key("z", CTRL)
    desk.hand.key("z", CTRL)
    np.testing.assert_array_equal(desk.labels.data, before)
    assert desk.session.can_undo is None
    desk.agree()


def test_the_brush_paints_a_nucleus_of_its_own_unless_one_is_selected(desk):
    pixel = desk.empty()
    desk.activate(desk.labels, "paint")
    new = desk.session.next_id
    desk.hand.key("m")
    assert desk.labels.selected_label == new
    desk.labels.brush_size = 8
    desk.hand.see(pixel)
    desk.hand.drag(pixel, (pixel[0] + 3, pixel[1] + 3))
    assert desk.session.at(*pixel) == new
    desk.agree()
    desk.hand.key("m")
    assert desk.labels.selected_label == new + 1
    desk.labels.selected_label = desk.nuclei()[0]
    assert desk.review.selected() == desk.nuclei()[:1]


def test_fill_polygon_and_scripts_go_through_the_session_too(desk):
    first, second = desk.nuclei(2)
    desk.labels.fill(np.round(desk.centre(first)), 0)
    assert not (desk.labels.data == first).any()
    desk.agree()
    new, (y, x) = desk.session.next_id, np.round(desk.empty())
    desk.labels.paint_polygon([(y - 4, x - 4), (y - 4, x + 4), (y + 4, x + 4), (y + 4, x - 4)], new)
    assert (desk.labels.data == new).sum() == 81
    desk.agree()
    rows, cols = np.nonzero(desk.labels.data == second)
    desk.labels.data_setitem((rows[:5], cols[:5]), 0)
    desk.agree()
    desk.points.add([[y + 9, x], [y - 9, x]])
    desk.agree()
    data = desk.points.data.copy()
    data[desk.points.features["id"] == desk.nuclei()[0]] += 1
    desk.points.data = data
    desk.agree()
    desk.points.data = data[:-1]
    assert "add and remove them one by one" in desk.panel.status
    desk.agree()
    for _ in range(6):
        desk.labels.undo()  # napari's own history is empty
        desk.session.undo()
    assert desk.session.can_undo is None
    desk.agree()


def test_layers_of_a_review_that_was_closed_are_napari_s_again(desk):
    desk.viewer.layers.remove(desk.points)
    desk.session.reject(desk.nuclei())
    desk.viewer.layers.remove(desk.labels)
    assert desk.panel.widget.results is None
    changes = []
    desk.session.changed.connect(changes.append)
    desk.points.add([[5, 5]])
    desk.labels.data_setitem((np.array([5]), np.array([5])), 3)
    assert not changes
    assert not desk.labels.keymap


def test_what_is_selected_follows_the_mouse_after_a_class_was_added_too(desk):
    first, second = desk.nuclei(2)
    desk.activate(desk.points, "select")
    for id_, name in ((first, "Mitosis"), (second, "Tumour")):
        desk.session.class_index(name, (9, 9, 9))
        desk.hand.see(desk.centre(id_))
        desk.hand.click(desk.centre(id_))
        assert desk.review.selected() == [id_]
    desk.hand.key("x")
    assert desk.session.at(*desk.centre(first)) == first
    assert not desk.session.live[desk.session.rows_of([second])[0]]


def test_all_gestures_on_an_image_of_other_pixels_than_the_model_s(make_panel, synthetic):
    panel = make_panel(show=True)
    panel.viewer.add_image(synthetic.image, name="tissue", rgb=True, scale=(0.5, 0.5), units=("um", "um"))
    panel.run()
    desk = Desk(panel)
    session, before = desk.session, state_of(desk.session)
    assert session.scale.model == (1024, 1024)
    pixel, moved = desk.empty(), desk.nuclei()[0]
    desk.activate(desk.points, "add")
    desk.hand.see(pixel)
    desk.hand.click(pixel)
    new = session.at(*pixel)
    np.testing.assert_allclose(desk.centre(new), pixel, atol=0.1)
    start = desk.centre(moved)
    stop = (start[0] + 4, start[1] - 3)
    desk.activate(desk.points, "select")
    desk.hand.see(start)
    desk.hand.drag(start, stop)
    np.testing.assert_allclose(desk.centre(moved), stop, atol=0.1)
    assert session.at(*stop) == moved
    desk.agree()
    desk.hand.see(pixel)
    desk.activate(desk.labels, "paint")
    desk.labels.brush_size, desk.labels.selected_label = 3, new
    area = session.record(new)["area"]
    desk.hand.drag(pixel, (pixel[0] + 14, pixel[1]))
    assert session.at(pixel[0] + 13, pixel[1]) == new
    assert session.record(new)["area"] > area
    desk.agree()
    assert_sound(session)
    desk.activate(desk.points, "select")
    desk.hand.click(desk.centre(new))
    desk.hand.key(Qt.Key.Key_Delete)
    assert not (desk.labels.data == new).any()
    desk.agree()
    for name in ("Delete", "Paint", "Move", "Add"):
        assert session.can_undo == name
        desk.hand.key("z", CTRL)
    assert state_of(session) == before
    desk.agree()
