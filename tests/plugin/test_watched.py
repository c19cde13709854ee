"""A runtime that is watched answers as it does by itself, and by the same way."""

import threading

import numpy as np
import pytest

from napari_nucseg._plugin.compute import Cancelled, Ticker, watched
from napari_nucseg.core.decode import compress
from napari_nucseg.core.tiling import Box
from napari_nucseg.models.runtime import FieldRuntime
from tests.fakes import LAYOUT, FakeRuntime


class Shorter(FakeRuntime):
    lanes = 3

    def __init__(self):
        super().__init__()
        self.shape = "none"

    def expect(self, shape):
        self.shape = shape

    def fields(self, rgb, part):
        return compress(self(rgb), LAYOUT).crop(*part.slices)


IMAGE = np.zeros((32, 32, 3), np.uint8)
PART = Box(0, 8, 0, 4)


def test_the_shorter_way_stays_open():
    runtime, ticker = Shorter(), Ticker()
    seen = watched(runtime, ticker)
    assert isinstance(seen, FieldRuntime)
    assert (seen.lanes, seen.name) == (3, runtime.name)
    seen.expect((32, 32))
    assert runtime.shape == (32, 32)
    assert seen.fields(IMAGE, PART).shape == (8, 4)
    assert ticker.done == 1


def test_what_gives_maps_only_is_asked_for_maps():
    ticker = Ticker()
    seen = watched(FakeRuntime(), ticker)
    assert not isinstance(seen, FieldRuntime)
    assert seen(IMAGE).shape == (LAYOUT.channels, 32, 32)
    assert ticker.done == 1


def test_windows_of_several_threads_are_all_counted():
    ticker = Ticker()
    seen = watched(Shorter(), ticker)
    threads = [
        threading.Thread(target=lambda: [seen.fields(IMAGE, PART) for _ in range(20)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ticker.done == 80


@pytest.mark.parametrize("kind", [FakeRuntime, Shorter])
def test_a_stop_comes_before_the_next_window(kind):
    ticker, runtime = Ticker(), kind()
    seen = watched(runtime, ticker)
    ticker.stop()
    with pytest.raises(Cancelled):
        seen.fields(IMAGE, PART) if isinstance(seen, FieldRuntime) else seen(IMAGE)
    assert (runtime.windows, ticker.done) == (0, 0)
