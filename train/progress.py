"""Losses and pace of a training, as it goes on: for the log and ``metrics.csv``."""

from __future__ import annotations

import logging
import math
import time

import torch

from train.loop_config import LoopConfig
from train.runlog import RunLog
from train.step import Stopwatch

log = logging.getLogger(__name__)
SECONDS_TO_FIRST_LINE = 10.0


class Progress:
    """Report the mean losses every `log_every` steps, and the speed.

    Attributes
    ----------
    recent : list of dict
        Losses of the steps since the last report; saved, so that a resumed run reports the same.
    watch : Stopwatch
    """

    def __init__(self, config: LoopConfig, run: RunLog, device: torch.device) -> None:
        self.config, self.run, self.device = config, run, device
        self.recent: list[dict[str, float]] = []
        self.watch = Stopwatch()
        self.begin(0)

    def begin(self, step: int) -> None:
        """Take the time from here on."""
        self._first, self._began, self._spoken = step, time.monotonic(), False

    def tell(self, step: int, losses: dict[str, float]) -> None:
        """Take the losses of a step; NaN is not known, as those on labels of a batch that has none.

        The first word on the pace comes before the first report if the steps take long.
        """
        self.recent.append(losses)
        if step % self.config.log_every == 0 or step == self.config.steps:
            known = {k: [r[k] for r in self.recent if not math.isnan(r[k])] for k in losses}
            self._report(step, {k: sum(values) / len(values) for k, values in known.items() if values})
            self.recent = []
        elif not self._spoken and time.monotonic() > self._began + SECONDS_TO_FIRST_LINE:
            log.info("step %d/%d  %s", step, self.config.steps, self._pace(step))
        else:
            return
        self._spoken = True

    def _pace(self, step: int) -> str:
        pace = (time.monotonic() - self._began) / (step - self._first)
        return f"{pace:.2f} s/step  ETA {pace * (self.config.steps - step) / 60:.0f} min"

    def _report(self, step: int, means: dict[str, float]) -> None:
        speed = self.watch.read()
        text = " ".join(f"{k} {v:.3f}" for k, v in means.items())
        rate = f"{speed['images_per_s']:.1f} images/s ({100 * speed['data_wait']:.0f} % waiting for data)"
        if self.device.type == "cuda":
            speed["peak_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
            rate += f"  peak {speed['peak_gb']:.1f} GB"
        named = {f"train/{k}": v for k, v in means.items()} | {f"speed/{k}": v for k, v in speed.items()}
        self.run.metrics(step, named)
        log.info("step %d/%d  %s  %s  %s", step, self.config.steps, text, rate, self._pace(step))
