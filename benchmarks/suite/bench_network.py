"""The network on one window, on the runtime that this machine gets by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_nucseg.core.tiling import Box
from napari_nucseg.inference import predict_window

if TYPE_CHECKING:
    from benchmarks.suite.conftest import Seen

WINDOW = 1024


def bench_window_of_1024(benchmark: Any, seen: Seen) -> None:
    """Compute the fields of 1024 x 1024 px, the network included."""
    image = seen.image[:WINDOW, :WINDOW]
    benchmark(predict_window, image, seen.runtime, seen.card, Box(0, WINDOW, 0, WINDOW))
