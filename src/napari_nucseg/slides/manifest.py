"""One row per slide of a cohort: what became of it."""

from __future__ import annotations

import csv
import datetime
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucseg import __version__
from napari_nucseg.io.atomic import replacing

if TYPE_CHECKING:
    from napari_nucseg.slides.report import Summary

NAME = "manifest.csv"
DONE, INCOMPLETE, FAILED = "done", "incomplete", "failed"


@dataclass(frozen=True)
class Row:
    """A slide in the manifest; empty where something is not known.

    Attributes
    ----------
    name, image : str
        Stem of the results, and the absolute path of the file.
    status : {"done", "incomplete", "failed"}
        Incomplete: some tiles failed and are blank.
    reason : str
        Why it failed, or what is missing.
    nuclei, area_mm2, nuclei_per_mm2, tiles, failed_tiles, damaged_places, seconds : str
        See `Summary`; the seconds are those of the last run from the slide's beginning to its end.
    workers, runtime, model, program, finished : str
    """

    name: str
    image: str
    status: str
    reason: str = ""
    nuclei: str = ""
    area_mm2: str = ""
    nuclei_per_mm2: str = ""
    tiles: str = ""
    failed_tiles: str = ""
    damaged_places: str = ""
    seconds: str = ""
    workers: str = ""
    runtime: str = ""
    model: str = ""
    program: str = __version__
    finished: str = ""

    @classmethod
    def of(cls, summary: Summary) -> Row:
        """Return the row of a slide that was segmented."""
        told = summary.versions
        return cls(
            summary.name,
            os.path.abspath(summary.image),
            DONE if summary.complete else INCOMPLETE,
            "; ".join(summary.complaints()),
            str(summary.nuclei),
            f"{summary.area_mm2:.6g}",
            f"{summary.nuclei_per_mm2:.6g}",
            str(summary.tiles),
            str(len(summary.failed)),
            str(len(summary.damaged)),
            f"{summary.seconds['total']:.1f}",
            " ".join(summary.workers),
            told["runtime"],
            f"{told['model name']} {told['model version']} {told['model sha256'][:12]}".strip(),
            finished=_now(),
        )

    @classmethod
    def failed(cls, name: str, image: str, reason: str) -> Row:
        """Return the row of a slide that could not be segmented."""
        return cls(name, os.path.abspath(image), FAILED, reason, finished=_now())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class Manifest:
    """``manifest.csv`` in the folder of the results, written after every slide; rows of other slides are kept.

    Parameters
    ----------
    folder : path
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def rows(self) -> dict[str, Row]:
        """Return what it says, by name; nothing where there is none yet or it cannot be read."""
        known = {f.name for f in fields(Row)}
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                told = [{k: v or "" for k, v in row.items() if k in known} for row in csv.DictReader(file)]
        except (OSError, ValueError, csv.Error):
            return {}
        return {row["name"]: Row(**row) for row in told if {"name", "image", "status"} <= set(row)}

    def put(self, row: Row) -> None:
        """Set the row of a slide; `NucSegError` where it cannot be written."""
        rows = {**self.rows(), row.name: row}
        with replacing(self.path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(rows[name]) for name in sorted(rows))
