"""Time a HoVer-Net: the network with random weights, and the classical post-processing on maps made from labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._hovernet import INNER, WINDOW, HoverNet
from benchmarks._hv_decode import HVMaps, decode, vote
from benchmarks._peer import Report, timed
from napari_nucseg.core.targets import distance_maps

MOST = 8
"""Windows that are timed; all take equally long."""

BATCH = 4


def hover_net(folder: Path, rounds: int, precision: str) -> Report:
    """Time the network on some windows, and the post-processing on the whole image."""
    labels, types = np.load(folder / "labels.npy"), np.load(folder / "types.npy")
    image = np.load(folder / "image.npy")
    count = -(-image.shape[0] // INNER) * -(-image.shape[1] // INNER)
    some = windows(image, MOST)
    net = HoverNet().eval().to(memory_format=torch.channels_last)
    part = timed(partial(predict, net, some, precision), rounds)
    # what a network that found just these nuclei would answer
    maps = HVMaps((labels > 0).astype(np.float32), distance_maps(labels, (0, 90)), types)
    nuclei: list[int] = []
    post = timed(lambda: nuclei.append(len(vote(decode(maps), maps.types))), rounds)
    return Report(
        network=tuple(seconds * count / len(some) for seconds in part),
        post=post,
        nuclei=nuclei[-1],
        versions=f"torch {torch.__version__}, {precision}",
        note=f"network timed on {len(some)} of {count} windows, in batches of {BATCH}",
        parameters=sum(p.numel() for p in net.parameters()),
    )


def windows(image: NDArray[np.uint8], most: int) -> NDArray[np.float32]:
    """Return windows of an image, mirrored at its edges, whose inner parts lie side by side: the first in raster order.

    Returns
    -------
    (n, 3, WINDOW, WINDOW) float32
    """
    edge = (WINDOW - INNER) // 2
    pad = [(edge, edge + -side % INNER) for side in image.shape[:2]]
    padded = np.pad(image, (*pad, (0, 0)), mode="symmetric")
    starts = [(y, x) for y in range(0, image.shape[0], INNER) for x in range(0, image.shape[1], INNER)]
    parts = [padded[y : y + WINDOW, x : x + WINDOW] for y, x in starts[:most]]
    return np.stack(parts).transpose(0, 3, 1, 2).astype(np.float32)


def predict(net: Any, inputs: NDArray[np.float32], precision: str) -> None:
    """Run the network over all the inputs, batch by batch."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        for k in range(0, len(inputs), BATCH):
            batch = torch.from_numpy(inputs[k : k + BATCH]).to(memory_format=torch.channels_last)
            for answer in net(batch):
                answer.float().numpy()
