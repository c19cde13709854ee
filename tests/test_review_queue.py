"""The review queue: the doubtful first, nothing twice in a round, and always as if it were made anew."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psygnal import Signal

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.core.nuclei import UNCLASSIFIED, Change, NucleusClass, State, record_dtype
from napari_nucseg.core.tiling import Box
from napari_nucseg.review_queue import Filter, ReviewQueue, Tally
from tests.session.boards import make_session, random_edit

CLASSES = (NucleusClass("neoplastic", (255, 0, 0)), NucleusClass("inflammatory", (0, 255, 0)))
SIDE = 4
PITCH = 6


class Board:
    """What the queue needs of a session: square nuclei on a grid, ids 1, 2, ... in raster order."""

    changed = Signal(Change)

    def __init__(self, scores, across=10):
        self.classes, self.across = CLASSES, across
        self.ground = SimpleNamespace(config=DecodeConfig())
        self.labels = np.zeros((PITCH * -(-len(scores) // across), PITCH * across), np.uint32)
        self.records = np.zeros(0, record_dtype(2))
        for score in scores:
            self.add(score)

    def box(self, wanted):
        y, x = divmod(wanted - 1, self.across)
        return Box(PITCH * y, PITCH * y + SIDE, PITCH * x, PITCH * x + SIDE)

    def add(self, score):
        one = np.zeros(1, self.records.dtype)
        wanted = len(self.records) + 1
        box = self.box(wanted)
        one["id"], one["score"], one["state"] = wanted, score, State.PREDICTED
        one["y"], one["x"], one["prob"], one["kind"] = box.y0 + 1.5, box.x0 + 1.5, (1, 0), wanted % 2
        self.records = np.concatenate([self.records, one])
        self.write(box, wanted, wanted)

    def write(self, box, value, *ids, **values):
        """Set the pixels of a box and fields of records, and tell of it."""
        if box is not None:
            self.labels[box.slices] = value
        rows = np.array(sorted(ids), np.int64) - 1
        for name, new in values.items():
            self.records[name][rows] = new
        none = np.zeros(0, np.int64)
        self.changed.emit(Change("Test", box, none, none.astype(np.uint32), rows, self.records[rows]))

    def set(self, wanted, **values):
        self.write(None, 0, wanted, **values)

    def reject(self, wanted):
        self.write(self.box(wanted), 0, wanted, state=State.REJECTED)


@pytest.fixture
def board():
    """Nuclei 1..5; 3 is the most doubtful one, then 5, 1, 4, 2."""
    return Board([0.6, 0.9, 0.2, 0.8, 0.4])


def walk(queue, steps, after=None):
    """Press N."""
    seen = []
    for _ in range(steps):
        after = queue.next(after)
        seen.append(after)
    return seen


def test_the_doubtful_come_first_and_skipped_ones_come_again(board):
    assert walk(ReviewQueue(board), 11) == [3, 5, 1, 4, 2, 3, 5, 1, 4, 2, 3]


def test_accepted_and_rejected_ones_are_done_with(board):
    queue = ReviewQueue(board)
    board.set(3, state=State.ACCEPTED)
    assert queue.next(3) == 5
    board.reject(5)
    assert walk(queue, 4, 5) == [1, 4, 2, 1]
    assert queue.remaining == 3


def test_an_accept_taken_back_makes_it_the_next_again(board):
    queue = ReviewQueue(board)
    first = queue.next()
    board.set(first, state=State.ACCEPTED)
    second = queue.next(first)
    board.set(first, state=State.PREDICTED)
    assert queue.next(second) == first


def test_at_the_end_there_is_nothing_or_the_last_one(board):
    queue = ReviewQueue(board)
    for wanted in (1, 2, 3, 4):
        board.set(wanted, state=State.ACCEPTED)
    assert walk(queue, 3) == [5, 5, 5]
    board.reject(5)
    assert queue.next(5) is None
    assert queue.next() is None


def test_a_new_round_does_not_begin_with_the_one_just_skipped(board):
    queue = ReviewQueue(board)
    for wanted in (1, 2, 4, 5):
        assert queue.next(wanted) == 3
    assert queue.next(3) == 5


def test_asking_again_without_going_on_gives_the_same(board):
    queue = ReviewQueue(board)
    assert [queue.next(), queue.next(), queue.next(None)] == [3, 3, 3]


def test_going_back_and_forth(board):
    queue = ReviewQueue(board)
    assert queue.previous() is None
    walk(queue, 3)
    assert [queue.previous(1), queue.previous(5), queue.previous(3)] == [5, 3, None]
    assert queue.next(3) == 1, "where one was before going back"
    assert queue.previous(1) == 5


def test_going_back_comes_to_a_rejected_one_but_not_to_one_whose_making_was_undone(board):
    queue = ReviewQueue(board)
    walk(queue, 3)
    board.reject(3)
    board.write(board.box(5), 0, 5, state=State.ABSENT)
    assert queue.previous(1) == 3


def test_going_back_from_a_nucleus_of_ones_own_choice(board):
    queue = ReviewQueue(board)
    walk(queue, 2)
    assert queue.previous(4) == 5
    assert queue.previous(5) == 3


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        (Filter(kinds=frozenset({0})), [4, 2]),
        (Filter(kinds=frozenset({UNCLASSIFIED})), []),
        (Filter(scores=(0.4, 0.8)), [5, 1, 4]),
        (Filter(doubts=(0.9, 1.0)), [3]),
        (Filter(box=Box(0, 4, 0, 9)), [1, 2]),
        (Filter(box=Box(0, 4, 7, 9)), [2]),
        (Filter(box=Box(0, 4, 9, 10)), []),
        (Filter(polygons=(np.array([[0, 5], [0, 17], [4, 17], [4, 5.0]]),)), [3, 2]),
        (Filter(kinds=frozenset({1}), scores=(0.5, 1.0)), [1]),
        (Filter(states=frozenset({State.REJECTED})), []),
    ],
)
def test_a_filter_narrows_the_round(board, chosen, ids):
    queue = ReviewQueue(board)
    queue.filter = chosen
    assert queue.remaining == len(ids)
    assert walk(queue, len(ids) + 1) == (ids + ids[:1] or [None])


def test_the_rejected_ones_can_be_walked_and_restored(board):
    queue = ReviewQueue(board)
    board.reject(2)
    board.reject(5)
    queue.filter = Filter(states=frozenset({State.REJECTED}))
    assert walk(queue, 3) == [5, 2, 5]
    board.write(board.box(5), 5, 5, state=State.ACCEPTED)
    assert walk(queue, 2, 5) == [2, 2]


def test_a_nucleus_without_a_score_is_in_no_range_of_scores(board):
    board.set(1, score=np.nan)
    queue = ReviewQueue(board)
    queue.filter = Filter(scores=(0.0, 1.0))
    assert queue.remaining == 4


def test_progress_counts_reviewed_and_rejected_per_class(board):
    queue = ReviewQueue(board)
    board.set(3, state=State.ACCEPTED)
    board.reject(4)
    board.set(5, kind=UNCLASSIFIED, state=State.EDITED)
    board.write(board.box(1), 0, 1, state=State.ABSENT)
    progress = queue.progress()
    assert progress.all == Tally(3, 4)
    assert progress.classes == (Tally(1, 2), Tally(1, 1))
    assert progress.unclassified == Tally(1, 1)


def test_reasons_follow_the_edits(board):
    queue = ReviewQueue(board)
    assert queue.reasons_of(3) == ("faint centre",)
    assert queue.reasons_of(2) == ()
    before = queue.doubt_of(2)
    side = board.box(2)
    board.write(Box(side.y0, side.y1, side.x0 - 2, side.x0), 1, 1)
    assert queue.reasons_of(2) == ("touches a neighbour",)
    assert queue.doubt_of(2) > before
    assert np.isnan(queue.doubt_of(99))
    assert queue.reasons_of(99) == ()


@given(seed=st.integers(0, 10**6), edits=st.integers(1, 25))
@settings(max_examples=40, deadline=None)
def test_after_any_edits_of_a_session_it_is_as_if_made_anew(seed, edits):
    session, rng = make_session(seed), np.random.default_rng(seed)
    queue, after = ReviewQueue(session), None
    queue.filter = chosen = Filter(
        states=frozenset({State.PREDICTED, State.EDITED}), kinds=frozenset({0, 1}), box=Box(0, 64, 0, 60)
    )
    for _ in range(edits):
        random_edit(session, rng)
        after = queue.next(after) if rng.random() < 0.5 else after
        assert after is None or after in session.records["id"]
    anew = ReviewQueue(session)
    anew.filter = chosen
    np.testing.assert_array_equal(queue._ids, session.records["id"])
    np.testing.assert_allclose(queue._doubt[session.live], anew._doubt[session.live], rtol=1e-5)
    np.testing.assert_array_equal(queue._held, anew._held)
    assert queue.progress() == anew.progress()
    ids = set(session.records["id"][anew._held].tolist())
    queue.filter = chosen
    assert set(walk(queue, len(ids))) == ids


def test_a_closed_queue_no_longer_listens(board):
    queue = ReviewQueue(board)
    queue.close()
    board.reject(3)
    assert queue.next() == 3


def test_a_hundred_thousand_nuclei():
    board = Board([0.5], across=400)
    n = 100_000
    records = np.zeros(n, board.records.dtype)
    records["id"], records["state"], records["prob"] = np.arange(1, n + 1), State.PREDICTED, (0.7, 0.3)
    records["score"] = np.random.default_rng(0).random(n)
    grid = np.kron(np.arange(1, n + 1, dtype=np.uint32).reshape(-1, 400), np.ones((PITCH, PITCH), np.uint32))
    board.labels, board.records = grid, records
    queue = ReviewQueue(board)
    after = queue.next()
    next_ms, edit_ms = [], []
    for _ in range(20):
        begin = time.perf_counter()
        board.set(after, state=State.ACCEPTED)
        board.write(board.box(after), 0)
        middle = time.perf_counter()
        after = queue.next(after)
        next_ms.append(1000 * (time.perf_counter() - middle))
        edit_ms.append(1000 * (middle - begin) / 2)
    assert np.median(next_ms) < 5
    assert np.median(edit_ms) < 2
