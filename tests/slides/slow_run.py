"""The command line with a slow network without weights, in a process that can be killed.

NUCSEG_TEST_SLEEP: seconds per window. NUCSEG_TEST_DIE: die without a word instead of the n-th replacement of a file
by `WorkFolder`, that is while the results are put in place.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from napari_nucseg import cli
from napari_nucseg.models.registry import Model
from napari_nucseg.slides import workdir
from napari_nucseg.slides.loaded import Loaded
from tests.fakes import FakeRuntime
from tests.slides.conftest import CARD


class Slow(FakeRuntime):
    def __call__(self, rgb):
        time.sleep(float(os.environ.get("NUCSEG_TEST_SLEEP", "0")))
        return super().__call__(rgb)


def load(model, device):
    """In place of `Loaded.of`; workers of a cluster import it."""
    return Loaded(Model(Path("fake.safetensors"), CARD), Slow())


class DyingOs:
    """The module os, but for `replace`."""

    def __init__(self, left):
        self.left = left

    def __getattr__(self, name):
        return getattr(os, name)

    def replace(self, source, target):
        self.left -= 1
        if not self.left:
            os._exit(9)
        os.replace(source, target)


if __name__ == "__main__":
    if die := os.environ.get("NUCSEG_TEST_DIE"):
        workdir.os = DyingOs(int(die))
    Loaded.of = staticmethod(load)
    sys.exit(cli.main(sys.argv[1:]))
