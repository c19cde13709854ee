"""Train a student from labels alone: ``python -m train.fit --config train/configs/student.toml``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.models.student import Student, StudentConfig
from train.begin import begun, fingerprint, take_weights
from train.command import run_command
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
from train.task import MapTask


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the student and its normalisation.

    Parameters
    ----------
    widths : tuple of int
        Channels at 1/2, 1/4, 1/8 and 1/16 of the input's resolution.
    blocks : tuple of int
        Residual blocks of the encoder at each of these.
    decoder_blocks : tuple of int
        Residual blocks of the decoder at 1/8, 1/4 and 1/2.
    angles : tuple of int
        Of the distance maps in degrees, [0, 90] or [0, 45, 90, 135].
    mean, std : tuple of float
        Mean and standard deviation of 8-bit RGB.
    without : tuple of str
        Maps that the student does not learn, for ablations: "boundary" (nuclei are then told apart by the distance
        maps alone), "centre" (found in the distance maps). Such a student is no model for the plugin.
    """

    widths: tuple[int, ...] = StudentConfig.widths
    blocks: tuple[int, ...] = StudentConfig.blocks
    decoder_blocks: tuple[int, ...] = StudentConfig.decoder_blocks
    angles: tuple[int, ...] = (0, 90)
    mean: tuple[float, float, float] = (178.0, 136.0, 178.0)
    std: tuple[float, float, float] = (51.0, 56.0, 42.0)
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class FitConfig(RunConfig):
    """Everything `train.fit` can be told.

    Parameters
    ----------
    begin : str
        Name ("default" is the shipped one) or folder of a model to go on from, instead of from chance. Shape and
        normalisation are then those of that model, whatever stands under `model`; classes of the same name are kept.
    """

    run: Path = Path("runs/student")
    begin: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)


CONFIG = FitConfig


def build_task(config: FitConfig, counts: NDArray[np.float64]) -> MapTask:
    """Return a fresh student and its losses on labels.

    Parameters
    ----------
    config : FitConfig
    counts : (n_classes,) float64
        Nuclei of each class in the training data, see `train.runs.nucleus_counts`.
    """
    m = config.model
    layout = MapLayout(angles=m.angles, n_classes=len(config.data.classes))
    student = Student(StudentConfig(m.widths, m.blocks, m.decoder_blocks, layout))
    return MapTask(student, layout, m.mean, m.std, config.loss, class_weights(counts), m.without)


def fit(config: FitConfig) -> None:
    """Train to the end, resuming from the run folder."""
    config, beginning = begun(resolved(config))
    train, held = load_data(config)
    task = build_task(config, nucleus_counts(train, len(config.data.classes)))
    if beginning is not None:
        take_weights(task.network, config.data.classes, beginning)
    crops = crops_of(config, task.layout, train)
    begins = beginning is not None
    carry_out(config, Training("fit", task, task, crops, train, held, fingerprint(beginning), begins))


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``python -m train.fit``."""
    return run_command(
        fit,
        FitConfig,
        argv,
        prog="python -m train.fit",
        about="Train a student from labels alone.",
        example="python -m train.fit --config train/configs/mine.toml data.root=data begin=default",
        then=lambda config: f"python -m train.thresholds --run {config.run}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
