"""Make a model that the plugin, or another program, can use.

  python -m train.export --run runs/student --card CARD.toml --out my-model          (from a run: weights and card)
  python -m train.export --run runs/student --card CARD.toml --out my-model --formats onnx openvino torchscript
  python -m train.export --model default --out converted --formats onnx              (from a model)

Every converted file is run beside the network on noise and on tissue, and refused if it differs. It takes rgb (N, H,
W, 3) uint8, sides multiples of 16, at the resolution on the card, and gives maps (N, channels, H, W) float32.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nucseg.core.nuclei import CLASS_COLOURS
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.card import Card, Colour
from napari_nucseg.models.checkpoint import save_checkpoint
from napari_nucseg.models.registry import Model, find_model, open_model
from napari_nucseg.models.student import Student
from train.config import from_mapping, to_mapping
from train.flags import run_flags
from train.formats import FORMATS, write_formats
from train.loaded import chosen_of, decode_of
from train.runlog import RunLog
from train.runs import checkpoint_of, draft_card, load_run, run_folder


@dataclass(frozen=True)
class CardTexts:
    """What a card file says: all that a run does not know of its model."""

    version: str
    title: str
    licence: str
    caution: str
    training_data: tuple[str, ...]
    cite: tuple[str, ...]
    colours: dict[str, Colour]


CARD_KEYS = tuple(field.name for field in dataclasses.fields(CardTexts))


@dataclass(frozen=True)
class ExportConfig:
    """What to export where.

    Parameters
    ----------
    out : Path
        Model folder to write; the model of a run goes by its name.
    run : Path, optional
        Folder of a run that trained a student, or a checkpoint in it such as runs/student/best.pt.
    card : Path, optional
        TOML with what a run does not know: version, title, licence, caution, training data, citations, colours.
    metrics : tuple of Path
        JSON files of train.evaluate, put on the card under the name of their data.
    model : str, optional
        Instead of a run: name or path of a model to convert.
    formats : tuple of str
        Any of "onnx", "openvino", "torchscript".
    limit : float
        Largest difference of any map from the network's own, above which a converted file is refused.
    """

    out: Path
    run: Path | None = None
    card: Path | None = None
    metrics: tuple[Path, ...] = ()
    model: str | None = None
    formats: tuple[str, ...] = ()
    limit: float = 1e-3


def export(run: Path, card_file: Path, out: Path, metrics: Sequence[Path] = ()) -> Card:
    """Write the averaged weights of a run and their card.

    Parameters
    ----------
    run : Path
        Folder of a run of a student, or a checkpoint in it; its ``decode.json`` (of `train.thresholds`) is put on
        the card if there is one.
    card_file : Path
        TOML with what the run does not know: licence, training data ...
    out : Path
        Model folder to write; the model goes by the folder's name.
    metrics : Paths
        JSON files of `train.evaluate`, put on the card under the name of their data.

    Raises
    ------
    NucSegError
        The run holds no checkpoint, or the card file is incomplete.
    """
    config, task = load_run(run)
    texts = _card_texts(card_file)
    colours = _colours(config.data.classes, texts.colours)
    student = task.network
    if not isinstance(student, Student):
        raise NucSegError(f"Run '{run}' did not train a student; export takes students only.")
    if task.without:
        raise NucSegError(
            f"Run '{run}' did without the map '{task.without[0]}', which the plugin needs; train anew."
        )
    folder = run_folder(run)
    state = RunLog(folder).load(checkpoint_of(run, config).name) or {}
    card = dataclasses.replace(
        draft_card(config, task),
        decode=decode_of(folder),
        training={
            "steps": state.get("step"),
            "config": to_mapping(config),
            "thresholds": chosen_of(folder),
        },
        metrics=_reports(metrics),
        name=out.resolve().name,
        **{**vars(texts), "colours": colours},
    )
    return save_checkpoint(out, student, card)


def _reports(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the reports by the data they are about, such as ``monuseg/test``."""
    out: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for path in paths:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NucSegError(f"Metrics '{path}' cannot be read: {error}.") from error
        if not isinstance(report, dict):
            raise NucSegError(f"Metrics '{path}' are no report; give a JSON file of train.evaluate.")
        data = str(report.pop("data", path.stem))
        if data in out:
            raise NucSegError(
                f"The reports '{files[data]}' and '{path}' are both of {data}; give one of them."
            )
        out[data], files[data] = report, path
    return out


def _colours(classes: Sequence[str], given: dict[str, Colour]) -> dict[str, Colour]:
    """Return a colour for every class: the given one, else the shipped model's of that name, else a spare one."""
    shipped = find_model().card.colours
    out = {name: given.get(name) or shipped.get(name) for name in classes}
    spare = itertools.cycle([c for c in CLASS_COLOURS if c not in out.values()] or CLASS_COLOURS)
    return {name: colour or next(spare) for name, colour in out.items()}


def _card_texts(path: Path) -> CardTexts:
    try:
        texts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NucSegError(f"Card file '{path}' cannot be read: {error}.") from error
    if missing := [key for key in CARD_KEYS if key not in texts]:
        raise NucSegError(f"Card file '{path}' lacks '{missing[0]}'; a card needs {', '.join(CARD_KEYS)}.")
    try:
        found = from_mapping(CardTexts, texts)
    except NucSegError as error:
        raise NucSegError(f"Card file '{path}': {error}") from error
    for name, rgb in found.colours.items():
        if not all(0 <= value <= 255 for value in rgb):
            raise NucSegError(f"Card file '{path}' gives '{name}' the colour {list(rgb)}; write 0 to 255.")
    return found


def run(config: ExportConfig) -> None:
    """Write the model folder, if there is a run, and the formats, and say what was written."""
    if (config.run is None) == (config.model is None):
        raise NucSegError("Give either --run (to make a model of it) or --model (to convert it).")
    if config.run is not None:
        if config.card is None:
            raise NucSegError(
                f"--card is missing: what run '{config.run}' does not know, such as the licence of the weights; "
                "see train/configs/student.card.toml."
            )
        card = export(config.run, config.card, config.out, config.metrics)
        print(f"{card.name} {card.version} written to {config.out} (sha256 {card.sha256[:12]})")
        model = open_model(config.out)
    else:
        if not config.formats:
            raise NucSegError(f"Nothing to do: choose --formats from {', '.join(FORMATS)}.")
        model = find_model(config.model or "")
        _check_place(config.out, model)
    for agreement in write_formats(model, config.out, config.formats, config.limit):
        print(agreement)
    for name, (file, *_) in FORMATS.items():
        if config.run is not None and name not in config.formats and (config.out / file).is_file():
            print(
                f"'{config.out / file}' is of earlier weights; export it anew (--formats {name}) or delete it."
            )
    if config.run is None and not (config.out / "card.json").exists():
        (config.out / "card.json").write_text(model.card.to_json(), encoding="utf-8")


def _check_place(folder: Path, model: Model) -> None:
    """Raise if a folder holds the card of another model, under which the converted files would then go."""
    path = folder / "card.json"
    if path.is_file() and Card.read(path) != model.card:
        raise NucSegError(f"'{folder}' holds another model than {model}; give another --out.")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m train.export``."""
    return run_flags(
        run,
        ExportConfig,
        argv,
        prog="python -m train.export",
        about=__doc__ or "",
        example="python -m train.export --run runs/student --card train/configs/student.card.toml --out my-model "
        "--formats onnx openvino",
    )


if __name__ == "__main__":
    raise SystemExit(main())
