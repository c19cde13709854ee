"""Score a model on annotated images, through the same pipeline that a user runs.

``python -m train.evaluate --model default --data ../shared/data/monuseg --split test``

The test split is for final figures. While developing, use the images held out of the training:
``--split train --held-out train/configs/student.toml``.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import Mpp
from train.data import AnnotatedImage, SetConfig, image_names, load_image
from train.scores import Figure, ImageScore, Scheme, bootstrap, figures, score_image

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from napari_nucseg.models.registry import Model

Segment = Callable[["NDArray[np.uint8]", Mpp], "tuple[NDArray[np.uint32], pd.DataFrame]"]
"""From an (H, W, 3) image and its resolution to labels (H, W) and the table of nuclei."""

TO_CONSEP4 = {
    "neoplastic": "epithelial",
    "epithelial": "epithelial",
    "inflammatory": "inflammatory",
    "connective": "spindle",
    "other": "miscellaneous",
}
"""From the shipped classes (PanNuke's) to the four in which results on CoNSeP are published."""


@dataclass(frozen=True)
class Selection:
    """Which images of which data set.

    Parameters
    ----------
    folder
        The data set; its splits and ``dataset.json`` lie in it.
    names
        The images.
    config
        Resolution of sets that state none.
    what
        How to call the selection in a table.
    """

    folder: Path
    split: str
    names: tuple[str, ...]
    config: SetConfig
    what: str


def select(folder: Path, split: str, held_out: Path | None = None, limit: int | None = None) -> Selection:
    """Choose images of a data set.

    Parameters
    ----------
    folder, split
        A data set in the layout of `train.data`, and one of its splits.
    held_out
        A training configuration: only the images that it holds out of the training.
    limit
        Only so many, the first by name.

    Raises
    ------
    NucSegError
        There is no such set or split, or nothing is chosen.
    """
    folder = folder.resolve()
    if not (folder / "dataset.json").is_file():
        raise NucSegError(
            f"'{folder}' is not a data set: dataset.json is missing; name a folder such as monuseg."
        )
    names = image_names(folder, split)
    config, what = SetConfig(), f"{folder.name}/{split}"
    if held_out is not None:
        if split != "train":
            raise NucSegError(
                f"--held-out chooses among the training images; give --split train, not '{split}'."
            )
        config = _config_of(folder.name, held_out)
        names = [name for name in names if name.startswith(config.held_out or ("\0",))]
        what = f"{folder.name}/validation"
    total = len(names)
    if limit is not None:
        names = names[: max(0, limit)]
        what += f" (first {len(names)} of {total})"
    if not names:
        raise NucSegError(f"No image of '{folder}' is chosen; see --split, --held-out and --limit.")
    return Selection(folder, split, tuple(names), config, what)


def _config_of(name: str, path: Path) -> SetConfig:
    from train.config import load_config
    from train.fit import FitConfig

    sets = load_config(FitConfig, path).data.sets
    if name not in sets:
        raise NucSegError(f"'{path}' has no data set '{name}'; it has {', '.join(sets) or 'none'}.")
    return sets[name]


def schemes_for(folder: Path, split: str, classes: tuple[str, ...]) -> list[Scheme]:
    """Return the ways to compare classes on a set: the model's, and CoNSeP's four where the set has them."""
    if not (folder / split / "types").is_dir():
        return []
    meta = json.loads((folder / "dataset.json").read_text())
    same = {name: name for name in classes}
    schemes = [Scheme("shipped", classes, same, "merge_pannuke" if "merge_pannuke" in meta else None)]
    if "merge_consep4" in meta and set(classes) <= set(TO_CONSEP4):
        four = ("inflammatory", "epithelial", "spindle", "miscellaneous")
        schemes.append(Scheme("consep4", four, TO_CONSEP4, "merge_consep4"))
    return schemes


def evaluate(chosen: Selection, schemes: Sequence[Scheme], segment: Segment) -> Iterator[ImageScore]:
    """Segment and score image by image.

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
    for name in chosen.names:
        truths = {s.key: _load(chosen, name, s) for s in schemes} or {"": _load(chosen, name, None)}
        item = next(iter(truths.values()))
        began = time.perf_counter()
        labels, nuclei = segment(item.image, Mpp(item.mpp, f"the data set {item.dataset}"))
        yield score_image(truths, labels, nuclei, schemes, time.perf_counter() - began)


def _load(chosen: Selection, name: str, scheme: Scheme | None) -> AnnotatedImage:
    config = SetConfig(
        mpp=chosen.config.mpp,
        mpp_from_size=chosen.config.mpp_from_size,
        merge=scheme.merge if scheme else None,
    )
    return load_image(chosen.folder, chosen.split, name, config, scheme.classes if scheme else ())


def pipeline(model: Model, device: str) -> tuple[Segment, str]:
    """Return the public `segment` with one model loaded, and the name of the runtime that has it."""
    from napari_nucseg.inference import segment
    from napari_nucseg.models.runtime import load_runtime

    runtime = load_runtime(model, device)

    def run(image: NDArray[np.uint8], mpp: Mpp) -> tuple[NDArray[np.uint32], pd.DataFrame]:
        result = segment(image, mpp, model, runtime=runtime)
        return result.labels, result.nuclei

    return run, runtime.name


def table(found: Sequence[Figure]) -> str:
    """Return all figures as a markdown table that says how each is averaged."""
    lines = ["| figure | value | 95 % interval | averaging |", "|---|---|---|---|"]
    for f in found:
        interval = "-" if math.isnan(f.low) else f"{f.low:.3f} to {f.high:.3f}"
        lines.append(f"| {f.name} | {f.value:.3f} | {interval} | {f.averaging} |")
    return "\n".join(lines)


def readme_rows(found: Sequence[Figure], what: str, images: int) -> str:
    """Return the figures as one row a table for the README, heads included.

    The first table is over all nuclei, the others over the classes of each scheme.
    """
    groups: dict[str, list[Figure]] = {}
    for figure in found:
        name, _, key = figure.name.partition(" (")
        groups.setdefault(key.rstrip(")"), []).append(Figure(name, figure.averaging, figure.value))
    blocks = []
    for key, members in groups.items():
        head = ["set", "images", *(f.name for f in members)]
        row = [
            f"{what}{f', classes {key}' if key else ''}",
            str(images),
            *(f"{f.value:.3f}" for f in members),
        ]
        rows = (head, ["---"] * len(head), row)
        blocks.append("\n".join("| " + " | ".join(cells) + " |" for cells in rows))
    return "\n\n".join(blocks)


def write(folder: Path, stem: str, scores: Sequence[ImageScore], report: dict[str, Any]) -> tuple[Path, Path]:
    """Write the table of images and the report; return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [score.row() for score in scores]
    images, summary = folder / f"{stem}_images.csv", folder / f"{stem}.json"
    with images.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    summary.write_text(json.dumps(_finite(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return images, summary


def _finite(value: Any) -> Any:
    """Replace NaN by None, which JSON can say."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks: evaluate, print, write."""
    from napari_nucseg.models.registry import find_model

    model = find_model(args.model)
    chosen = select(args.data, args.split, args.held_out, args.limit)
    schemes = schemes_for(chosen.folder, chosen.split, model.card.classes)
    segment, runtime = pipeline(model, args.device)
    began = time.perf_counter()
    todo = evaluate(chosen, schemes, segment)
    scores = list(tqdm(todo, chosen.what, len(chosen.names), unit="image", file=sys.stderr, disable=None))
    seconds = time.perf_counter() - began
    found = bootstrap(scores, lambda some: figures(some, schemes), args.draws, args.seed)
    nuclei = sum(s.true_nuclei for s in scores)
    print(f"{model} on {runtime}, {chosen.what}: {len(scores)} images, {nuclei:,} nuclei, {seconds:.0f} s")
    if args.split == "train" and args.held_out is None:
        print("These are training images: the model may have learnt them by heart (see --held-out).")
    print(f"\n{table(found)}\n\n{readme_rows(found, chosen.what, len(scores))}\n")
    report = {
        "command": "python -m train.evaluate " + " ".join(args.argv),
        "model": {"name": model.name, "version": model.card.version, "sha256": model.card.sha256},
        "runtime": runtime,
        "data": chosen.what,
        "images": len(scores),
        "true_nuclei": nuclei,
        "seconds": round(seconds, 1),
        "bootstrap": {"draws": args.draws, "seed": args.seed, "unit": "image", "interval": 0.95},
        "figures": [asdict(f) for f in found],
    }
    stem = f"{model.name}_{chosen.what.partition(' ')[0].replace('/', '_')}"
    for path in write(args.out, stem, scores, report):
        print(f"Written: {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="default", help="name or path (default: the shipped one)")
    parser.add_argument("--data", type=Path, required=True, help="folder of one data set")
    parser.add_argument("--split", choices=("train", "test"), required=True)
    parser.add_argument(
        "--held-out", type=Path, metavar="CONFIG.toml", help="the images it keeps for validation"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, cpu or cpu-torch")
    parser.add_argument(
        "--out", type=Path, default=Path("results"), help="folder for CSV and JSON (%(default)s)"
    )
    parser.add_argument("--limit", type=int, help="only the first so many images")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (%(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m train.evaluate``."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    args = _parser().parse_args(arguments)
    args.argv = arguments
    try:
        run(args)
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, json.JSONDecodeError) as error:
        print(f"The data set cannot be used or the report not written ({error}).", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
