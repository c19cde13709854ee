"""Speed of the whole pipeline against plain alternatives, in one run on one image: ``python -m benchmarks.pipeline``.

Measured on the CPU, all contenders in turns, with the warm-up (compilation, caches, first calls) left out:

1. whole pipeline (network, decode, table), with our default runtime, with OpenVINO in f32 and with eager torch in f32;
2. the stages of each, one after the other in one thread (the pipeline overlaps them);
3. decode and table alone, ours against scikit-image, from the same maps.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.timing import Stages, Times, cores, in_turns, limit_threads, machine

if TYPE_CHECKING:
    from benchmarks.mosaic import Mosaic
    from napari_nucseg.core.decode import Fields
    from napari_nucseg.inference import Plan
    from napari_nucseg.models.card import Card
    from napari_nucseg.models.registry import Model
    from napari_nucseg.models.runtime import Runtime


@dataclass(frozen=True)
class Whole:
    """The whole pipeline on one runtime."""

    title: str
    runtime: str
    times: Times
    stages: dict[str, float]
    nuclei: int


@dataclass(frozen=True)
class Step:
    """Part of the decode, ours and scikit-image's."""

    title: str
    ours: Times
    theirs: Times


def contenders(model: Model) -> list[tuple[str, Runtime]]:
    """Load the model three times: our default on the CPU, OpenVINO in f32, eager torch in f32.

    Contenders whose library is not installed are left out.
    """
    from napari_nucseg.models.runtime import OpenVINORuntime, TorchRuntime, load_runtime

    found: list[tuple[str, Runtime]] = [("default", load_runtime(model, "cpu"))]
    if importlib.util.find_spec("openvino"):
        found.append(("OpenVINO f32", OpenVINORuntime(model, "f32")))
    found.append(("torch eager f32", TorchRuntime(model, "cpu", "f32")))
    return found


def run_whole(plan: Plan) -> int:
    """Run a plan to the end and return the number of nuclei."""
    from napari_nucseg.inference import run

    labels = np.zeros(plan.image.source.shape, np.uint32)
    count = 0
    for tile in run(plan):
        tile.paint(labels)
        count += len(tile.nuclei)
    return count


def warm_up(plan: Plan) -> None:
    """Run the network once on every size of window, and the whole pipeline on a corner of the image."""
    from napari_nucseg.core.tiling import Box
    from napari_nucseg.inference import make_plan, predict_window

    sweeps = [plan.sweep(block) for block in plan.blocks]
    boxes = [plan.grid.window(sweep.answer(window)) for sweep in sweeps for window in sweep.windows]
    for box in {box.shape: box for box in boxes}.values():
        predict_window(plan.image.read(box), plan.runtime, plan.card)
    rows, cols = plan.image.shape
    small = plan.image.read(Box(0, min(rows, 256), 0, min(cols, 256)))
    run_whole(make_plan(small, plan.runtime, plan.card, mpp=plan.card.mpp))


def time_whole(
    runtimes: Sequence[tuple[str, Runtime]], card: Card, image: Mosaic, rounds: int
) -> tuple[list[Whole], Fields]:
    """Time the pipeline on every runtime; also return the fields which the first one made."""
    from benchmarks._stages import run_stages
    from napari_nucseg.inference import make_plan

    plans = [make_plan(image.image, runtime, card, mpp=image.mpp) for _, runtime in runtimes]
    for plan in plans:
        warm_up(plan)
    nuclei: dict[int, int] = {}
    works = [partial(_count, nuclei, k, plan) for k, plan in enumerate(plans)]
    times = in_turns(works, rounds)
    stages = [Stages() for _ in plans]
    fields = [run_stages(plan, clock) for plan, clock in zip(plans, stages, strict=True)]
    found = [
        Whole(title, runtime.name, times[k], stages[k].seconds, nuclei[k])
        for k, (title, runtime) in enumerate(runtimes)
    ]
    return found, fields[0]


def _count(nuclei: dict[int, int], key: int, plan: Plan) -> None:
    nuclei[key] = run_whole(plan)


