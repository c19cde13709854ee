"""A model in the formats of other programs, each checked against the network it was made from.

All of them take ``rgb``, (N, H, W, 3) uint8, sides multiples of the network's stride, at the card's resolution, and
give ``maps``, (N, channels, H, W) float32: probabilities, and distances in [-1, 1]. Normalisation is part of them.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_nucseg.core.synthetic import synthetic_he
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.runtime import deployed, openvino_core

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_nucseg.models.registry import Model

Network = Callable[["NDArray[np.uint8]"], "NDArray[np.float32]"]

OPSET = 17
EXAMPLE = (2, 64, 96)
"""Batch, height and width of the image that the network is traced with; it must work for others."""


@dataclass(frozen=True)
class Agreement:
    """How far an exported network is from the one it was made from.

    Attributes
    ----------
    by
        What ran it.
    differences
        Largest absolute difference of any map on each test image, by the image's name.
    """

    path: Path
    by: str
    differences: dict[str, float]

    @property
    def worst(self) -> float:
        """Largest of all the differences."""
        return max(self.differences.values())

    def __str__(self) -> str:
        each = ", ".join(f"{name} {value:.1e}" for name, value in self.differences.items())
        return f"{self.path.name} ({self.by}): largest difference {self.worst:.1e} ({each})"


def _needs(package: str, what: str) -> None:
    if find_spec(package) is None:
        raise NucSegError(
            f"{what} needs the package {package}, which is not installed; pip install {package}."
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out what the tracing exporters say of their age and of sizes that they take for constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield


def to_onnx(model: Model, path: Path) -> Path:
    """Write an ONNX file for any batch and size.

    Raises
    ------
    NucSegError
        The package onnx is missing.
    """
    _needs("onnx", "ONNX")
    axes = {"rgb": {0: "batch", 1: "height", 2: "width"}, "maps": {0: "batch", 2: "height", 3: "width"}}
    with _quietly():
        torch.onnx.export(
            deployed(model),
            (torch.zeros(*EXAMPLE, 3, dtype=torch.uint8),),
            path,
            input_names=["rgb"],
            output_names=["maps"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    return path


def to_openvino(model: Model, path: Path) -> Path:
    """Write OpenVINO's own format, an ``.xml`` and a ``.bin`` beside it, through ONNX.

    Raises
    ------
    NucSegError
        The package openvino or onnx is missing.
    """
    _needs("openvino", "OpenVINO IR")
    import openvino

    # never an ONNX file that lies there: it may be of other weights
    onnx = path.with_suffix(".tmp.onnx")
    try:
        openvino.save_model(openvino_core().read_model(to_onnx(model, onnx)), path, compress_to_fp16=False)
    finally:
        onnx.unlink(missing_ok=True)
    return path


def to_torchscript(model: Model, path: Path) -> Path:
    """Write a traced TorchScript file, which C++ and old Pythons load without our code."""
    with _quietly(), torch.inference_mode():
        traced = torch.jit.trace(
            deployed(model), torch.zeros(*EXAMPLE, 3, dtype=torch.uint8), check_trace=False
        )
        torch.jit.freeze(traced).save(str(path))
    return path


def run_onnx(path: Path) -> tuple[str, Network]:
    """Load an ONNX file with onnxruntime, else with OpenVINO; `NucSegError` where neither is installed."""
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return f"onnxruntime {onnxruntime.__version__}", lambda rgb: session.run(None, {"rgb": rgb})[0]
    if find_spec("openvino") is not None:
        return run_openvino(path)
    raise NucSegError(
        f"'{path.name}' cannot be checked without onnxruntime or openvino; install one of them."
    )


def run_openvino(path: Path) -> tuple[str, Network]:
    """Load an ONNX file or an IR with OpenVINO, in float32."""
    import openvino

    network = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return f"OpenVINO {openvino.__version__.split('-')[0]}", lambda rgb: network(rgb)[0]


def run_torchscript(path: Path) -> tuple[str, Network]:
    """Load a TorchScript file."""
    with _quietly():
        network = torch.jit.load(str(path))

    def run(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            maps: NDArray[np.float32] = network(torch.from_numpy(rgb)).numpy()
        return maps

    return f"torch {torch.__version__}", run


FORMATS: dict[str, tuple[str, Callable[[Model, Path], Path], Callable[[Path], tuple[str, Network]]]] = {
    "onnx": ("model.onnx", to_onnx, run_onnx),
    "openvino": ("model.xml", to_openvino, run_openvino),
    "torchscript": ("model.torchscript", to_torchscript, run_torchscript),
}
"""File name, writer and loader of each format."""
_PACKAGES = {"onnx": ("onnx",), "openvino": ("openvino", "onnx")}


def sample_images() -> dict[str, NDArray[np.uint8]]:
    """Return images to check with, (N, H, W, 3): noise in a batch, and drawn tissue; none has the traced size."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 80, 3), dtype=np.uint8)
    return {"noise": noise, "tissue": np.ascontiguousarray(synthetic_he().image[None, :208, :256])}


def check(model: Model, path: Path, load: Callable[[Path], tuple[str, Network]]) -> Agreement:
    """Run a written file and the network side by side on `sample_images`."""
    eager = deployed(model)
    by, network = load(path)
    differences = {}
    for name, rgb in sample_images().items():
        with torch.inference_mode():
            wanted = eager(torch.from_numpy(rgb)).numpy()
        got = np.asarray(network(rgb))
        if got.shape != wanted.shape:
            raise NucSegError(f"'{path}' gives maps of {got.shape} for {rgb.shape}, not {wanted.shape}.")
        difference = float(np.abs(got - wanted).max())
        differences[name] = difference if np.isfinite(difference) else float("inf")
    return Agreement(path, by, differences)


def check_formats(names: Sequence[str]) -> None:
    """Raise `NucSegError` where a format is not known, or a package is missing that writes or checks it."""
    for name in names:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, 1)
            hint = f"; did you mean '{near[0]}'?" if near else "."
            raise NucSegError(f"Format '{name}' is not one of {', '.join(FORMATS)}{hint}")
        for package in _PACKAGES.get(name, ()):
            _needs(package, f"The format {name}")
        if name == "onnx" and not any(map(find_spec, ("onnxruntime", "openvino"))):
            raise NucSegError(
                "The format onnx cannot be checked without onnxruntime or openvino; install one of them."
            )


def write_formats(model: Model, folder: Path, names: Sequence[str], limit: float) -> list[Agreement]:
    """Write a model in several formats and check each.

    Parameters
    ----------
    names
        Keys of `FORMATS`.
    limit
        Largest difference to be accepted.

    Raises
    ------
    NucSegError
        A format is not known, a package is missing, or a file differs too much: it is then taken away again.
    """
    check_formats(names)
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in sorted(names, key=list(FORMATS).index):
        file, write, load = FORMATS[name]
        agreement = check(model, write(model, folder / file), load)
        if not agreement.worst <= limit:
            for written in (agreement.path, agreement.path.with_suffix(".bin")):
                written.unlink(missing_ok=True)
            raise NucSegError(
                f"{agreement} is above the limit of {limit:g}; the file was deleted, see --limit for what is accepted."
            )
        found.append(agreement)
    return found
