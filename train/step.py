"""One step: the losses of a batch, computed the same way for training and for validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from napari_nucseg.errors import NucSegError
from train import distributed
from train.crops import Batch


class Losses:
    """Bring a batch to the device and run a task on it under autocast."""

    def __init__(self, device: torch.device, dtype: torch.dtype | None) -> None:
        self.device, self.dtype = device, dtype

    def __call__(self, task: Callable[[Batch], dict[str, Tensor]], batch: Batch) -> dict[str, Tensor]:
        """Return the losses by name, scalars on the device."""
        batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
        with torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            return task(batch)

    @torch.no_grad()
    def mean(self, task: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the mean losses over this and the other processes' batches; none if nobody has a batch."""
        sums: dict[str, float] = {}
        count = 0
        for batch in batches:
            for name, value in self(task, batch).items():
                sums[name] = sums.get(name, 0.0) + value.item()
            count += 1
        everyone = distributed.gathered((sums, count))
        total = sum(n for _, n in everyone)
        names = dict.fromkeys(name for part, _ in everyone for name in part)
        return {name: sum(part.get(name, 0.0) for part, _ in everyone) / total for name in names}


def seed_part(seed: int, step: int, part: int, rank: int) -> None:
    """Seed torch (dropout and the like) as a function of where the run is, so that resuming is exact."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, part, rank]).generate_state(1, np.uint64)[0]))


class Stopwatch:
    """Tell how fast training goes and how much of that time is spent waiting for crops.

    A share near 0 means that the network is the bottleneck, a large one that more `workers` would help.
    """

    def __init__(self) -> None:
        self._waited = self._spent = 0.0
        self._images = 0

    def waiting(self, batches: Iterator[Batch]) -> Batch:
        """Take the next batch and count the time it kept us waiting.

        Raises
        ------
        NucSegError
            A crop can't be made: the sentence alone, without the traceback that torch adds to a worker's errors. Or a
            worker was killed.
        """
        began = time.perf_counter()
        try:
            batch = next(batches)
        except NucSegError as error:
            raise NucSegError(str(error).rpartition("NucSegError: ")[2].strip()) from error
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise NucSegError(
                "A process that makes crops was killed, as a rule for want of memory; lower loop.workers or "
                "data.cache_gb, or give a container more shared memory (docker run --shm-size=8g)."
            ) from error
        self._waited += time.perf_counter() - began
        return batch

    def add(self, seconds: float, images: int) -> None:
        """Count one whole step, the waiting included."""
        self._spent += seconds
        self._images += images

    def read(self) -> dict[str, float]:
        """Return ``images_per_s`` and ``data_wait`` (share of the time) since the last reading."""
        spent = max(self._spent, 1e-9)
        out = {"images_per_s": self._images / spent, "data_wait": self._waited / spent}
        self._waited = self._spent = 0.0
        self._images = 0
        return out
