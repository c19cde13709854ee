"""Several training processes under ``torchrun``: who am I, and the few things they say to each other.

Everything here does the obvious in a single process, so that no caller needs to ask how many there are.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from napari_nucseg.errors import NucSegError

T = TypeVar("T")
_joint: ContextVar[bool] = ContextVar("joint", default=False)


def rank() -> int:
    """Return the number of this process, from 0; known from ``torchrun``'s environment before `join`."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def world() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: str) -> torch.device:
    """Meet the other processes (NCCL on CUDA, gloo elsewhere) and return this one's device.

    Under ``torchrun`` each process gets the CUDA device of its local rank, unless `device` names one; a single process
    gets the first.

    Raises
    ------
    NucSegError
        There is no such CUDA device, or not one for each process; or the processes cannot meet.
    """
    own = torch.device(device)
    if own.type == "cuda":
        if own.index is not None and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
            raise NucSegError(f"device='{device}' is one device for several processes; set device=cuda.")
        if own.index is None:  # which `set_device` does not take
            own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if own.index >= torch.cuda.device_count():
            raise NucSegError(
                f"This process was to train on {own}, but torch finds {torch.cuda.device_count()} CUDA devices here; "
                "start no more processes a machine than it has (torchrun --nproc-per-node)."
            )
        torch.cuda.set_device(own)
    if world() > 1 and not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise NucSegError(
                f"The {world()} processes of WORLD_SIZE cannot meet ({reason}); start them with torchrun, or unset it."
            ) from error
        atexit.register(leave)
    return own


def leave() -> None:
    """Part from the other processes; done by itself when the process ends."""
    if dist.is_initialized():
        dist.destroy_process_group()


def known_mean(values: Tensor, always: int) -> list[float]:
    """Return the mean of each column of a (parts, columns) tensor over the parts of all processes.

    NaN is left out as not known, and is the mean where nothing is; but in the column `always` it stays what it is.
    """
    known = ~values.isnan()
    known[:, always] = True
    sums = summed(torch.stack([torch.where(known, values, 0.0).sum(0), known.sum(0).to(values.dtype)]))
    means: list[float] = (sums[0] / sums[1]).tolist()
    return means


def anyone(wanted: bool, device: torch.device) -> bool:
    """Return whether a process, of whatever rank, wants something; all of them get the same answer."""
    return wanted if world() == 1 else bool(summed(torch.tensor(float(wanted), device=device)) > 0)


def wait() -> None:
    """Wait until all processes are here."""
    gathered(None)


def summed(values: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes."""
    if world() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def from_lead(value: T) -> T:
    """Return what process 0 holds, in all of them."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: T) -> list[T]:
    """Return what each process holds, in the order of their ranks, in all of them."""
    if world() == 1:
        return [value]
    out: list[Any] = [None] * world()
    dist.all_gather_object(out, value)
    return out


def share(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors in place by those of process 0."""
    if world() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


@contextmanager
def joint() -> Iterator[None]:
    """Within it `total` reaches over all processes: the loop enters it for a training step, and only then."""
    token = _joint.set(world() > 1)
    try:
        yield
    finally:
        _joint.reset(token)


@contextmanager
def alone() -> Iterator[None]:
    """Within it `total` is this process' own: for losses that not every process computes in every step."""
    token = _joint.set(False)
    try:
        yield
    finally:
        _joint.reset(token)


class _Total(torch.autograd.Function):
    """Sum over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return summed(values)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        return summed(grad[0].contiguous())


def total(values: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes of a training step, with its gradient; else itself.

    A loss that is a ratio of sums over the batch (Dice, a mean over the pixels of nuclei) divides the totals,
    so that N processes with batch b get the loss, and after averaging the gradient, of one with N * b.
    """
    if not _joint.get():
        return values
    return _Total.apply(values)
