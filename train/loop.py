"""The one training loop: AdamW with warm-up and cosine, autocast, clipping, EMA, checkpoints, exact resume."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from napari_nucseg.errors import NucSegError
from train.crops import Crops, loader
from train.runlog import RunLog

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopConfig:
    """Length, optimiser and bookkeeping.

    Parameters
    ----------
    steps : int
        Optimiser steps of the whole run (the cosine ends there).
    batch_size : int
        Crops per step.
    lr, weight_decay : float
        Of AdamW, `lr` at its peak; norms and biases are not decayed.
    warmup : int
        Steps of the linear rise to `lr`.
    clip : float
        Largest norm of the gradient.
    ema : float
        Decay of the averaged weights, which are the ones validated and exported.
    validate_every, checkpoint_every, log_every : int
        In steps.
    workers : int
        Processes that make crops; 0 makes them in the training process. The crops do not depend on it.
    amp : str
        "bf16", "fp16" or "off".
    seed : int
        Of the initial weights and the crops.
    """

    steps: int = 10_000
    batch_size: int = 8
    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 300
    clip: float = 2.0
    ema: float = 0.999
    validate_every: int = 1000
    checkpoint_every: int = 200
    log_every: int = 20
    workers: int = 1
    amp: str = "bf16"
    seed: int = 0


def learning_rate(config: LoopConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to 1 % of the peak."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def parameter_groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Split parameters into decayed (matrices, kernels) and not (norms, biases)."""
    wanted = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in wanted if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in wanted if p.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def update_ema(average: nn.Module, current: nn.Module, decay: float) -> None:
    """Move the averaged state towards the current one; counters are copied."""
    theirs = current.state_dict()
    for name, mine in average.state_dict().items():
        if mine.is_floating_point():
            mine.lerp_(theirs[name], 1 - decay)
        else:
            mine.copy_(theirs[name])


def _precision(config: LoopConfig) -> torch.dtype | None:
    known = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}
    if config.amp not in known:
        raise NucSegError(f"loop.amp='{config.amp}' is not one of {', '.join(known)}.")
    return known[config.amp]


class Loop:
    """Train a task to the end of its schedule, from the last checkpoint of the run folder if there is one."""

    def __init__(
        self,
        task: nn.Module,
        crops: Crops,
        config: LoopConfig,
        run: RunLog,
        device: str,
        identity: dict[str, Any],
    ) -> None:
        self.config, self.crops, self.run, self.device = config, crops, run, torch.device(device)
        self.identity = identity
        self.task = task.to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.task).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.task, config.weight_decay), lr=config.lr, betas=(0.9, 0.99)
        )
        self.dtype = _precision(config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self.step = 0
        if (state := run.load("last.pt")) is not None:
            self._restore(state)

    def _state(self) -> dict[str, Any]:
        return {
            "task": self.task.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "identity": json.dumps(self.identity),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        before = json.loads(state["identity"])
        for key in sorted(before.keys() | self.identity.keys()):
            if before.get(key) != self.identity.get(key):
                raise NucSegError(
                    f"Run '{self.run.folder}' was begun with {key}={before.get(key)}, not {self.identity.get(key)}; "
                    "restore that, or give another run folder."
                )
        self.task.load_state_dict(state["task"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.run.rewind(self.step)
        log.info("resumed at step %d", self.step)

    def _train_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rate = learning_rate(self.config, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
        enabled = self.dtype is not None
        with torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=enabled):
            parts = self.task(batch)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(parts["total"]).backward()
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.task.parameters(), self.config.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        # early steps average over few weights, so that the start is forgotten soon
        update_ema(self.average, self.task, min(self.config.ema, (1 + self.step) / (10 + self.step)))
        self.step += 1
        return parts

    def fit(self, validate: Callable[[nn.Module], dict[str, float]]) -> None:
        """Run to `config.steps`; `validate` gets the averaged task and returns named figures."""
        size = self.config.batch_size
        self.task.train()
        batches = loader(self.crops, self.step * size, self.config.steps * size, size, self.config.workers)
        began, first = time.monotonic(), self.step
        recent: list[dict[str, float]] = []
        for batch in batches:
            recent.append({name: value.item() for name, value in self._train_step(batch).items()})
            last = self.step == self.config.steps
            if self.step % self.config.log_every == 0 or last:
                self._report({k: sum(r[k] for r in recent) / len(recent) for k in recent[0]}, began, first)
                recent = []
            if self.step % self.config.validate_every == 0 or last:
                self._validate(validate)
            if self.step % self.config.checkpoint_every == 0 or last:
                self.run.save("last.pt", self._state())

    def _report(self, means: dict[str, float], began: float, first: int) -> None:
        self.run.metrics(self.step, {f"train/{k}": v for k, v in means.items()})
        pace = (time.monotonic() - began) / (self.step - first)
        left = pace * (self.config.steps - self.step) / 60
        text = " ".join(f"{k} {v:.3f}" for k, v in means.items())
        log.info("step %d/%d  %s  %.2f s/step  ETA %.0f min", self.step, self.config.steps, text, pace, left)

    def _validate(self, validate: Callable[[nn.Module], dict[str, float]]) -> None:
        values = validate(self.average)
        self.run.metrics(self.step, {f"val/{k}": v for k, v in values.items()})
        log.info("validation at %d: %s", self.step, " ".join(f"{k} {v:.4f}" for k, v in values.items()))
        self.run.curves()
