"""Edits that come at a bad moment: during a stroke, an import or work in another thread, or with an error."""

from __future__ import annotations

import json
import threading
from functools import partial

import numpy as np
import pytest

from napari_nucseg._plugin.compute import Cancelled
from napari_nucseg._plugin.questions import Choice
from napari_nucseg._plugin.review_busy import work_apart
from napari_nucseg._plugin.review_edits import EditQueue
from napari_nucseg._plugin.review_points import Overlay
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.session import MapsMissing
from tests.plugin.hand import CTRL

BOX = Box(0, 8, 0, 8)


class HandyMaps:
    """Computes nothing; tests tell when maps are there."""

    def __init__(self):
        self.wanted, self.cancelled = [], []

    def start(self, box, done):
        self.wanted.append(done)
        return len(self.wanted)

    def cancel(self, number):
        self.cancelled.append(number)
        self.wanted[number - 1](Cancelled())


class Queue:
    """A queue of edits, what it says, and what was made."""

    def __init__(self):
        self.maps, self.said, self.made, self.there = HandyMaps(), [], [], set()
        self.busy, self.held = None, False
        self.queue = EditQueue(
            self.maps,
            lambda text, alarm: self.said.append((text, alarm)),
            lambda: None,
            lambda: self.busy,
            lambda: self.held,
        )

    def add(self, name):
        def apply():
            if name not in self.there:
                raise MapsMissing([BOX])
            self.made.append(name)

        self.queue.do(apply, Overlay(added=[(0, 0)]))

    def find(self, *names):
        self.there.update(names)
        self.maps.wanted[-1](None)


def test_an_error_of_any_kind_ends_one_edit_and_no_other(qtbot, monkeypatch):
    monkeypatch.setattr("napari_nucseg._plugin.flow.report_error", lambda error: f"Stopped: {error}")
    bench = Queue()
    bench.add("a")
    for error in (RuntimeError("boom"), NucSegError("no")):
        bench.queue.do(partial(_raise, error))
    bench.add("b")
    bench.find("a", "b")
    assert bench.made == ["a", "b"]
    assert bench.queue.waiting == 0
    assert bench.said[-2:] == [("Stopped: boom", True), ("no", True)]
    bench.add("a")
    assert bench.said[-1] == ("", False)


def test_one_edit_of_several_is_dropped(qtbot):
    bench = Queue()
    for name in "abcd":
        bench.add(name)
    bench.queue.drop([2])
    assert bench.queue.waiting == 3
    assert bench.maps.cancelled == []
    bench.queue.drop([0])  # the one whose maps are computed: those of the next are wanted in their place
    assert bench.maps.cancelled == [1]
    assert len(bench.maps.wanted) == 2
    bench.find(*"abcd")
    assert bench.made == ["b", "d"]


def test_edits_are_refused_while_busy_and_put_off_while_held(qtbot):
    bench = Queue()
    bench.there.update("abc")
    bench.held = True
    bench.add("a")
    bench.queue.when_free(lambda: bench.made.append("undo"))
    qtbot.wait(120)
    bench.busy = "An import is under way."
    bench.add("b")
    assert bench.made == []
    assert bench.said == [("An import is under way.", True)]
    bench.held = False
    qtbot.waitUntil(lambda: len(bench.made) == 2)
    bench.queue.when_free(lambda: bench.made.append("redo"))
    assert bench.made == ["a", "undo"]


def _raise(error):
    raise error


@pytest.fixture
def square():
    def stroke(desk, y, x, value, side=9):
        rows, cols = np.mgrid[y : y + side, x : x + side]
        desk.labels.data_setitem((rows.ravel(), cols.ravel()), value)

    return stroke


