"""Cancel, run again, remove, close, fail: what may happen around a run."""

from __future__ import annotations

import gc
import threading
import types

import numpy as np
import pytest
from qtpy.QtCore import QThreadPool

from napari_nucseg._plugin.questions import Choice
from napari_nucseg._plugin.results import REVIEW
from tests.fakes import FakeRuntime
from tests.plugin.steps import start


def test_cancel_keeps_what_was_found(tall, gated, world):
    start(tall, gated)
    tall.widget.run_bar.cancel_button.click()
    assert not tall.running
    found = len(tall.layer("tissue centres").data)
    assert tall.status == f"Cancelled: the {found:,} nuclei found so far were kept."
    gated.let(100)
    tall.idle()
    tall.qtbot.wait(50)
    assert len(tall.layer("tissue centres").data) == found  # late tiles were dropped
    labels = tall.layer("tissue nuclei")
    np.testing.assert_array_equal(
        np.unique(labels.data)[1:], np.sort(tall.layer("tissue centres").features["id"])
    )
    assert gated.windows <= 7  # the network stopped
    assert tall.widget.run_bar.run_button.isEnabled()
    assert not tall.widget.run_bar.cancel_button.isEnabled()
    assert "no run" in tall.widget.run_bar.cancel_button.toolTip()


def test_cancel_before_the_first_tile_leaves_no_layers(tall, gated):
    tall.widget.run_bar.run_button.click()
    tall.until(lambda: len(tall.names) == 3)
    tall.widget.cancel()
    assert tall.names == ["tissue"]
    assert tall.status == "Cancelled: there were no results yet."
    gated.let(100)
    tall.idle()
    assert gated.windows <= 2  # it does not wait for the first tile, which takes four windows


def test_a_new_run_may_start_while_the_cancelled_one_still_ends(tall, gated, world):
    start(tall, gated)
    tall.widget.cancel()
    kept = len(tall.layer("tissue centres").data)
    old, world.runtime = gated, FakeRuntime()
    tall.widget.device.set_device("cpu-torch")
    tall.run()
    old.let(100)
    tall.idle()
    assert len(tall.layer("tissue centres").data) == kept
    assert len(tall.layer("tissue centres [1]").data) > kept


def test_a_run_under_way_is_not_started_again(tall, gated):
    start(tall, gated)
    assert not tall.widget.run_bar.run_button.isEnabled()
    tall.widget.run()
    assert tall.status == "A run is under way; cancel it first."
    assert tall.running
    gated.let(100)
    tall.wait()
    assert " nuclei in " in tall.status
    assert tall.names == ["tissue", "tissue nuclei", "tissue centres"]


