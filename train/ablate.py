"""Train a student in several configurations with the same budget, crops and seeds, and tabulate what they reach.

  python -m train.ablate --training train/configs/laptop.toml --study distillation --seeds 0 1 2
  python -m train.ablate --training train/configs/laptop.toml --study decoder --settings loop.steps=300

Studies:
  distillation   student alone / + output / + features (MSE) / + features (HCL) / + class balance
  decoder        base / + centre / + boundary / + multi-angle (without a teacher)

Every configuration is trained from the same initial weights on the same crops, to the last step (no early stopping),
and validated with the same settings of the decoder. Sets without labels are left out, since the student alone could
learn nothing from them. The runs lie in the folder, and the same command goes on where it was stopped. A run is a run
like any other: train.evaluate and train.figures take it.
"""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_nucseg.errors import NucSegError
from train import distributed
from train.arms import STUDIES, Arm
from train.config import load_config
from train.data import load_data
from train.figures_curves import read_metrics
from train.fit import FitConfig
from train.flags import run_flags
from train.spread import Results, write
from train.tally import Tally
from train.validate import schemes_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AblateConfig:
    """What to compare, and on what budget.

    Parameters
    ----------
    training : Path
        Config of the training, such as train/configs/laptop.toml: data, student, schedule, and the teacher with the
        weights of its comparisons. The study "distillation" reads it as train.distill does, "decoder" as train.fit.
    study : str
        "distillation" or "decoder".
    settings : tuple of str
        More settings of every training, as key.sub=value.
    seeds : tuple of int
        Each configuration is trained once with each of them.
    arms : tuple of str
        Only these configurations: student, output, mse, hcl, balance, or base, centre, boundary, angles.
    figures : tuple of str
        Columns of the table, such as "bPQ" and "consep/AJI"; some of each set if not set. The CSV has all.
    out : Path
        Folder for the runs and the tables; a folder of the study's name is made in it.
    """

    training: Path
    study: str = "distillation"
    settings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    out: Path = Path("runs/ablation")

    def __post_init__(self) -> None:
        if self.study not in STUDIES:
            raise NucSegError(f"study='{self.study}' is not one of {', '.join(STUDIES)}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise NucSegError(f"seeds={list(self.seeds)} must be at least one, each once.")

    @property
    def folder(self) -> Path:
        """Of the study."""
        return self.out / self.study


def arms_of(config: AblateConfig) -> list[Arm]:
    """Return the configurations of a study, those chosen.

    Raises
    ------
    NucSegError
        The config of the training is not right, or there is no such configuration.
    """
    cls, command, make = STUDIES[config.study]
    base: FitConfig = load_config(cls, config.training, config.settings, command)
    labelled = {key: value for key, value in base.data.sets.items() if value.labelled}
    arms = make(replace(base, data=replace(base.data, sets=labelled)))
    keys = [arm.key for arm in arms]
    if unknown := [key for key in config.arms if key not in keys]:
        raise NucSegError(f"Arm '{unknown[0]}' is not in the study {config.study}; it has {', '.join(keys)}.")
    return [arm for arm in arms if not config.arms or arm.key in config.arms]


def check_figures(names: Sequence[str], arms: Sequence[Arm]) -> None:
    """Raise `NucSegError`, rather now than after the first run, if no validation gives a figure that is asked for."""
    if not names:
        return
    known = ["bPQ"]
    data = arms[0].config.data.resolved()  # the arms of a study differ in other things
    held = load_data(data)[1]
    for key in dict.fromkeys(item.dataset for item in held):
        schemes = schemes_of([item for item in held if item.dataset == key], data.classes)
        known += [f"{key}/{figure.name}" for figure in Tally([], schemes).figures()]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else "such as 'bPQ' or 'SET/AJI'."
            raise NucSegError(f"Figure '{name}' is none of a validation; {hint}")


def prepared(arm: Arm, seed: int, folder: Path) -> FitConfig:
    """Return the config of one run: in its own folder, to the last step."""
    loop = replace(arm.config.loop, seed=seed, patience=0)
    return replace(arm.config, run=folder / f"{arm.key}-seed{seed}", loop=loop)


def reached(config: FitConfig) -> dict[str, float]:
    """Return the figures of the last validation of a finished run."""
    metrics = read_metrics(config.run / "metrics.csv")
    found = {name: dict(lines["val"]) for name, lines in metrics.items() if list(lines) == ["val"]}
    return {name: points[config.loop.steps] for name, points in found.items() if config.loop.steps in points}


def ablate(config: AblateConfig) -> None:
    """Train whatever is not yet trained; write the table after each run, and print it after the last."""
    arms = arms_of(config)
    check_figures(config.figures, arms)
    todo = [(seed, arm) for seed in config.seeds for arm in arms]
    results = Results([arm.name for arm in arms])
    for k, (seed, arm) in enumerate(todo, start=1):
        log.info("run %d of %d: %s, seed %d", k, len(todo), arm.name, seed)
        run = prepared(arm, seed, config.folder)
        arm.train(run)
        if distributed.rank() == 0:
            results.add(arm.name, seed, reached(run))
            text = write(results, config.folder, config.figures)
            if k == len(todo):
                print(f"\n{text}\nWritten: {config.folder / 'table.md'}, table.csv and runs.csv")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m train.ablate``."""
    return run_flags(
        ablate,
        AblateConfig,
        sys.argv[1:] if argv is None else list(argv),
        prog="python -m train.ablate",
        about=__doc__ or "",
        example="python -m train.ablate --training train/configs/laptop.toml --seeds 0 1 --settings loop.steps=300",
    )


if __name__ == "__main__":
    raise SystemExit(main())
