"""A review by keyboard, and edits that wait for the network."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_nucseg._plugin.review_elsewhere import ELSEWHERE
from napari_nucseg.core.nuclei import State
from napari_nucseg.errors import NucSegError
from tests.plugin.desk import Desk
from tests.plugin.hand import CTRL, SHIFT


def state(desk, id_):
    return State(int(desk.session.record(id_)["state"]))


def test_walk_accept_reject_and_retype_by_keys(desk):
    desk.activate(desk.points, "select")
    desk.hand.key("n")
    [first] = desk.review.selected()
    assert first == desk.review.actions.current
    assert desk.labels.selected_label == first
    y, x = np.array(desk.centre(first)) * 0.25
    np.testing.assert_allclose(desk.viewer.scene.camera.center[-2:], (y, x))
    desk.hand.key("a")
    [second] = desk.review.selected()
    assert (state(desk, first), second != first) == (State.ACCEPTED, True)
    desk.hand.key("x")
    assert state(desk, second) is State.REJECTED
    assert not (desk.labels.data == second).any()
    [third] = desk.review.selected()
    kind = (int(desk.session.record(third)["kind"]) + 1) % 5
    desk.hand.key(str(kind + 1))
    assert desk.session.record(third)["kind"] == kind
    [fourth] = desk.review.selected()
    assert fourth not in (first, second, third)
    desk.hand.key("p")
    assert desk.review.selected() == [third]
    desk.hand.key("p")
    assert desk.review.actions.selected() == [second]  # where it was: it has a cross and no pixels
    assert desk.panel.status == f"Nucleus {second} is rejected; A brings it back."
    desk.agree()
    cross = len(desk.points.data) - 1
    assert desk.points.data[cross].tolist() == list(desk.centre(second))
    assert (str(desk.points.symbol[cross]), bool(desk.points.shown[cross])) == ("x", True)
    desk.hand.drag(desk.centre(second), np.array(desk.centre(second)) + 5)  # it stays
    desk.points.selected_data = {cross}
    desk.points.remove_selected()
    assert desk.points.data[cross].tolist() == list(desk.centre(second))
    assert state(desk, second) is State.REJECTED
    desk.agree()
    desk.hand.key("a")
    assert (desk.points.symbol == "disc").all()
    assert state(desk, second) is State.ACCEPTED
    desk.agree()
    desk.hand.key("9")
    assert "There are 5 classes; key 9 stands for none of them." in desk.panel.status
    for _ in range(4):
        desk.hand.key("z", CTRL)
    assert {state(desk, k) for k in (first, second, third)} == {State.PREDICTED}
    desk.agree()


def test_a_class_set_by_key_is_seen_at_once_and_does_not_move_the_view(desk):
    [id_] = desk.nuclei()
    desk.panel.widget.legend.set_outlines(False)
    desk.labels.opacity, desk.points.visible = 1, False
    desk.activate(desk.points, "select")
    desk.hand.see(desk.centre(id_))
    desk.review.select([id_])
    where = desk.viewer.scene.camera.center
    drawn = []
    desk.labels.events.labels_update.connect(lambda event: drawn.append(event.data.shape))
    for kind in (4, 0):
        desk.hand.key(str(kind + 1))
        colour = desk.session.classes[kind].colour
        np.testing.assert_allclose(desk.seen(desk.centre(id_)), colour, atol=3)
        np.testing.assert_allclose(
            desk.points.face_color[next(iter(desk.points.selected_data))][:3] * 255, colour
        )
    assert desk.viewer.scene.camera.center == where
    rows, cols = np.nonzero(desk.labels.data == id_)
    assert set(drawn) == {(np.ptp(rows) + 1, np.ptp(cols) + 1)}


def test_merge_and_unlock_by_keys(desk):
    y, x = desk.centre(desk.nuclei()[0])
    first = desk.session.at(y, x)
    rows, cols = np.nonzero(desk.labels.data == first)
    far = np.hypot(rows - y, cols - x).argmax()
    before = desk.labels.data == first
    second = desk.session.add(float(rows[far] + y) // 2, float(cols[far] + x) // 2)
    desk.activate(desk.points, "select")
    desk.hand.see((y, x))
    desk.hand.key("m")
    assert "Select two or more nuclei to merge" in desk.panel.status
    desk.hand.click(desk.centre(first))
    desk.hand.click(desk.centre(second), SHIFT)
    assert sorted(desk.review.selected()) == sorted([first, second])
    desk.panel.widget.legend.set_outlines(False)  # colours have nothing to do with what is selected
    assert sorted(desk.review.selected()) == sorted([first, second])
    desk.hand.key("m")
    [merged] = desk.review.selected()
    assert merged in (first, second)
    assert (desk.labels.data[before] == merged).all()
    assert desk.session.record(merged)["locked"]
    assert str(desk.points.symbol[next(iter(desk.points.selected_data))]) == "square"
    desk.hand.key("u")
    assert not desk.session.record(merged)["locked"]
    assert str(desk.points.symbol[next(iter(desk.points.selected_data))]) == "disc"
    desk.agree()


def test_keys_on_the_labels(desk):
    [id_] = desk.nuclei()
    desk.activate(desk.labels, "pick")
    desk.hand.see(desk.centre(id_))
    desk.hand.click(desk.centre(id_))
    assert desk.labels.selected_label == id_
    assert desk.review.view.selected == [id_]
    desk.hand.key("a")
    assert state(desk, id_) is State.ACCEPTED
    desk.hand.key("z", CTRL)
    assert state(desk, id_) is State.PREDICTED
    desk.hand.key("z", CTRL | SHIFT)
    assert state(desk, id_) is State.ACCEPTED
    desk.hand.key("n")
    assert desk.labels.selected_label != id_
    desk.hand.key("p")
    assert desk.labels.mode == "paint"  # napari's keys for its own tools stay


def test_the_camera_keeps_a_sensible_zoom_and_alters_a_useless_one(desk):
    camera = desk.viewer.scene.camera
    desk.activate(desk.points, "select")
    camera.zoom = 12
    desk.hand.key("n")
    desk.hand.key("x")
    desk.hand.key("p")
    assert camera.zoom == 12
    for useless in (0.2, 4000):
        camera.zoom = useless
        desk.hand.key("n")
        assert 40 < min(desk.viewer.canvas.size) / camera.zoom < 120  # micrometres
    desk.hand.see((0, 0), zoom=40)
    [id_] = desk.nuclei()
    desk.session.reject([id_])
    desk.hand.key("z", CTRL)  # out of view: the camera goes there
    np.testing.assert_allclose(camera.center[-2:], np.array(desk.centre(id_)) * 0.25, atol=6)


def test_question_mark_shows_the_keys(desk):
    desk.activate(desk.points, "select")
    desk.panel.widget.window().activateWindow()
    desk.panel.qtbot.waitUntil(lambda: QApplication.activeWindow() is not None, timeout=2000)
    desk.panel.qtbot.keyClick(desk.hand.canvas, "?")
    shown = [
        w for w in QApplication.topLevelWidgets() if type(w).__name__ == "ShortcutsDialog" and w.isVisible()
    ]
    assert len(shown) == 1
    shown[0].close()


def test_the_status_bar_tells_of_the_keys_that_work_in_a_review(desk):
    line = "<C> click to segment, <N> next, <P> back, <A> accept, <X> reject, <1 … 9> class, <?> all keys"
    for mode in ("add", "select", "pan_zoom"):
        desk.activate(desk.points, mode)
        assert desk.viewer.help == line
    desk.activate(desk.labels, "paint")
    assert "erase" in desk.viewer.help
    desk.viewer.layers.remove(desk.labels)
    desk.activate(desk.points, "select")
    assert desk.viewer.help != line
    assert "add" in desk.viewer.help


def test_keys_say_where_they_work_and_take_none_from_an_image(desk):
    image, seen = desk.panel.layer("tissue"), []
    image.bind_key("n", seen.append)
    desk.activate(image, "pan_zoom")
    before = desk.viewer.status
    desk.hand.key("y")
    assert desk.viewer.status == before
    desk.hand.key("n")
    desk.hand.key("2")
    assert (len(seen), image.mode) == (1, "transform")
    assert desk.panel.status == ELSEWHERE
    desk.review.say("")
    desk.hand.key("z", CTRL)
    assert desk.panel.status == ""  # said before
    desk.viewer.layers.selection.active = desk.points
    desk.hand.key("s")
    desk.viewer.layers.selection.active = None
    desk.hand.key("z", CTRL)
    assert desk.panel.status == ELSEWHERE
    desk.review.say("")
    desk.viewer.layers.remove(desk.labels)
    desk.viewer.layers.selection.active = image
    desk.hand.key("n")
    assert desk.panel.status != ELSEWHERE


@pytest.fixture
def bare(make_panel, synthetic, gated):
    """A panel without a run, and a network that computes only when it is let to."""
    panel = make_panel(show=True)
    panel.viewer.add_image(synthetic.image, name="tissue", rgb=True, scale=(0.25, 0.25), units=("um", "um"))
    return panel


def test_click_to_segment_without_a_run(bare, gated, world):
    bare.widget.review.panel.click.click()
    desk = Desk(bare)
    assert world.loaded == []
    assert desk.points.mode == "add"
    pixel, other = (200.0, 200.0), (260.0, 230.0)
    desk.hand.see((230, 215), zoom=12)
    desk.hand.click(pixel)
    assert "Computing the maps here" in bare.status
    desk.hand.click(other)
    np.testing.assert_allclose(desk.points.data, [pixel, other], atol=0.2)
    assert (desk.points.face_color[:, 3] == 0).all()
    assert not desk.labels.data.any()
    assert desk.session.can_undo is None
    gated.let(100)
    bare.until(lambda: desk.review.edits.waiting == 0)
    assert bare.status == ""
    assert [desk.session.at(*pixel), desk.session.at(*other)] == [1, 2]
    assert desk.review.selected() == [desk.labels.selected_label] == [2]
    assert len(world.loaded) == 1
    desk.agree()
    windows = gated.windows
    desk.hand.click((230.0, 190.0))
    assert desk.session.at(230, 190)
    assert gated.windows == windows  # the maps were kept
    desk.hand.key("c")
    assert desk.points.mode == "select"
    assert not bare.widget.review.panel.click.isChecked()
    bare.until(bare.widget.save_button.isEnabled)
    world.asked.clear()
    bare.viewer.layers.remove(desk.labels)
    bare.idle()


def test_edits_that_wait_are_cancelled_one_by_one_or_all_at_once(bare, gated):
    bare.widget.review.panel.click.click()
    desk = Desk(bare)
    desk.hand.see((230, 215), zoom=12)
    for k in range(3):
        desk.hand.click((200.0, 180.0 + 30 * k))
    assert desk.review.edits.waiting == len(desk.points.data) == 3
    desk.hand.key("z", CTRL)
    assert desk.review.edits.waiting == len(desk.points.data) == 2
    desk.hand.key(Qt.Key.Key_Escape)
    assert desk.review.edits.waiting == len(desk.points.data) == 0
    assert bare.status == "Cancelled."
    gated.let(100)
    bare.idle()
    bare.qtbot.wait(30)
    assert not desk.labels.data.any()
    desk.hand.click((200.0, 200.0))
    bare.until(lambda: desk.review.edits.waiting == 0)
    assert desk.session.at(200, 200) == 1
    desk.agree()


def test_a_nucleus_that_comes_late_leaves_what_is_selected_since(desk):
    [id_] = desk.nuclei()
    for busy in (lambda: desk.review.select([id_]), lambda: desk.activate(desk.labels, "paint")):
        desk.activate(desk.points, "add")
        desk.session.fields._blocks.clear()
        pixel = desk.empty()
        desk.points.add([pixel])
        busy()
        before = desk.review.selected(), desk.labels.selected_label
        desk.panel.until(lambda: not desk.review.edits.waiting)
        assert (desk.review.selected(), desk.labels.selected_label) == before
        desk.session.undo()


def test_a_drag_and_a_deletion_wait_for_maps_too(desk, world):
    first, second = desk.nuclei(2)
    desk.session.fields._blocks.clear()  # as after a session was opened again
    start = desk.centre(first)
    desk.activate(desk.points, "select")
    desk.hand.see(start, zoom=8)
    desk.hand.drag(start, (start[0] + 8, start[1]))
    assert desk.review.edits.waiting == 1
    desk.review.select([second])
    desk.hand.key(Qt.Key.Key_Delete)
    assert second not in set(desk.points.features["id"])
    np.testing.assert_allclose(
        desk.points.data[desk.points.features["id"] == first][0, 0], start[0] + 8, atol=0.3
    )
    desk.panel.until(lambda: desk.review.edits.waiting == 0)
    np.testing.assert_allclose(desk.centre(first), (start[0] + 8, start[1]), atol=0.3)
    assert state(desk, second) is State.REJECTED
    desk.agree()


def test_a_model_that_fails_is_said_and_the_click_taken_back(bare, world, notes):
    world.error = NucSegError("There are no such weights.")
    bare.widget.review.panel.click.click()
    desk = Desk(bare)
    desk.hand.see((230, 215), zoom=12)
    desk.hand.click((200.0, 200.0))
    bare.until(lambda: desk.review.edits.waiting == 0)
    assert notes == [bare.status] == ["There are no such weights."]
    assert len(desk.points.data) == 0
    desk.agree()
