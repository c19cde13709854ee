"""The one training loop: AdamW with warm-up and cosine, autocast, accumulation, clipping, EMA, exact resume.

It runs in one process or, under ``torchrun``, in several: each takes its share of every step's crops, gradients are
averaged (`torch.nn.parallel.DistributedDataParallel`), process 0 alone writes.

What several processes change
    Crops: nothing. A step of N processes with batch b sees the crops of one process with batch N * b.
    Losses: nothing, where they are means over crops or built on `distributed.total`.
    Batch norm: on CUDA with ``sync_norm`` nothing (the statistics are those of all processes' crops). Without it, and
    on the CPU, each process normalises by its own b crops, and the running statistics kept are those of process 0.
What accumulation changes
    A step is the mean over its parts of b crops: a loss which is a ratio over the batch (Dice) is taken per part, and
    so are the statistics of batch norm.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from napari_nucseg.errors import NucSegError
from train import distributed
from train.best import Best
from train.crops import Batch, close, loader
from train.identity import LATER
from train.interrupt import Interrupt, Stopped
from train.loop_config import LoopConfig
from train.loop_words import difference, figures_in_short, where_it_goes_on
from train.optim import learning_rate, native_precision, parameter_groups, precision, update_ema
from train.progress import Progress
from train.runlog import RunLog
from train.step import Losses, seed_part

__all__ = ["Loop", "LoopConfig"]
log = logging.getLogger(__name__)
SECONDS_BETWEEN_CURVES = 60.0
BAD_STEPS = 20
"""Steps in a row whose gradient may overflow in fp16: by then the scale has come down from 2^16 to below 1."""


class Loop:
    """Train a task to the end of its schedule, from the last checkpoint of the run folder if there is one.

    Parameters
    ----------
    task : nn.Module
        ``task(batch) -> dict of scalar losses`` with ``total``, which depends on all of its parameters in every step.
        It is moved to the device and trained in place.
    crops : Dataset of Batch
        What is trained on.
    config : LoopConfig
    run : RunLog
        The run folder.
    device : str
        "cpu", "cuda" (each process its own) or one device.
    identity : dict
        What makes the run the one it is; going on with another is refused.
    held : Dataset of Batch, optional
        Validation images as crops, for the losses ``val/loss_*``.

    Raises
    ------
    NucSegError
        The run folder holds a run of another identity, or one that `train.average` wrote.
    """

    def __init__(
        self,
        task: nn.Module,
        crops: Dataset[Batch],
        config: LoopConfig,
        run: RunLog,
        device: str,
        identity: dict[str, Any],
        held: Dataset[Batch] | None = None,
    ) -> None:
        self.config, self.crops, self.held, self.run = config, crops, held, run
        self.device = distributed.join(device)
        self.rank, self.world = distributed.rank(), distributed.world()
        self.crops_per_step = config.batch_size * config.accumulate * self.world
        self.identity = {**identity, "crops per step": self.crops_per_step}
        self.task = task.to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.task).eval().requires_grad_(False)
        self.model = self._parallel()
        self.average.load_state_dict(self.task.state_dict())
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.task, config.weight_decay), lr=config.lr, betas=(0.9, 0.99)
        )
        dtype = precision(config.amp)
        if dtype is torch.bfloat16 and native_precision(self.device) is not dtype:
            better = "fp16" if self.device.type == "cuda" else "off"
            log.warning("loop.amp=bf16 may be slow on this device (%s); try loop.amp=%s", self.device, better)
        self.losses = Losses(self.device, dtype)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype is torch.float16)
        if config.warmup >= config.steps:
            log.warning(
                "loop.warmup=%d leaves none of loop.steps=%d at loop.lr=%g; lower it",
                config.warmup, config.steps, config.lr,
            )  # fmt: skip
        self.best, self.progress = Best(config.patience), Progress(config, run, self.device)
        self.step = self._bad = 0
        self.validated = -1  # step of the last validation
        self.saved: int | None = None  # step of the last checkpoint
        self._drawn = time.monotonic()
        self._restore(run.load("last.pt"))

    def _parallel(self) -> nn.Module:
        """Return what a training step calls: the task itself, or the task with its gradients averaged."""
        if self.world == 1:
            return self.task
        if self.config.sync_norm and self.device.type == "cuda":
            self.task = nn.SyncBatchNorm.convert_sync_batchnorm(self.task)
        return DistributedDataParallel(
            self.task, device_ids=[self.device] if self.device.type == "cuda" else None
        )

    def _state(self) -> dict[str, Any]:
        return {
            "task": self.task.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": self.best.state(),
            "step": self.step,
            "validated": self.validated,
            "recent": self.progress.recent,
            "identity": json.dumps(self.identity),
        }

    def _save(self) -> None:
        self.run.save("last.pt", self._state())
        self.saved = self.step

    def _restore(self, state: dict[str, Any] | None) -> None:
        if len(set(distributed.gathered(state and state["step"]))) > 1:
            raise NucSegError(
                f"Run '{self.run.folder}' is not the same for every process; put it where all machines see it."
            )
        if state is None:
            if self.run.holds("config.json"):
                log.info("run '%s' has no checkpoint yet: it begins anew", self.run.folder)
            self.run.rewind(0, validated=False)
            return
        if "identity" not in state:
            raise NucSegError(
                f"Run '{self.run.folder}' was averaged from others and has no training to go on with; give another run "
                "folder, and train.export the average to begin with it (begin=)."
            )
        before = json.loads(state["identity"])
        for key in sorted(before.keys() | self.identity.keys()):
            was, now = before.get(key), self.identity.get(key)
            # an earlier version had no such setting, and it is off or concerns what that version did not have
            if key not in before and (not now or key in LATER):
                continue
            if was != now:
                raise NucSegError(
                    f"Run '{self.run.folder}' was begun with {difference(key, was, now)}; restore that, or give "
                    "another run folder."
                )
        self.task.load_state_dict(state["task"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.best.restore(state["best"])
        self.step = self.saved = state["step"]
        self.validated, self.progress.recent = state["validated"], state["recent"]
        self.run.rewind(self.step, self.validated == self.step)
        log.info("goes on at step %d of %d", self.step, self.config.steps)

    def _gradients(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Leave the gradients of the next step in the parameters; return its mean losses over all processes."""
        parts = self.config.accumulate
        self.optimiser.zero_grad(set_to_none=True)
        seen: list[torch.Tensor] = []
        names: list[str] = []
        for part in range(parts):
            batch = self.progress.watch.waiting(batches)
            seed_part(self.config.seed, self.step, part, self.rank)
            waits = isinstance(self.model, DistributedDataParallel) and part < parts - 1
            # the processes exchange gradients once a step, with its last part
            with self.model.no_sync() if waits else nullcontext(), distributed.joint():
                losses = self.losses(self.model, batch)
                self.scaler.scale(losses["total"] / parts).backward()
            names = list(losses)
            seen.append(torch.stack([losses[name].detach().float() for name in names]))
        return dict(zip(names, distributed.known_mean(torch.stack(seen), names.index("total")), strict=True))

    def _train_step(self, batches: Iterator[Batch]) -> dict[str, float]:
        began = time.perf_counter()
        c = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(c.lr, c.warmup, c.steps, self.step)
        kept = [b.clone() for b in self._statistics()]
        losses = self._gradients(batches)
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.task.parameters(), c.clip)
        self._check(losses["total"], norm.item())
        if not math.isfinite(
            losses["total"]
        ):  # what overflowed has gone into batch norm, and would stay there
            for own, before in zip(self._statistics(), kept, strict=True):
                own.copy_(before)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        # early steps average over few weights, so that the start is forgotten soon
        update_ema(self.average, self.task, min(c.ema, (1 + self.step) / (10 + self.step)))
        self.step += 1
        self.progress.watch.add(time.perf_counter() - began, self.crops_per_step)
        return losses

    def _statistics(self) -> list[torch.Tensor]:
        """Return what a forward pass changes and fp16 can spoil; nothing in other precisions, which stop the run."""
        fp16 = self.scaler.is_enabled()
        return [b for b in self.task.buffers() if b.is_floating_point()] if fp16 else []

    def _check(self, total: float, norm: float) -> None:
        """Refuse to go on, and to overwrite a good checkpoint, with weights that are no numbers.

        In fp16 the scaler leaves out steps whose gradient is none.
        """
        self._bad = 0 if math.isfinite(total) and math.isfinite(norm) else self._bad + 1
        if self._bad > (BAD_STEPS if self.scaler.is_enabled() else 0):
            what, value = ("gradient's norm", norm) if math.isfinite(total) else ("loss", total)
            raise NucSegError(
                f"The {what} at step {self.step} is {value}; lower loop.lr, or set loop.amp=off, and train anew in "
                "another run folder."
            )

    @property
    def finished(self) -> bool:
        """Whether the schedule, or patience, is at its end."""
        return self.step >= self.config.steps or self.best.exhausted

    def fit(self, validate: Callable[[nn.Module], dict[str, float]], at_start: bool = False) -> None:
        """Run to `config.steps`, or until patience ends; `validate` gets the averaged task and returns figures.

        Every process calls `validate` (it may share the images out among them), what process 0 gets is used.

        Parameters
        ----------
        validate : callable
        at_start : bool
            Validate before the first step too: of weights that are trained already.

        Raises
        ------
        Stopped
            On demand, see `train.interrupt`: all processes after the same step, which is saved.
        """
        c, per_step = self.config, self.crops_per_step
        self.task.train()
        batches = iter(
            loader(self.crops, self.step * per_step, c.steps * per_step, c.batch_size, c.workers, self._share,
                   self.device.type == "cuda")
        )  # fmt: skip
        self.progress.begin(first := self.step)
        with Interrupt(speaks=self.rank == 0) as interrupt:
            try:
                if self.step or at_start:
                    self._validate_if_due(validate)
                while not self.finished:
                    losses = self._train_step(batches)
                    self.progress.tell(self.step, losses)
                    if distributed.anyone(interrupt.wanted, self.device):
                        self._save()
                        distributed.wait()  # torchrun ends them all when one has ended
                        raise Stopped(where_it_goes_on(self.step, c.steps, self.saved))
                    if not self._validate_if_due(validate) and self.step % c.checkpoint_every == 0:
                        self._save()
                if self.step > first:
                    self._draw()
            except KeyboardInterrupt as error:
                raise Stopped(where_it_goes_on(self.step, c.steps, self.saved)) from error
            finally:
                close(batches)

    @property
    def _share(self) -> tuple[int, int]:
        return self.rank, self.world

    def _validate_if_due(self, validate: Callable[[nn.Module], dict[str, float]]) -> bool:
        due = self.step % self.config.validate_every == 0 or self.step == self.config.steps
        if not due or self.validated == self.step:
            return False
        if self.step:  # a validation may take long: whatever ends it, no step is lost
            self._save()
        self._validate(validate)
        self._save()
        return True

    def _validate(self, validate: Callable[[nn.Module], dict[str, float]]) -> None:
        # without `sync_norm` the running statistics of batch norm are each process' own
        distributed.share(self.average.buffers())
        values = {**validate(self.average), **self._held_losses()}
        values = distributed.from_lead(values)
        self.run.metrics(self.step, {f"val/{k}": v for k, v in values.items()})
        better = self.best.update(self.step, values)
        best = " (best so far)" if better and self.step else ""
        log.info("validation at %d: %s%s", self.step, figures_in_short(values), best)
        if better:
            about = {
                "step": self.step,
                self.best.figure: self.best.value,
                "identity": json.dumps(self.identity),
            }
            self.run.save("best.pt", {"average": self.average.state_dict(), **about})
        self.validated = self.step
        if time.monotonic() > self._drawn + SECONDS_BETWEEN_CURVES:
            self._draw()

    def _draw(self) -> None:
        self.run.curves()
        self._drawn = time.monotonic()

    def _held_losses(self) -> dict[str, float]:
        if self.held is None or not self.config.validation_crops:
            return {}
        size = min(self.config.batch_size, self.config.validation_crops)
        count = self.config.validation_crops // size * size
        batches = loader(self.held, 0, count, size, 0, self._share)
        return {f"loss_{k}": v for k, v in self.losses.mean(self.average, batches).items()}
