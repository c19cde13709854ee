"""Average the weights of several runs of a student: ``python -m train.average --runs runs/a runs/b --out runs/mean``.

Runs that go on from the same model (``begin=``), each with another seed, other shares of the sets or other
augmentation, end near to one another: the mean of their weights does almost as well as the mean of their outputs, and
costs no more than one of them (model soup, Wortsman et al. 2022, ICML). It may help where training any of them for
longer does not; whether it does, `train.evaluate` tells.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.student import Student
from train.config import to_mapping
from train.fit import FitConfig
from train.flags import run_flags
from train.runlog import RunLog
from train.runs import RunConfig, checkpoint_of, load_run, run_folder
from train.task import MapTask

log = logging.getLogger(__name__)

AVERAGED = "averaged"
"""Key of the checkpoint under which the runs and their steps are told."""


@dataclass(frozen=True, kw_only=True)
class AverageConfig:
    """Which runs to average.

    Parameters
    ----------
    runs : tuple of Path
        Folders of runs of train.fit or train.distill, or checkpoints in them: two or more, of one shape, the same
        classes and the same validation images.
    out : Path
        Run folder to write; it can be evaluated, tuned, exported and gone on from like any other.
    weights : tuple of float
        Share of each run, in any unit; empty for equal ones.
    """

    runs: tuple[Path, ...]
    out: Path
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise NucSegError("Give two runs or more: --runs runs/a runs/b.")
        if len(set(self.runs)) < len(self.runs):
            raise NucSegError("A run is given twice; say how much each counts with --weights.")
        if self.weights and len(self.weights) != len(self.runs):
            raise NucSegError(
                f"There are {len(self.runs)} runs and {len(self.weights)} weights; give one for each."
            )
        if self.weights and (min(self.weights) < 0 or sum(self.weights) <= 0):
            raise NucSegError(f"weights={list(self.weights)} must be 0 or more, and not all 0.")


def mean_state(states: Sequence[dict[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted mean of state dicts of one shape; what is no float is taken from the first."""
    total = float(sum(weights))
    return {
        name: (
            sum(s[name].double() * (w / total) for s, w in zip(states, weights, strict=True)).to(first.dtype)
            if first.is_floating_point()
            else first.clone()
        )
        for name, first in states[0].items()
    }


def check_alike(paths: Sequence[Path], runs: Sequence[tuple[RunConfig, MapTask]]) -> None:
    """Refuse runs whose mean makes no sense.

    Raises
    ------
    NucSegError
        They are no students of one shape and the same classes, hold different images out, or began each with chance.
    """
    (config, task), path = runs[0], paths[0]
    for other_path, (other, theirs) in zip(paths, runs, strict=True):
        if not isinstance(theirs.network, Student):
            raise NucSegError(f"Run '{other_path}' did not train a student; only students are averaged.")
        if _shape(other, theirs) != _shape(config, task):
            raise NucSegError(
                f"Runs '{path}' and '{other_path}' differ in shape, classes, resolution or normalisation; only runs "
                "that went on from the same model can be averaged."
            )
        for key in config.data.sets.keys() & other.data.sets.keys():
            if _division(config, key) != _division(other, key):
                raise NucSegError(
                    f"Runs '{path}' and '{other_path}' divide {key} differently into training and validation, so that "
                    "no image would be new to their mean; train them with the same division."
                )
    if sum(not getattr(run, "begin", "") for run, _ in runs) > 1:
        raise NucSegError(
            "More than one of these runs began with chance, and the mean of unrelated weights is of no use; let the "
            "others go on from a model with begin=."
        )


def _shape(config: RunConfig, task: MapTask) -> tuple[Any, ...]:
    buffers = tuple(float(v) for name in ("mean", "std") for v in getattr(task, name).flatten())
    return task.network.config, config.data.classes, config.crop.mpp, task.without, buffers


def _division(config: RunConfig, key: str) -> Any:
    return dataclasses.replace(config.data.sets[key], weight=1.0)


def average(config: AverageConfig) -> None:
    """Write the mean of runs as a run.

    Raises
    ------
    NucSegError
        From `load_run` or `check_alike`; or the folder holds another run.
    """
    out = RunLog(config.out)
    out.check()
    if out.holds("last.pt") and AVERAGED not in (out.load("last.pt") or {}):
        raise NucSegError(f"Folder '{config.out}' holds a run that was trained; give another --out.")
    runs = [load_run(path) for path in config.runs]
    check_alike(config.runs, runs)
    steps = {str(p): _steps(p, run) for p, (run, _) in zip(config.runs, runs, strict=True)}
    weights = config.weights or (1.0,) * len(runs)
    mean = mean_state([task.state_dict() for _, task in runs], weights)
    out.config({"command": "fit", **to_mapping(_settings(config.out, [run for run, _ in runs]))})
    shares = [w / sum(weights) for w in weights]
    averaged = {p: {"steps": n, "share": s} for (p, n), s in zip(steps.items(), shares, strict=True)}
    out.save("last.pt", {"average": mean, "step": max(steps.values()), AVERAGED: averaged})
    told = ", ".join(f"{share:.0%} of {path}" for path, share in zip(steps, shares, strict=True))
    log.info("%s: %s", config.out, told)
    print(f"Next: python -m train.thresholds --run {config.out}")


def _settings(out: Path, runs: Sequence[RunConfig]) -> FitConfig:
    """Return the settings of the first run, with the data sets of all."""
    first = runs[0]
    sets = {key: own for run in reversed(runs) for key, own in run.data.sets.items()}
    shared = {f.name: getattr(first, f.name) for f in dataclasses.fields(FitConfig)}
    return FitConfig(**{**shared, "run": out, "data": dataclasses.replace(first.data, sets=sets)})


def _steps(path: Path, config: RunConfig) -> int:
    state = RunLog(run_folder(path)).load(checkpoint_of(path, config).name) or {}
    return int(state.get("step", 0))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m train.average``."""
    return run_flags(
        average,
        AverageConfig,
        argv,
        prog="python -m train.average",
        about=__doc__ or "",
        example="python -m train.average --runs runs/a runs/b --out runs/mean",
    )


if __name__ == "__main__":
    raise SystemExit(main())
