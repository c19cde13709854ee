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

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.errors import NucSegError
from train.data import load_data
from train.runs import draft_card, load_run
from train.scores import ImageScore
from train.validate import Predicted, mean_known

log = logging.getLogger(__name__)

GRID: dict[str, tuple[Any, ...]] = {
    "foreground": (0.4, 0.45, 0.5, 0.55, 0.6, 0.65),
    "centre": (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6),
    "spacing": (3, 4, 5, 6, 7, 8),
    "ridge": (0, 12, 16, 20, 24, 28),
    "saddle": (0.65, 0.7, 0.75, 0.8, 0.85, 0.9),
    "support": (20, 30, 40, 50, 60),
    "band": (14, 28, 42, 56, 70),
    "edge": (14, 28, 42, 56, 70),
    "max_cost": (240, 280, 320, 360, 400),
}


def objective(datasets: list[str], scores: list[ImageScore]) -> float:
    """Return the mean over data sets of the mean Dice, AJI, bPQ and detection F1 of their images."""
    means = []
    for key in dict.fromkeys(datasets):
        mine = [s for d, s in zip(datasets, scores, strict=True) if d == key]
        means.append(mean_known([v for s in mine for v in (s.dice, s.aji, s.binary.bpq, s.detection.f1_d)]))
    return mean_known(means)


def search(run: Path, rounds: int = 2) -> tuple[DecodeConfig, float]:
    """Improve one setting after the other on the held-out images of a run; return the best and its objective."""
    config, task = load_run(run)
    card = draft_card(config, task)
    held = load_data(config.data)[1]
    predicted = [Predicted.of(item, task, card) for item in held]

    def score(decode: DecodeConfig) -> float:
        return objective(
            [p.item.dataset for p in predicted], [p.score(decode, card.classes) for p in predicted]
        )

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
        best, _ = search(args.run)
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    (args.run / "decode.json").write_text(json.dumps(dataclasses.asdict(best), indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
