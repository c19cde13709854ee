"""Questions to the user. Nothing is overwritten before one of these was answered with "replace"."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QMessageBox


class Choice(Enum):
    """What to do with what exists already."""

    KEEP = "keep both"
    REPLACE = "replace"
    CANCEL = "cancel"


def ask_existing(parent: Any, name: str, count: int, edited: bool) -> Choice:
    """Ask what to do with the results of an earlier run.

    Parameters
    ----------
    name : str
        Of the Labels layer.
    count : int
        Nuclei in it.
    edited : bool
        Whether they were edited by hand.
    """
    warning = "\n\nThey were edited by hand: replacing them loses these edits." if edited else ""
    return _ask(
        parent,
        f"This image has results already: '{name}' with {count:,} nuclei.",
        f"Keep them beside the new ones, or replace them once the new run is complete?{warning}",
        "Keep both (new layers)",
        "Replace, edits are lost" if edited else "Replace",
    )


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
    cancel_button = box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(keep_button)
    box.setEscapeButton(cancel_button)
    box.exec()
    clicked = box.clickedButton()
    box.deleteLater()
    if clicked is keep_button:
        return Choice.KEEP
    return Choice.REPLACE if clicked is replace_button else Choice.CANCEL


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
