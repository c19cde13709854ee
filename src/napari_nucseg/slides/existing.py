"""What results of a slide there are already, and whether they are those that are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari_nucseg.slides.outputs import FORMATS, PARTS, SUMMARY
from napari_nucseg.slides.report import read_summary
from napari_nucseg.slides.workdir import half_placed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

State = Literal["complete", "incomplete", "other", "none"]
"""Of the results of a slide: all there; some missing or with tiles that failed; of other settings, or reviewed since
so that what is missing would not go with them; none at all."""


def result_path(folder: Path, stem: str, name: str) -> Path | None:
    """Return where the results of a format lie, None where there are none."""
    paths = [folder / f"{stem}_{FORMATS[name]}"] + ([folder / f"{stem}_{PARTS}"] if name == "geojson" else [])
    return next((path for path in paths if path.exists()), None)


def results_in(folder: Path, stem: str, formats: Iterable[str]) -> dict[str, Path]:
    """Return the results that are in a folder, without those which a run that was killed had begun to put in place."""
    unfinished = half_placed(folder, stem)
    found = {name: result_path(folder, stem, name) for name in formats}
    return {name: path for name, path in found.items() if path is not None and path.name not in unfinished}


def state_of(
    folder: Path, stem: str, formats: Iterable[str], fingerprint: str
) -> tuple[State, tuple[str, ...]]:
    """Compare the results in a folder with a request.

    Returns
    -------
    State
    tuple of str
        The formats that are still to be written.
    """
    formats = tuple(formats)
    there = results_in(folder, stem, formats)
    if not there:
        return "none", formats
    summary = read_summary(folder / f"{stem}_{SUMMARY}")
    if summary is None or summary.get("fingerprint") != fingerprint:
        return "other", ()
    if not summary.get("complete"):
        return "incomplete", formats
    if any(path.name not in summary.get("outputs", ()) for path in there.values()):
        return "other", ()
    missing = tuple(name for name in formats if name not in there)
    if missing and summary.get("reviewed"):
        return "other", ()
    return ("incomplete" if missing else "complete"), missing


def still_valid(folder: Path, stem: str, fingerprint: str) -> set[str]:
    """Return the names of the results in a folder that go with new ones of these settings, in formats of their own."""
    summary = read_summary(folder / f"{stem}_{SUMMARY}") or {}
    if summary.get("fingerprint") != fingerprint or not summary.get("complete") or summary.get("reviewed"):
        return set()
    return {name for name in summary.get("outputs", ()) if (folder / name).exists()}