class BusyRequest:
    """As OpenVINO's, it refuses to be used by two threads at once."""

    def __init__(self, runtime):
        self._runtime, self._free = runtime, threading.Lock()

    def infer(self, inputs, share_inputs=False, share_outputs=False):
        if not self._free.acquire(blocking=False):
            raise RuntimeError("Infer Request is busy")
        try:
            maps = 16 * self._runtime(inputs[0][0]) - 8  # raw: before activations, at half the size
            depth, height, width = maps.shape
            halves = maps.reshape(depth, height // 2, 2, width // 2, 2).transpose(0, 2, 4, 1, 3)
            self._answer = halves.reshape(1, 4 * depth, height // 2, width // 2).copy()
        finally:
            self._free.release()

    def get_output_tensor(self, _index):
        return types.SimpleNamespace(data=self._answer)


@pytest.fixture
def openvino_runtime(monkeypatch, gated, world):
    """An OpenVINORuntime whose compiled model is the gated one."""
    from napari_nucseg.models import runtime

    class Core:
        read_model = staticmethod(lambda path: path)

        @staticmethod
        def compile_model(*_about):
            return types.SimpleNamespace(create_infer_request=lambda: BusyRequest(gated))

    monkeypatch.setattr(runtime, "openvino_core", Core)
    monkeypatch.setattr(runtime, "_converted", lambda model: model.weights)
    gated.let(1)  # it asks once by itself
    world.runtime = runtime.OpenVINORuntime(world.model)
    return world.runtime


def test_cancel_and_run_at_once_on_the_same_device(tall, gated, world, openvino_runtime):
    start(tall, gated)
    tall.widget.cancel()  # its thread is still in a window
    kept = len(tall.layer("tissue centres").data)
    tall.widget.run()
    tall.until(lambda: "tissue centres [1]" in tall.names)
    gated.let(100)
    tall.wait()
    assert " nuclei in " in tall.status
    assert len(tall.layer("tissue centres [1]").data) > kept
    tall.idle()
    assert len(world.loaded) == 1
    assert len(tall.layer("tissue centres").data) == kept


def test_the_worker_quit_by_napari_is_a_cancel(tall, gated):
    start(tall, gated)
    tall.widget.flow.controller._worker.quit()
    gated.let(100)
    tall.wait()
    assert tall.status.startswith("Cancelled: the ")


def test_removing_the_image_cancels(tall, gated):
    start(tall, gated)
    tall.viewer.layers.remove("tissue")
    assert not tall.running
    assert tall.status.startswith("Cancelled, since the image was removed: the ")
    assert tall.names == ["tissue nuclei", "tissue centres"]
    assert not tall.widget.run_bar.run_button.isEnabled()
    gated.let(100)
    tall.idle()


def test_removing_the_labels_cancels(tall, gated):
    start(tall, gated)
    tall.viewer.layers.remove("tissue nuclei")
    assert not tall.running
    assert (
        tall.status == "Cancelled, since the layer of the results was removed: its centres are removed too."
    )
    tall.until(lambda: tall.names == ["tissue"])
    gated.let(100)
    tall.idle()
    assert tall.names == ["tissue"]


@pytest.mark.parametrize("windows", [0, 6])
def test_removing_all_layers_at_once_cancels(tall, gated, windows):
    if windows:
        start(tall, gated, windows)
    else:
        tall.widget.run_bar.run_button.click()
        tall.until(lambda: len(tall.names) == 3)
    tall.viewer.layers.select_all()
    tall.viewer.layers.remove_selected()
    assert not tall.running
    tall.qtbot.wait(10)
    assert tall.names == []
    gated.let(100)
    tall.idle()


@pytest.mark.parametrize("gone", [["tissue nuclei"], ["tissue nuclei", "tissue centres"]])
def test_results_to_be_replaced_may_be_removed_during_the_run(tall, gated, world, gone):
    gated.let(12)
    tall.run()
    old = [tall.layer(name) for name in gone]
    world.answer = Choice.REPLACE
    tall.widget.run_bar.run_button.click()
    tall.until(lambda: len(tall.names) == 5)
    for layer in old:
        tall.viewer.layers.remove(layer)
    gated.let(12)
    tall.wait()
    assert tall.names == ["tissue", "tissue nuclei", "tissue centres"]
    assert " nuclei in " in tall.status
    assert tall.widget.save_button.isEnabled()


def test_removing_the_centres_does_not_stop_the_run(tall, gated):
    start(tall, gated)
    tall.viewer.layers.remove("tissue centres")
    gated.let(100)
    tall.wait()
    assert " nuclei in " in tall.status
    assert tall.layer("tissue nuclei").data[1400:].max() > 0


def test_new_tiles_are_drawn_alone_and_in_the_colours_of_their_classes(tall, gated):
    start(tall, gated)
    labels = tall.layer("tissue nuclei")
    drawn = []
    labels.events.labels_update.connect(lambda event: drawn.append(event.data.shape))
    about = labels.metadata["napari_nucseg"]
    for id_, name in about["nuclei"][["id", "class"]].itertuples(index=False):
        np.testing.assert_allclose(labels.colormap.map(int(id_))[:3] * 255, about["colours"][name], atol=1e-3)
    gated.let(100)
    tall.wait()
    assert max(rows for rows, _ in drawn) < labels.data.shape[0] / 2
    ids = about["nuclei"]["id"].to_numpy()
    np.testing.assert_array_equal(np.unique(labels.data)[1:], np.sort(ids))
    assert (labels.colormap.map(ids)[:, :3] != 1).any(1).all()
    assert not tall.widget.results.edited
    labels.undo()  # the run is not in the history of edits
    np.testing.assert_array_equal(np.unique(labels.data)[1:], np.sort(ids))


def test_nothing_is_edited_during_a_run(tall, gated):
    start(tall, gated)
    labels, points = tall.layer("tissue nuclei"), tall.layer("tissue centres")
    labels.mode, points.mode = "paint", "add"
    assert (labels.mode, points.mode) == ("pan_zoom", "pan_zoom")
    assert "Nuclei can be edited once it is done" in tall.status
    gated.let(100)
    tall.wait()
    labels.mode, points.mode = "paint", "add"
    assert (labels.mode, points.mode) == ("paint", "add")


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_labels_can_be_painted_after_a_run_that_was_stopped(tall, gated, end):
    start(tall, gated)
    if end == "cancel":
        tall.widget.cancel()
    else:
        tall.viewer.window.remove_dock_widget(tall.widget)
    assert tall.layer("tissue nuclei").editable
    gated.let(100)
    tall.idle()


def test_closing_the_viewer_during_a_run(tall, gated, qtbot):
    start(tall, gated)
    tall.viewer.close()
    gated.let(100)
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=10_000)
    qtbot.wait(50)
    assert gated.windows <= 7


def test_closing_the_panel_cancels_the_run_and_lets_go_of_the_viewer(tall, gated, qtbot):
    start(tall, gated)
    tall.viewer.window.remove_dock_widget(tall.widget)
    assert not tall.running
    found = len(tall.layer("tissue centres").data)
    gated.let(100)
    tall.idle()
    qtbot.wait(50)
    assert len(tall.layer("tissue centres").data) == found
    tall.viewer.layers.clear()  # no answer from the dead panel
    tall.widget.deleteLater()
    gc.collect()
    qtbot.wait(10)


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        (
            Choice.KEEP,
            ["tissue", "tissue nuclei", "tissue centres", "tissue nuclei [1]", "tissue centres [1]"],
        ),
        (Choice.REPLACE, ["tissue", "tissue nuclei", "tissue centres"]),
        (Choice.CANCEL, ["tissue", "tissue nuclei", "tissue centres"]),
    ],
)
def test_a_second_run_asks(panel, world, answer, left):
    panel.run()
    assert world.asked == []
    first = panel.layer("tissue nuclei")
    data = first.data.copy()
    world.answer = answer
    panel.run()
    assert world.asked == [("tissue nuclei", len(panel.layer("tissue centres").data), None)]
    assert panel.names == left
    np.testing.assert_array_equal(first.data, data)
    assert (first in panel.viewer.layers) == (answer is not Choice.REPLACE)