def test_edits_during_a_stroke_are_made_after_it(desk, square):
    session, edits, rng = desk.session, desk.review.edits, np.random.default_rng(0)
    stopped = 0
    for what in ("add", "reject", "move", "undo") * 4:
        id_ = int(rng.choice(session.records["id"][session.live]))
        y, x = (int(k) for k in np.clip(np.array(desk.centre(id_)) + rng.integers(-8, 8, 2), 10, 480))
        before, steps = session.labels.copy(), len(session._history.done)
        with desk.labels.block_history():
            square(desk, y, x, int(rng.choice([0, id_, session.next_id])))
            if (session.labels == before).all():  # it has come to nothing
                continue
            painted, stopped = session.labels.copy(), stopped + 1
            if what == "undo":
                desk.review.actions.undo()
            else:
                positions = {"add": (y + 4.0, x + 12.0), "move": (id_, y + 2.0, x + 2.0), "reject": ([id_],)}
                edits.do(partial(getattr(session, what), *positions[what]))
            assert len(session._history.done) == steps
            assert desk.review.held
            np.testing.assert_array_equal(session.labels, painted)
        desk.panel.qtbot.wait(60)
        desk.agree()
        while len(session._history.done) > steps:
            session.undo()
        np.testing.assert_array_equal(session.labels, before)
    assert stopped > 8


def test_nothing_is_edited_while_another_thread_works_on_the_session(desk, square):
    review, session = desk.review, desk.session
    first, second = desk.nuclei(2)
    panel = type(desk.panel)(desk.panel.qtbot, desk.panel.viewer, desk.panel.world)
    desk.activate(desk.points, "select")
    review.select([first])
    gate, ended = threading.Event(), []

    def work():
        gate.wait(20)
        session.reject([second])

    start = tuple(int(k) for k in desk.centre(first))
    desk.labels._block_history = True  # as while the button is down
    square(desk, *start, second)
    worker = work_apart(review, "Taking it in.", work, ended.append)
    assert worker is not None
    painted = session.labels.copy()
    assert session.can_undo == "Paint"
    assert not desk.points.editable
    assert not desk.labels.editable
    assert panel.widget.review.panel.buttons["reject"].toolTip() == "Taking it in."
    for key in ("x", "a", "1"):
        desk.hand.key(key)
        assert desk.panel.status == "Taking it in."
    desk.hand.key("z", CTRL)
    desk.points.add([desk.empty()])
    square(desk, 5, 5, first)
    np.testing.assert_array_equal(session.labels, painted)
    with pytest.raises(NucSegError, match="wait for its end"):
        session.undo()
    with pytest.raises(NucSegError, match="wait for its end"):
        work_apart(review, "Again.", work, ended.append)
    gate.set()
    desk.panel.until(lambda: bool(ended))
    assert ended[0].error is None
    assert review.busy is None
    assert desk.points.editable
    assert desk.points.mode == "select"
    assert not review.is_live(second)
    desk.agree()


def test_a_label_for_a_new_nucleus_stays_its_own(desk, square):
    desk.viewer.layers.selection.active = desk.labels
    desk.hand.key("m")
    taken = desk.labels.selected_label
    y, x = desk.empty()
    desk.session.add(y, x)
    assert desk.session.at(y, x) == taken
    assert desk.labels.selected_label == taken + 1
    with desk.labels.block_history():
        square(desk, int(y) + 20, int(x), taken + 1, side=6)
        desk.review.edits.do(
            lambda: desk.session.add(y - 20, x)
        )  # made first, of the number that was painted
    assert desk.session.at(y - 20, x) == taken + 1
    assert desk.session.at(y + 23, x + 3) == taken + 2
    desk.agree()


def test_the_next_stroke_goes_on_with_the_nucleus_begun_by_the_one_before(desk, square):
    first = int(desk.session.table()["id"].iloc[0])
    desk.review.select([first])
    desk.viewer.layers.selection.active = desk.labels
    desk.hand.key("m")
    y, x = (int(v) for v in desk.empty())
    before = desk.session.record(first)
    for shift in (0, 4):
        with desk.labels.block_history():
            square(desk, y, x + shift, desk.labels.selected_label, side=6)
    new = desk.session.at(y + 2, x + 2)
    assert new == desk.session.at(y + 2, x + 8) == desk.labels.selected_label == desk.review.selected()[0]
    assert desk.session.record(first).tobytes() == before.tobytes()
    desk.agree()


def points_file(path, *points):
    geometry = {"type": "MultiPoint", "coordinates": points}
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {}}))
    return path


@pytest.fixture
def importing(panel, world, tmp_path, gated):
    """An import that waits for its maps, after a click that waits too."""
    world.geojson = points_file(tmp_path / "points.geojson", [100.5, 60.5], [140.5, 60.5])
    panel.widget.review.panel.click.click()
    review = panel.widget.results.review
    review.points.add([[400.0, 400.0], [300.0, 60.0]])
    assert review.edits.waiting == 2
    panel.widget.review.panel.import_button.click()
    panel.until(lambda: "Computing the maps" in panel.status)
    return panel