def time_decode(fields: Fields, card: Card, image: Mosaic, rounds: int) -> tuple[list[Step], tuple[int, int]]:
    """Time decode and table on the fields of the whole image; also the number of nuclei, ours and theirs."""
    from benchmarks import baseline
    from napari_nucseg.core import decode as ours
    from napari_nucseg.core.measure import measure
    from napari_nucseg.core.stain import haematoxylin

    config, kept = card.decode, dict[str, Any]()

    def grow() -> None:
        kept["centres"], _ = ours.find_centres(fields, config)
        kept["owner"] = ours.flood(fields, kept["centres"], config)

    def grow_baseline() -> None:
        kept["labels"] = baseline.decode(fields, config)

    def measure_baseline() -> None:
        baseline.measure(kept["labels"], haematoxylin(image.image))

    pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("centres and nuclei", grow, grow_baseline),
        (
            "classes",
            lambda: ours.vote(kept["owner"], fields, len(kept["centres"])),
            lambda: baseline.vote(kept["labels"], fields),
        ),
        (
            "table",
            lambda: measure(kept["owner"].astype(np.uint32), image.image, image.mpp),
            measure_baseline,
        ),
    ]
    steps = []
    for title, mine, theirs in pairs:
        mine()
        theirs()
        steps.append(Step(title, *in_turns([mine, theirs], rounds)))
    return steps, (len(kept["centres"]), int(kept["labels"].max()))


def whole_table(results: Sequence[Whole], megapixels: float) -> str:
    """Return the markdown tables of the whole pipeline and of its stages."""
    from benchmarks._stages import COMPUTING

    lines = ["| pipeline | runtime | best s | median s | MP/s best | MP/s median | time / default | nuclei |"]
    lines.append("|---" * 8 + "|")
    for r in results:
        best, middle = r.times.best, r.times.median
        cells = (r.title, r.runtime, f"{best:.2f}", f"{middle:.2f}", f"{megapixels / best:.2f}",
                 f"{megapixels / middle:.2f}", f"{best / results[0].times.best:.2f}x", f"{r.nuclei:,}")  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"| stages one by one, s (one run) | {' | '.join(COMPUTING)} | sum |",
        "|---" * (len(COMPUTING) + 2) + "|",
    ]
    for r in results:
        times = " | ".join(f"{r.stages.get(s, 0):.2f}" for s in COMPUTING)
        lines.append(f"| {r.title} | {times} | {sum(r.stages.values()):.2f} |")
    return "\n".join(lines)


def decode_table(steps: Sequence[Step], nuclei: tuple[int, int]) -> str:
    """Return the markdown table of the decode, ours against scikit-image."""
    lines = [
        f"| decode alone, best s | ours ({nuclei[0]:,} nuclei) | scikit-image ({nuclei[1]:,} nuclei) | ratio |",
        "|---|---|---|---|",
    ]
    rows = [(s.title, s.ours.best, s.theirs.best) for s in steps]
    rows.append(("all", sum(r[1] for r in rows), sum(r[2] for r in rows)))
    lines += [f"| {title} | {a:.3f} | {b:.3f} | {b / a:.1f}x |" for title, a, b in rows]
    return "\n".join(lines)


def bench(image: Mosaic, card: Card, runtimes: Sequence[tuple[str, Runtime]], rounds: int) -> str:
    """Measure all there is to measure on one image; return the markdown report."""
    results, fields = time_whole(runtimes, card, image, rounds)
    steps, nuclei = time_decode(fields, card, image, rounds)
    first = results[0]
    with_theirs = first.stages["network"] + first.stages["unpack"] + sum(s.theirs.best for s in steps)
    notes = (
        f"Rounds: {len(first.times.seconds)}. The default network with scikit-image's decode and table: "
        f"{with_theirs:.2f} s, {image.megapixels / with_theirs:.2f} MP/s."
    )
    return f"{whole_table(results, image.megapixels)}\n\n{decode_table(steps, nuclei)}\n\n{notes}"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks.pipeline``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data sets (%(default)s)")
    parser.add_argument("--size", type=int, default=2048, help="side of the mosaic in pixels (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds at most (%(default)s)")
    parser.add_argument("--threads", type=int, default=cores(), help="(%(default)s, what this machine has)")
    parser.add_argument("--model", default="default", help="name or path (default: the shipped one)")
    args = parser.parse_args(argv)
    limit_threads(min(args.threads, cores()))
    import torch

    from benchmarks.mosaic import mosaic
    from napari_nucseg.errors import NucSegError
    from napari_nucseg.models.registry import find_model

    torch.set_num_threads(min(args.threads, cores()))
    where = machine(min(args.threads, cores()))
    try:
        model = find_model(args.model)
        image = mosaic(args.data, (args.size, args.size))
        report = bench(image, model.card, contenders(model), max(1, args.repeat))
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{model} on a mosaic of {args.size} x {args.size} px ({image.megapixels:.2f} MP), {image.origin}")
    print(f"{where}; warm-up left out\n")
    print(report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
