"""Make a model that the plugin, or another program, can use.

  python -m train.export --run runs/student --card CARD.toml --out my-model          (from a run: weights and card)
  python -m train.export --run runs/student --card CARD.toml --out my-model --formats onnx openvino torchscript
  python -m train.export --model default --out converted --formats onnx              (from a model)

Every converted file is run beside the network on noise and on tissue, and refused if it differs. It takes rgb (N, H,
W, 3) uint8, sides multiples of 16, at the resolution on the card, and gives maps (N, channels, H, W) float32.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.card import Card
from napari_nucseg.models.checkpoint import save_checkpoint
from napari_nucseg.models.registry import Model, find_model, open_model
from napari_nucseg.models.student import Student
from train.average import AVERAGED
from train.colours import class_colours
from train.config import to_mapping
from train.export_checks import Exported, card_texts, check_place, check_replaced, read_reports
from train.flags import run_flags
from train.formats import FORMATS, check_formats, write_formats
from train.loaded import decode_of, tuning_of, weights_of
from train.runlog import RunLog
from train.runs import checkpoint_of, draft_card, load_run, run_folder


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
    replace : bool
        Write over another model than an earlier export of the same run.
    limit : float
        Largest difference of any map from the network's own, above which a converted file is refused.
    """

    out: Path
    run: Path | None = None
    card: Path | None = None
    metrics: tuple[Path, ...] = ()
    model: str | None = None
    formats: tuple[str, ...] = ()
    replace: bool = False
    limit: float = 1e-3


def export(
    run: Path, card_file: Path, out: Path, metrics: Sequence[Path] = (), replace: bool = False
) -> Card:
    """Write the averaged weights of a run and their card.

    Parameters
    ----------
    run : Path
        Folder of a run of a student, or a checkpoint in it; its ``decode.json`` (of `train.thresholds` and
        `train.calibrate`) is put on the card if there is one.
    card_file : Path
        TOML with what the run does not know: licence, training data ...
    out : Path
        Model folder to write; the model goes by the folder's name.
    metrics : Paths
        JSON files of `train.evaluate`, put on the card under the name of their data.
    replace : bool
        Whether another model may be written over.

    Raises
    ------
    NucSegError
        The run holds no checkpoint, the card file is incomplete, the metrics are not of this model, or the folder
        holds something else.
    """
    check_place(out)
    config, task = load_run(run)
    texts = card_texts(card_file, config.data.classes)
    colours = class_colours(config.data.classes, texts.colours)
    student = task.network
    if not isinstance(student, Student):
        raise NucSegError(f"Run '{run}' did not train a student; export takes students only.")
    if task.without:
        raise NucSegError(
            f"Run '{run}' did without the map '{task.without[0]}', which the plugin needs; train anew."
        )
    if not replace:
        check_replaced(out, str(config.run), config.data.classes)
    folder = run_folder(run)
    state = RunLog(folder).load(checkpoint_of(run, config).name) or {}
    card = dataclasses.replace(
        draft_card(config, task),
        decode=decode_of(folder),
        training={
            "steps": state.get("step"),
            **({AVERAGED: state[AVERAGED]} if AVERAGED in state else {}),
            "config": to_mapping(config),
            **tuning_of(folder),
        },
        name=out.resolve().name,
        **{**vars(texts), "colours": colours},
    )
    if metrics:
        with tempfile.TemporaryDirectory() as draft:
            digest = save_checkpoint(Path(draft), student, card).sha256
        model = Exported(run, weights_of(student), digest, dataclasses.asdict(card.decode))
        card = dataclasses.replace(card, metrics=read_reports(metrics, model))
    return save_checkpoint(out, student, card)


def run(config: ExportConfig) -> None:
    """Write the model folder, if there is a run, and the formats, and say what was written."""
    if (config.run is None) == (config.model is None):
        raise NucSegError("Give either --run (to make a model of it) or --model (to convert it).")
    if config.run is None and (config.card or config.metrics):
        raise NucSegError("--card and --metrics go with --run; a model that is converted keeps its own card.")
    check_formats(config.formats)  # rather now than after the model was written
    if config.run is not None:
        if config.card is None:
            raise NucSegError(
                f"--card is missing: what run '{config.run}' does not know, such as the licence of the weights; "
                "edit train/configs/mine.card.toml and give it."
            )
        card = export(config.run, config.card, config.out, config.metrics, config.replace)
        print(f"{card.name} {card.version} written to {config.out} (sha256 {card.sha256[:12]})")
        model = open_model(config.out)
    else:
        if not config.formats:
            raise NucSegError(f"Nothing to do: choose --formats from {', '.join(FORMATS)}.")
        model = find_model(config.model or "")
        check_place(config.out)
        _check_card(config.out, model)
    for agreement in write_formats(model, config.out, config.formats, config.limit):
        print(agreement)
    for name, (file, *_) in FORMATS.items():
        if config.run is not None and name not in config.formats and (config.out / file).is_file():
            print(
                f"'{config.out / file}' is of earlier weights; export it anew (--formats {name}) or delete it."
            )
    if config.run is None and not (config.out / "card.json").exists():
        (config.out / "card.json").write_text(model.card.to_json(), encoding="utf-8")


def _check_card(folder: Path, model: Model) -> None:
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
