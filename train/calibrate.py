"""Bring the scores and class probabilities of a model to what they say: of nuclei with 0.8, 80 % are right.

  python -m train.calibrate --run runs/student                                  (on the images that the run held out)
  python -m train.calibrate --model default --held-out train/configs/student.toml     (or some of its sets: --data)

A nucleus that was found is right if it matches a true one at IoU > 0.5; its class is if the true one has it. Which
nuclei are found, and their classes, stay the same. Choose the thresholds first, see train.thresholds. The values are
put into decode.json of a run, from which train.export puts them on the card; of a model they are printed only.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import replacing
from napari_nucseg.io.slide import Mpp
from train import reliability, report
from train.calibration import CLASS, SCORE, SLOPES, STAGES, Calibration, Found, Outcome
from train.data import nucleus_classes
from train.figures_errors import matches
from train.figures_style import save, style
from train.flags import run_flags
from train.listing import list_set
from train.loaded import CALIBRATED, Loaded, decode_of, is_run, load, tuned
from train.runs import run_folder, warn_of_other
from train.scores import OWN, Scheme
from train.seen import known_images
from train.selection import Wanted, schemes_for, select, training_data
from train.truth import Selection, Truth

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CalibrateConfig:
    """Which model to calibrate, on which images.

    Parameters
    ----------
    model : str
        Name or path of a model; a run folder or a checkpoint of one.
    run : Path, optional
        Instead of a model: a run folder or a checkpoint of one.
    data : tuple of Path
        Folders of data sets; all sets of `held_out` if not set. Each weighs the same.
    split : str
        Split of the data sets; never test.
    held_out : Path, optional
        A training configuration, or the folder of a run: only the images that it keeps for validation. A run's own if
        not set.
    merge : str, optional
        Name of the merge in dataset.json that brings the classes of the sets to the model's; found if not set.
    class_map : Path, optional
        Class map of the training, in place of a merge; the one of `held_out` if not set.
    device : str
        auto, cuda, cpu or cpu-torch.
    out : Path
        Folder for the reliability diagram and the JSON.
    limit : int, optional
        Only so many images of each set, evenly spread.
    """

    model: str = "default"
    run: Path | None = None
    data: tuple[Path, ...] = ()
    split: str = ""
    held_out: Path | None = None
    merge: str | None = None
    class_map: Path | None = None
    device: str = "auto"
    out: Path = Path("results")
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise NucSegError(f"limit={self.limit} must be at least 1.")
        if self.run is not None and self.model != "default":
            raise NucSegError("Give either --run or --model.")
        if self.split == "test":
            raise NucSegError(
                "split='test' is for final figures; calibrate on validation images (--held-out, or --split val)."
            )

    @property
    def what(self) -> str:
        """The model, however it was named."""
        return self.model if self.run is None else str(self.run)

    @property
    def folder(self) -> Path | None:
        """The run's folder; None if the model is no run."""
        return run_folder(Path(self.what)) if is_run(self.what) else None


