"""Choose the decoder's thresholds on validation images: ``python -m train.thresholds --run runs/student``.

Writes ``decode.json`` into the run folder, which `train.export` puts on the card.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.errors import NucSegError
from train.data import load_split
from train.fit import load_run
from train.validate import Score, predict_fields, score_image

log = logging.getLogger(__name__)

GRID: dict[str, tuple[Any, ...]] = {
    "foreground": (0.4, 0.45, 0.5, 0.55, 0.6),
    "centre": (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5),
    "spacing": (3, 4, 5, 6, 7, 8),
    "ridge": (0, 12, 16, 20, 24, 28),
    "saddle": (0.65, 0.7, 0.75, 0.8, 0.85, 0.9),
    "support": (20, 30, 40, 50),
    "band": (14, 28, 42, 56),
    "edge": (14, 28, 42, 56),
    "max_cost": (200, 240, 280, 320, 360),
}


def objective(scores: list[Score]) -> float:
    """Return the mean over data sets of the mean AJI, bPQ and per-image detection F1."""
    sets = dict.fromkeys(s.image.dataset for s in scores)
    means = []
    for key in sets:
        mine = [s for s in scores if s.image.dataset == key]
        means.append(sum(s.aji + s.bpq + s.detection.f1_d for s in mine) / (3 * len(mine)))
    return sum(means) / len(means)


def search(run: Path, rounds: int = 2) -> tuple[DecodeConfig, float]:
    """Improve one setting after the other on the held-out images of a run; return the best and its objective."""
    config, task = load_run(run)
    held = load_split(
        config.data.root, {k: v for k, v in config.data.sets.items() if v.held_out}, config.data.classes, True
    )
    fields = [predict_fields(task.predict, image, task.layout, config.crop.mpp) for image in held]

    def score(decode: DecodeConfig) -> float:
        return objective([score_image(f, image, decode) for f, image in zip(fields, held, strict=True)])

    best = DecodeConfig()
    top = score(best)
    log.info("start: %.4f with %s", top, best)
    for _ in range(rounds):
        for key, values in GRID.items():
            for value in values:
                trial = dataclasses.replace(best, **{key: value})
                if trial != best and (reached := score(trial)) > top + 1e-4:
                    best, top = trial, reached
                    log.info("%.4f with %s = %s", top, key, value)
    return best, top


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``python -m train.thresholds``."""
    parser = argparse.ArgumentParser(prog="python -m train.thresholds", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder of train.fit")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        with torch.inference_mode():
            best, _ = search(args.run)
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    (args.run / "decode.json").write_text(json.dumps(dataclasses.asdict(best), indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
