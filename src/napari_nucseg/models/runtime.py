"""Run a model's network: torch (CUDA or CPU) and OpenVINO (CPU) behind one interface."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.decode import Fields, unpack
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.devices import DEVICES
from napari_nucseg.models.registry import Model

if TYPE_CHECKING:
    import torch

    from napari_nucseg.core.maps import MapLayout

log = logging.getLogger(__name__)

CONVERSION = 2
"""Count up when the converted network changes (`bare`), so that cached ones are made anew."""


@functools.cache
def openvino_core() -> Any:
    """Return OpenVINO's one core of this process, which is never let go.

    A core gives the thread that first uses it a stack for signal handlers and frees it with itself. Of two cores that
    go in the order in which they came, the first one's stack stays in use after it was freed, and the next signal that
    Python handles, such as Ctrl+C, ends the process with a segmentation fault (seen with OpenVINO 2026.4).
    """
    import openvino

    core = openvino.Core()
    core.get_versions("CPU")  # loads the plugin, so that its stack lies below those of cores that others make
    return core


PRECISIONS = ("auto", "f32", "bf16", "fp16")


class Runtime(Protocol):
    """A loaded network, ready for windows of any size."""

    name: str
    """Runtime, device and precision, as shown to the user."""

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the activated maps ``(channels, H, W)`` of an ``(H, W, 3)`` image; sides multiples of 16."""


@runtime_checkable
class FieldRuntime(Runtime, Protocol):
    """A runtime that knows a shorter way to what the decoder needs than through the maps in full."""

    lanes: int
    """How many threads may call at a time for the best speed: one waits for its pixels while another computes."""

    def expect(self, shape: tuple[int, int] | None) -> None:
        """Prepare for many windows of a shape (None: of any), to save memory and time; others are welcome too."""

    def fields(self, rgb: NDArray[np.uint8], part: Box) -> Fields:
        """Return the fields of a part of an ``(H, W, 3)`` image whose sides are multiples of 16."""


_Requests = queue.Queue[Any]
"""Inference requests of one compiled network that are free."""


@dataclass(frozen=True)
class DeviceReport:
    """Which devices and runtimes this machine offers.

    Attributes
    ----------
    cuda : str or None
        Name of the first CUDA device.
    openvino : str or None
        Version of OpenVINO, None where it is not installed.
    precision : str
        What OpenVINO would compute in: "bf16" where the CPU has it, else "f32".
    """

    cuda: str | None
    openvino: str | None
    precision: str


def inspect_devices() -> DeviceReport:
    """Look for CUDA and OpenVINO (imports both where installed)."""
    import torch

    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    if importlib.util.find_spec("openvino") is None:
        return DeviceReport(cuda, None, "f32")
    import openvino

    capable = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return DeviceReport(cuda, openvino.__version__.split("-")[0], "bf16" if "BF16" in capable else "f32")


def load_runtime(model: Model, device: str = "auto") -> Runtime:
    """Load a model onto the best runtime available, or the one asked for.

    Parameters
    ----------
    model : Model
    device : {"auto", "cuda", "cpu", "cpu-torch"}

    Notes
    -----
    The environment variable NUCSEG_PRECISION=f32 asks for full precision where bf16 or fp16 would be used,
    NUCSEG_THREADS limits the threads of OpenVINO.

    Raises
    ------
    NucSegError
        The device is not known or not there, the precision is none, or the weights cannot be loaded.
    """
    if device not in DEVICES:
        raise NucSegError(f"Device '{device}' is not one of {', '.join(DEVICES)}.")
    precision = os.environ.get("NUCSEG_PRECISION", "auto")
    if precision not in PRECISIONS:
        raise NucSegError(f"NUCSEG_PRECISION={precision} is not one of {', '.join(PRECISIONS)}.")
    report = inspect_devices()
    if device == "cuda" and report.cuda is None:
        raise NucSegError("Device 'cuda' was asked for, but torch finds no CUDA device; use device 'cpu'.")
    if report.cuda is not None and device in ("auto", "cuda"):
        return TorchRuntime(model, "cuda", precision)
    if report.openvino is not None and device != "cpu-torch":
        try:
            return OpenVINORuntime(model, report.precision if precision == "auto" else precision)
        except NucSegError:
            raise
        except Exception as error:  # slower is better than nothing
            log.warning("OpenVINO cannot run %s (%s); torch does it, more slowly", model, error)
    return TorchRuntime(model, "cpu", precision)


