"""Questions to the user. Nothing is overwritten before one of these was answered with "replace"."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QMessageBox, QPushButton


class Choice(Enum):
    """What to do with what exists already."""

    KEEP = "keep both"
    REPLACE = "replace"
    UPDATE = "update"
    RESUME = "resume"
    ANEW = "anew"
    CANCEL = "cancel"


def _nuclei(count: int) -> str:
    return "1 nucleus" if count == 1 else f"{count:,} nuclei"


def ask_existing(parent: Any, name: str, count: int, edited: str | None) -> Choice:
    """Ask what to do with the results of an earlier run.

    Parameters
    ----------
    name : str
        Of the Labels layer.
    count : int
        Nuclei in it.
    edited : str or None
        If they were edited by hand: why a run can't keep these edits.
    """
    warning = f"\n\nThey were edited by hand: replacing them loses these edits. {edited}" if edited else ""
    return _ask(
        parent,
        f"This image has results already: '{name}' with {count:,} nuclei.",
        f"Keep them beside the new ones, or replace them once the new run is complete?{warning}",
        "Keep both (new layers)",
        "Replace, edits are lost" if edited else "Replace",
    )


def ask_update(parent: Any, name: str, count: int, reviewed: int) -> Choice:
    """Ask what to do with the results of an earlier run that a person has reviewed, in part or wholly.

    Parameters
    ----------
    name : str
        Of the Labels layer.
    count : int
        Nuclei in it.
    reviewed : int
        How many of them were accepted, edited, drawn or rejected.
    """
    box = QMessageBox(
        QMessageBox.Icon.Question,
        "NucSeg",
        f"You have reviewed {_nuclei(reviewed)} in '{name}', which holds {count:,}.",
        QMessageBox.StandardButton.NoButton,
        parent,
    )
    box.setInformativeText("Keep these as they are, and only find the rest anew? It can be undone.")
    update = box.addButton("Update: keep what you have reviewed", QMessageBox.ButtonRole.AcceptRole)
    keep = box.addButton("Keep both (new layers)", QMessageBox.ButtonRole.ActionRole)
    return _answer(box, update, {update: Choice.UPDATE, keep: Choice.KEEP})


def ask_slide(parent: Any, folder: Path, count: int, reviewed: int) -> Choice:
    """Ask what to do with the results of a whole slide that are in a folder already.

    Parameters
    ----------
    count : int
        Nuclei in them.
    reviewed : int
        Regions of the slide that were reviewed.
    """
    text = f"'{folder}' holds results of this slide already, with {_nuclei(count)}."
    box = QMessageBox(QMessageBox.Icon.Question, "NucSeg", text, QMessageBox.StandardButton.NoButton, parent)
    regions = "1 region" if reviewed == 1 else f"{reviewed:,} regions"
    stay = "it is kept as it is" if reviewed == 1 else "these are kept as they are"
    kept = f"You have reviewed {regions} of it; {stay}. " if reviewed else ""
    box.setInformativeText(f"Show them, or segment the slide again? {kept}")
    show = box.addButton("Show these results", QMessageBox.ButtonRole.AcceptRole)
    words = f"Segment again, keep {regions}" if reviewed else "Segment again, replace them"
    again = box.addButton(words, QMessageBox.ButtonRole.DestructiveRole)
    return _answer(box, show, {show: Choice.RESUME, again: Choice.UPDATE if reviewed else Choice.REPLACE})


def ask_result(parent: Any) -> Path | None:
    """Ask for the results of a slide; None if the user cancels."""
    path, _ = QFileDialog.getOpenFileName(
        parent, "Results of a slide", "", "Results of a slide (*_summary.json)"
    )
    return Path(path) if path else None


def ask_resume(parent: Any, folder: Path) -> Choice:
    """Ask whether to go on with a review that was saved, instead of beginning another one of the same image."""
    box = QMessageBox(
        QMessageBox.Icon.Question,
        "NucSeg",
        f"A review of this image was saved in '{folder.name}'.",
        QMessageBox.StandardButton.NoButton,
        parent,
    )
    box.setInformativeText("Go on with it, or begin another one beside it? The saved one stays as it is.")
    resume = box.addButton("Resume the saved review", QMessageBox.ButtonRole.AcceptRole)
    anew = box.addButton("Begin another one", QMessageBox.ButtonRole.ActionRole)
    return _answer(box, resume, {resume: Choice.RESUME, anew: Choice.ANEW})


def ask_files(parent: Any, paths: list[Path]) -> Choice:
    """Ask what to do with result files that exist already."""
    names = "\n".join(path.name for path in paths)
    return _ask(
        parent,
        f"{paths[0].parent} holds these files already:",
        f"{names}\n\nKeep them and save under a new name, or replace them?",
        "Keep both (new names)",
        "Replace",
    )


def _ask(parent: Any, text: str, details: str, keep: str, replace: str) -> Choice:
    box = QMessageBox(QMessageBox.Icon.Question, "NucSeg", text, QMessageBox.StandardButton.NoButton, parent)
    box.setInformativeText(details)
    keep_button = box.addButton(keep, QMessageBox.ButtonRole.AcceptRole)
    replace_button = box.addButton(replace, QMessageBox.ButtonRole.DestructiveRole)
    return _answer(box, keep_button, {keep_button: Choice.KEEP, replace_button: Choice.REPLACE})


def _answer(box: QMessageBox, default: QPushButton, choices: dict[QPushButton, Choice]) -> Choice:
    """Show a question and return what the button stands for; with Cancel and Esc nothing is done."""
    box.setEscapeButton(box.addButton(QMessageBox.StandardButton.Cancel))
    box.setDefaultButton(default)
    box.exec()
    clicked = box.clickedButton()
    box.deleteLater()
    return choices.get(clicked, Choice.CANCEL)


def ask_retype(parent: Any, count: int, old: str, new: str) -> bool:
    """Ask before all nuclei of one class are given another."""
    some = "1 nucleus" if count == 1 else f"all {count:,} nuclei"
    box = QMessageBox(QMessageBox.Icon.Question, "NucSeg", f"Change {some} of '{old}' to '{new}'?")
    box.setParent(parent, box.windowFlags())
    box.setInformativeText("It counts as reviewed then. Undo takes it back in one step.")
    yes = box.addButton("Change", QMessageBox.ButtonRole.AcceptRole)
    box.setDefaultButton(yes)
    box.setEscapeButton(box.addButton(QMessageBox.StandardButton.Cancel))
    box.exec()
    clicked = box.clickedButton()
    box.deleteLater()
    return bool(clicked is yes)


def ask_folder(parent: Any, title: str) -> Path | None:
    """Ask for a folder; None if the user cancels."""
    folder = QFileDialog.getExistingDirectory(parent, title)
    return Path(folder) if folder else None


def ask_geojson(parent: Any) -> Path | None:
    """Ask for a GeoJSON file; None if the user cancels."""
    path, _ = QFileDialog.getOpenFileName(
        parent,
        "Nuclei from QuPath (File > Export objects as GeoJSON)",
        "",
        "GeoJSON (*.geojson *.json *.geojson.gz *.json.gz *.zip)",
    )
    return Path(path) if path else None


def ask_salvage(parent: Any, sentence: str) -> bool:
    """Ask whether to rescue what can be read of a damaged review."""
    answer = QMessageBox.question(
        parent,
        "NucSeg",
        f"{sentence}\n\nRescue what can be read into a new review? The damaged one stays as it is.",
    )
    return bool(answer == QMessageBox.StandardButton.Yes)
