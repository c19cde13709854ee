"""What results of a slide there are already, and whether they are those that are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from napari_nucseg.slides.outputs import FORMATS, PARTS, SUMMARY
from napari_nucseg.slides.report import read_summary
from napari_nucseg.slides.workdir import half_placed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

State = Literal["complete", "incomplete", "other", "reviewed", "none"]
"""Of the results of a slide: all there; some missing or with tiles that failed; of other settings; some missing that
would not go with the others, which were reviewed since; none at all."""


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
    folder: Path, stem: str, formats: Iterable[str], fingerprint: str, runtime: str
) -> tuple[State, tuple[str, ...]]:
    """Compare the results in a folder with a request.

    Parameters
    ----------
    folder, stem, formats
    fingerprint : str
        Of the settings, see `napari_nucseg.slides.prepare.asked`.
    runtime : str
        What would compute. Another one rounds otherwise, so it does not add a format to results that are there.

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
    if any(path.name not in summary.get("outputs", ()) for path in there.values()):
        return "other", ()
    missing = tuple(name for name in formats if name not in there)
    if summary.get("complete") and not missing:
        return "complete", ()
    if summary.get("reviewed"):
        return "reviewed", ()
    return "incomplete", missing if _go_on(summary, fingerprint, runtime) else formats


def still_valid(folder: Path, stem: str, fingerprint: str, runtime: str) -> set[str]:
    """Return the names of the results in a folder that go with new ones, in other formats, of these settings."""
    summary = read_summary(folder / f"{stem}_{SUMMARY}")
    if summary is None or not _go_on(summary, fingerprint, runtime):
        return set()
    return {name for name in summary.get("outputs", ()) if (folder / name).exists()}


def _go_on(summary: dict[str, Any], fingerprint: str, runtime: str) -> bool:
    """Return whether new results are the same as those of a summary."""
    return (
        summary.get("fingerprint") == fingerprint
        and summary.get("versions", {}).get("runtime") == runtime
        and bool(summary.get("complete"))
        and not summary.get("reviewed")
    )
