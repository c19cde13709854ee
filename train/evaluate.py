"""Score a model on annotated images, through the same pipeline that a user runs.

  python -m train.evaluate --model default --data DATA/monuseg --split test
  python -m train.evaluate --model runs/student --data my-tiles --mpp 0.25      (a folder of images and instances)
  python -m train.evaluate --model runs/distilled/best.pt --compare runs/student --data DATA/consep --split val

The model may be installed, a model folder, a run folder or a checkpoint of it (students and teachers), or a network
of train.export or train.compress (its .xml). The test split is for final figures. While developing, use the images
held out of the training: --split train --held-out train/configs/student.toml.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from napari_nucseg.io.slide import Mpp
from train import loaded, report
from train.flags import run_flags
from train.intervals import INTERVAL, bootstrap, paired_bootstrap
from train.scores import Figure, ImageScore, Scheme, score_image
from train.seen import known_images
from train.selection import Wanted, schemes_for, select
from train.tally import Tally
from train.truth import Selection

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["EvaluateConfig", "Selection", "Wanted", "evaluate", "schemes_for", "select"]

Segment = Callable[["NDArray[np.uint8]", Mpp], "tuple[NDArray[np.uint32], pd.DataFrame]"]
"""From an (H, W, 3) image and its resolution to labels (H, W) and the table of nuclei."""

FEW = 10
"""Below so many images a bootstrap knows too little of their spread."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What to score on what.

    Parameters
    ----------
    data : Path
        Folder of one data set (with splits), or a plain folder that holds `images`, `instances` and perhaps `types`.
    split : str
        Split of the data set: train, val, test ...; not set for a plain folder.
    model : str
        Name or path of a model; a run folder; a checkpoint; an .xml of OpenVINO.
    compare : str, optional
        A second model for the same images: what the first gains over it (first minus second), with paired intervals.
    held_out : Path, optional
        A training configuration, or the folder of a run: only the images that it keeps for validation.
    merge : str, optional
        Name of the merge in dataset.json that brings the classes of the set to the model's; found if not set.
    classes : tuple of str
        Names of the classes 1, 2 ... in `types`, for a folder without dataset.json.
    class_map : Path, optional
        Class map of the training, in place of a merge; the one of `held_out` if not set.
    mpp : float, optional
        Micrometres per pixel of all images: needed where the data does not say, and stronger where it does.
    device : str
        auto, cuda, cpu or cpu-torch.
    out : Path
        Folder for the CSV (one row an image) and the JSON.
    limit : int, optional
        Only the first so many images.
    draws : int
        Sets drawn for the intervals (bootstrap over images); 0 for none.
    seed : int
        Of the draws.
    """

    data: Path
    split: str = ""
    model: str = "default"
    compare: str | None = None
    held_out: Path | None = None
    merge: str | None = None
    classes: tuple[str, ...] = ()
    class_map: Path | None = None
    mpp: float | None = None
    device: str = "auto"
    out: Path = Path("results")
    limit: int | None = None
    draws: int = 1000
    seed: int = 0


def evaluate(chosen: Selection, schemes: Sequence[Scheme], segment: Segment) -> Iterator[ImageScore]:
    """Segment and score image by image; only one is in memory.

    Parameters
    ----------
    chosen
        The images.
    schemes
        From `schemes_for`.
    segment
        Makes labels and table from an image and its own resolution.

    Yields
    ------
    ImageScore
    """
    for entry in chosen.items:
        truths = chosen.load_all(entry, schemes)
        item = next(iter(truths.values()))
        began = time.perf_counter()
        labels, nuclei = segment(item.image, Mpp(item.mpp, f"the data set {item.dataset}"))
        yield score_image(truths, labels, nuclei, schemes, time.perf_counter() - began)


@dataclass(frozen=True)
class Scored:
    """A model and its scores of all chosen images, in order."""

    model: loaded.Loaded
    schemes: list[Scheme]
    scores: list[ImageScore]
    seconds: float

    @property
    def strata(self) -> list[str] | None:
        """The organ of every image; None unless all are known and there are several."""
        found = [s.organ for s in self.scores if s.organ]
        return found if len(found) == len(self.scores) and len(set(found)) > 1 else None


def score_model(config: EvaluateConfig, chosen: Selection, what: str) -> Scored:
    """Load a model and score it, with a bar of progress on stderr."""
    model = loaded.load(what, config.device)
    schemes = schemes_for(chosen, model.card.classes, config.merge)
    began = time.perf_counter()
    todo = evaluate(chosen, schemes, model.segment)
    text = f"{model.name} on {chosen.what}"
    scores = list(tqdm(todo, text, len(chosen.names), unit="image", file=sys.stderr, disable=None))
    return Scored(model, schemes, scores, time.perf_counter() - began)


def summarise(config: EvaluateConfig, scored: Scored) -> list[Figure]:
    """Return all figures of a set with intervals: over images first, then means over organs where they are known."""
    tally, n = Tally(scored.scores, scored.schemes), len(scored.scores)
    found = bootstrap(n, tally.figures, config.draws, config.seed)
    if scored.strata is not None:
        found += bootstrap(n, tally.organ_means, config.draws, config.seed, scored.strata)
    return found


def describe_result(config: EvaluateConfig, chosen: Selection, scored: Scored) -> dict[str, Any]:
    """Print what one model reached; return it for the report."""
    found = summarise(config, scored)
    nuclei = sum(s.true_nuclei for s in scored.scores)
    print(
        f"{scored.model} on {chosen.what}: {report.counted(len(scored.scores), 'image')}, "
        f"{report.counted(nuclei, 'nucleus')}, {scored.seconds:.0f} s by {scored.model.runtime.name}"
    )
    if len(scored.scores) < FEW and config.draws:
        print(f"Intervals from fewer than {FEW} images are rough, and mostly too narrow.")
    if chosen.has_types and not scored.schemes:
        print(
            "Classes are not scored: those of the images have no names (classes=[...]) or none the model knows."
        )
    print(f"\n{report.table(found)}\n\n{report.readme_rows(found, chosen.what, len(scored.scores))}\n")
    organs = Tally(scored.scores, scored.schemes).by_organ()
    if organs:
        counts = {o: sum(s.organ == o for s in scored.scores) for o in organs}
        print(f"{report.organ_table(organs, counts)}\n")
    return {
        "model": scored.model.about,
        "thresholds": asdict(scored.model.card.decode),
        "runtime": scored.model.runtime.name,
        "seconds": round(scored.seconds, 1),
        "figures": [asdict(f) for f in found],
        "organs": {organ: [asdict(f) for f in some] for organ, some in organs.items()},
    }


def tell_known(config: EvaluateConfig, chosen: Selection, model: loaded.Loaded) -> dict[str, int | None]:
    """Print which of the images a model was made with; return their numbers for the report."""
    unsure = config.split == "train" and config.held_out is None
    counts, told = known_images(model.name, model.card.training, chosen, unsure)
    for sentence in told:
        print(f"{sentence}\n")
    return counts


def alike(config: EvaluateConfig) -> str:
    """Return the device: torch, which alone computes a run on the CPU, also computes what that is compared with."""
    models = [what for what in (config.model, config.compare) if what is not None]
    mixed = len({loaded.is_run(what) for what in models}) > 1
    return "cpu-torch" if mixed and loaded.inference_device(config.device) == "cpu" else config.device


def compare(config: EvaluateConfig, one: Scored, two: Scored) -> dict[str, Any]:
    """Print what the first model gains over the second on the same images; return it for the report."""
    shared = [s for s in one.schemes if s in two.schemes]
    if len(shared) < max(len(one.schemes), len(two.schemes)):
        print("The models have different classes; only figures in the same classes are compared.")

    runtimes = [scored.model.runtime.name for scored in (one, two)]
    if runtimes[0] != runtimes[1]:
        print(
            f"They were computed differently, {one.model} by {runtimes[0]} and {two.model} by {runtimes[1]}: a part of "
            "the difference may come of that."
        )
    a, b = (Tally(scored.scores, shared) for scored in (one, two))
    draw = config.draws, config.seed
    found = paired_bootstrap(len(a), b.figures, a.figures, *draw)
    if one.strata is not None:
        found += paired_bootstrap(len(a), b.organ_means, a.organ_means, *draw, one.strata)
    first, second = str(one.model), str(two.model)
    if first == second:
        first, second = f"1: {first}", f"2: {second}"
    images = report.counted(len(one.scores), "image")
    print(
        f"{first} minus {second}, the same {images}: above 0, {first} is better; clear where the interval leaves "
        "out 0\n"
    )
    print(f"{report.difference_table(found, second, first)}\n")
    better = sum(a.binary.bpq > b.binary.bpq for a, b in zip(one.scores, two.scores, strict=True))
    print(f"bPQ of {first} is higher on {better} of {images}.\n")
    return {
        "compared_with": two.model.about,
        "differences": [asdict(f) for f in found],
        "images_with_higher_bPQ": better,
    }


def run(config: EvaluateConfig, command: str = "") -> dict[str, Any]:
    """Evaluate, compare, print and write; return the report."""
    config.out.mkdir(parents=True, exist_ok=True)  # rather now than after an hour
    chosen = select(
        Wanted(
            config.data,
            config.split,
            config.held_out,
            config.limit,
            config.classes,
            config.class_map,
            config.mpp,
        )
    )
    config = replace(config, device=alike(config))
    one = score_model(config, chosen, config.model)
    result = {
        "command": command,
        "data": chosen.what,
        "images": len(one.scores),
        "true_nuclei": sum(s.true_nuclei for s in one.scores),
        "bootstrap": {"draws": config.draws, "seed": config.seed, "unit": "image", "interval": INTERVAL},
        **describe_result(config, chosen, one),
    }
    result |= tell_known(config, chosen, one.model)
    stem, others = one.model.name, []
    if config.compare is not None:
        two = score_model(config, chosen, config.compare)
        result["second"] = describe_result(config, chosen, two)
        result["second"] |= tell_known(config, chosen, two.model)
        result["comparison"] = compare(config, one, two)
        stem, others = f"{stem}_vs_{two.model.name}", two.scores
    stem = re.sub(r"[^\w.-]+", "_", f"{stem}_{chosen.what}").strip("_")  # a part must not replace the whole
    for path in report.write(config.out, stem, report.image_rows(one.scores, others), result):
        print(f"Written: {path}")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m train.evaluate``."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    command = "python -m train.evaluate " + " ".join(arguments)
    return run_flags(
        lambda config: run(config, command),
        EvaluateConfig,
        arguments,
        prog="python -m train.evaluate",
        about=__doc__ or "",
        example="python -m train.evaluate --model my-model --data DATA/monuseg --split test --compare default",
    )


if __name__ == "__main__":
    raise SystemExit(main())
