"""Time StarDist, in an environment of its own: its network with random weights, and its NMS on given nuclei.

Imports nothing of ours: ``python _peer_stardist.py FOLDER ROUNDS THREADS``, where the folder holds ``image.npy`` and
``labels.npy``; writes ``stardist.json`` there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROB, NMS = 0.692478, 0.3
"""Thresholds of the published H&E model."""

RAYS, GRID = 32, (2, 2)
TILE = 1024
"""Side of the tiles that the image is predicted in, about."""


def main(folder: Path, rounds: int, threads: int) -> None:
    """Time network and post-processing in rounds, after one that is left out."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    import numpy as np
    import stardist
    import tensorflow as tf
    from csbdeep.utils import normalize
    from stardist.geometry import polygons_to_label, star_dist
    from stardist.models import Config2D, StarDist2D
    from stardist.nms import non_maximum_suppression
    from stardist.utils import edt_prob

    image, labels = np.load(folder / "image.npy"), np.load(folder / "labels.npy").astype(np.int32)
    pixels = normalize(image, 1, 99.8, axis=(0, 1))
    model = StarDist2D(Config2D(n_rays=RAYS, grid=GRID, n_channel_in=3), name=None, basedir=None)
    tiles = (*(-(-side // TILE) for side in image.shape[:2]), 1)
    # what a network that found just these nuclei would answer
    prob = edt_prob(labels)[:: GRID[0], :: GRID[1]]
    dist = star_dist(labels, n_rays=RAYS, grid=GRID)
    found: dict[str, Any] = {}

    def network() -> None:
        model.predict(pixels, n_tiles=tiles, show_tile_progress=False)

    def post() -> None:
        points, scores, rays = non_maximum_suppression(
            dist, prob, grid=GRID, prob_thresh=PROB, nms_thresh=NMS, verbose=False
        )
        rendered = polygons_to_label(rays, points, shape=labels.shape, prob=scores)
        found["nuclei"] = int(np.count_nonzero(np.bincount(rendered.ravel())[1:]))

    report = {
        "network": _times(network, rounds),
        "post": _times(post, rounds),
        "nuclei": found["nuclei"],
        "versions": f"StarDist {stardist.__version__}, TensorFlow {tf.__version__}",
        "parameters": int(model.keras_model.count_params()),
        "note": "",
    }
    (folder / "stardist.json").write_text(json.dumps(report))


def _times(work: Callable[[], None], rounds: int) -> list[float]:
    work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
