"""A small task on made-up crops; as a script, one of the processes of a training under torchrun."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.student import Student, StudentConfig
from train import distributed
from train.distil_task import DistillConfig, DistillTask
from train.interrupt import Stopped
from train.loop import Loop, LoopConfig
from train.runlog import RunLog
from train.task import LossWeights, MapTask
from train.teacher_outputs import LiveTeacher


class Plain(RunLog):
    """Without pictures, which take longer than all the rest."""

    def curves(self) -> None:
        return None


LAYOUT = MapLayout((0, 90), 2)
SIZE = 16


class MadeUp(Dataset):
    """Crops of noise with random truth, unlike each other in how much they hold; odd ones have no classes."""

    def __getitem__(self, index):
        rng = torch.Generator().manual_seed(1000 + index)
        shape = (SIZE, SIZE)
        inside = torch.rand(shape, generator=rng) < 0.1 + 0.2 * (index % 4)
        kinds = torch.randint(0, 3, shape, generator=rng, dtype=torch.uint8)
        return {
            "image": torch.randint(0, 256, (3, *shape), generator=rng, dtype=torch.uint8),
            "foreground": inside,
            "distance": torch.rand((2, *shape), generator=rng) * 2 - 1,
            "centre": torch.rand(shape, generator=rng),
            "boundary": kinds,
            "type": torch.full(shape, 255, dtype=torch.uint8) if index % 2 else kinds,
        }

    def __len__(self):
        return 10**6


def make_task(norm: bool = False, dropout: float = 0.0) -> MapTask:
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6) if norm else nn.Identity(),
        nn.Tanh(),
        nn.Dropout(dropout),
        nn.Conv2d(6, LAYOUT.channels, 1),
    )
    weights = torch.tensor([0.5, 1.0, 3.0])
    return MapTask(network, LAYOUT, (128.0,) * 3, (60.0,) * 3, LossWeights(), weights)


class PartlyLabelled(MadeUp):
    """Of two batches of two crops, the second has no labels."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "labelled": torch.tensor(index // 2 % 2 == 0)}


def make_distillation() -> DistillTask:
    """A student and its frozen teacher, with features compared and a warm-up over three steps."""

    def student(seed: int) -> MapTask:
        torch.manual_seed(seed)
        network = Student(StudentConfig((4, 4), (1, 1), (1,), LAYOUT))
        return MapTask(network, LAYOUT, (128.0,) * 3, (60.0,) * 3, LossWeights(), torch.ones(3))

    teacher = LiveTeacher(student(1))
    return DistillTask(student(0), teacher, DistillConfig(warmup=3), torch.ones(3), batches_per_step=2)


def make_loop(folder: Path, task=None, held=None, **settings) -> Loop:
    settings = {
        "batch_size": 2,
        "workers": 0,
        "amp": "off",
        "clip": 1e9,
        "warmup": 1,
        "log_every": 1,
    } | settings
    crops = PartlyLabelled() if isinstance(task, DistillTask) else MadeUp()
    return Loop(task or make_task(), crops, LoopConfig(**settings), Plain(folder), "cpu", {}, held)


def gradients(loop: Loop) -> dict[str, torch.Tensor]:
    """Of the last step."""
    return {name: p.grad.clone() for name, p in loop.task.named_parameters()}


def nothing(task) -> dict[str, float]:
    """Validation that finds nothing."""
    return {}


CALLS = itertools.count()


def by_step(task) -> dict[str, float]:
    """Validation that never gets better in process 0, and always in the others."""
    return {"bPQ": 0.5 + 0.01 * distributed.rank() * next(CALLS)}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank = distributed.rank()
    one = make_loop(folder / f"one_{rank}", steps=1, held=MadeUp(), validation_crops=6)
    one.fit(by_step)
    torch.save(gradients(one), folder / f"gradients_{rank}.pt")
    torch.save(one.average.state_dict(), folder / f"average_{rank}.pt")
    parts = make_loop(folder / f"parts_{rank}", steps=1, accumulate=2)
    parts.fit(by_step)
    torch.save(gradients(parts), folder / f"parts_{rank}.pt")
    # batch norm and dropout; stops for want of a better bPQ, which only process 0 may decide
    norm = make_loop(folder / "norm", make_task(True, 0.3), steps=50, validate_every=2, patience=2)
    norm.fit(by_step)
    torch.save(norm.average.state_dict(), folder / f"norm_{rank}.pt")
    # process 1 never has a crop with labels
    distilled = make_loop(folder / f"distilled_{rank}", make_distillation(), steps=2, accumulate=2)
    distilled.fit(by_step)
    torch.save(distilled.average.state_dict(), folder / f"distilled_{rank}.pt")
    # a scheduler wants one of them to end
    stopped = make_loop(folder / "stopped", steps=50)
    step = stopped._train_step

    def signalled(batches):
        if rank and stopped.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(batches)

    stopped._train_step = signalled
    try:
        stopped.fit(by_step)
    except Stopped as error:
        (folder / f"stopped_{rank}.json").write_text(json.dumps([stopped.step, str(error)]))
    try:
        make_loop(folder / f"norm{'_' * rank}", make_task(True, 0.3), steps=50)
    except NucSegError as error:
        (folder / f"said_{rank}.json").write_text(json.dumps([norm.step, str(error)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
