"""Ask what ordinary disturbances cost the accuracy of a model, on annotated images.

  python -m train.robustness --model runs/student --data DATA/monuseg DATA/consep --held-out runs/student
  python -m train.robustness --model runs/mine --data data/mine --split val --only wrong-mpp jpeg-30 blur-1

Each image is segmented as it is and under each disturbance, through the same pipeline that a user runs, and scored
against its truth: at other resolutions, with a wrong resolution stated, with more and less of each stain, darker and
brighter, compressed, blurred, noisy, with 16 bits a channel. The table has one row for each of these.

Only the image is disturbed, never the truth. At another resolution the labels come back in the pixels of the resampled
image; they are brought to those of the truth (nearest pixel, every nucleus keeps its id) and scored there. Part of the
cost of a coarse image is therefore that of its coarser outlines, which its user gets too.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import Mpp
from train import loaded, report
from train.disturbances import DISTURBANCES, UNDISTURBED, Disturbance, bring_back, choose
from train.evaluate import FEW
from train.flags import run_flags
from train.intervals import INTERVAL
from train.robustness_table import Disturbed, by_disturbance, image_rows, table
from train.scores import ImageScore, score_image
from train.seen import known_images
from train.selection import Wanted, select
from train.truth import Truth

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Segment = Callable[["NDArray[Any]", Mpp], "tuple[NDArray[Any], pd.DataFrame]"]
"""From an (H, W, 3) image of 8 or 16 bits and its resolution to labels (H, W) and the table of nuclei."""


@dataclass(frozen=True)
class RobustnessConfig:
    """Which model to disturb, on what.

    Parameters
    ----------
    data : tuple of Path
        Folders of data sets (with splits), or plain folders that hold `images` and `instances`.
    split : str
        Split of the data sets: train, val ...; not set for plain folders.
    model : str
        Name or path of a model; a run folder; a checkpoint; an .xml of OpenVINO.
    held_out : Path, optional
        A training configuration, or the folder of a run: only the images that it keeps for validation.
    mpp : float, optional
        True micrometres per pixel of all images: needed where the data does not say, and stronger where it does.
    only : tuple of str
        Keys of the disturbances to try, such as mpp-0.50, wrong-mpp, jpeg-30; all if not set.
    device : str
        auto, cuda, cpu or cpu-torch.
    out : Path
        Folder for the CSV (one row an image and disturbance) and the JSON.
    limit : int, optional
        Only the first so many images of each data set.
    draws : int
        Sets drawn for the intervals (bootstrap over images); 0 for none.
    seed : int
        Of the draws.
    """

    data: tuple[Path, ...]
    split: str = ""
    model: str = "default"
    held_out: Path | None = None
    mpp: float | None = None
    only: tuple[str, ...] = ()
    device: str = "auto"
    out: Path = Path("results")
    limit: int | None = None
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.data:
            raise NucSegError("No data set is named; give one or several with --data.")


def select_all(config: RobustnessConfig) -> list[Disturbed]:
    """Choose the images of every data set; each gets the name of its folder, or the path where that is not enough.

    Raises
    ------
    NucSegError
        From `select`, or a data set is named twice.
    """
    wanted = [Wanted(d, config.split, config.held_out, config.limit, mpp=config.mpp) for d in config.data]
    chosen = [select(one) for one in wanted]
    folders = [one.folder for one in chosen]
    if twice := [str(folder) for folder in folders if folders.count(folder) > 1]:
        raise NucSegError(f"Data set '{twice[0]}' is named twice; name it once.")
    names = [folder.name for folder in folders]
    return [Disturbed(c.folder.name if names.count(c.folder.name) == 1 else str(c.folder), c) for c in chosen]


def score_disturbed(truth: Truth, disturbance: Disturbance, segment: Segment) -> ImageScore:
    """Segment one image under a disturbance, and score it at the resolution of its truth.

    Raises
    ------
    NucSegError
        The disturbed image cannot be segmented.
    """
    image, mpp = disturbance.apply(truth.image, truth.mpp)
    began = time.perf_counter()
    try:
        labels, nuclei = segment(image, Mpp(mpp, f"train.robustness ({disturbance.key})"))
    except NucSegError as error:
        raise NucSegError(f"Image '{truth.name}', {disturbance.words}: {error}") from error
    seconds = time.perf_counter() - began
    shape = truth.labels.shape[0], truth.labels.shape[1]
    return score_image({"": truth}, bring_back(labels, shape), nuclei, [], seconds)


def disturb(
    sets: Sequence[Disturbed], disturbances: Sequence[Disturbance], segment: Segment
) -> Iterator[None]:
    """Fill in the scores of all images under all disturbances; yields after each. Only one image is in memory."""
    for one in sets:
        for entry in one.chosen.items:
            truth = one.chosen.load(entry, None)
            for disturbance in disturbances:
                score = score_disturbed(truth, disturbance, segment)
                one.scores.setdefault(disturbance.key, []).append(score)
                yield


def tell_sets(
    config: RobustnessConfig, sets: Sequence[Disturbed], model: loaded.Loaded
) -> list[dict[str, Any]]:
    """Print what a reader must know of the images; return what the report says of each set."""
    out, unsure = [], config.split == "train" and config.held_out is None
    for one in sets:
        counts, told = known_images(model.name, model.card.training, one.chosen, unsure)
        for sentence in told:
            print(f"{one.chosen.what}: {sentence}\n")
        nuclei = sum(s.true_nuclei for s in one.scores[UNDISTURBED.key])
        number = len(one.chosen.items)
        out.append(
            {"name": one.name, "data": one.chosen.what, "images": number, "true_nuclei": nuclei, **counts}
        )
    if config.draws and min(len(one.chosen.items) for one in sets) < FEW:
        print(f"Intervals from fewer than {FEW} images are rough, and mostly too narrow.\n")
    return out


def run(config: RobustnessConfig, command: str = "") -> dict[str, Any]:
    """Disturb, score, print and write; return the report."""
    disturbances = choose(config.only)
    sets = select_all(config)
    config.out.mkdir(parents=True, exist_ok=True)  # rather now than after an hour
    model = loaded.load(config.model, config.device)
    began, images = time.perf_counter(), sum(len(one.chosen.items) for one in sets)
    todo = disturb(sets, disturbances, model.segment)
    for _ in tqdm(
        todo, f"{model.name}, disturbed", images * len(disturbances), file=sys.stderr, disable=None
    ):
        pass

    seconds = time.perf_counter() - began
    whats = ", ".join(one.chosen.what for one in sets)
    print(
        f"{model} on {whats}: {report.counted(images, 'image')}, "
        f"{report.counted(len(disturbances) - 1, 'disturbance')}, {seconds:.0f} s by {model.runtime.name}. "
        "Figures are means over images.\n"
    )
    found = [[one.differences(d.key, config.draws, config.seed) for d in disturbances] for one in sets]
    print(f"{table(sets, disturbances, found)}\n")
    result: dict[str, Any] = {
        "command": command,
        "model": model.about,
        "thresholds": asdict(model.card.decode),
        "runtime": model.runtime.name,
        "seconds": round(seconds, 1),
        "bootstrap": {"draws": config.draws, "seed": config.seed, "unit": "image", "interval": INTERVAL},
        "sets": tell_sets(config, sets, model),
        "disturbances": by_disturbance(sets, disturbances, found),
    }
    part = f"_{len(disturbances) - 1}_of_{len(DISTURBANCES)}" if config.only else ""
    stem = re.sub(r"[^\w.-]+", "_", f"{model.name}_robustness{part}_{whats}").strip("_")
    for path in report.write(config.out, stem, image_rows(sets), result):
        print(f"Written: {path}")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m train.robustness``."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    command = "python -m train.robustness " + " ".join(arguments)
    return run_flags(
        lambda config: run(config, command),
        RobustnessConfig,
        arguments,
        prog="python -m train.robustness",
        about=__doc__ or "",
        example="python -m train.robustness --model my-model --data data/mine --split val",
    )


if __name__ == "__main__":
    raise SystemExit(main())
