"""Work in other threads."""

import threading

from superqt.utils import WorkerBase

from napari_nucseg._plugin import work


def test_work_that_can_be_stopped_does_not_keep_napari_from_closing(qtbot):
    stopped = threading.Event()
    ended = []
    worker = work.start(lambda: stopped.wait(60), ended.append, stopped.set)
    WorkerBase.await_workers(20_000)  # what napari does at its end; raises if work goes on
    assert stopped.is_set()
    qtbot.waitUntil(lambda: [outcome.value for outcome in ended] == [True])
    assert worker is not None


def test_how_work_ends_is_told_once(qtbot):
    told = []
    held = [work.start(lambda: 7, told.append), work.start(lambda: 1 / 0, told.append)]
    qtbot.waitUntil(lambda: len(told) == len(held))
    assert sorted(str(outcome.value) for outcome in told) == ["7", "None"]
    assert any(isinstance(outcome.error, ZeroDivisionError) for outcome in told)
