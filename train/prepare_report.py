"""The report of a preparation: ``report.json`` for programs, ``report.md`` for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.prepared import Row
from train.readers.sessions import UNREVIEWED

_MOST_LISTED = 200


@dataclass(frozen=True)
class Report:
    """What a preparation did.

    Attributes
    ----------
    source, format : str
    options : dict
        As the command was given them.
    rows : tuple of Row
        Images that were written.
    classes : tuple of str
    failures : tuple of str
        Images and files that were left out, one sentence each.
    remarks : tuple of str
        On the set as a whole.
    """

    source: str
    format: str
    options: Mapping[str, Any]
    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    failures: tuple[str, ...]
    remarks: tuple[str, ...]

    def summary(self) -> str:
        """Tell in one line what was written and what failed."""
        nuclei = sum(row.nuclei for row in self.rows)
        doubtful = sum(bool(row.warnings) for row in self.rows)
        text = f"{_number(len(self.rows), 'image')} "
        text += f"with {_number(nuclei, 'nucleus', 'nuclei')}" if nuclei else "without nuclei"
        if doubtful:
            text += f", {doubtful:,} of them with warnings"
        return f"{text}; {len(self.failures):,} left out." if self.failures else f"{text}; none left out."

    def counts(self, split: str | None = None) -> dict[str, int]:
        """Return nuclei per class, of a split or of all; ``(no class)`` last."""
        return _counts(self.rows, self.classes, split)

    def notes(self) -> dict[str, tuple[int, int]]:
        """Return what was decided or left out -> (how often, in how many images)."""
        totals: dict[str, tuple[int, int]] = {}
        for row in self.rows:
            for text, count in row.notes.items():
                before, images = totals.get(text, (0, 0))
                totals[text] = before + count, images + 1
        return totals

    @property
    def splits(self) -> list[str]:
        """Those that have images, in the order train, val, test."""
        there = {row.split for row in self.rows}
        return [name for name in ("train", "val", "test") if name in there]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both files; return their paths."""
        paths = folder / "report.md", folder / "report.json"
        paths[0].write_text(self.markdown(), encoding="utf-8")
        text = json.dumps(self.document(), indent=1, ensure_ascii=False)
        paths[1].write_text(text + "\n", encoding="utf-8")
        return paths

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON holds it."""
        images = [asdict(row) for row in self.rows]
        for image in images:
            if not math.isfinite(image["diameter_um"]):
                image["diameter_um"] = None
        return {
            "source": self.source,
            "format": self.format,
            "options": dict(self.options),
            "classes": list(self.classes),
            "splits": {
                split: {
                    "images": sum(row.split == split for row in self.rows),
                    "patients": len({row.group for row in self.rows if row.split == split}),
                    "nuclei": sum(row.nuclei for row in self.rows if row.split == split),
                    "classes": self.counts(split),
                }
                for split in self.splits
            },
            "failures": list(self.failures),
            "remarks": list(self.remarks),
            "images": images,
        }

    def markdown(self) -> str:
        """Return it as a page."""
        parts = [
            f"# {Path(self.source).name}\n\n{self.summary()}\n\nRead as `{self.format}` from `{self.source}`.",
            _table(["split", "images", "patients", "nuclei", *self._class_names()], self._split_rows()),
            _table(["measure", "least", "median", "greatest"], self._measures()),
        ]
        if self.failures:
            parts.append("## Left out\n\n" + _listed(self.failures))
        if self.remarks:
            parts.append("## Remarks\n\n" + _listed(self.remarks))
        if notes := self.notes():
            lines = [f"{count:,} {text} (in {_number(n, 'image')})" for text, (count, n) in notes.items()]
            parts.append("## Decisions\n\nWhat the reader left out or settled.\n\n" + _listed(lines))
        warned = [f"`{row.split}/{row.name}`: {'; '.join(row.warnings)}" for row in self.rows if row.warnings]
        if warned:
            parts.append(
                "## Warnings\n\nThese images were written, but deserve a look.\n\n" + _listed(warned)
            )
        return "\n\n".join(parts) + "\n"

    def _class_names(self) -> list[str]:
        return [*self.classes, "(no class)"] if self.classes else []

    def _split_rows(self) -> list[list[str]]:
        out = []
        for split, facts in self.document()["splits"].items():
            numbers = [facts["images"], facts["patients"], facts["nuclei"]]
            numbers += list(facts["classes"].values()) if self.classes else []
            out.append([split, *(f"{n:,}" for n in numbers)])
        return out

    def _measures(self) -> list[list[str]]:
        measures: dict[str, list[float]] = {
            "mpp (um/px)": [row.mpp for row in self.rows],
            "width (px)": [row.shape[1] for row in self.rows],
            "height (px)": [row.shape[0] for row in self.rows],
            "nuclei per image": [row.nuclei for row in self.rows],
            "median diameter (um)": [row.diameter_um for row in self.rows if math.isfinite(row.diameter_um)],
        }
        return [
            [name, *(f"{v:.4g}" for v in (min(values), float(np.median(values)), max(values)))]
            for name, values in measures.items()
            if values
        ]


def lacking(rows: Sequence[Row], classes: Sequence[str]) -> list[str]:
    """Tell which classes of the training images no validation image has."""
    if not any(row.split == "val" for row in rows):
        return []
    train, val = (_counts(rows, classes, split) for split in ("train", "val"))
    missing = [f"'{name}'" for name in classes if train[name] and not val[name]]
    return [
        f"No validation image has a nucleus of the class {name}, so that nothing tells how well it is learnt; try "
        "another --seed, or hold images with it out."
        for name in [" or ".join(missing)]
        if missing
    ]


def unreviewed(rows: Sequence[Row]) -> list[str]:
    """Tell of how many nuclei of reviews the training learns that they are background."""
    counts = {row.name: row.notes[UNREVIEWED] for row in rows if UNREVIEWED in row.notes}
    if not counts:
        return []
    nuclei, images = _number(sum(counts.values()), "nucleus", "nuclei"), _number(len(counts), "image")
    most = f" (most in '{max(counts, key=lambda name: counts[name])}')" if len(counts) > 1 else ""
    return [
        f"Nobody has reviewed {nuclei} of {images}{most}, which the training takes for background: review all, or take "
        "all as they are by --nuclei all."
    ]


def _counts(rows: Sequence[Row], classes: Sequence[str], split: str | None) -> dict[str, int]:
    totals = np.zeros(len(classes) + 1, np.int64)
    for row in rows:
        if split in (None, row.split):
            totals[: len(row.counts)] += np.array(row.counts, np.int64)
            totals[-1] += row.unknown
    return dict(zip((*classes, "(no class)"), totals.tolist(), strict=True))


def _number(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _listed(lines: Sequence[str]) -> str:
    text = "\n".join(f"- {line}" for line in lines[:_MOST_LISTED])
    more = len(lines) - _MOST_LISTED
    return f"{text}\n- and {more:,} more, see report.json" if more > 0 else text
