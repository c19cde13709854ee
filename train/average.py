"""Average the weights of several runs of a student: ``python -m train.average --runs runs/a runs/b --out runs/mean``.

Runs that go on from the same model (``begin=``), each with another seed, other shares of the sets or other
augmentation, end near to one another: the mean of their weights does almost as well as the mean of their outputs, and
costs no more than one of them (model soup, Wortsman et al. 2022, ICML). It may help where training any of them for
longer does not; whether it does, `train.evaluate` tells.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.student import Student
from train.config import to_mapping
from train.distill import DistillRunConfig
from train.fit import FitConfig
from train.flags import run_flags
from train.loaded import tuned
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
        Run folder to write; it can be evaluated, tuned, exported and averaged again like any other, but not trained
        on. An earlier average in it is replaced, and its thresholds and calibration are taken away.
    weights : tuple of float
        Share of each run, in any unit; empty for equal ones.
    """

    runs: tuple[Path, ...]
    out: Path
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise NucSegError("Give two runs or more: --runs runs/a runs/b.")
        if self.weights and len(self.weights) != len(self.runs):
            raise NucSegError(
                f"There are {len(self.runs)} runs and {len(self.weights)} weights; give one for each."
            )
        if self.weights and not (
            all(math.isfinite(w) and w >= 0 for w in self.weights) and sum(self.weights) > 0
        ):
            raise NucSegError(f"weights={list(self.weights)} must be numbers, 0 or more, and not all 0.")
        if self.out.resolve() in {run_folder(path).resolve() for path in self.runs}:
            raise NucSegError(f"Folder '{self.out}' is one of the runs to average; give another --out.")


def mean_state(states: Sequence[dict[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted mean of state dicts of one shape; what is no float is taken from the first.

    Parameters
    ----------
    states : sequence of dict of str to Tensor
        The running means and variances of batch norm are averaged like weights.
    weights : sequence of float
        One for each, in any unit.
    """
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

    Parameters
    ----------
    paths : sequence of Path
        As they were given.
    runs : sequence of (RunConfig, MapTask)
        What is there, see `load_run`.

    Raises
    ------
    NucSegError
        A checkpoint is given twice; or they are no students of one shape and the same classes, divide a data set
        differently, or several of them began with chance.
    """
    used = [checkpoint_of(path, run).resolve() for path, (run, _) in zip(paths, runs, strict=True)]
    twice = next((path for path, file in zip(paths, used, strict=True) if used.count(file) > 1), None)
    if twice is not None:
        raise NucSegError(f"Run '{twice}' is given twice; say how much each counts with --weights.")
    for path, (_, task) in zip(paths, runs, strict=True):
        if not isinstance(task.network, Student):
            raise NucSegError(f"Run '{path}' did not train a student; only students are averaged.")
    for (path, (config, task)), (other_path, (other, theirs)) in itertools.combinations(
        zip(paths, runs, strict=True), 2
    ):
        if _shape(other, theirs) != _shape(config, task):
            raise NucSegError(
                f"Runs '{path}' and '{other_path}' differ in shape, classes, resolution or normalisation; only runs "
                "that went on from the same model can be averaged."
            )
        for key in sorted(config.data.sets.keys() & other.data.sets.keys()):
            if _division(config, key) != _division(other, key):
                raise NucSegError(
                    f"Runs '{path}' and '{other_path}' divide or read {key} differently (data.sets.{key}), and what "
                    "one keeps for validation the other may have learnt; train them with the same settings of that "
                    "set, but for its weight."
                )
    # two checkpoints of one run began together
    if len({file.parent for file, (run, _) in zip(used, runs, strict=True) if not _begin(run)}) > 1:
        raise NucSegError(
            "More than one of these runs began with chance, and the mean of unrelated weights is of no use; let the "
            "others go on from a model with begin=."
        )


def _shape(config: RunConfig, task: MapTask) -> tuple[Any, ...]:
    buffers = tuple(float(v) for name in ("mean", "std") for v in getattr(task, name).flatten())
    return task.network.config, config.data.classes, config.crop.mpp, task.without, buffers


def _begin(config: RunConfig) -> str:
    """Return the model that a run began with; empty if it began with chance."""
    begin: str = getattr(config, "begin", "")
    return begin


def _division(config: RunConfig, key: str) -> Any:
    return dataclasses.replace(config.data.sets[key], weight=1.0)


def average(config: AverageConfig) -> None:
    """Write the mean of runs as a run.

    Raises
    ------
    NucSegError
        From `load_run` or `check_alike`; or the folder holds other things than an average.
    """
    out = RunLog(config.out)
    out.check()
    earlier = out.load("last.pt") or {}
    if AVERAGED not in earlier and out.holds("config.json", "metrics.csv", "last.pt"):
        raise NucSegError(f"Folder '{config.out}' holds a run that was trained; give another --out.")
    runs = [load_run(path) for path in config.runs]
    check_alike(config.runs, runs)
    steps = {str(p): _steps(p, run) for p, (run, _) in zip(config.runs, runs, strict=True)}
    weights = config.weights or (1.0,) * len(runs)
    mean = mean_state([task.state_dict() for _, task in runs], weights)
    settings = _settings(config.out, [run for run, _ in runs])
    command = "distill" if isinstance(settings, DistillRunConfig) else "fit"
    shares = [w / sum(weights) for w in weights]
    averaged = {p: {"steps": n, "share": s} for (p, n), s in zip(steps.items(), shares, strict=True)}
    if out.holds(tuned(config.out).name):  # first, so that a kill never leaves them beside other weights
        tuned(config.out).unlink()
        log.warning(
            "%s was of the earlier average and is taken away; choose thresholds anew", tuned(config.out)
        )
    out.save("last.pt", {"average": mean, "step": max(steps.values()), AVERAGED: averaged})
    # last, since a folder with this alone is none of ours
    out.config({"command": command, **to_mapping(settings)})
    told = ", ".join(f"{share:.0%} of {path}" for path, share in zip(steps, shares, strict=True))
    log.info("%s: %s", config.out, told)
    print(f"Next: python -m train.thresholds --run {config.out}")


def _settings(out: Path, runs: Sequence[RunConfig]) -> FitConfig:
    """Return the settings of the first run, or the first distilled one, with all that any of them learnt from.

    `train.seen` finds there which images are new to the average: the data sets of all, their teachers, and the model
    they began with; there is room for one of those models only.
    """
    distilled = [run for run in runs if isinstance(run, DistillRunConfig)]
    first = distilled[0] if distilled else runs[0]
    assert isinstance(first, FitConfig)  # who trains a student; see `check_alike`
    begins = list(dict.fromkeys(begin for run in runs if (begin := _begin(run))))
    if len(begins) > 1:
        log.warning(
            "The runs began with %s, and '%s' can tell of the first only: train.evaluate may take images of the others "
            "for new ones. Give first the run whose model goes on from the others.",
            ", ".join(begins), out,
        )  # fmt: skip
    changes: dict[str, Any] = {
        "run": out,
        "begin": next(iter(begins), ""),
        "data": dataclasses.replace(
            first.data, sets={key: own for run in reversed(runs) for key, own in run.data.sets.items()}
        ),
    }
    if isinstance(first, DistillRunConfig):
        _, *others = dict.fromkeys(path for run in distilled for path in (run.teacher, *run.ensemble))
        changes["ensemble"] = tuple(others)
    return dataclasses.replace(first, **changes)


def _steps(path: Path, config: RunConfig) -> int:
    file = checkpoint_of(path, config)
    state = RunLog(file.parent).load(file.name) or {}
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
