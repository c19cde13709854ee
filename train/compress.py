"""Make a student smaller and faster, and say what that costs: 8-bit weights, or fewer channels.

  python -m train.compress method=int8 --training train/configs/student.toml --out small
      8-bit weights and activations, scaled on crops of the training images. Gives small/int8.xml for OpenVINO.
  python -m train.compress method=prune --training train/configs/student.toml --out slim keep=0.75 loop.steps=2000
      Takes channels away and trains on for a while. Gives an ordinary model folder, which the plugin can use.

Both score the model before and after on the images that the training held out (paired intervals), and race the two on
this machine. What is lost on other images is not shown by that: evaluate again before you rely on it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.registry import Model, find_model
from train import report
from train.compression import CompressConfig, make_int8, make_pruned
from train.evaluate import evaluate
from train.flags import run_flags
from train.intervals import Difference, paired_bootstrap
from train.listing import list_set
from train.loaded import Loaded, load_model
from train.scores import ImageScore, Scheme
from train.selection import Wanted, schemes_for, select, training_data
from train.speed import Pace, machine, race
from train.tally import Tally
from train.truth import Selection

log = logging.getLogger(__name__)


def _scores(model: Loaded, chosen: Selection, schemes: list[Scheme]) -> list[ImageScore]:
    text, count = f"{model.name} on {chosen.what}", len(chosen.items)
    return list(tqdm(evaluate(chosen, schemes, model.segment), text, count, unit="image", disable=None))


def accuracy(config: CompressConfig, before: Loaded, after: Loaded) -> dict[str, list[Difference]]:
    """Score both on the held-out images of every set; return the differences by set."""
    found: dict[str, list[Difference]] = {}
    data = training_data(config.training)
    for name, settings in data.sets.items():
        folder = data.root / name
        if not settings.labelled or (folder.is_dir() and not list_set(folder, settings)[1]):
            continue  # this set holds nothing out
        chosen = select(Wanted(folder, held_out=config.training, limit=config.limit))
        schemes = schemes_for(chosen, before.card.classes)
        one, two = (Tally(_scores(m, chosen, schemes), schemes) for m in (before, after))
        found[chosen.what] = paired_bootstrap(len(one), one.figures, two.figures, config.draws, config.seed)
    if not found:
        raise NucSegError(
            f"'{config.training}' holds no image out of the training; see data.sets.NAME.held_out."
        )
    return found


def speed(config: CompressConfig, model: Model, after: Loaded) -> list[Pace]:
    """Race the compressed model against the model as it runs by default, which comes first, and in float32."""
    from napari_nucseg.models.runtime import OpenVINORuntime, TorchRuntime, inspect_devices

    devices = inspect_devices()
    runtimes: dict[str, Any] = {}
    if devices.openvino is None:
        runtimes["before (f32)"] = TorchRuntime(model, "cpu", "f32")
    else:
        for precision in dict.fromkeys((devices.precision, "f32")):
            runtimes[f"before ({precision})"] = OpenVINORuntime(model, precision)
    runtimes["after"] = after.runtime
    log.info("racing %s", " against ".join(runtimes))
    return race(runtimes, config.size, config.rounds)


def speed_table(paces: Sequence[Pace], size: int) -> str:
    """Return the race as a markdown table."""
    rows = [
        (p.name, p.runtime, f"{p.ms:.0f} ms", f"{p.ratio:.2f}", f"{p.low:.2f} to {p.high:.2f}") for p in paces
    ]
    head = (
        "network",
        "runtime",
        f"{size} x {size} px",
        f"times as fast as '{paces[0].name}'",
        "over the rounds",
    )
    return report.markdown([head, *rows])


def run(config: CompressConfig) -> dict[str, Any]:
    """Compress, score, race, print and write; return the report."""
    model = find_model(config.model)
    if (config.out / model.weights.name).is_file() and (
        config.method == "int8" or config.out.resolve() == model.weights.parent.resolve()
    ):  # the card of what comes would take the place of that one's
        raise NucSegError(f"'{config.out}' holds a model; give another --out.")
    config.out.mkdir(parents=True, exist_ok=True)
    after, note = (make_int8 if config.method == "int8" else make_pruned)(config, model)
    before = load_model(model, "cpu")
    lost = accuracy(config, before, after)
    paces = speed(config, model, after)
    print(f"\n{model} compressed by {config.method}: {', '.join(f'{k} {v}' for k, v in note.items())}\n")
    for what, differences in lost.items():
        print(f"{what}; more is better, and clear where the interval leaves out 0\n")
        print(report.difference_table(differences, "before", "after") + "\n")
    print(f"{machine()}\n\n{speed_table(paces, config.size)}\n")
    result = {
        "model": before.about,
        "compressed": note,
        "accuracy": {what: [asdict(d) for d in found] for what, found in lost.items()},
        "machine": machine(),
        "tile": config.size,
        "speed": [asdict(p) for p in paces],
    }
    path = config.out / "compress.json"
    path.write_text(report.as_json(result), encoding="utf-8")
    print(f"Written: {config.out}", file=sys.stdout)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m train.compress``."""
    return run_flags(
        run,
        CompressConfig,
        argv,
        prog="python -m train.compress",
        about=__doc__ or "",
        example="python -m train.compress method=int8 --training train/configs/student.toml --out small",
    )


if __name__ == "__main__":
    raise SystemExit(main())