def selections(config: CalibrateConfig) -> list[Selection]:
    """Choose the images of every data set.

    Raises
    ------
    NucSegError
        Nothing says which, there are none, two sets have one name, or what is given as a run is none.
    """
    if config.run is not None and config.folder is None:
        raise NucSegError(f"'{config.run}' is not the folder of a run; give one, or a model with --model.")
    held_out = config.held_out or config.folder
    folders = config.data
    if not folders:
        if held_out is None:
            raise NucSegError(
                "No images are given; name data sets (--data) or whose validation images to take (--held-out)."
            )
        training = training_data(held_out)
        labelled = {training.root / key: own for key, own in training.sets.items() if own.labelled}
        folders = tuple(f for f, own in labelled.items() if not f.is_dir() or list_set(f, own)[1])
        if not folders:
            raise NucSegError(
                f"'{held_out}' holds no image out of the training; see data.sets.NAME.held_out."
            )
    names = [folder.resolve().name for folder in folders]
    if twice := next((name for name in names if names.count(name) > 1), None):
        # each weighs the same, and a fit without an image must not hold its twin
        raise NucSegError(
            f"Two data sets are called '{twice}'; name each once, and give every one its own name."
        )
    out = []
    for folder in folders:
        chosen = select(Wanted(folder, config.split, held_out, class_map=config.class_map))
        n = len(chosen.items) if config.limit is None else min(config.limit, len(chosen.items))
        items = tuple(chosen.items[k * len(chosen.items) // n] for k in range(n))
        out.append(dataclasses.replace(chosen, items=items))
    return out


def judge(truth: Truth, labels: NDArray[np.integer], nuclei: pd.DataFrame, classes: Sequence[str]) -> Found:
    """Say which nuclei of a segmented image are right.

    Parameters
    ----------
    truth
        Its classes, if it has any, are numbered as `classes` from 1.
    labels : (H, W)
    nuclei
        As `Loaded.segment` gives them.
    classes
        Of the model.
    """
    partner = matches(truth.labels, labels)
    kinds = dict(
        zip(
            np.unique(truth.labels[truth.labels > 0]).tolist(),
            nucleus_classes(truth.labels, truth.types)[1].tolist(),
            strict=True,
        )
    )
    ids = nuclei["id"].tolist()
    true = np.array([kinds.get(partner.get(i, 0), 0) for i in ids], np.int64)
    columns = [nuclei[f"prob_{name}"].to_numpy(np.float64) for name in classes]
    probabilities = np.stack(columns, 1) if columns else np.zeros((len(ids), 0))
    scores = nuclei["score"].to_numpy(np.float64)
    right = np.array([i in partner for i in ids], np.bool_)
    return Found(truth.dataset, truth.name, scores, right, probabilities[true > 0], true[true > 0] - 1)


def observe(model: Loaded, chosen: Selection, schemes: Sequence[Scheme]) -> Iterator[Found]:
    """Segment and judge image by image; scores are those of the model without calibration."""
    plain = dataclasses.replace(model.card, decode=model.card.decode.uncalibrated())
    model = dataclasses.replace(model, card=plain)
    own = [scheme for scheme in schemes if scheme.key == OWN]
    text = f"{model.name} on {chosen.what}"
    for entry in tqdm(chosen.items, text, unit="image", file=sys.stderr, disable=None):
        truth = next(iter(chosen.load_all(entry, own).values()))
        labels, nuclei = model.segment(truth.image, Mpp(truth.mpp, f"the data set {truth.dataset}"))
        yield judge(truth, labels, nuclei, model.card.classes)


def calibrate(config: CalibrateConfig, command: str = "") -> dict[str, Any]:
    """Segment, fit, print and write; return the report."""
    config.out.mkdir(parents=True, exist_ok=True)  # rather now than after an hour
    chosen = selections(config)
    if config.folder is not None:
        warn_of_other(Path(config.what))
    model = load(config.what, config.device)
    images = []
    for some in chosen:
        unsure = config.split == "train" and config.held_out is None and config.folder is None
        counts, told = known_images(model.name, model.card.training, some, unsure)
        if counts["trained_on"] or (unsure and counts["trained_on"] is None):
            log.warning(told[0])
        images += list(observe(model, some, schemes_for(some, model.card.classes, config.merge)))
    if not any(im.scores.size for im in images):
        raise NucSegError(
            f"{model.name} finds no nucleus in these images, so that there is nothing to calibrate; see its thresholds."
        )
    outcome = Outcome.of(images)
    tell(outcome, model)
    result = {
        "command": command,
        "model": model.about,
        "thresholds": model.card.decode.uncalibrated().to_dict(),
        "images": {c.folder.name: [(i.split, i.name) for i in c.items] for c in chosen},
        "values": dataclasses.asdict(_values(outcome, model)),
        "ECE": outcome.rows(),
        "bins": {
            kind.name: {by: [dataclasses.asdict(b) for b in outcome.bins(kind, by)] for by in STAGES}
            for kind in (SCORE, CLASS)
        },
    }
    write(config, outcome, model, result)
    return result


def _values(outcome: Outcome, model: Loaded) -> Calibration:
    """Return what was fitted; the temperature stays the model's where no image has classes."""
    if any(im.classes.size for im in outcome.images):
        return outcome.values
    return dataclasses.replace(outcome.values, type_temperature=model.card.decode.type_temperature)


def tell(outcome: Outcome, model: Loaded) -> None:
    """Print the expected calibration error before and after, and what to think of it."""
    head = ["what", "images of", "nuclei", "right", *(f"ECE (10 bins), {words}" for words in STAGES.values())]
    cells = [
        [row["what"], row["data"], f"{row['nuclei']:,}", f"{row['right']:.0%}"]
        + [report.UNDEFINED if np.isnan(row[by]) else f"{row[by]:.3f}" for by in STAGES]
        for row in outcome.rows()
    ]
    print(f"{model}, {report.counted(len(outcome.images), 'image')}\n\n{report.markdown([head, *cells])}\n")
    if len(outcome.images) < report.FEW:
        log.warning("Fewer than %d images tell little of others; see the last column.", report.FEW)
    if outcome.values.score_slope <= SLOPES[0] * 1.01:
        log.warning(
            "The score of these nuclei does not tell right from wrong; they make no good calibration."
        )
    if not any(im.classes.size for im in outcome.images):
        print("No image has classes that the model knows, so that the temperature stays as it is.")


def write(config: CalibrateConfig, outcome: Outcome, model: Loaded, result: dict[str, Any]) -> None:
    """Write diagram and report, put the values into the run if it is one, and say where they are or go."""
    stem = re.sub(r"[^\w.-]+", "_", f"{model.name}_calibration")
    with style():
        picture = save(reliability.draw(outcome), config.out / f"{stem}.png", 200)
    path = config.out / f"{stem}.json"
    with replacing(path) as draft:
        draft.write_text(report.as_json(result), encoding="utf-8")
    print(f"Written: {picture}\nWritten: {path}")
    values: dict[str, float] = {k: float(f"{v:.6g}") for k, v in result["values"].items()}
    if config.folder is None:
        print(f'Put these into "decode" of the model\'s card.json: {json.dumps(values)[1:-1]}')
        return
    keep(config.folder, values, {"images": result["images"], "ECE": result["ECE"]})
    print(f"Written: {tuned(config.folder)} ({', '.join(f'{k} {v:g}' for k, v in values.items())})")


def keep(folder: Path, values: dict[str, float], how: dict[str, Any]) -> None:
    """Put a calibration beside the thresholds of a run, and how it was fitted."""
    decode_of(folder)  # refuses a damaged file
    path = tuned(folder)
    rules = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    with replacing(path) as draft:
        draft.write_text(report.as_json({**rules, **values, CALIBRATED: how}), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m train.calibrate``."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    command = "python -m train.calibrate " + " ".join(arguments)
    return run_flags(
        lambda config: calibrate(config, command),
        CalibrateConfig,
        arguments,
        prog="python -m train.calibrate",
        about=__doc__ or "",
        example="python -m train.calibrate --run runs/student",
    )


if __name__ == "__main__":
    raise SystemExit(main())