@pytest.mark.parametrize("answer", [Choice.UPDATE, Choice.KEEP, Choice.CANCEL])
def test_a_review_is_updated_by_a_second_run(panel, world, answer):
    panel.run()
    labels, points = panel.layer("tissue nuclei"), panel.layer("tissue centres")
    points.add([[3.0, 300.0]])
    session = panel.widget.results.review.session
    before, mine = session.records.copy(), int(points.features["id"].iloc[-1])
    assert session.at(3.0, 300.0) == mine
    world.answer = answer
    panel.run()
    assert world.asked[-1] == ("tissue nuclei", len(points.data), 1)
    assert len(panel.names) == (5 if answer is Choice.KEEP else 3)
    assert labels.visible
    assert session.at(3.0, 300.0) == mine
    if answer is not Choice.UPDATE:
        np.testing.assert_array_equal(session.records, before)
        return
    fresh = panel.widget.results.total() - 1
    assert (
        panel.status == f"Updated: the 1 nucleus you reviewed was kept, and {fresh:,} others were found anew."
    )
    assert panel.viewer.layers.selection.active == points
    assert session.check() is None
    np.testing.assert_array_equal(points.features["id"], session.table()["id"])
    assert panel.widget.results.review.session is session
    session.undo()
    np.testing.assert_array_equal(session.records[: len(before)], before)


