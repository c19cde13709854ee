"""Weights on disk: safetensors with a card beside them. Loading never unpickles."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.card import Card
from napari_nucseg.models.registry import Model
from napari_nucseg.models.student import Student, StudentConfig

WEIGHTS, CARD = "weights.safetensors", "card.json"


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_checkpoint(folder: Path, student: Student, card: Card, half: bool = True) -> Card:
    """Write a student and its card to a folder.

    Parameters
    ----------
    folder : Path
        Made if missing; `weights.safetensors` and `card.json` in it are replaced.
    student : Student
    card : Card
        Its `network` and `sha256` are filled in.
    half : bool
        Store convolution kernels as float16 (statistics and biases stay float32).

    Returns
    -------
    Card
        The card as written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (t.half() if half and t.ndim > 1 and t.is_floating_point() else t).contiguous()
        for name, t in student.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(state, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes it private to its writer
    card = dataclasses.replace(card, network=student.config.to_dict(), sha256=sha256(folder / WEIGHTS))
    (folder / CARD).write_text(card.to_json(), encoding="utf-8")
    return card


def load_student(model: Model) -> Student:
    """Build the network of a model and load its weights, in evaluation mode with float32 parameters.

    Raises
    ------
    NucSegError
        The weights are missing, damaged (sha256), or do not fit the card.
    """
    path = model.weights
    if not path.is_file():
        raise NucSegError(f"Weights '{path}' are missing; a model is a folder with {WEIGHTS} and {CARD}.")
    if model.card.sha256 and sha256(path) != model.card.sha256:
        raise NucSegError(f"Weights '{path}' do not match the sha256 of their card; get the model anew.")
    student = Student(StudentConfig.from_dict(model.card.network))
    try:
        state = {name: t.to(torch.float32) for name, t in load_file(path).items()}
        missing, unexpected = student.load_state_dict(state, strict=False)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise NucSegError(f"Weights '{path}' cannot be loaded ({reason}); get the model anew.") from error
    lost = [name for name in missing if not name.endswith("num_batches_tracked")]
    if lost or unexpected:
        raise NucSegError(
            f"Weights '{path}' do not fit their card (first: {(lost + unexpected)[0]}); get them anew."
        )
    return student.eval()