def test_clicks_and_an_import_wait_for_their_own_maps(importing, gated):
    review = importing.widget.results.review
    review.points.add([[20.0, 20.0]])
    assert "An import is under way" in importing.status
    assert review.edits.waiting == 2
    gated.let(1000)
    importing.until(lambda: not importing.widget.files.importer.busy and not review.edits.waiting)
    assert importing.status.startswith("Imported")
    assert review.session.at(400, 400)
    assert review.session.at(300, 60)
    assert review.session.at(60, 140)
    assert review.session.live.sum() == 4
    assert review.points.mode == "add"


def test_an_import_is_cancelled_in_the_panel_and_the_clicks_stay(importing, gated):
    review, bar = importing.widget.results.review, importing.widget.run_bar
    assert bar.bar.isVisibleTo(importing.widget)
    assert bar.cancel_button.toolTip().startswith("Stop the import")
    bar.cancel_button.click()
    assert "The import was cancelled" in importing.status
    assert not importing.widget.files.importer.busy
    assert bar.run_button.isEnabled()
    assert review.edits.waiting == 2
    review.points.selected_data = {0}
    review.points.remove_selected()
    assert review.edits.waiting == len(review.points.data) == 1
    gated.let(1000)
    importing.until(lambda: not review.edits.waiting)
    assert review.session.at(300, 60)
    assert review.session.live.sum() == 1


def test_an_import_ends_with_its_review(importing, gated):
    review = importing.widget.results.review
    importing.viewer.layers.remove(review.labels)
    assert importing.status == "The review was removed; nothing was imported."
    assert not importing.widget.files.importer.busy
    assert importing.widget.run_bar.run_button.isEnabled()
    gated.let(1000)
    importing.idle()
    assert not review.session.live.any()


def test_a_drag_ends_with_its_layer(desk):
    [id_] = desk.nuclei()
    start = desk.centre(id_)
    desk.activate(desk.points, "select")
    desk.hand.see(start)
    desk.hand.press(start)
    desk.hand.move((start[0] + 4, start[1] + 4))
    desk.viewer.layers.remove(desk.points)
    assert desk.session._drag is None
    assert desk.session.can_undo == "Move"
    desk.session.undo()
    assert desk.centre(id_) == start


def test_an_import_ends_with_its_panel_and_the_review_goes_on(importing, gated):
    review = importing.widget.results.review
    importing.viewer.window.remove_dock_widget(importing.widget)
    assert review.busy is None
    assert review.points.editable
    assert review.edits.waiting == 2
    gated.let(1000)
    importing.until(lambda: not review.edits.waiting)
    importing.idle()
    importing.qtbot.wait(30)
    assert review.session.at(400, 400)
    assert review.session.live.sum() == 2  # none of the file
    review.points.add([[20.0, 20.0]])
    importing.until(lambda: review.session.live.sum() == 3)


@pytest.mark.parametrize("released", ["before", "after"])
def test_an_update_by_a_new_run_ends_a_drag_where_it_is(desk, world, released):
    session, [id_], before = desk.session, desk.nuclei(), desk.session.live.sum()
    start = desk.centre(id_)
    there, beyond = (start[0] + 5, start[1] + 4), (start[0] + 9, start[1] + 8)
    desk.activate(desk.points, "select")
    desk.hand.see(start)
    desk.hand.press(start)
    desk.hand.move(there)
    world.answer = Choice.UPDATE
    desk.panel.widget.run_bar.run_button.click()
    desk.hand.move(there)
    if released == "before":
        desk.hand.release(there)
    desk.panel.wait()
    if released == "after":
        desk.hand.move(beyond)
        desk.hand.release(beyond)
    assert desk.panel.status.startswith("Updated: the 1 nucleus you reviewed was kept")
    np.testing.assert_allclose(desk.centre(id_), there, atol=0.2)
    assert session._drag is None
    assert desk.points.editable
    assert abs(int(session.live.sum()) - int(before)) < 5
    desk.agree()
    while session.undo():
        pass
    assert desk.centre(id_) == start
    desk.agree()
