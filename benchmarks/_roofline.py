"""What this machine can do at best, and how near each stage comes to it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._stages import Work

if TYPE_CHECKING:
    from napari_nucseg.models.card import Card
    from napari_nucseg.models.registry import Model

SHAPES = ((64, 256), (128, 128), (128, 192), (256, 64), (256, 128), (512, 48))
"""Channels and side of the convolutions that are tried."""

DEPTH = 4
"""Convolutions one after the other: what the first and the last one pay for another order in memory is shared out."""

COPY_MB = 256
TRIES_S = 1.0
"""Seconds for every shape."""


def fastest(work: Callable[[], object], seconds: float = TRIES_S) -> float:
    """Return the least seconds that some work takes, after a first time that is left out."""
    work()
    best, end = math.inf, time.perf_counter() + seconds
    while best == math.inf or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def convolution_peak(precision: str, threads: int) -> tuple[float, str]:
    """Return the most GFLOP/s of dense 3x3 convolutions in OpenVINO, and the shape that gave it.

    Parameters
    ----------
    precision : {"f32", "bf16"}
    threads : int
    """
    import openvino
    from openvino import opset8 as ops

    from napari_nucseg.models.runtime import openvino_core

    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": str(threads)}
    best, where = 0.0, ""
    for channels, side in SHAPES:
        shape = [1, channels, side, side]
        given = ops.parameter(shape, np.float32)
        weights = np.random.default_rng(0).normal(0, 0.02, (channels, channels, 3, 3)).astype(np.float32)
        node = given
        for _ in range(DEPTH):
            node = ops.relu(ops.convolution(node, ops.constant(weights), [1, 1], [1, 1], [1, 1], [1, 1]))
        compiled = openvino_core().compile_model(openvino.Model([node], [given], "peak"), "CPU", config)
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(np.zeros(shape, np.float32)))
        flops = 2 * DEPTH * 9 * channels**2 * side**2
        rate = flops / fastest(request.infer) / 1e9
        if rate > best:
            best, where = rate, f"{DEPTH} convolutions of {channels} channels at {side} x {side}"
    return best, where


def memory_peak(threads: int) -> float:
    """Return the most GB/s, read and written together, of copying large arrays in several threads."""
    size = COPY_MB * 2**20
    pairs = [(np.ones(size, np.uint8), np.ones(size, np.uint8)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        seconds = fastest(lambda: list(pool.map(lambda pair: np.copyto(*pair), pairs)))
    return 2 * size * threads / seconds / 1e9


def multiply_adds(model: Model, side: int = 256) -> float:
    """Return the multiply-adds of the network per pixel of its input, counted in its convolutions."""
    import torch

    from napari_nucseg.models.checkpoint import load_student

    student, count = load_student(model).fuse().eval(), 0

    def add(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal count
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        count += output.numel() * weight[0].numel()

    for layer in student.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(add)
    with torch.inference_mode():
        student(torch.zeros(1, 3, side, side))
    return count / side**2


def traffic(card: Card, work: Work, precision: str) -> dict[str, float]:
    """Return the bytes that every stage must read and write at least: its input and its output, each once."""
    answer = card.layout.channels * (2 if precision == "bf16" else 4)
    fields = 6 + len(card.classes)
    return {
        "read": 3.0 * work.seen,
        "unpack": float(answer + fields) * work.answered,
        "decode": float(fields + 4) * work.decoded,
        "measure": (4.0 + 3.0) * work.owned,
        "labels": 4.0 * work.owned + work.written.get("labels", 0),
        "tables": 2.0 * work.written.get("tables", 0),
        "geojson": 4.0 * work.owned + work.written.get("geojson", 0),
    }


@dataclass(frozen=True)
class Peaks:
    """What this machine can do.

    Attributes
    ----------
    gflops : dict
        By precision.
    shapes : dict
        Of the convolutions that gave it.
    gbs : float
        Memory, read and written together.
    """

    gflops: dict[str, float]
    shapes: dict[str, str]
    gbs: float

    @classmethod
    def measure(cls, threads: int) -> Peaks:
        """Measure them all."""
        from napari_nucseg.models.runtime import inspect_devices

        kinds = ("bf16", "f32") if inspect_devices().precision == "bf16" else ("f32",)
        found = {kind: convolution_peak(kind, threads) for kind in kinds}
        return cls(
            {k: v[0] for k, v in found.items()}, {k: v[1] for k, v in found.items()}, memory_peak(threads)
        )

    def lines(self) -> str:
        """Return them as text."""
        convolutions = [f"{k}: {v:,.0f} GFLOP/s ({self.shapes[k]})" for k, v in self.gflops.items()]
        return (
            f"Peaks of this machine: {'; '.join(convolutions)}; memory: {self.gbs:.1f} GB/s read and written."
        )
