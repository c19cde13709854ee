"""Make a model folder from a run: ``python -m train.export --run runs/student --card CARD.toml --out FOLDER``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.card import Card
from napari_nucseg.models.checkpoint import save_checkpoint
from napari_nucseg.models.student import Student
from train.config import to_mapping
from train.runlog import RunLog
from train.runs import draft_card, load_run

CARD_KEYS = ("version", "title", "licence", "caution", "training_data", "cite", "colours")


def export(run: Path, card_file: Path, out: Path, metrics: Sequence[Path] = ()) -> Card:
    """Write the averaged weights of a run and their card.

    Parameters
    ----------
    run : Path
        Folder of `train.fit`; its ``decode.json`` (of `train.thresholds`) is put on the card if there is one.
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
    student = task.network
    if not isinstance(student, Student):
        raise NucSegError(f"Run '{run}' did not train a student; export takes students only.")
    decode = run / "decode.json"
    state = RunLog(run).load("last.pt") or {}
    card = dataclasses.replace(
        draft_card(config, task),
        decode=DecodeConfig(**json.loads(decode.read_text())) if decode.is_file() else DecodeConfig(),
        training={"steps": state.get("step"), "config": to_mapping(config)},
        metrics=_reports(metrics),
        name=out.resolve().name,
        **texts,
    )
    return save_checkpoint(out, student, card)


def _reports(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the reports by the data they are about, such as ``monuseg/test``."""
    out = {}
    for path in paths:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NucSegError(f"Metrics '{path}' cannot be read: {error}.") from error
        out[str(report.pop("data", path.stem))] = report
    return out


def _card_texts(path: Path) -> dict[str, Any]:
    try:
        texts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise NucSegError(f"Card file '{path}' cannot be read: {error}.") from error
    if missing := [key for key in CARD_KEYS if key not in texts]:
        raise NucSegError(f"Card file '{path}' lacks '{missing[0]}'; a card needs {', '.join(CARD_KEYS)}.")
    for key in ("training_data", "cite"):
        texts[key] = tuple(texts[key])
    texts["colours"] = {name: tuple(rgb) for name, rgb in texts["colours"].items()}
    return texts


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``python -m train.export``."""
    parser = argparse.ArgumentParser(prog="python -m train.export", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder of train.fit")
    parser.add_argument("--card", type=Path, required=True, help="TOML with licence, training data ...")
    parser.add_argument(
        "--out", type=Path, required=True, help="model folder to write; its name is the model's"
    )
    parser.add_argument("--metrics", type=Path, nargs="*", default=[], help="JSON files of train.evaluate")
    args = parser.parse_args(argv)
    try:
        card = export(args.run, args.card, args.out, args.metrics)
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{card.name} {card.version} written to {args.out} (sha256 {card.sha256[:12]})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
