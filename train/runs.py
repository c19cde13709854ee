"""What the training commands share: their common settings, the data, the run itself, and reading a run back."""

from __future__ import annotations

import importlib
import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.card import Card
from train import data
from train.augment import AugmentConfig
from train.config import from_mapping, to_mapping
from train.crops import Batch, CropConfig, Crops
from train.data import AnnotatedImage, DataConfig
from train.identity import identity
from train.loop import Loop, LoopConfig
from train.runlog import RunLog
from train.task import LossWeights, MapTask
from train.validate import Validator, validation_crops

log = logging.getLogger(__name__)

COMMANDS = ("fit", "teach", "distill")
"""Training commands; module ``train.X`` has `CONFIG`, its config class, and ``build_task(config, counts)``."""


@dataclass(frozen=True)
class RunConfig:
    """What every training command can be told.

    Parameters
    ----------
    run : Path
        Folder of the run; a run that was stopped goes on from its last checkpoint.
    device : str
        "auto" (CUDA where there is one), "cpu", "cuda" or one device such as "cuda:1".
    threads : int
        Of the CPU for the network; 0 leaves the choice to torch.
    """

    run: Path = Path("runs/run")
    device: str = "auto"
    threads: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    loop: LoopConfig = field(default_factory=LoopConfig)


Config = TypeVar("Config", bound=RunConfig)


def nucleus_counts(images: list[AnnotatedImage], n_classes: int) -> NDArray[np.float64]:
    """Return how many nuclei of each class there are: (n_classes,)."""
    counts = np.zeros(n_classes)
    for image in images:
        counts += np.bincount(image.nuclei[:, 2], minlength=n_classes + 1)[1 : n_classes + 1]
    return counts


def class_weights(counts: NDArray[np.float64]) -> torch.Tensor:
    """Weights of the type cross-entropy: the inverse square root of each class' nuclei, mean 1 over the classes.

    Crops are already drawn balanced by class to a part, so the full inverse would count rarity twice.
    Background weighs as much as the commonest class.
    """
    inverse = 1 / np.sqrt(np.maximum(counts, 1))
    weights = np.where(counts > 0, inverse, inverse.min())
    weights = weights / weights.mean()
    return torch.tensor([weights.min(), *weights], dtype=torch.float32)


def choose_device(name: str) -> str:
    """Resolve "auto" to CUDA where there is one, else the CPU.

    Raises
    ------
    NucSegError
        The device is not known, or not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise NucSegError(
            f"device='{name}' is not known; choose auto, cpu, cuda or one device such as cuda:1."
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise NucSegError(
            f"device='{name}' is not there: torch finds {torch.cuda.device_count()} CUDA devices; choose auto "
            "or cpu, or install a torch that fits the driver."
        )
    return name


def resolved(config: Config) -> Config:
    """Return the settings with the classes of the class map, if there is one."""
    return replace(config, data=config.data.resolved())


def load_data(
    config: RunConfig, unlabelled: bool = False
) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Set threads and seed, and return the training and the validation images of a run.

    Raises
    ------
    NucSegError
        There are none, or a set without labels where `unlabelled` says that these are of no use; or the device is not
        there, or the run folder holds other things.
    """
    choose_device(config.device)  # rather now than after all images are read
    RunLog(config.run).check()
    if not config.data.sets:
        raise NucSegError(
            "data.sets is empty, so that there is nothing to train on; give --config FILE.toml, such as "
            "train/configs/mine.toml."
        )
    log.info("run '%s': reading the images of %s", config.run, ", ".join(config.data.sets))
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.loop.seed)
    bare = [key for key, value in config.data.sets.items() if not value.labelled]
    if bare and not unlabelled:
        raise NucSegError(
            f"The set '{bare[0]}' has no labels, and only train.distill learns without; leave it out."
        )
    return data.load_data(config.data)


def crops_of(config: RunConfig, layout: MapLayout, train: list[AnnotatedImage]) -> Crops:
    """Return the crops that a run trains on."""
    return Crops(train, config.data.sets, layout, config.crop, config.augment, config.loop.seed)


def draft_card(config: RunConfig, task: MapTask) -> Card:
    """Return a card with what a run knows of its model."""
    mean, std = ((x[0].item(), x[1].item(), x[2].item()) for x in (task.mean.flatten(), task.std.flatten()))
    return Card(
        name="candidate",
        version="0",
        title="",
        classes=config.data.classes,
        colours={},
        mpp=config.crop.mpp,
        mean=mean,
        std=std,
        network={"layout": {"angles": list(task.layout.angles), "n_classes": task.layout.n_classes}},
        licence="",
        training={"config": to_mapping(config)},
    )


@dataclass(frozen=True)
class Training:
    """Everything a run needs besides its settings.

    Attributes
    ----------
    command : str
        One of `COMMANDS`, kept with the run so that it can be read back.
    student : MapTask
        The task on labels of the network that comes out.
    task : nn.Module
        What is trained: `student`, or one around it.
    crops : Dataset of Batch
    train, held : lists of AnnotatedImage
        Training and validation images.
    also : dict
        More of what makes the run the one it is.
    begins : bool
        Whether the weights are trained already, so that figures of them tell whether more training helps.
    """

    command: str
    student: MapTask
    task: nn.Module
    crops: Dataset[Batch]
    train: list[AnnotatedImage]
    held: list[AnnotatedImage]
    also: dict[str, Any] = field(default_factory=dict)
    begins: bool = False