def deployed(model: Model) -> torch.nn.Module:
    """Return the network from ``(1, H, W, 3)`` uint8 to activated maps ``(1, channels, H, W)``, norms folded in."""
    from torch import nn
    from torch.nn import functional as F

    from napari_nucseg.models.student import activate

    class Deployed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bare = bare(model)

        def forward(self, rgb: torch.Tensor) -> torch.Tensor:
            return activate(F.pixel_shuffle(self.bare(rgb).float(), 2), model.card.layout)

    return Deployed().eval()


def bare(model: Model) -> torch.nn.Module:
    """Return the network from ``(1, H, W, 3)`` uint8 to `Student.subpixels`, norms folded in.

    Shuffling and activating full-resolution maps costs a general runtime nearly as much as all convolutions together;
    `core.decode.unpack` does it on the way to the fields.
    """
    import torch
    from torch import nn

    from napari_nucseg.models.checkpoint import load_student

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = load_student(model).fuse()
            self.register_buffer("scale", 1 / torch.tensor(model.card.std).view(1, 3, 1, 1))
            self.register_buffer("shift", torch.tensor(model.card.mean).view(1, 3, 1, 1))

        def forward(self, rgb: torch.Tensor) -> torch.Tensor:
            image = (rgb.permute(0, 3, 1, 2).float() - self.shift) * self.scale
            return self.student.subpixels(image)

    return Bare().eval()


def _maps(subpixels: torch.Tensor, layout: MapLayout) -> NDArray[np.float32]:
    """Return the activated maps (channels, H, W) of a raw answer (1, 4 * channels, H / 2, W / 2)."""
    from torch.nn import functional as F

    from napari_nucseg.models.student import activate

    maps: NDArray[np.float32] = activate(F.pixel_shuffle(subpixels, 2), layout)[0].contiguous().cpu().numpy()
    return maps


