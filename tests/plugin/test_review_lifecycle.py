"""When reviews begin and end, and who is told."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from napari_nucseg._plugin.review_desk import empty_table
from tests.fakes import CLASSES
from tests.plugin.desk import Desk


class Listener:
    def __init__(self):
        self.open, self.heard = [], []

    def session_began(self, review):
        self.open.append(review)

    def session_ended(self, review):
        self.open.remove(review)
        self.heard.append(review)


def test_who_listens_is_told_of_the_beginning_and_the_end(panel):
    listener = Listener()
    panel.widget.flow.desk.listeners.append(listener)
    panel.run()
    [review] = listener.open
    assert review is panel.widget.results.review
    assert review.session.labels is review.labels.data
    panel.viewer.window.remove_dock_widget(panel.widget)
    assert listener.open == [review]  # a review does not end with the panel
    review.points.add([[3.0, 300.0]])
    assert review.session.at(3, 300)
    panel.viewer.layers.remove(review.labels)
    assert listener.heard == [review]


def test_two_panels_share_a_review(panel, qtbot, world):
    panel.run()
    review = panel.widget.results.review
    second = type(panel)(qtbot, panel.viewer, world)
    assert second.widget.results.review is review
    before = len(review.session.records)
    review.points.add([[3.0, 300.0]])
    assert len(review.session.records) == before + 1
    review.points.add([[-30.0, 300.0]])
    assert "outside the image" in panel.status
    assert "outside the image" in second.status
    panel.viewer.window.remove_dock_widget(panel.widget)
    review.actions.undo()
    assert len(review.points.data) == before
    assert second.status == "Undo Add."
    second.until(
        lambda: second.widget.legend.count_text(CLASSES[0]).split()[0] == str(review.counts()[CLASSES[0]])
    )


def test_a_copy_of_the_labels_made_by_napari_is_no_review(panel):
    panel.run()
    review = panel.widget.results.review
    data, state, _ = review.labels.as_layer_data_tuple()
    copy = panel.viewer.add_labels(data.copy(), **{**state, "name": "copy"})
    assert panel.widget.results.review is review or panel.widget.results.labels is not copy
    before = review.session.records.copy()
    copy.data_setitem((np.array([2]), np.array([2])), 5)
    np.testing.assert_array_equal(review.session.records, before)
    assert isinstance(copy, Labels)
    panel.viewer.layers.remove(copy)
    review.points.add([[3.0, 300.0]])
    assert review.session.at(3, 300)


def test_centres_that_were_removed_come_back_with_the_first_click(desk):
    desk.viewer.layers.remove(desk.points)
    assert desk.panel.widget.results.points is None
    desk.session.reject(desk.nuclei())
    desk.panel.widget.review.panel.click.click()
    desk.points = desk.review.points
    assert desk.points in desk.viewer.layers
    assert desk.points.mode == "add"
    desk.agree()
    pixel = desk.empty()
    desk.hand.see(pixel)
    desk.hand.click(pixel)
    assert desk.session.at(*pixel)
    desk.agree()
    assert desk.panel.names == ["tissue", "tissue nuclei", "tissue centres"]


@pytest.mark.parametrize("other", [np.int64, np.uint32])
def test_labels_of_a_review_are_not_replaced(panel, other):
    panel.run()
    desk = Desk(panel)
    desk.labels.data = np.zeros((9, 9), other) if other is np.uint32 else desk.labels.data.astype(other)
    assert "can't be replaced" in panel.status
    desk.session.accept(int(desk.session.records["id"][0]))
    desk.agree()


def test_a_run_takes_the_place_of_a_review_in_which_nothing_was_done(panel, world):
    panel.widget.review.panel.click.click()
    assert panel.names == ["tissue", "tissue nuclei", "tissue centres"]
    panel.run()
    assert world.asked == []
    assert panel.names == ["tissue", "tissue nuclei", "tissue centres"]
    Desk(panel).agree()
    assert panel.widget.results.total() > 50


def test_the_part_found_before_a_cancel_is_reviewed(tall, gated):
    from tests.plugin.steps import start

    start(tall, gated)
    tall.widget.cancel()
    review = tall.widget.results.review
    assert review.session.check() is None
    np.testing.assert_array_equal(review.points.features["id"], review.session.table()["id"])
    assert review.points.editable
    gated.let(100)
    tall.idle()


def test_an_empty_table_has_the_columns_of_a_run(panel):
    panel.run()
    run = panel.widget.results.nuclei
    empty = empty_table(CLASSES)
    assert list(empty.columns) == list(run.columns)
    assert len(empty) == 0
