"""What the training loop can be told."""

from __future__ import annotations

from dataclasses import dataclass

from napari_nucseg.errors import NucSegError
from train.optim import precision


@dataclass(frozen=True)
class LoopConfig:
    """Length, optimiser and bookkeeping.

    Parameters
    ----------
    steps : int
        Optimiser steps of the whole run (the cosine ends there).
    batch_size : int
        Crops per process that go through the network at a time.
    accumulate : int
        Batches per step and process whose gradients are averaged, where more do not fit into memory at a time.
    lr : float
        Of AdamW, at its peak.
    weight_decay : float
        Of AdamW; norms, biases and positions are not decayed.
    warmup : int
        Steps of the linear rise to `lr`.
    clip : float
        Largest norm of the gradient; inf leaves it as it is.
    ema : float
        Decay of the averaged weights, which are the ones validated and exported.
    patience : int
        Stop after so many validations without a better bPQ; 0 runs to the end.
    validate_every : int
        Steps between validations.
    validation_crops : int
        Fixed crops of the validation images whose losses are reported beside the figures, as many as make whole
        batches.
    checkpoint_every : int
        Steps between checkpoints (last.pt); a killed run goes on from there.
    log_every : int
        Steps over which losses and speed are averaged for the log.
    workers : int
        Processes that make crops, for each training process; 0 makes them in the training process. The crops do
        not depend on it.
    amp : str
        "bf16", "fp16" (with loss scaling) or "off".
    sync_norm : bool
        Several CUDA processes: batch norm over the crops of all of them.
    seed : int
        Of the initial weights, the crops and dropout.
    """

    steps: int = 10_000
    batch_size: int = 8
    accumulate: int = 1
    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 300
    clip: float = 2.0
    ema: float = 0.999
    patience: int = 0
    validate_every: int = 1000
    validation_crops: int = 32
    checkpoint_every: int = 200
    log_every: int = 20
    workers: int = 1
    amp: str = "bf16"
    sync_norm: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "validate_every", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise NucSegError(f"loop.{name}={getattr(self, name)} is too small; it must be at least 1.")
        for name in ("warmup", "patience", "validation_crops", "workers", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise NucSegError(f"loop.{name}={getattr(self, name)} is too small; it must be at least 0.")
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise NucSegError(f"loop.{name}={getattr(self, name)} is too small; it must be above 0.")
        if not 0 <= self.ema < 1:
            raise NucSegError(f"loop.ema={self.ema} must be from 0 (no average) to below 1.")
        precision(self.amp)
