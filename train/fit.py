"""Train a student from labels alone: ``python -m train.fit --config train/configs/student.toml``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.card import Card
from napari_nucseg.models.student import Student, StudentConfig
from train.augment import AugmentConfig
from train.config import from_mapping, load_config, to_mapping
from train.crops import CropConfig, Crops
from train.data import AnnotatedImage, SetConfig, load_split
from train.loop import Loop, LoopConfig
from train.runlog import RunLog
from train.task import LossWeights, MapTask
from train.validate import Validator


@dataclass(frozen=True)
class DataConfig:
    """Where the data lies, its sets and the classes to learn."""

    root: Path = Path("../shared/data")
    classes: tuple[str, ...] = ("neoplastic", "inflammatory", "connective", "epithelial", "other")
    sets: dict[str, SetConfig] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the student and its normalisation (mean and standard deviation of 8-bit RGB)."""

    widths: tuple[int, ...] = StudentConfig.widths
    blocks: tuple[int, ...] = StudentConfig.blocks
    decoder_blocks: tuple[int, ...] = StudentConfig.decoder_blocks
    angles: tuple[int, ...] = (0, 90)
    mean: tuple[float, float, float] = (178.0, 136.0, 178.0)
    std: tuple[float, float, float] = (51.0, 56.0, 42.0)


@dataclass(frozen=True)
class FitConfig:
    """Everything `train.fit` can be told."""

    run: Path = Path("runs/student")
    device: str = "auto"
    threads: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    loop: LoopConfig = field(default_factory=LoopConfig)


def class_weights(images: list[AnnotatedImage], n_classes: int) -> torch.Tensor:
    """Weights of the type cross-entropy: the inverse square root of each class' nuclei, mean 1 over the classes.

    Crops are already drawn balanced by class to a part, so the full inverse would count rarity twice.
    Background weighs as much as the commonest class.
    """
    counts = np.zeros(n_classes)
    for image in images:
        counts += np.bincount(image.nuclei[:, 2], minlength=n_classes + 1)[1 : n_classes + 1]
    inverse = 1 / np.sqrt(np.maximum(counts, 1))
    weights = np.where(counts > 0, inverse, inverse.min())
    weights = weights / weights.mean()
    return torch.tensor([weights.min(), *weights], dtype=torch.float32)


def build(config: FitConfig, train: list[AnnotatedImage]) -> tuple[MapTask, Student]:
    """Return the task and the student inside it."""
    layout = MapLayout(angles=config.model.angles, n_classes=len(config.data.classes))
    m = config.model
    student = Student(StudentConfig(m.widths, m.blocks, m.decoder_blocks, layout))
    weights = class_weights(train, layout.n_classes)
    return MapTask(student, layout, m.mean, m.std, config.loss, weights), student


def draft_card(config: FitConfig) -> Card:
    """Return a card with what a run knows of its model."""
    m = config.model
    layout = {"angles": list(m.angles), "n_classes": len(config.data.classes)}
    return Card(
        name="candidate",
        version="0",
        title="",
        classes=config.data.classes,
        colours={},
        mpp=config.crop.mpp,
        mean=m.mean,
        std=m.std,
        network={"layout": layout},
        licence="",
        training={"config": to_mapping(config)},
    )


def load_run(folder: Path) -> tuple[FitConfig, MapTask]:
    """Return the config of a run and its task with the averaged weights of the last checkpoint, for evaluation.

    Raises
    ------
    NucSegError
        The folder holds no run, or no checkpoint yet.
    """
    path, state = folder / "config.json", RunLog(folder).load("last.pt")
    if not path.is_file() or state is None:
        raise NucSegError(f"'{folder}' holds no checkpoint; train with python -m train.fit first.")
    config = from_mapping(FitConfig, json.loads(path.read_text()))
    task, _ = build(config, [])
    task.load_state_dict(state["average"])
    return config, task.eval()


def choose_device(name: str) -> str:
    """Resolve "auto" to CUDA where there is one, else the CPU."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def fit(config: FitConfig) -> None:
    """Train to the end, resuming from the run folder."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.loop.seed)
    root, sets, classes = config.data.root, config.data.sets, config.data.classes
    train = load_split(root, sets, classes, held_out=False)
    held = load_split(root, {k: v for k, v in sets.items() if v.held_out}, classes, held_out=True)
    task, student = build(config, train)
    crops = Crops(train, sets, student.config.layout, config.crop, config.augment, config.loop.seed)
    run = RunLog(config.run)
    millions = sum(p.numel() for p in student.parameters()) / 1e6
    logging.info("%d training, %d validation images; %.2f M parameters", len(train), len(held), millions)
    loop = Loop(task, crops, config.loop, run, choose_device(config.device), identity(config, train))
    run.config(to_mapping(config))
    loop.fit(Validator(held, draft_card(config)))


HARMLESS = (
    "run",
    "device",
    "threads",
    "loop.workers",
    "loop.log_every",
    "loop.checkpoint_every",
    "loop.validate_every",
)
"""Settings that may change from one start of a run to the next: they do not change the weights."""


def identity(config: FitConfig, train: list[AnnotatedImage]) -> dict[str, Any]:
    """Return what makes a run the one it is: flat settings and the training images."""
    flat: dict[str, Any] = {"training images": [f"{im.dataset}/{im.name}" for im in train]}

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            name = f"{prefix}{key}"
            if name in HARMLESS:
                continue
            if isinstance(value, dict):
                walk(value, name + ".")
            else:
                flat[name] = value

    walk(to_mapping(config), "")
    return flat


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``python -m train.fit``."""
    parser = argparse.ArgumentParser(prog="python -m train.fit", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a TOML file, see train/configs")
    parser.add_argument("overrides", nargs="*", help="key.sub=value, for example loop.steps=2000")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    try:
        fit(load_config(FitConfig, args.config, args.overrides))
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
