"""Choose the decoder's thresholds on the validation images of a run.

  python -m train.thresholds --run runs/student

One setting after the other is improved, as far as it makes the mean of Dice, AJI, bPQ and detection F1 better. The
choice is written as decode.json into the run's folder: train.evaluate heeds it, and train.export puts it on the card.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import replacing
from train.data import load_data
from train.flags import run_flags
from train.loaded import inference_device, tuned
from train.runs import draft_card, load_run, run_folder
from train.scores import ImageScore
from train.validate import Predicted, mean_known

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ThresholdsConfig:
    """Of which run to choose the thresholds.

    Parameters
    ----------
    run : Path
        Folder of a run of train.fit, teach or distill, or a checkpoint in it.
    rounds : int
        How often to go through all settings.
    limit : int, optional
        Only so many of the validation images, evenly spread: where there are thousands, some hundreds will do.
    device : str
        auto, cuda or cpu.
    """

    run: Path
    rounds: int = 2
    limit: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("rounds", "limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise NucSegError(f"{name}={value} must be at least 1.")


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


def search(config: ThresholdsConfig) -> tuple[DecodeConfig, float]:
    """Improve one setting after the other on the held-out images of a run; return the best and its objective."""
    training, task = load_run(config.run)
    task.to(inference_device(config.device))
    card = draft_card(training, task)
    held = load_data(training.data)[1]
    count = len(held) if config.limit is None else min(config.limit, len(held))
    predicted = [Predicted.of(held[k * len(held) // count], task, card) for k in range(count)]

    def score(decode: DecodeConfig) -> float:
        return objective(
            [p.item.dataset for p in predicted], [p.score(decode, card.classes) for p in predicted]
        )

    best = DecodeConfig()
    top = score(best)
    log.info("start: %.4f on %d images with %s", top, count, best)
    for _ in range(config.rounds):
        for key, values in GRID.items():
            for value in values:
                trial = dataclasses.replace(best, **{key: value})
                if trial != best and (reached := score(trial)) > top + 1e-4:
                    best, top = trial, reached
                    log.info("%.4f with %s = %s", top, key, value)
    return best, top


def choose(config: ThresholdsConfig) -> None:
    """Search, and write what was found."""
    best, top = search(config)
    path = tuned(run_folder(config.run))
    with replacing(path) as draft:
        draft.write_text(json.dumps(dataclasses.asdict(best), indent=1), encoding="utf-8")
    print(f"Written: {path} ({top:.4f})")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m train.thresholds``."""
    return run_flags(
        choose,
        ThresholdsConfig,
        argv,
        prog="python -m train.thresholds",
        about=__doc__ or "",
        example="python -m train.thresholds --run runs/student",
    )


if __name__ == "__main__":
    raise SystemExit(main())
