"""Choose the decoder's thresholds on the validation images of a run.

  python -m train.thresholds --run runs/student

One setting after the other is improved, as far as it makes the mean of Dice, AJI, bPQ and detection F1 better. The
choice is written as decode.json into the run's folder: train.evaluate heeds it, and train.export puts it on the card.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from napari_nucseg.core.calibration import NEUTRAL
from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import replacing
from train import report
from train.annotated import AnnotatedImage
from train.data import DataConfig, load_data
from train.flags import run_flags
from train.listing import divide
from train.loaded import CALIBRATED, CHOSEN, decode_of, inference_device, tuned
from train.runs import draft_card, load_run, run_folder, warn_of_other
from train.scores import ImageScore
from train.validate import Predicted, mean_known

log = logging.getLogger(__name__)
Item = TypeVar("Item")


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


MEASURE = "Mean of Dice, AJI, bPQ and F1_d over images, then over data sets"
"""What `objective` measures."""


def objective(datasets: list[str], scores: list[ImageScore]) -> float:
    """Return the mean over data sets of the mean Dice, AJI, bPQ and detection F1 of their images."""
    means = []
    for key in dict.fromkeys(datasets):
        mine = [s for d, s in zip(datasets, scores, strict=True) if d == key]
        means.append(mean_known([v for s in mine for v in (s.dice, s.aji, s.binary.bpq, s.detection.f1_d)]))
    return mean_known(means)


@dataclass(frozen=True)
class Chosen:
    """What a search found.

    Attributes
    ----------
    decode : DecodeConfig
    before, after : float
        The objective with the usual settings and with those found.
    images : dict
        (split, name) of the images it was measured on, by data set.
    """

    decode: DecodeConfig
    before: float
    after: float
    images: dict[str, list[tuple[str, str]]]

    @property
    def count(self) -> int:
        """How many images there were."""
        return sum(map(len, self.images.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, and beside them how they were chosen."""
        how = {"measure": MEASURE, "before": self.before, "after": self.after, "images": self.images}
        return {**self.decode.to_dict(), CHOSEN: how}


def search(config: ThresholdsConfig) -> Chosen:
    """Improve one setting after the other on the held-out images of a run."""
    training, task = load_run(config.run)
    task.to(inference_device(config.device))
    card = draft_card(training, task)
    held = load_data(training.data)[1]
    count = len(held) if config.limit is None else min(config.limit, len(held))
    used = [held[k * len(held) // count] for k in range(count)]
    images = _places(training.data, used)
    names = ", ".join(f"{report.counted(len(some), 'image')} of {key}" for key, some in images.items())
    log.info("%s, on the validation images of '%s': %s", MEASURE, config.run, names)
    if count < report.FEW:
        log.warning(
            "On fewer than %d images thresholds fit these rather than others; the usual ones may serve as well.",
            report.FEW,
        )
    predicted = [Predicted.of(item, task, card) for item in _progress(used, "maps")]

    def score(decode: DecodeConfig) -> float:
        return objective(
            [p.item.dataset for p in predicted], [p.score(decode, card.classes) for p in predicted]
        )

    best = DecodeConfig()
    before = top = score(best)
    log.info("%.4f with the usual settings", top)
    for key, value in _progress(
        [(k, v) for _ in range(config.rounds) for k in GRID for v in GRID[k]], "search"
    ):
        trial = dataclasses.replace(best, **{key: value})
        if trial != best and (reached := score(trial)) > top + 1e-4:
            best, top = trial, reached
            log.info("%.4f with %s = %s", top, key, value)
    return Chosen(best, before, top, images)


def _progress(todo: Sequence[Item], text: str) -> Iterable[Item]:
    return tqdm(todo, text, file=sys.stderr, disable=None, leave=False)


def _places(data: DataConfig, used: Sequence[AnnotatedImage]) -> dict[str, list[tuple[str, str]]]:
    """Return (split, name) of validation images by data set."""
    names = {(item.dataset, item.name) for item in used}
    out = {
        key: [(i.split, i.name) for i in divide(data.root / key, settings)[1] if (key, i.name) in names]
        for key, settings in data.sets.items()
    }
    return {key: found for key, found in out.items() if found}


def calibration_of(folder: Path, decode: DecodeConfig) -> dict[str, Any]:
    """Return the calibration in ``decode.json`` of a run, which holds for the very thresholds it was fitted with."""
    try:
        known = decode_of(folder)
        if known == known.uncalibrated():
            return {}
    except NucSegError:  # damaged, and about to be replaced
        return {}
    if known.uncalibrated() == decode:
        rules = json.loads(tuned(folder).read_text(encoding="utf-8"))
        return {name: value for name, value in rules.items() if name in (*NEUTRAL, CALIBRATED)}
    log.warning(
        "The calibration of '%s' was fitted with other thresholds and is taken away; fit it anew by "
        "python -m train.calibrate --run %s.",
        folder,
        folder,
    )
    return {}


def choose(config: ThresholdsConfig) -> None:
    """Search, and write what was found."""
    warn_of_other(config.run)  # rather now than after the search
    found = search(config)
    folder = run_folder(config.run)
    path, kept = tuned(folder), calibration_of(folder, found.decode)
    with replacing(path) as draft:
        draft.write_text(json.dumps({**found.to_dict(), **kept}, indent=1), encoding="utf-8")
    usual = dataclasses.asdict(DecodeConfig())
    changed = [f"{k} {v}" for k, v in dataclasses.asdict(found.decode).items() if v != usual[k]]
    print(
        f"{MEASURE}: {found.before:.4f} before, {found.after:.4f} now, on {report.counted(found.count, 'image')}.\n"
        f"Written: {path} ({', '.join(changed) or 'the usual settings are the best'})"
    )


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
