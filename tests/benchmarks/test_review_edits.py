"""The times of edits are those of edits, on sessions that are what they say; a window draws what has changed alone."""

import numpy as np
import pytest

from benchmarks import edits
from benchmarks._edits import Clock, Hand, edit_all, one_round
from benchmarks._tissue import Tile, choose_tile, make_session, tiled
from napari_nucseg.errors import NucSegError
from napari_nucseg.inference import predict_window
from tests.fakes import FakeRuntime, fake_card

KINDS = ["add", "add inside (split)", "move (one step of a drag)", "delete", "retype", "undo", "redo"]


@pytest.fixture(scope="module")
def tile(synthetic):
    image = np.ascontiguousarray(synthetic.image[:320, :320])
    return Tile(image, predict_window(image, FakeRuntime(), fake_card()), "the sample")


def test_a_session_of_tiles_holds_so_many_more_nuclei(tile):
    one, four = (make_session(tile, n, fake_card()) for n in (1, 2))
    assert four.labels.shape == (640, 640)
    assert four.live.sum() == pytest.approx(4 * one.live.sum(), rel=0.15)
    assert four.check() is None
    assert not four.missing_maps([(0, 0), (639, 639)])
    twice = tiled(tile.fields, 2)
    assert np.array_equal(twice.border[:, 320:, 320:], tile.fields.border)
    assert np.array_equal(twice.type[:, :320, 320:], tile.fields.type)


def test_every_kind_of_edit_is_timed_and_all_is_undone(tile):
    session, clock = make_session(tile, 1, fake_card()), Clock(lambda: {"drawing": 1.0})
    start = session.labels.copy()
    assert edit_all(session, clock, 3)
    assert np.array_equal(session.labels, start)
    assert sorted(clock.spent) == sorted(KINDS)
    assert all(0 < t < 1000 for spent in clock.spent.values() for t in spent)
    assert [len(clock.more[kind]) for kind in KINDS] == [len(clock.spent[kind]) for kind in KINDS]
    report = edits.edit_table(clock)
    assert report.count("\n") == len(KINDS) + 1
    assert "drawing" in edits.draw_table(clock)


def test_too_slow_is_said_to_be():
    clock = Clock()
    for ms in (1.0, 40.0):
        clock.spent.setdefault("add", []).append(ms)
        clock.computed.setdefault("add", []).append(ms)
    assert edits.edit_table(clock).endswith("| NO |")


def test_an_edit_that_is_refused_is_no_quick_one():
    clock = Clock()

    def refuse():
        raise NucSegError("No.")

    assert not clock.time("add", refuse)
    assert clock.refused == 1
    assert clock.spent == {}


def test_positions_are_where_they_are_said_to_be(tile):
    session = make_session(tile, 1, fake_card())
    hand = Hand(session, 0)
    for _ in range(20):
        assert session.at(*hand.free()) == 0
        assert session.at(*hand.covered()) > 0
        id_, centre = hand.nucleus()
        assert session.at(*centre) == id_


def test_without_data_the_tile_is_synthetic(tmp_path, monkeypatch, synthetic):
    monkeypatch.setattr("benchmarks._tissue.synthetic_he", lambda shape, mpp: synthetic)
    found = choose_tile(tmp_path, FakeRuntime(), fake_card())
    assert "synthetic" in found.name
    assert found.image is synthetic.image
    assert found.fields.shape == synthetic.labels.shape


def test_a_window_draws_no_more_than_the_edit_has_changed(tile, make_napari_viewer_proxy):
    from benchmarks._window import Window, open_review

    viewer = make_napari_viewer_proxy(show=True)
    session = make_session(tile, 2, fake_card())
    window = Window(viewer, open_review(viewer, session, tile.image, fake_card()))
    window.draw()
    clock = Clock(window.draw)
    one_round(session, Hand(session, 0), clock)
    sent = [row["pixels of the layer drawn anew"] for rows in clock.more.values() for row in rows]
    assert max(sent) > 0
    assert max(sent) < session.labels.size / 20
    assert f"{session.labels.size:,} pixels" in window.yardsticks()
