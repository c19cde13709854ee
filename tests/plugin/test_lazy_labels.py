"""Chunks of labels as they come: the window never waits behind what was asked for before."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_nucseg._plugin.lazy_labels import LabelStore


class Slow:
    """A level whose chunks come when they are let."""

    def __init__(self, values, gate):
        self._values, self._gate = values, gate
        self.shape, self.chunks = values.shape, (8, 8)

    def __getitem__(self, key):
        assert self._gate.wait(30)
        return self._values[key]


@pytest.fixture
def levels():
    whole = np.arange(1, 64 * 64 + 1, dtype=np.uint32).reshape(64, 64)
    return whole, whole[::2, ::2]


@pytest.fixture
def store(levels):
    fine, coarse = levels
    gate, free = threading.Event(), threading.Event()
    free.set()
    made = LabelStore([Slow(fine, gate), Slow(coarse, free)])
    made.gate = gate
    yield made
    gate.set()
    made.close()


def test_the_coarsest_level_is_there_at_once_whatever_is_on_its_way(store, levels):
    assert not store.levels[0][0:64, 0:64].any()  # none has come within the patience of the window
    assert not store.is_idle
    np.testing.assert_array_equal(store.levels[1][0:32, 0:32], levels[1])


def test_what_comes_late_is_told_and_there_the_next_time(store, levels, qtbot):
    told = threading.Event()
    store.arrived = told.set
    assert not store.levels[0][3:9, 5:20].any()
    store.gate.set()
    assert told.wait(10)
    qtbot.waitUntil(lambda: store.is_idle)
    np.testing.assert_array_equal(store.levels[0][3:9, 5:20], levels[0][3:9, 5:20])


def test_what_was_asked_for_before_a_change_is_not_read_any_more(store, levels, qtbot):
    store.levels[0][0:64, 0:64]
    changed = [Slow(level + 7, store.gate) for level in levels]
    store.forget(changed)
    assert store.is_idle
    store.gate.set()
    store.levels[0][0:8, 0:8]
    qtbot.waitUntil(lambda: store.is_idle)
    np.testing.assert_array_equal(store.levels[0][0:8, 0:8], levels[0][0:8, 0:8] + 7)
    assert len(store._cache) == 1
