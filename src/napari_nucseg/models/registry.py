"""Find models: the shipped ones, those in the user's folder, and any path."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.card import Card

log = logging.getLogger(__name__)

DEFAULT = "he-student"
"""Name of the shipped model that "default" stands for."""

SHIPPED = Path(__file__).parent / "weights"


@dataclass(frozen=True, repr=False)
class Model:
    """A model on disk, not loaded: the path of its weights and its card."""

    weights: Path
    card: Card

    @property
    def name(self) -> str:
        """Name on the card."""
        return self.card.name

    def __repr__(self) -> str:
        return f"Model({self.card.name!r}, {self.card.version}, {', '.join(self.card.classes)}, {self.card.mpp} um/px)"

    def __str__(self) -> str:
        return f"{self.card.name} {self.card.version}"


def user_models() -> Path:
    """Return the folder in which users put models of their own (one folder per model)."""
    return user_data_path("napari-nucseg", appauthor=False) / "models"


def open_model(path: str | Path) -> Model:
    """Open a model given by path: a folder with weights.safetensors and card.json, or the weights file itself.

    Raises
    ------
    NucSegError
        There is no model at the path, such as a training run that was not exported yet, or its card cannot be read.
    """
    path = Path(path)
    weights = path / "weights.safetensors" if path.is_dir() else path
    run = path.parent if path.suffix == ".pt" else path
    if not weights.is_file() and (run / "config.json").is_file():
        raise NucSegError(
            f"'{path}' is the run of a training, not yet a model; make one of it by `python -m train.export --run "
            f"{run} --card CARD.toml --out my-model`."
        )
    if weights.suffix != ".safetensors" or not weights.is_file():
        raise NucSegError(
            f"'{path}' is not a model; give a folder with weights.safetensors and card.json, or a name from "
            "`napari-nucseg models`."
        )
    own = weights.with_suffix(".json")
    return Model(weights, Card.read(own if own.is_file() else weights.with_name("card.json")))


def available() -> dict[str, Model]:
    """Return all installed models by name, the default first; a damaged one in the user's folder is left out."""
    found: dict[str, Model] = {}
    for folder in (SHIPPED, user_models()):
        for card in sorted(folder.glob("*/card.json")) if folder.is_dir() else ():
            try:
                model = open_model(card.parent)
            except NucSegError as error:
                log.warning("a model is left out: %s", error)
                continue
            found.setdefault(model.name, model)
    return dict(sorted(found.items(), key=lambda item: (item[0] != DEFAULT, item[0])))


def find_model(name_or_path: str | Path = "default") -> Model:
    """Return a model by name ("default" is the shipped one) or by path.

    Raises
    ------
    NucSegError
        Neither a known name nor a model's path.
    """
    known = available()
    name = DEFAULT if str(name_or_path) == "default" else str(name_or_path)
    if name in known:
        return known[name]
    if isinstance(name_or_path, Path) or any(c in name for c in "/\\") or Path(name).exists():
        return open_model(name_or_path)
    raise NucSegError(
        f"Model '{name}' is not known; there are: {', '.join(known) or 'none'} (or give a path)."
    )
