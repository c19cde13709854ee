"""The two ways of making a student smaller: each gives a loaded model and what there is to say of it."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.registry import Model, open_model
from train.augment import AugmentConfig
from train.loaded import Loaded, load, load_model
from train.loop_config import LoopConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_nucseg.models.student import Student
    from train.fit import FitConfig

PLAIN = AugmentConfig(scale=0, p_stain=0, p_colour=0, p_blur=0, p_noise=0, p_jpeg=0, p_coarse=0)
"""Crops as the images are, turned at most."""

METHODS = ("int8", "prune")


@dataclass(frozen=True)
class ShortLoop(LoopConfig):
    """A training that goes on from weights that are good already: gentler and shorter."""

    steps: int = 2000
    lr: float = 5e-4
    warmup: int = 50
    ema: float = 0.995
    validate_every: int = 500


@dataclass(frozen=True)
class CompressConfig:
    """What to make smaller, and how.

    Parameters
    ----------
    method : str
        "int8" or "prune".
    training : Path
        Configuration of train.fit that the model was trained with, or the folder of its run: data, crops and losses.
    out : Path
        Folder to write; a pruned model goes by its name.
    model : str
        Name or path of the model.
    calibration : int
        int8: crops on which the scales are found.
    keep : float
        prune: about this share of the channels stays at every level, in multiples of 8.
    widths : tuple of int
        prune: the channels at every level, instead of `keep`.
    loop : ShortLoop
        prune: the training that follows.
    device : str
        Of the training: auto, cuda or cpu.
    limit : int, optional
        Score on only so many held-out images of each set.
    draws : int
        Sets drawn for the intervals.
    size : int
        Side of the tile in the race, pixels.
    rounds : int
        Turns of the race.
    seed : int
        Of calibration crops and draws.
    """

    method: str
    training: Path
    out: Path
    model: str = "default"
    calibration: int = 200
    keep: float = 0.75
    widths: tuple[int, ...] = ()
    loop: ShortLoop = field(default_factory=ShortLoop)
    device: str = "auto"
    limit: int | None = None
    draws: int = 1000
    size: int = 1024
    rounds: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise NucSegError(f"method='{self.method}' is not one of {', '.join(METHODS)}.")
        if self.size < 16 or self.size % 16:
            raise NucSegError(f"size={self.size} must be a multiple of 16 pixels.")


def fit_config(config: CompressConfig, model: Model) -> FitConfig:
    """Return the training configuration, with the model's resolution and normalisation, without unlabelled images.

    Raises
    ------
    NucSegError
        It trains other classes than the model has.
    """
    from train.config import load_config
    from train.fit import FitConfig, ModelConfig
    from train.runs import RunConfig, load_run

    card, path = model.card, config.training
    training: RunConfig = load_run(path)[0] if path.is_dir() else load_config(FitConfig, path, (), "fit")
    labelled = {key: value for key, value in training.data.sets.items() if value.labelled}
    training = dataclasses.replace(
        training, data=dataclasses.replace(training.data.resolved(), sets=labelled)
    )
    if training.data.classes != card.classes:
        raise NucSegError(
            f"'{config.training}' trains the classes {', '.join(training.data.classes)}, but {model} has "
            f"{', '.join(card.classes)}; give the configuration it was trained with."
        )
    shape = {k: tuple(card.network[k]) for k in ("widths", "blocks", "decoder_blocks")}
    network = ModelConfig(**shape, angles=card.layout.angles, mean=card.mean, std=card.std)
    return FitConfig(
        run=config.out / "finetune",
        device=config.device,
        threads=training.threads,
        data=training.data,
        crop=dataclasses.replace(training.crop, mpp=card.mpp),
        augment=training.augment,
        loss=training.loss,
        loop=config.loop,
        model=network,
    )


def calibration_crops(config: CompressConfig, training: FitConfig, model: Model) -> list[NDArray[np.uint8]]:
    """Return crops of the training images, (H, W, 3) uint8, drawn as in training but not changed in colour."""
    from train.runs import crops_of, load_data

    train, _ = load_data(training)
    crops = crops_of(dataclasses.replace(training, augment=PLAIN), model.card.layout, train)
    todo = tqdm(range(config.calibration), "calibration crops", file=sys.stderr, disable=None)
    return [crops[k]["image"].numpy().transpose(1, 2, 0).copy() for k in todo]


def make_int8(config: CompressConfig, model: Model) -> tuple[Loaded, dict[str, Any]]:
    """Quantise and write; return the result and what there is to say of it."""
    from napari_nucseg.models.checkpoint import sha256
    from train.quantise import check_packages, quantise

    check_packages()
    training = fit_config(config, model)
    path = quantise(model, calibration_crops(config, training, model), config.out / "int8.xml")
    note = {"method": "int8", "from": model.card.sha256, "calibration_crops": config.calibration}
    card = dataclasses.replace(
        model.card,
        training={**model.card.training, "compressed": note},
        metrics={},
        sha256=sha256(path.with_suffix(".bin")),
    )
    (config.out / "card.json").write_text(card.to_json(), encoding="utf-8")
    sizes = {"bytes_before": model.weights.stat().st_size, "bytes": path.with_suffix(".bin").stat().st_size}
    return load(str(path)), note | sizes


def make_pruned(config: CompressConfig, model: Model) -> tuple[Loaded, dict[str, Any]]:
    """Prune, train on, and write; return the result and what there is to say of it."""
    from napari_nucseg.models.checkpoint import load_student, save_checkpoint
    from train.prune import parameters, prune, smaller_widths

    student = load_student(model)
    widths = config.widths or smaller_widths(student.config.widths, config.keep)
    small = train_on(config, model, prune(student, widths))
    note = {"method": "prune", "from": model.card.sha256, "widths": list(widths), "steps": config.loop.steps}
    card = dataclasses.replace(
        model.card,
        name=config.out.resolve().name,
        training={**model.card.training, "compressed": note},
        metrics={},
    )
    save_checkpoint(config.out, small, card)
    sizes = {"parameters_before": parameters(student), "parameters": parameters(small)}
    return load_model(open_model(config.out), "cpu"), note | sizes


def train_on(config: CompressConfig, model: Model, small: Student) -> Student:
    """Train a pruned student on, in a run of its own below `out`; return the averaged weights."""
    from train.fit import build_task
    from train.runs import Training, carry_out, crops_of, load_data, load_run, nucleus_counts

    training = fit_config(config, model)
    shape = dataclasses.replace(training.model, widths=small.config.widths)
    training = dataclasses.replace(training, model=shape)
    train, held = load_data(training)
    task = build_task(training, nucleus_counts(train, len(training.data.classes)))
    task.network.load_state_dict(small.state_dict())
    crops = crops_of(training, task.layout, train)
    also = {"pruned from": model.card.sha256}
    carry_out(training, Training("fit", task, task, crops, train, held, also))
    network: Student = load_run(training.run)[1].network.cpu()
    return network
