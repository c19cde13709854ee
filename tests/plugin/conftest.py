"""A panel in a real viewer, with a network without weights and a user who answers at once."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from napari_nucseg import inference
from napari_nucseg._plugin.questions import Choice
from napari_nucseg._plugin.review_keeper import close_all
from napari_nucseg._plugin.services import Services
from napari_nucseg._plugin.widget import NucSegWidget
from napari_nucseg.core.tiling import Grid
from napari_nucseg.models.registry import Model
from napari_nucseg.models.runtime import DeviceReport
from tests.fakes import FakeRuntime, fake_card
from tests.plugin.desk import Desk


class World:
    """Stands for everything outside the panel: the user's answers, the machine, the model."""

    def __init__(self):
        self.model = Model(Path("fake/weights.safetensors"), fake_card(caution="Learnt on nothing."))
        self.runtime = FakeRuntime()
        self.answer = Choice.KEEP
        self.asked = []
        self.folder = None
        self.loaded = []
        self.error = None
        self.report = DeviceReport(None, "2026.0", "bf16")
        self.base = None
        self.geojson = None
        self.salvage = True
        self.result = None

    def load(self, model, device):
        assert threading.current_thread() is not threading.main_thread()
        if self.error is not None:
            raise self.error
        self.loaded.append((model, device))
        return self.runtime

    def ask(self, _parent, *about):
        self.asked.append(about)
        return self.answer

    def services(self):
        return Services(
            models=lambda: {self.model.name: self.model} if self.model else {},
            load_runtime=self.load,
            inspect_devices=lambda: self.report,
            warm_up=lambda: None,
            ask_resume=self.ask,
            ask_existing=self.ask,
            ask_update=self.ask,
            ask_slide=self.ask,
            ask_result=lambda _parent: self.result,
            ask_files=self.ask,
            ask_folder=lambda _parent, _title: self.folder,
            ask_geojson=lambda _parent: self.geojson,
            ask_salvage=lambda _parent, _sentence: self.salvage,
            session_base=lambda: self.base,
            remember_session_base=lambda folder: setattr(self, "base", folder),
        )


class GatedRuntime(FakeRuntime):
    """Computes a window only when it is let to."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Semaphore(0)

    def let(self, windows):
        self.gate.release(windows)

    def __call__(self, rgb):
        assert self.gate.acquire(timeout=30)
        return super().__call__(rgb)


@pytest.fixture
def world(tmp_path, monkeypatch):
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    made = World()
    made.base = tmp_path / "reviews"  # nobody's own folders
    yield made
    close_all()


@pytest.fixture
def tall(monkeypatch, make_panel, synthetic):
    """A panel on an image of 6 x 2 tiles; the first four tiles are done after six windows."""
    monkeypatch.setattr(inference, "Grid", lambda shape, *_: Grid(shape, cell=256, halo=64))
    made = make_panel()
    image = np.tile(synthetic.image, (3, 1, 1))
    made.viewer.add_image(image, name="tissue", scale=(0.25, 0.25), units=("um", "um"))
    return made


class Panel:
    """A viewer with a panel, and how tests press its buttons."""

    def __init__(self, qtbot, viewer, world):
        self.qtbot, self.viewer, self.world = qtbot, viewer, world
        self.widget = NucSegWidget(viewer, world.services())
        viewer.window.add_dock_widget(self.widget, name="NucSeg")

    def layer(self, name):
        return next(layer for layer in self.viewer.layers if layer.name == name)

    @property
    def names(self):
        return [layer.name for layer in self.viewer.layers]

    @property
    def status(self):
        return self.widget.run_bar.status

    @property
    def running(self):
        return self.widget.flow.busy is not None

    def run(self):
        self.widget.run_bar.run_button.click()
        self.wait()

    def wait(self):
        self.qtbot.waitUntil(lambda: not self.running, timeout=30_000)

    def until(self, condition):
        self.qtbot.waitUntil(condition, timeout=60_000)

    def idle(self):
        """Wait for the threads of cancelled runs too."""
        from qtpy.QtCore import QThreadPool

        self.until(lambda: QThreadPool.globalInstance().activeThreadCount() == 0)


@pytest.fixture
def make_panel(make_napari_viewer_proxy, qtbot, world):
    def make(**viewer_options):
        return Panel(qtbot, make_napari_viewer_proxy(**viewer_options), world)

    return make


@pytest.fixture
def panel(make_panel, synthetic):
    """A panel on the synthetic image, 0.25 um per pixel."""
    made = make_panel()
    made.viewer.add_image(synthetic.image, name="tissue", rgb=True, scale=(0.25, 0.25), units=("um", "um"))
    return made


@pytest.fixture
def desk(make_panel, synthetic):
    """The review of a run on the synthetic image, in a window that is shown."""
    panel = make_panel(show=True)
    panel.viewer.add_image(synthetic.image, name="tissue", rgb=True, scale=(0.25, 0.25), units=("um", "um"))
    panel.run()
    made = Desk(panel)
    made.agree()
    return made


@pytest.fixture
def gated(world):
    runtime = world.runtime = GatedRuntime()
    yield runtime
    runtime.let(1000)


@pytest.fixture
def notes(monkeypatch):
    """What napari was told to show."""
    from napari_nucseg._plugin import flow

    shown = []
    monkeypatch.setattr(flow, "show_error", shown.append)
    return shown


@pytest.fixture
def centre_of():
    """Return a pixel inside the biggest nucleus, level-0 row and column."""

    def find(labels, nuclei):
        row = nuclei.loc[nuclei["area_um2"].idxmax()]
        pixels = np.argwhere(labels == row["id"])
        middle = pixels.mean(0)
        return row, pixels[np.abs(pixels - middle).sum(1).argmin()]

    return find
