"""Train a student from labels and a teacher: ``python -m train.distill --config FILE.toml teacher=runs/teacher``."""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.checkpoint import load_student
from napari_nucseg.models.registry import open_model
from train import distributed, fit
from train.begin import begun, fingerprint, take_weights
from train.command import run_command
from train.crops import Batch
from train.data import AnnotatedImage
from train.distil_task import DistillConfig, DistillTask
from train.listing import divide
from train.optim import precision
from train.orient import orientations
from train.pool import PooledCrops
from train.runs import (
    Training,
    carry_out,
    class_weights,
    crops_of,
    load_data,
    load_run,
    nucleus_counts,
    resolved,
)
from train.seen import places, settings_of, trained_on
from train.task import LossWeights, MapTask
from train.teacher_outputs import CachedTeacher, LiveTeacher, MeanTeacher, TeacherSource, TurnedTeacher

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DistillRunConfig(fit.FitConfig):
    """Everything `train.distill` can be told.

    Parameters
    ----------
    teacher : Path
        Run folder of train.teach (or fit, or distill), a checkpoint in one, or a model folder.
    ensemble : tuple of Path
        More teachers of the same classes, resolution and angles: the student learns from the mean of the maps of all,
        and from the features of `teacher`.
    turned : bool
        Test-time augmentation of the teacher: the mean of its maps over all flips and rotations. Eight times the
        work, so best kept with `cache`.
    cache : Path, optional
        Folder to keep the teacher's outputs in. They are read again when the same crop comes again: with `pool`, and in
        other runs on the same crops.
    pool : int
        Train on so many crops only, that come again and again, each time in another orientation; 0 never repeats
        one. A cache of crops of 256 px takes 2 to 6 MB for each.
    """

    run: Path = Path("runs/distilled")
    teacher: Path
    ensemble: tuple[Path, ...] = ()
    distil: DistillConfig = field(default_factory=DistillConfig)
    turned: bool = False
    cache: Path | None = None
    pool: int = 0

    def __post_init__(self) -> None:
        if self.pool < 0:
            raise NucSegError(f"pool={self.pool} must be 0 or more crops.")


CONFIG = DistillRunConfig
build_task = fit.build_task


@dataclass(frozen=True)
class Known:
    """A trained network with what its run or its card says of it."""

    task: MapTask
    classes: tuple[str, ...]
    mpp: float


def open_teacher(path: Path) -> Known:
    """Read a teacher from a run folder, a checkpoint of a run, or a model folder.

    Raises
    ------
    NucSegError
        There is none.
    """
    if path.suffix == ".pt" or (path / "config.json").is_file():
        config, task = load_run(path)
        return Known(task, config.data.classes, config.crop.mpp)
    if not path.exists():
        raise NucSegError(f"Teacher '{path}' does not exist; give the folder of a run of train.teach.")
    model = open_model(path)
    card, weights = model.card, class_weights(np.zeros(len(model.card.classes)))
    task = MapTask(load_student(model), card.layout, card.mean, card.std, LossWeights(), weights)
    return Known(task, card.classes, card.mpp)


def one_teacher(config: DistillRunConfig, path: Path) -> LiveTeacher:
    """Return a teacher that fits a run.

    Raises
    ------
    NucSegError
        There is none, it lacks a map, or it speaks of other classes or another resolution.
    """
    known = open_teacher(path)
    if known.task.without:
        raise NucSegError(
            f"Teacher '{path}' did without the map '{known.task.without[0]}' and has nothing to say of it; "
            "take one that learnt every map."
        )
    if known.classes != config.data.classes:
        raise NucSegError(
            f"Teacher '{path}' knows the classes {', '.join(known.classes)}; set data.classes to those."
        )
    if not math.isclose(known.mpp, config.crop.mpp, rel_tol=0.01):
        raise NucSegError(f"Teacher '{path}' sees {known.mpp} um/px; set crop.mpp={known.mpp}.")
    return LiveTeacher(known.task, precision(config.loop.amp))


