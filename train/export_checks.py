"""What an export refuses before it writes anything: other people's folders, figures of another model, odd colours."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_nucseg.core.calibration import NEUTRAL
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.card import Card, Colour, as_colours
from napari_nucseg.models.checkpoint import CARD, WEIGHTS
from train.config import from_mapping
from train.formats import FORMATS

_FILES = {
    CARD,
    WEIGHTS,
    *(name for file, *_ in FORMATS.values() for name in (file, f"{Path(file).stem}.bin")),
}
"""Of a model; a folder of nothing else may be written to."""


@dataclasses.dataclass(frozen=True)
class CardTexts:
    """What a card file says: all that a run does not know of its model."""

    version: str
    title: str
    licence: str
    caution: str
    training_data: tuple[str, ...]
    cite: tuple[str, ...]
    colours: dict[str, Colour]
    weaknesses: tuple[str, ...] = ()


CARD_KEYS = tuple(
    field.name for field in dataclasses.fields(CardTexts) if field.default is dataclasses.MISSING
)
"""Without which there is no card."""


def card_texts(path: Path, classes: Sequence[str]) -> CardTexts:
    """Read a card file.

    Raises
    ------
    NucSegError
        It cannot be read, lacks something, or gives a colour to what is no class of the model.
    """
    try:
        texts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NucSegError(f"Card file '{path}' cannot be read: {error}.") from error
    if missing := [key for key in CARD_KEYS if key not in texts]:
        raise NucSegError(f"Card file '{path}' lacks '{missing[0]}'; a card needs {', '.join(CARD_KEYS)}.")
    try:
        if isinstance(texts["colours"], dict):
            texts["colours"] = as_colours(texts["colours"])
        found = from_mapping(CardTexts, texts)
    except NucSegError as error:
        raise NucSegError(f"Card file '{path}': {error}") from error
    for name in found.colours:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"its classes are {', '.join(classes)}."
            raise NucSegError(
                f"Card file '{path}' gives a colour to '{name}', which is no class of the model; {hint}"
            )
    return found


def check_place(folder: Path) -> None:
    """Raise if a folder holds something else than a model."""
    if folder.exists() and not folder.is_dir():
        raise NucSegError(f"'{folder}' is a file; give --out a folder.")
    names = {p.name for p in folder.iterdir() if not p.name.startswith(".")} if folder.is_dir() else set()
    if CARD not in names and (foreign := sorted(names - _FILES)):
        raise NucSegError(
            f"'{folder}' holds '{foreign[0]}' and no model; give --out a new or an empty folder, or one of a model."
        )


def check_replaced(folder: Path, run: str, classes: Sequence[str]) -> None:
    """Raise if a folder holds a model that was not made of this run."""
    if not (folder / CARD).is_file():
        return
    try:
        card = Card.read(folder / CARD)
        what, training = f"{card.name} {card.version}", card.training
        settings = training.get("config")
        made_of = settings.get("run") if isinstance(settings, Mapping) else None
        if made_of == run and card.classes == tuple(classes) and "compressed" not in training:
            return
    except NucSegError:
        what = "with a damaged card"
    raise NucSegError(
        f"'{folder}' holds another model, {what}; give another --out, or write over it by --replace."
    )


@dataclasses.dataclass(frozen=True)
class Exported:
    """What makes a model the one that figures are about.

    Attributes
    ----------
    run : Path
        The run or the checkpoint it is made of.
    weights : str
        See `train.loaded.weights_of`.
    sha256 : str
        Of the weights file that comes of it.
    thresholds : dict
        Of the decoder.
    """

    run: Path
    weights: str
    sha256: str
    thresholds: dict[str, Any]

    def check(self, report: Mapping[str, Any], path: Path) -> None:
        """Raise if a report of `train.evaluate` is not about this model, as far as it tells."""
        about = report.get("model")
        if not isinstance(about, Mapping):
            raise NucSegError(
                f"Metrics '{path}' don't say which model they are of; give a JSON file of train.evaluate."
            )
        if "weights" in about or "sha256" in about:
            same = self.weights == about.get("weights") or self.sha256 == about.get("sha256")
        else:  # of an earlier version
            told = Path(str(about.get("run")))
            same = told.resolve() == self.run.resolve()
        again = f"evaluate it anew by `python -m train.evaluate --model {self.run}`."
        if not same:
            what = about.get("run") or about.get("name")
            raise NucSegError(
                f"Metrics '{path}' are of other weights ('{what}') than those of '{self.run}'; {again}"
            )
        if _finding(report.get("thresholds", self.thresholds)) != _finding(self.thresholds):
            raise NucSegError(
                f"Metrics '{path}' were measured with other thresholds than '{self.run}' has now; {again}"
            )


def _finding(thresholds: Any) -> Any:
    """Return the settings without those that no figure depends on; earlier reports don't have them."""
    if not isinstance(thresholds, Mapping):
        return thresholds
    return {name: value for name, value in thresholds.items() if name not in NEUTRAL}


def read_reports(paths: Sequence[Path], model: Exported) -> dict[str, Any]:
    """Return the reports on a model by the data they are about, such as ``monuseg/test``.

    Raises
    ------
    NucSegError
        One cannot be read, is about another model, or two are about the same data.
    """
    out: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for path in paths:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NucSegError(f"Metrics '{path}' cannot be read: {error}.") from error
        if not isinstance(report, dict):
            raise NucSegError(f"Metrics '{path}' are no report; give a JSON file of train.evaluate.")
        model.check(report, path)
        data = str(report.pop("data", path.stem))
        if data in out:
            raise NucSegError(
                f"The reports '{files[data]}' and '{path}' are both of {data}; give one of them."
            )
        out[data], files[data] = report, path
    return out
