"""Train a teacher: ``python -m train.teach --config train/configs/pannuke.toml``."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.command import run_command
from train.runlog import RunLog
from train.runs import (
    RunConfig,
    Training,
    carry_out,
    class_weights,
    crops_of,
    load_data,
    nucleus_counts,
    resolved,
)
from train.task import TeacherTask
from train.teacher import Teacher, TeacherConfig, build_teacher


@dataclass(frozen=True)
class TeachConfig(RunConfig):
    """Everything `train.teach` can be told.

    Parameters
    ----------
    teacher : TeacherConfig
        The network; ``teacher.layout.n_classes`` follows ``data.classes``.
    mean, std : tuple of float
        Mean and standard deviation of 8-bit RGB that the encoder expects; [127.5, 127.5, 127.5] twice for
        HIPT, [127.0, 127.0, 127.0] and [128.0, 128.0, 128.0] for EfficientNet-lite, [123.7, 116.3, 103.5] and
        [58.4, 57.1, 57.4] for DINO and SAM.
    side_weight : float
        Share of the losses of the coarser heads, with ``teacher.deep_supervision``.
    """

    run: Path = Path("runs/teacher")
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    mean: tuple[float, float, float] = (178.0, 136.0, 178.0)
    std: tuple[float, float, float] = (51.0, 56.0, 42.0)
    side_weight: float = 0.4


CONFIG = TeachConfig
log = logging.getLogger(__name__)


def network_config(config: TeachConfig) -> TeacherConfig:
    """Return the shape of the network, with as many classes as there are."""
    layout = dataclasses.replace(config.teacher.layout, n_classes=len(config.data.classes))
    return dataclasses.replace(config.teacher, layout=layout)


def task_around(network: Teacher, config: TeachConfig, counts: NDArray[np.float64]) -> TeacherTask:
    """Return the losses on labels around a teacher."""
    weights = class_weights(counts)
    task = TeacherTask(network, network.config.layout, config.mean, config.std, config.loss, weights)
    task.side_weight = config.side_weight
    return task


def build_task(config: TeachConfig, counts: NDArray[np.float64]) -> TeacherTask:
    """Return a teacher with random weights, to load trained ones into, and its losses on labels.

    Parameters
    ----------
    config : TeachConfig
    counts : (n_classes,) float64
        Nuclei of each class in the training data, see `train.runs.nucleus_counts`.
    """
    return task_around(Teacher(network_config(config)), config, counts)


def teach(config: TeachConfig) -> None:
    """Train to the end, resuming from the run folder."""
    config = resolved(config)
    if config.teacher.weights is not None and (config.mean, config.std) == (
        TeachConfig.mean,
        TeachConfig.std,
    ):
        log.warning("teacher.weights without mean and std: public weights expect their own, see --help")
    train, held = load_data(config)
    counts = nucleus_counts(train, len(config.data.classes))
    # the public weights are needed once: a run that goes on has its own
    build = Teacher if RunLog(config.run).holds("last.pt") else build_teacher
    task = task_around(build(network_config(config)), config, counts)
    carry_out(config, Training("teach", task, task, crops_of(config, task.layout, train), train, held))


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``python -m train.teach``."""
    return run_command(
        teach,
        TeachConfig,
        argv,
        prog="python -m train.teach",
        about="Train a teacher: a large network that is never shipped, but tells a student what it sees.",
        example="python -m train.teach --config train/configs/pannuke.toml teacher.weights=hipt_vit256.pth",
        then=lambda config: f"python -m train.distill --config FILE.toml teacher={config.run}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