def teacher_of(config: DistillRunConfig) -> TeacherSource:
    """Return the teacher a run is to learn from, or the mean of several, see `one_teacher`."""
    source: TeacherSource = one_teacher(config, config.teacher)
    if config.ensemble:
        source = MeanTeacher((source, *(one_teacher(config, path) for path in config.ensemble)))
    if config.turned:
        source = TurnedTeacher(source)
    return source if config.cache is None else CachedTeacher(source, config.cache)


def frequencies(counts: NDArray[np.float64]) -> torch.Tensor | None:
    """Return how frequent background and each class are, or None if no class is known.

    Nuclei are counted, not pixels; background is taken for as frequent as the commonest class, so that it
    does not outweigh what the type map is about.
    """
    return torch.tensor([counts.max(), *counts], dtype=torch.float32) if counts.any() else None


def kept_bytes(config: DistillRunConfig, teacher: TeacherSource, task: DistillTask) -> int:
    """Return how much a whole run keeps of the teacher's outputs, if each crop of it is new."""
    loop, area = config.loop, config.crop.size**2
    crops = config.pool or loop.steps * loop.accumulate * loop.batch_size * distributed.world()
    cells = teacher.layout.channels * area
    cells += sum(teacher.feature_widths[k] * area // teacher.feature_strides[k] ** 2 for k in task.levels)
    return crops * cells * torch.float16.itemsize


def warn_of_full_disk(config: DistillRunConfig, teacher: TeacherSource, task: DistillTask) -> None:
    """Say so if the teacher's outputs may take more than there is room for."""
    if config.cache is None:
        return
    needed, free = kept_bytes(config, teacher, task) / 2**30, shutil.disk_usage(config.cache).free / 2**30
    if needed > free:
        log.warning(
            "the teacher's outputs may take %.0f GiB in '%s', where %.0f are free; limit the crops with pool=",
            needed, config.cache, free,
        )  # fmt: skip


def distilled_crops(
    config: DistillRunConfig, teacher: TeacherSource, task: MapTask, train: list[AnnotatedImage]
) -> Dataset[Batch]:
    """Return the crops of a run: without end, or a pool of them."""
    crops = crops_of(config, task.layout, train)
    return PooledCrops(crops, config.pool, orientations(teacher.layout)) if config.pool else crops


def warn_of_teacher(config: DistillRunConfig) -> None:
    """Log where the teacher was trained with images that validate the student: it tells what it learnt there."""
    for teacher in (config.teacher, *config.ensemble):
        settings = settings_of(teacher)
        for key, own in config.data.sets.items():
            validation = places(divide(config.data.root / key, own)[1])
            both = validation & (trained_on(settings, config.data.root / key) or set())
            if both:
                log.warning(
                    "%s: the teacher %s was trained with %d of the %d validation images, which flatters the student; "
                    "take one of the same division.",
                    key, teacher, len(both), len(validation),
                )  # fmt: skip


def distill(config: DistillRunConfig) -> None:
    """Train to the end, resuming from the run folder."""
    config, beginning = begun(resolved(config))
    teacher = teacher_of(config)
    train, held = load_data(config, unlabelled=True)
    warn_of_teacher(config)
    counts = nucleus_counts(train, len(config.data.classes))
    student = build_task(config, counts)
    if beginning is not None:
        take_weights(student.network, config.data.classes, beginning)
    task = DistillTask(student, teacher, config.distil, frequencies(counts), config.loop.accumulate)
    warn_of_full_disk(config, teacher, task)
    crops = distilled_crops(config, teacher, student, train)
    # kept outputs are rounded, so that a student of them is another one; where they are kept is all the same
    who = {"teacher": teacher.fingerprint, "cached": config.cache is not None} | fingerprint(beginning)
    begins = beginning is not None
    carry_out(config, Training("distill", student, task, crops, train, held, who, begins))
    if isinstance(teacher, CachedTeacher):
        log.info("teacher outputs: %d computed, %d read from the cache", teacher.misses, teacher.hits)


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``python -m train.distill``."""
    return run_command(
        distill,
        DistillRunConfig,
        argv,
        prog="python -m train.distill",
        about="Train a student from labels and from what a teacher says.",
        example="python -m train.distill --config train/configs/student.toml teacher=runs/teacher "
        "run=runs/distilled distil.feature_loss=mse",
        then=lambda config: f"python -m train.thresholds --run {config.run}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