class TorchRuntime:
    """Eager torch: CUDA with fp16 autocast and channels_last, or the CPU in bf16 or f32.

    Parameters
    ----------
    precision : {"auto", "fp16", "bf16", "f32"}
        "auto": fp16 on CUDA; on the CPU bf16 where it is native, else f32.
    """

    lanes = 2

    def __init__(self, model: Model, device: str, precision: str = "auto") -> None:
        import torch

        if precision == "auto":
            native = device == "cpu" and torch.cpu._is_avx512_bf16_supported()
            precision = "fp16" if device == "cuda" else "bf16" if native else "f32"
        self._torch, self._device, self._layout = torch, torch.device(device), model.card.layout
        self._dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "f32": None}[precision]
        self._net = bare(model).to(self._device, memory_format=torch.channels_last)
        self.name = f"torch {torch.__version__} ({device.upper()}, {precision})"

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Runtime.__call__`."""
        with self._torch.inference_mode():
            return _maps(self._answer(rgb), self._layout)

    def expect(self, shape: tuple[int, int] | None) -> None:
        """See `FieldRuntime.expect`: eager torch has nothing to prepare."""

    def fields(self, rgb: NDArray[np.uint8], part: Box) -> Fields:
        """See `FieldRuntime.fields`."""
        answer = self._answer(rgb)[0].contiguous()
        if self._device.type == "cuda":
            page = self._torch.empty(
                answer.shape, dtype=answer.dtype, pin_memory=True
            )  # copies at full speed
            page.copy_(answer)
            answer = page
        return unpack(answer.numpy(), self._layout, part)

    def _answer(self, rgb: NDArray[np.uint8]) -> Any:
        torch = self._torch
        image = torch.from_numpy(np.ascontiguousarray(rgb))[None]
        if self._device.type == "cuda":
            image = image.pin_memory().to(self._device, non_blocking=True)
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None),
        ):
            return self._net(image).float()


class OpenVINORuntime:
    """OpenVINO on the CPU. The network is converted once per weights and OpenVINO version, and cached on disk.

    Parameters
    ----------
    model : Model
    precision : {"f32", "bf16"}
    """

    def __init__(self, model: Model, precision: str = "f32") -> None:
        import openvino

        # the answer of a second lane takes memory, and where the network is slow there is little to win by it
        self.lanes = 2 if precision == "bf16" else 1
        self._path, self._layout, self._precision = _converted(model), model.card.layout, precision
        self._lock = threading.Lock()
        self._any = self._compile(None)
        self._expected: tuple[tuple[int, int], _Requests] | None = None
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]} (CPU, {precision})"
        # OpenVINO makes its tables of types at the first answer, holding a lock of its own while it lets go of the
        # interpreter's: two lanes that begin at the same moment would wait for each other for ever
        with self._answer(np.zeros((64, 64, 3), np.uint8)):
            pass

    def expect(self, shape: tuple[int, int] | None) -> None:
        """See `FieldRuntime.expect`: OpenVINO shares the memory of its layers only where it knows their sizes."""
        with self._lock:
            if shape is None:
                self._expected = None
            elif self._expected is None or self._expected[0] != shape:
                self._expected = None  # before the new one takes memory
                self._expected = shape, self._compile(shape)

    def _compile(self, shape: tuple[int, int] | None) -> _Requests:
        """Compile the network for windows of one shape, or of any."""
        import openvino
        from openvino.preprocess import PrePostProcessor

        core = openvino_core()
        network = core.read_model(self._path)
        if shape is not None:
            network.reshape([1, *shape, 3])
        if self._precision == "bf16":  # half the bytes to write and to read again, at no loss
            adapter = PrePostProcessor(network)
            adapter.output().tensor().set_element_type(openvino.Type.bf16)
            network = adapter.build()
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self._precision}
        if threads := os.environ.get("NUCSEG_THREADS"):
            config["INFERENCE_NUM_THREADS"] = threads
        compiled = core.compile_model(network, "CPU", config)
        requests: _Requests = queue.Queue()
        for _ in range(self.lanes):
            requests.put(compiled.create_infer_request())
        return requests

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Runtime.__call__`."""
        import torch

        with self._answer(rgb) as answer:
            if answer.dtype == np.uint16:
                answer = (answer.astype(np.uint32) << 16).view(np.float32)
            return _maps(torch.from_numpy(answer)[None], self._layout)

    def fields(self, rgb: NDArray[np.uint8], part: Box) -> Fields:
        """See `FieldRuntime.fields`."""
        with self._answer(rgb) as answer:
            return unpack(answer, self._layout, part)

    @contextmanager
    def _answer(self, rgb: NDArray[np.uint8]) -> Iterator[NDArray[Any]]:
        """Lend the raw answer: float32, or bfloat16 as uint16."""
        with self._lock:
            expected = self._expected
        requests = expected[1] if expected is not None and expected[0] == rgb.shape[:2] else self._any
        # an answer is read while the next one is computed; a run that starts while a cancelled one is still in its
        # last window waits for it
        request = requests.get()
        try:
            request.infer({0: np.ascontiguousarray(rgb)[None]}, share_inputs=True, share_outputs=True)
            answer = request.get_output_tensor(0).data[0]
            yield answer.view(np.uint16) if answer.itemsize == 2 else answer
        finally:
            requests.put(request)


def _converted(model: Model) -> Path:
    """Return the cached OpenVINO form of a model, converting it first where needed."""
    import openvino
    from platformdirs import user_cache_path

    from napari_nucseg.models.checkpoint import sha256

    cache = user_cache_path("napari-nucseg", appauthor=False, ensure_exists=True)
    card = model.card
    facts = (sha256(model.weights), card.mean, card.std, card.network, openvino.__version__, CONVERSION)
    path = cache / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.xml"
    if path.is_file() and path.with_suffix(".bin").is_file():
        return path
    log.info("converting %s for OpenVINO (once)", model)
    return _convert(model, path)


def _convert(model: Model, path: Path) -> Path:
    """Convert through ONNX and write the files so that a crash or a second process leaves none half written."""
    import tempfile

    import openvino
    import torch

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        onnx = Path(scratch) / "network.onnx"
        torch.onnx.export(
            bare(model),
            (torch.zeros(1, 64, 64, 3, dtype=torch.uint8),),
            onnx,
            input_names=["rgb"],
            output_names=["subpixels"],
            dynamic_axes={"rgb": {1: "height", 2: "width"}, "subpixels": {2: "height", 3: "width"}},
            opset_version=17,
            dynamo=False,
        )
        made = Path(scratch) / path.name
        openvino.save_model(openvino_core().read_model(onnx), made, compress_to_fp16=False)
        os.replace(made.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(made, path)  # last: its presence says that both are there
    return path
