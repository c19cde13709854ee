"""What the panel says when a run fails."""

from __future__ import annotations

import numpy as np

from napari_nucseg.errors import NucSegError
from tests.fakes import FakeRuntime
from tests.plugin.steps import start


def test_a_users_error_is_one_sentence(panel, world, notes):
    error = world.error = NucSegError("Device 'cuda' is not there; use 'cpu'.")
    panel.run()
    assert notes == [str(error)]
    assert panel.status == str(error)
    assert panel.names == ["tissue"]


def test_memory_errors_are_told_in_words(panel, world, notes):
    class OutOfMemoryError(RuntimeError):  # the name of torch's, which is a RuntimeError too
        pass

    world.error = OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    panel.run()
    assert "not enough memory left" in notes[0]


def test_other_errors_take_naparis_way(panel, world, monkeypatch):
    """Also RuntimeErrors, which the worker itself would swallow."""
    from napari_nucseg._plugin import flow

    received = []
    monkeypatch.setattr(flow.notification_manager, "receive_error", lambda *about: received.append(about))
    for error in (RuntimeError("broken"), KeyError("broken")):
        world.error = error
        received.clear()
        panel.run()
        [(kind, value, trace)] = received
        assert (kind, value) == (type(error), error)
        assert trace is not None
        assert "broken" in panel.status


def test_an_error_in_the_middle_keeps_what_was_found(tall, gated, notes, monkeypatch):
    start(tall, gated)
    monkeypatch.setattr(FakeRuntime, "__call__", lambda *_: (_ for _ in ()).throw(NucSegError("No more.")))
    gated.let(100)
    tall.wait()
    assert notes == ["No more."]
    assert "nuclei found so far were kept" in tall.status
    assert len(tall.layer("tissue centres").data) > 0


def test_what_is_no_image_is_refused_in_one_sentence(make_panel, notes):
    panel = make_panel()
    panel.viewer.add_image(
        np.full((40, 50), 1000, np.uint16), scale=(0.25,) * 2, units=("um",) * 2, name="12 bit"
    )
    panel.run()
    assert len(notes) == 1
    assert "1000" in notes[0]
    assert panel.names == ["12 bit"]