def test_a_review_survives_an_update_that_is_cancelled(tall, gated, world):
    gated.let(12)
    tall.run()
    tall.layer("tissue centres").add([[3.0, 300.0]])
    session = tall.widget.results.review.session
    before = session.records.copy()
    world.answer = Choice.UPDATE
    tall.widget.run_bar.run_button.click()
    tall.until(lambda: len(tall.names) == 5)
    assert not tall.layer("tissue centres").editable
    tall.widget.cancel()
    assert tall.status == "Cancelled: the review is as it was."
    assert tall.names == ["tissue", "tissue nuclei", "tissue centres"]
    assert tall.layer("tissue centres").visible
    assert tall.layer("tissue centres").editable
    np.testing.assert_array_equal(session.records, before)


def drain(gated):
    """Let no further window be computed."""
    while gated.gate.acquire(timeout=0.01):
        pass


def states(viewer):
    return [(layer.name, layer.visible, layer.editable) for layer in viewer.layers]


@pytest.mark.parametrize("when", ["tiles come in", "they are taken in"])
def test_a_panel_that_is_closed_during_an_update_gives_the_review_back(tall, gated, world, monkeypatch, when):
    gated.let(1000)
    tall.run()
    before = states(tall.viewer)
    review = tall.widget.results.review
    session, first = review.session, int(review.session.records["id"][0])
    session.accept(first)
    drain(gated)
    world.answer = Choice.UPDATE
    entered, go_on, rerun = threading.Event(), threading.Event(), session.rerun

    def slow(*about):
        entered.set()
        assert go_on.wait(20)
        rerun(*about)

    monkeypatch.setattr(session, "rerun", slow)
    tall.widget.run_bar.run_button.click()
    gated.let(6 if when == "tiles come in" else 1000)
    if when == "tiles come in":
        tall.until(lambda: len(tall.names) == 5)
    else:
        tall.until(entered.is_set)
    tall.viewer.window.remove_dock_widget(tall.widget)
    go_on.set()
    gated.let(1000)
    tall.until(lambda: states(tall.viewer) == before)
    tall.idle()
    assert review.labels.metadata[REVIEW] is review
    assert bool(session.can_undo == "Run") == (when != "tiles come in")
    session.accept(int(session.records["id"][session.live][-1]))
    assert session.check() is None


def test_clicks_that_wait_count_as_edits_of_a_review(panel, gated, world):
    panel.widget.review.panel.click.click()
    review = panel.widget.results.review
    review.points.add([[400.0, 400.0]])
    assert review.edits.waiting == 1
    world.answer = Choice.UPDATE
    panel.widget.run_bar.run_button.click()
    assert world.asked == [("tissue nuclei", 0, 1)]
    gated.let(1000)
    panel.wait()
    panel.until(lambda: not review.edits.waiting)
    assert panel.widget.results.review is review
    assert review.session.at(400.0, 400.0)
    assert panel.widget.results.total() > 50


def test_results_that_are_edited_while_those_to_replace_them_are_found_stay(tall, gated, world):
    gated.let(1000)
    tall.run()
    old = tall.widget.results.review
    drain(gated)
    world.answer = Choice.REPLACE
    start(tall, gated)
    old.session.accept(int(old.session.records["id"][0]))
    gated.let(1000)
    tall.wait()
    assert old.labels in tall.viewer.layers
    assert "edited meanwhile" in tall.status
    assert (old.labels.visible, old.labels.editable, old.points.editable) == (False, True, True)
    assert tall.widget.results.review is not old


def test_results_to_be_replaced_survive_a_cancel(tall, gated, world):
    gated.let(12)
    tall.run()
    first = tall.layer("tissue nuclei")
    world.answer = Choice.REPLACE
    tall.widget.run_bar.run_button.click()
    tall.until(lambda: len(tall.names) == 5)
    assert not first.visible
    tall.widget.cancel()
    assert tall.names == ["tissue", "tissue nuclei", "tissue centres"]
    assert first.visible
    assert first in tall.viewer.layers


def test_results_are_found_by_a_panel_opened_later(panel, world, qtbot):
    panel.run()
    count = panel.widget.legend.count_text("neoplastic")
    panel.viewer.window.remove_dock_widget(panel.widget)
    again = type(panel)(qtbot, panel.viewer, world)
    assert again.widget.legend.count_text("neoplastic") == count
    again.run()
    assert len(world.asked) == 1
