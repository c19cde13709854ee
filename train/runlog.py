"""The run folder: config, metrics as they come, checkpoints, curves."""

from __future__ import annotations

import csv
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import torch

from napari_nucseg.errors import NucSegError
from train import distributed

log = logging.getLogger(__name__)


def _first_line(error: Exception) -> str:
    """Return what an error says at first, or else what it is."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


class RunLog:
    """Write a training run to a folder.

    Files: ``config.json``, ``metrics.csv`` (long form: time, step, name, value; appended, so a kill loses
    nothing), ``last.pt`` (all that resuming needs), ``best.pt`` (averaged weights of the best validation so far),
    ``curves.png``. Of several training processes only the first writes; all may read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writes = distributed.rank() == 0

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NucSegError(
                f"Run folder '{self.folder}' cannot be made ({error.strerror}); give another one."
            ) from error

    def holds(self, *names: str) -> bool:
        """Return whether one of these files is there."""
        return any((self.folder / name).is_file() for name in names)

    def check(self) -> None:
        """Refuse a folder that holds other things than a run.

        Raises
        ------
        NucSegError
            It holds something, but no run.
        """
        if not self.folder.is_dir() or self.holds("config.json", "metrics.csv", "last.pt"):
            return
        if other := sorted(p.name for p in self.folder.iterdir() if not p.name.startswith(".")):
            raise NucSegError(
                f"Folder '{self.folder}' holds no run but '{other[0]}'; give a new or empty one."
            )

    def config(self, data: dict[str, Any]) -> None:
        """Write the configuration of this run."""
        if not self.writes:
            return
        self._make_folder()
        (self.folder / "config.json").write_text(json.dumps(data, indent=1))

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Append values measured at a step."""
        if not self.writes:
            return
        self._make_folder()
        path = self.folder / "metrics.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            if new:
                writer.writerow(["time", "step", "name", "value"])
            for name, value in values.items():
                writer.writerow([f"{time.time():.1f}", step, name, f"{value:.6g}"])

    def rewind(self, step: int, validated: bool = True) -> None:
        """Drop what was measured after a step, or in its validation unless `validated`: it is measured again."""
        path = self.folder / "metrics.csv"
        if not self.writes or not path.exists():
            return
        with path.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.reader(handle))

        def stays(row: list[str]) -> bool:
            last = step if validated or not row[2].startswith("val/") else step - 1
            return int(row[1]) <= last

        kept = rows[:1] + [row for row in rows[1:] if len(row) == 4 and stays(row)]
        with path.with_suffix(".tmp").open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows(kept)
        os.replace(path.with_suffix(".tmp"), path)

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a checkpoint so that a kill leaves either the old or the new one.

        Raises
        ------
        NucSegError
            It cannot be written: the disk is full, say.
        """
        if not self.writes:
            return
        self._make_folder()
        path = self.folder / name
        try:
            torch.save(state, path.with_suffix(".tmp"))
            os.replace(path.with_suffix(".tmp"), path)
        except (OSError, RuntimeError) as error:  # torch tells of a full disk by the latter
            raise NucSegError(
                f"Checkpoint '{path}' cannot be written ({_first_line(error)}); free space, then the same command goes "
                "on from the last whole checkpoint."
            ) from error

    def load(self, name: str) -> dict[str, Any] | None:
        """Read a checkpoint (tensors and plain values only), or None if there is none.

        Raises
        ------
        NucSegError
            It cannot be read.
        """
        path = self.folder / name
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file makes the reader stumble in many ways
            raise NucSegError(
                f"Checkpoint '{path}' cannot be read ({_first_line(error)}); put a copy in its place, or remove it to "
                "begin anew."
            ) from error
        if not isinstance(state, dict) or "average" not in state:
            raise NucSegError(f"'{path}' is no checkpoint of a run; give the folder of a run.")
        return state

    def curves(self) -> Path | None:
        """Draw every metric against the step into ``curves.png``; None without matplotlib or metrics.

        A loss in training and the same on validation crops share a panel.
        """
        path = self.folder / "metrics.csv"
        if not self.writes or not path.exists():
            return None
        from train.figures_curves import draw_curves, read_metrics
        from train.figures_style import save, style

        try:
            with style():
                figure = draw_curves({self.folder.name: read_metrics(path)}, width=300, across=5)
                return save(figure, self.folder / "curves.png", dpi=100)
        except NucSegError as error:  # no matplotlib, say; no reason to stop a training
            log.debug("no curves: %s", error)
            return None