def carry_out(config: RunConfig, training: Training) -> None:
    """Train to the end, resuming from the run folder."""
    run, layout, net = RunLog(config.run), training.student.layout, training.student.network
    stride = net.config.stride
    if config.crop.size % stride:
        raise NucSegError(
            f"crop.size={config.crop.size} doesn't fit the network; it must be a multiple of {stride}."
        )
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    bare = sum(not image.labelled for image in training.train)
    without = f" and {bare} without labels" if bare else ""
    sizes = len(training.train) - bare, without, len(training.held)
    log.info("%d training images%s, %d for validation; %.2f M parameters", *sizes, millions)
    held = validation_crops(training.held, config.data.sets, layout, config.crop, config.loop.seed)
    who = identity(config, training.train) | training.also
    card = draft_card(config, training.student)
    loop = Loop(training.task, training.crops, config.loop, run, choose_device(config.device), who, held)
    run.config({"command": training.command, **to_mapping(config)})
    loop.fit(Validator(training.held, card), training.begins)
    log.info("done: %s", outcome(config, loop))


def outcome(config: RunConfig, loop: Loop) -> str:
    """Return in words how far a finished run came and which of its weights are used, see `checkpoint_of`."""
    best, used = loop.best, checkpoint_of(config.run, config).name
    early = f" of {config.loop.steps}, for want of a better bPQ" if loop.step < config.loop.steps else ""
    highest = f"; bPQ was highest at step {best.step} (best.pt, {best.value:.3f})" if best.value >= 0 else ""
    return f"{loop.step} steps{early}{highest}; '{config.run}' stands for {used}"


def run_folder(path: Path) -> Path:
    """Return the folder of a run that is given as such, or as a checkpoint in it."""
    return path.parent if path.suffix == ".pt" else path


def checkpoint_of(path: Path, config: RunConfig) -> Path:
    """Return the checkpoint that stands for a run: the one given; best.pt with `loop.patience`, last.pt without.

    A run without patience is meant to go to the end of its schedule, where the learning rate is lowest; to take the
    best of its validations instead would choose by the images that are to judge it.
    """
    if path.suffix == ".pt":
        return path
    early = config.loop.patience and (path / "best.pt").is_file()
    return path / ("best.pt" if early else "last.pt")


def warn_of_other(path: Path) -> None:
    """Log that ``decode.json``, of which a run has one, will be of a checkpoint that it doesn't stand for."""
    folder = run_folder(path)
    stands = checkpoint_of(folder, config_of(folder))
    if path != folder and path.name != stands.name:
        log.warning(
            "'%s' stands for %s, but its decode.json will be made for %s, and %s will be used with it too; "
            "name the run without the file to make it for %s.",
            *(folder, stands.name, path.name, stands.name, stands.name),
        )


def config_of(folder: Path) -> RunConfig:
    """Return the settings of the run in a folder.

    Raises
    ------
    NucSegError
        There is no run, or one that this version does not know.
    """
    return _read_config(folder)[1]


def _read_config(folder: Path) -> tuple[ModuleType, RunConfig]:
    """Return the module of the command that a run is of, and its settings."""
    try:
        data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NucSegError(
            f"'{folder}' holds no checkpoint of a run; train with python -m train.fit, teach or distill first."
        ) from error
    command = data.pop("command", "fit")
    if command not in COMMANDS:
        raise NucSegError(
            f"Run '{folder}' is of a command '{command}' that this version does not know; update it."
        )
    module = importlib.import_module(f"train.{command}")
    return module, from_mapping(module.CONFIG, data)


def load_run(path: Path) -> tuple[RunConfig, MapTask]:
    """Return the config of a run and the task of its network with averaged weights, ready for evaluation.

    Parameters
    ----------
    path : Path
        Run folder of any training command, or a checkpoint in it (``last.pt``, ``best.pt``). Of a folder it is
        the best one if the run was to stop early (``loop.patience``), else the last one.

    Raises
    ------
    NucSegError
        There is no run, or no checkpoint yet, or one of another shape than the config says.
    """
    folder = run_folder(path)
    module, config = _read_config(folder)
    name = checkpoint_of(path, config).name
    state = RunLog(folder).load(name)
    if state is None:
        raise NucSegError(f"Run '{folder}' has no checkpoint {name} yet; let it train on.")
    task: MapTask = module.build_task(config, np.zeros(len(config.data.classes)))
    # a distilled student is one part of what was trained
    own = {k.removeprefix("task."): v for k, v in state["average"].items() if k.startswith("task.")}
    try:
        task.load_state_dict(own or state["average"])
    except RuntimeError as error:
        what = str(error).splitlines()[1:2] or [str(error)]
        raise NucSegError(
            f"Checkpoint '{folder / name}' does not fit the config.json beside it ({what[0].strip().rstrip('.')}); put "
            "back the one that the run wrote."
        ) from error
    return config, task.eval()
