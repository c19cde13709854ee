import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from napari_nucseg.models import registry
from napari_nucseg.models.checkpoint import load_student, save_checkpoint
from napari_nucseg.models.registry import find_model, open_model
from napari_nucseg.models.runtime import OpenVINORuntime, TorchRuntime, inspect_devices, load_runtime
from napari_nucseg.models.student import Student, StudentConfig
from tests.fakes import fake_card

TINY = StudentConfig((8, 8, 16, 16), (1, 1, 1, 1), (1, 1, 1), MapLayout(n_classes=5))


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    net = Student(TINY).train()
    for _ in range(5):
        net(torch.randn(2, 3, 32, 32))
    return net.eval()


@pytest.fixture
def folder(tmp_path, student, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_checkpoint(tmp_path / "tiny", student, fake_card(name="tiny", mean=(180.0,) * 3, std=(50.0,) * 3))
    return tmp_path / "tiny"


def test_round_trip_within_half_precision(folder, student):
    model = open_model(folder)
    loaded = load_student(model)
    for name, value in student.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue  # of no use after training
        torch.testing.assert_close(loaded.state_dict()[name], value, atol=2e-3, rtol=2e-3)
    assert loaded.config == TINY
    assert open_model(folder / "weights.safetensors").card == model.card


def test_runtimes_agree(folder):
    model = open_model(folder)
    rgb = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    exact = TorchRuntime(model, "cpu", "f32")(rgb)
    assert exact.shape == (TINY.layout.channels, 48, 80)
    assert exact.dtype == np.float32
    pytest.importorskip("openvino")
    first = OpenVINORuntime(model, "f32")
    np.testing.assert_allclose(first(rgb), exact, atol=2e-4)
    other = rgb[:32, :64]  # any size, from the cache this time
    np.testing.assert_allclose(
        OpenVINORuntime(model, "f32")(other), TorchRuntime(model, "cpu", "f32")(other), atol=2e-4
    )
    for fast in (load_runtime(model, "cpu"), load_runtime(model, "cpu-torch")):
        assert np.abs(fast(rgb) - exact).mean() < 0.02  # bf16 where the CPU has it
        assert "CPU" in fast.name


SIGNAL_AFTER_RUNTIMES = """
import gc, os, signal, sys
from napari_nucseg.models.registry import open_model
from napari_nucseg.models.runtime import OpenVINORuntime
runtimes = [OpenVINORuntime(open_model(sys.argv[1])) for _ in range(2)]
while runtimes:
    del runtimes[0]  # in the order in which they came
    gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_signals_are_handled_after_runtimes_have_gone(folder):
    """Such as Ctrl+C; see `openvino_core`."""
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", SIGNAL_AFTER_RUNTIMES, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "handled"), done.stderr[-2000:]


def test_damaged_or_foreign_models_are_refused_in_one_sentence(folder):
    weights, card = folder / "weights.safetensors", folder / "card.json"
    good, facts = weights.read_bytes(), json.loads(card.read_text())
    weights.write_bytes(good[:-10] + bytes(10))
    with pytest.raises(NucSegError, match="sha256"):
        load_student(open_model(folder))
    card.write_text(json.dumps({**facts, "sha256": ""}))
    weights.write_bytes(b"not safetensors at all")
    with pytest.raises(NucSegError, match="cannot be loaded"):
        load_student(open_model(folder))
    weights.write_bytes(good)
    wider = {**facts["network"], "widths": [8, 8, 16, 32]}
    first = facts["classes"][0]
    card.write_text(json.dumps({**facts, "network": wider}))
    with pytest.raises(NucSegError, match=r"cannot be loaded|do not fit"):
        load_student(open_model(folder))
    for broken, says in (
        ("{", "not valid JSON"),
        (json.dumps({**facts, "format": 99}), "format 99"),
        (json.dumps({k: v for k, v in facts.items() if k != "mpp"}), "incomplete"),
        (json.dumps({**facts, "colours": {}}), "no colour"),
        *(
            (
                json.dumps({**facts, "colours": {**facts["colours"], first: bad}}),
                "is none; give three whole numbers",
            )
            for bad in (
                ["#", "f", "f", "0", "0", "0", "0"],
                [255, 0],
                "red",
                [1, 2, 300],
                [1.0, 2.0, 3.0],
                7,
                None,
            )
        ),
        (json.dumps({**facts, "colours": [1, 2, 3]}), "not a table"),
        (json.dumps({**facts, "classes": "abc"}), "classes is 'abc', which is not a list"),
        (json.dumps({**facts, "classes": [7]}), "classes hold 7"),
        (json.dumps({**facts, "licence": None}), "licence is None, which is not a text"),
        (json.dumps({**facts, "mean": ["1", 2, 3]}), "mean hold '1'"),
        (json.dumps({**facts, "mpp": 0}), "mpp 0"),
        (json.dumps({**facts, "mpp": "0.25"}), "mpp '0.25'"),
        (json.dumps({**facts, "mean": [1, 2]}), "three means"),
        (json.dumps({**facts, "network": {}}), "incomplete"),
        (json.dumps({**facts, "decode": {"base": 0}}), "base=0"),
        (json.dumps({**facts, "decode": {"max_cost": 70000}}), "max_cost=70000"),
        (json.dumps({**facts, "decode": {"foreground": 7}}), "foreground=7"),
    ):
        card.write_text(broken)
        with pytest.raises(NucSegError, match=says) as told:
            open_model(folder)
        assert "\n" not in str(told.value)
        assert "NucSegError" not in str(told.value)
    weights.unlink()
    with pytest.raises(NucSegError, match="not a model"):
        open_model(folder)


def test_colours_are_checked_when_a_card_is_written_and_may_be_hexadecimal_in_its_file(folder):
    card = open_model(folder).card
    first = card.classes[0]
    with pytest.raises(NucSegError, match=rf"colour '#ff' of '{first}' is none"):
        dataclasses.replace(card, colours={**card.colours, first: "#ff"}).to_json()
    facts = json.loads(card.to_json())
    facts["colours"][first] = "#fF8000"
    (folder / "card.json").write_text(json.dumps(facts))
    assert open_model(folder).card.colours[first] == (255, 128, 0)


def test_models_are_found_by_name_and_path(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "user_models", lambda: tmp_path)
    assert "tiny" in registry.available()
    assert find_model("tiny").name == "tiny"
    assert find_model(folder).name == "tiny"
    assert find_model(str(folder)).name == "tiny"
    with pytest.raises(NucSegError, match=r"not known; there are:.*tiny"):
        find_model("teeny")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    for what in (run, str(run), run / "last.pt"):
        with pytest.raises(NucSegError, match=rf"run of a training, not yet a model.*--run {run} "):
            find_model(what)
    (folder / "card.json").write_text("{")
    assert "tiny" not in registry.available()  # a broken one does not hide the others


def test_torch_steps_in_where_openvino_fails(folder, monkeypatch, caplog):
    from napari_nucseg.models import runtime

    if inspect_devices().openvino is None:
        pytest.skip("OpenVINO is not installed")

    def fails(*args):
        raise ImportError("no module named onnx")

    monkeypatch.setattr(runtime, "_convert", fails)
    assert load_runtime(open_model(folder), "cpu").name.startswith("torch")
    assert "more slowly" in caplog.text


def test_impossible_devices_are_refused(folder):
    with pytest.raises(NucSegError, match="tpu"):
        load_runtime(open_model(folder), "tpu")
    if inspect_devices().cuda is None:
        with pytest.raises(NucSegError, match="no CUDA"):
            load_runtime(open_model(folder), "cuda")
