"""The run folder: config, metrics as they come, checkpoints, curves."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

from napari_nucseg.errors import NucSegError
from train import distributed


class RunLog:
    """Write a training run to a folder.

    Files: ``config.json``, ``metrics.csv`` (long form: time, step, name, value; appended, so a kill loses
    nothing), ``last.pt`` (all that resuming needs), ``best.pt`` (averaged weights of the best validation),
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
                f"Run folder '{self.folder}' cannot be made ({error.strerror}); give another one with run=FOLDER."
            ) from error

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
        with path.open("a", newline="") as handle:
            writer = csv.writer(handle)
            if new:
                writer.writerow(["time", "step", "name", "value"])
            for name, value in values.items():
                writer.writerow([f"{time.time():.1f}", step, name, f"{value:.6g}"])

    def rewind(self, step: int) -> None:
        """Drop what was measured after a step: a resumed run measures it again."""
        path = self.folder / "metrics.csv"
        if not self.writes or not path.exists():
            return
        with path.open(newline="") as handle:
            rows = list(csv.reader(handle))
        kept = rows[:1] + [row for row in rows[1:] if len(row) == 4 and int(row[1]) <= step]
        with path.with_suffix(".tmp").open("w", newline="") as handle:
            csv.writer(handle).writerows(kept)
        os.replace(path.with_suffix(".tmp"), path)

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a checkpoint so that a kill leaves either the old or the new one."""
        if not self.writes:
            return
        self._make_folder()
        path = self.folder / name
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def load(self, name: str) -> dict[str, Any] | None:
        """Read a checkpoint (tensors and plain values only), or None if there is none."""
        path = self.folder / name
        return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None

    def curves(self) -> Path | None:
        """Draw every metric against the step into ``curves.png``; None without matplotlib or metrics."""
        path = self.folder / "metrics.csv"
        try:
            import matplotlib

            matplotlib.use("Agg")
            import matplotlib.pyplot as plt
        except ImportError:
            return None
        if not self.writes or not path.exists():
            return None
        series: dict[str, list[tuple[float, float]]] = {}
        with path.open(newline="") as handle:
            for row in csv.DictReader(handle):
                series.setdefault(row["name"], []).append((float(row["step"]), float(row["value"])))
        columns = 4
        rows = -(-len(series) // columns)
        figure, axes = plt.subplots(rows, columns, figsize=(14, 2.4 * rows), squeeze=False)
        for axis in axes.flat[len(series) :]:
            axis.set_visible(False)
        for axis, (name, points) in zip(axes.flat, series.items(), strict=False):
            axis.plot(*zip(*points, strict=True), lw=1)
            axis.set_title(name, fontsize=9)
        figure.tight_layout()
        figure.savefig(self.folder / "curves.png", dpi=80)
        plt.close(figure)
        return self.folder / "curves.png"
