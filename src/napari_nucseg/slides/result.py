"""The saved result of a whole slide: looked at in parts, and parts of it reviewed and put back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.nuclei import CLASS_COLOURS
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import replacing
from napari_nucseg.slides.centres import Centres
from napari_nucseg.slides.patch import merged, renumbered, stage_levels, stage_table
from napari_nucseg.slides.table_file import TableFile, find_table
from napari_nucseg.slides.transaction import Transaction, is_half_done, is_unsettled, settle
from napari_nucseg.slides.workdir import WorkFolder

if TYPE_CHECKING:
    import pandas as pd

LABELS, SUMMARY, REVIEWS = "labels.zarr", "summary.json", "reviews"
"""How the names of labels, summary and of the folder of reviews end."""

OUTDATED = ("nuclei.geojson", "instances.tif", "geojson")
"""Results that do not follow a review by themselves."""


@dataclass(frozen=True)
class Part:
    """A part of a result, to be reviewed.

    Attributes
    ----------
    place : Box
        Level 0.
    labels : uint32 (h, w)
        Nuclei that lie wholly in it.
    nuclei : DataFrame
        Their rows, sorted by id; positions in pixels of the slide.
    foreign : uint32 (m,)
        Ids of nuclei that the place cuts: they are not in `labels`, and stay as they are.
    next_id : int
        From here on ids are free.
    """

    place: Box
    labels: NDArray[np.uint32]
    nuclei: pd.DataFrame
    foreign: NDArray[np.uint32]
    next_id: int


@dataclass(frozen=True)
class Put:
    """What came of putting a part back.

    Attributes
    ----------
    nuclei : int
        In the part now.
    before : int
        Before.
    lost : tuple of int
        Ids of nuclei for which there was no room, since nuclei that the border cuts are in their place.
    """

    nuclei: int
    before: int
    lost: tuple[int, ...] = ()


class SlideResult:
    """Labels, table and summary of a slide in a folder.

    Made by `open`. Reading is lazy and may happen in any thread.

    Attributes
    ----------
    folder : Path
    name : str
        Stem of the files.
    levels : list of zarr.Array
        Labels, the largest first.
    summary : dict
        See `napari_nucseg.slides.report.Summary`; empty where there is none.
    """

    def __init__(self, folder: Path, name: str, levels: list[Any], summary: dict[str, Any]) -> None:
        self.folder, self.name, self.levels, self.summary = folder, name, levels, summary

    @classmethod
    def open(cls, folder: str | Path, name: str | None = None) -> SlideResult:
        """Open the result in a folder.

        Parameters
        ----------
        folder : path
            Or the path of its ``*_labels.zarr`` or ``*_summary.json``.
        name : str, optional
            Stem of the files; may be left out where the folder holds one result.

        Raises
        ------
        NucSegError
            There is none, more than one, or its labels can't be read.
        """
        folder, name = locate(Path(folder), name)
        if is_unsettled(folder, name):
            try:
                with WorkFolder(folder, name):  # nobody is at it: a program was killed
                    settle(folder, name)
            except NucSegError:
                if is_half_done(folder, name):
                    raise
        return cls._read(folder, name)

    @classmethod
    def _read(cls, folder: Path, name: str) -> SlideResult:
        from napari_nucseg.io.omezarr import open_labels

        levels = open_labels(folder / f"{name}_{LABELS}")
        return cls(folder, name, levels, _read_json(folder / f"{name}_{SUMMARY}"))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of level 0."""
        height, width = self.levels[0].shape
        return int(height), int(width)

    @property
    def mpp(self) -> float | None:
        """Micrometres per pixel, as far as known."""
        value = self.summary.get("mpp")
        return float(value) if value else None

    @property
    def reviews(self) -> Path:
        """Folder of the reviews of parts of it; made when there is one."""
        return self.folder / f"{self.name}_{REVIEWS}"

    @cached_property
    def table(self) -> TableFile:
        """The table of nuclei."""
        return find_table(self.folder, self.name)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        known = list(self.summary.get("colours") or self.summary.get("classes") or ())
        columns = [c.removeprefix("prob_") for c in self.table.columns if c.startswith("prob_")]
        return tuple(dict.fromkeys([*columns, *known]))

    @property
    def colours(self) -> dict[str, tuple[int, int, int]]:
        """Colour of every class."""
        told = self.summary.get("colours") or {}
        spare = {name: CLASS_COLOURS[k % len(CLASS_COLOURS)] for k, name in enumerate(self.classes)}
        return {name: _rgb(told[name]) if name in told else spare[name] for name in self.classes}

    @cached_property
    def centres(self) -> Centres:
        """Columns of all nuclei, sorted by place; read when first asked for, which takes a second for a million."""
        wanted = ("id", "centre_y", "centre_x", "class", "score", "area_um2")
        return Centres(self.table.read(wanted), self.classes)

    @property
    def reviewed(self) -> list[Box]:
        """The places that were reviewed and put back, in that order."""
        return [Box(*map(int, entry["box"])) for entry in self.summary.get("reviewed", [])]

    def read_region(self, place: Box) -> Part:
        """Return a part of the result.

        Parameters
        ----------
        place : Box
            Level 0, inside the slide.
        """
        labels = self._labels(place)
        foreign = border_ids(labels, place, self.shape)
        labels[np.isin(labels, foreign)] = 0
        rows = self.table.rows(np.unique(labels[labels > 0]), place)
        strangers = np.setdiff1d(np.unique(labels[labels > 0]), rows["id"].to_numpy())
        labels[np.isin(labels, strangers)] = 0
        return Part(place, labels, rows, foreign, int(self.centres.ids.max(initial=0)) + 1)

    def put_back(
        self, place: Box, labels: NDArray[np.uint32], nuclei: pd.DataFrame, reviewed: Box | None = None
    ) -> Put:
        """Put a part that was read and reviewed in its place: all levels of the labels, the tables, the counts.

        What other programs have put back since this result was opened, or a run that has replaced it, is respected:
        nuclei whose ids are taken elsewhere in the slide by now get others.

        Parameters
        ----------
        place : Box
            As it was read.
        labels : uint32 (h, w)
            Ids as they were read; new nuclei have ids from `Part.next_id` on.
        nuclei : DataFrame
            Rows of all nuclei in `labels`, positions in pixels of the slide. Columns that the table lacks (state,
            origin) are added to it.
        reviewed : Box, optional
            What counts as reviewed, if that is less than the place.

        Raises
        ------
        NucSegError
            Shapes do not fit, someone else is writing the result, or it can't be written; then nothing has changed.
        """
        with WorkFolder(self.folder, self.name):
            settle(self.folder, self.name)
            now = self._read(self.folder, self.name)
            if now.summary == self.summary:
                now.__dict__["centres"] = self.centres
            put = now._put(place, labels, nuclei, reviewed or place)
            self._follow(self._read(self.folder, self.name))
        return put

    def _follow(self, now: SlideResult) -> None:
        """Be as the result is now; at no time without columns, which the window's thread would have to read."""
        columns = {name: getattr(now, name) for name in ("table", "classes", "centres")}
        self.levels, self.summary = now.levels, now.summary
        self.__dict__.update(columns)

    def _put(self, place: Box, labels: NDArray[np.uint32], nuclei: pd.DataFrame, reviewed: Box) -> Put:
        before = self._labels(place)
        if labels.shape != before.shape:
            raise NucSegError(f"Labels of {labels.shape} can't be put in a place of {before.shape} pixels.")
        foreign = border_ids(before, place, self.shape)
        old = np.setdiff1d(np.unique(before), np.append(foreign, 0))
        taken = np.setdiff1d(nuclei["id"].to_numpy(), old)
        labels, nuclei = renumbered(labels, nuclei, taken[np.isin(taken, self.centres.ids)], self.centres.ids)
        new, kept, lost = merged(before, foreign, labels, nuclei, place)
        with Transaction(self.folder, self.name) as change:
            stage_levels(change, self.folder / f"{self.name}_{LABELS}", self.levels, place, new)
            for table in self.table.all():
                stage_table(change, table, old, kept)
            summary = self._summary_after(reviewed, kept, old)
            change.path(f"{self.name}_{SUMMARY}").write_text(
                json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            change.commit()
        return Put(len(kept), len(old), tuple(int(i) for i in lost))

    def up_to_date(self, *endings: str) -> None:
        """Say that results which had been older than a review were written anew; by default the GeoJSON."""
        fresh = {f"{self.name}_{ending}" for ending in endings or ("nuclei.geojson", "geojson")}
        path = self.folder / f"{self.name}_{SUMMARY}"
        now = _read_json(path) or self.summary  # others may have put parts back
        self.summary = {**now, "outdated": [name for name in now.get("outdated", []) if name not in fresh]}
        with replacing(path) as draft:
            draft.write_text(json.dumps(self.summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _labels(self, place: Box) -> NDArray[np.uint32]:
        return np.ascontiguousarray(self.levels[0][place.slices], np.uint32)

    def _summary_after(self, place: Box, kept: pd.DataFrame, old: NDArray[np.integer]) -> dict[str, Any]:
        """Return the summary with counts as they are after a part was put back."""
        centres = self.centres
        gone = centres.kinds[np.isin(centres.ids, old)]
        names = [*centres.classes, None]
        counts = dict(zip(names, centres.counts().tolist(), strict=True))
        for kind in gone.tolist():
            counts[names[kind]] -= 1
        for name in kept["class"].tolist():
            counts[name if name in counts else None] = counts.get(name if name in counts else None, 0) + 1
        total = sum(counts.values())
        area = self.summary.get("area_mm2")
        box = [place.y0, place.y1, place.x0, place.x1]
        entry = {
            "box": box,
            "nuclei": len(kept),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        outdated = [f"{self.name}_{end}" for end in OUTDATED if (self.folder / f"{self.name}_{end}").exists()]
        return {
            **self.summary,
            "nuclei": total,
            "nuclei_per_mm2": round(total / area, 2) if area else 0.0,
            "classes": {name: n for name, n in counts.items() if name is not None and n},
            "reviewed": [e for e in self.summary.get("reviewed", []) if list(e["box"]) != box] + [entry],
            "outdated": outdated,
        }


def locate(path: Path, name: str | None = None) -> tuple[Path, str]:
    """Return folder and stem of a result, given its folder or one of its files.

    Raises
    ------
    NucSegError
        There is none, or more than one.
    """
    for ending in (f"_{LABELS}", f"_{SUMMARY}"):
        if path.name.endswith(ending):
            return path.parent, path.name.removesuffix(ending)
    if name is not None:
        return path, name
    try:
        stems = sorted(p.name.removesuffix(f"_{LABELS}") for p in path.glob(f"*_{LABELS}"))
    except OSError:
        stems = []
    if len(stems) != 1:
        some = f"the results {', '.join(stems)}" if stems else "no results (*_labels.zarr)"
        raise NucSegError(f"'{path}' holds {some}; choose the *_labels.zarr of one.")
    return path, stems[0]


def border_ids(labels: NDArray[np.uint32], place: Box, shape: tuple[int, int]) -> NDArray[np.uint32]:
    """Return the ids of nuclei that a place cuts, or may cut: those at its borders within the slide."""
    edges = [labels[:0, 0]]
    if place.y0 > 0:
        edges.append(labels[0])
    if place.y1 < shape[0]:
        edges.append(labels[-1])
    if place.x0 > 0:
        edges.append(labels[:, 0])
    if place.x1 < shape[1]:
        edges.append(labels[:, -1])
    found = np.unique(np.concatenate(edges)) if labels.size else np.zeros(0, np.uint32)
    return found[found > 0]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _rgb(colour: Any) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in colour)
    return red, green, blue
