"""A whole slide from the command line, timed and watched: ``python -m benchmarks.slides --size 10000``.

Runs ``napari-nucseg segment`` on a mosaic of real tissue (made for it, or given by ``--slide``) as a process of its
own, and tells seconds, megapixels a second, processor time and the memory of all its processes, looked at ten times a
second. Then it does the stages of the work one after the other in one thread on a part of the slide, and sets what
each achieves against what this machine can do: convolutions against the fastest dense 3x3 convolutions that OpenVINO
computes here, everything else against the speed of copying memory.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.mosaic import write_mosaic
from benchmarks.timing import Stages, cores, limit_threads, machine
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from benchmarks._roofline import Peaks
    from benchmarks._stages import Work
    from benchmarks._tree import Usage
    from napari_nucseg.inference import Plan


def run_command(
    slide: Path, out: Path, precision: str | None, more: Sequence[str]
) -> tuple[Usage, dict[str, Any]]:
    """Segment a slide with the program as a user has it; return what it took and its own summary.

    Raises
    ------
    NucSegError
        It failed.
    """
    from benchmarks._tree import watch

    env = {"NUCSEG_PRECISION": precision} if precision else {}
    command = [sys.executable, "-m", "napari_nucseg", "segment", str(slide), "-o", str(out), *more]
    usage = watch(command, env)
    if usage.code:
        raise NucSegError(f"The command ended with {usage.code}: {usage.output.strip()[-400:]}")
    summaries = sorted(out.glob("*_summary.json"))
    return usage, json.loads(summaries[0].read_text()) if summaries else {}


def command_table(usage: Usage, summary: dict[str, Any], megapixels: float) -> str:
    """Return what the command took, in markdown."""
    pss = f"{usage.pss / 1e9:.2f}" if usage.pss else "-"
    nuclei = f"{summary['nuclei']:,}" if "nuclei" in summary else "-"
    lines = [
        "| wall s | MP/s | CPU s | cores busy | peak GB (RSS) | peak GB (PSS) | processes | nuclei |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
        f"| {usage.seconds:.1f} | {megapixels / usage.seconds:.2f} | {usage.cpu_seconds:.1f} | "
        f"{usage.cpu_seconds / usage.seconds:.2f} | {usage.rss / 1e9:.2f} | {pss} | {usage.processes} | {nuclei} |",
    ]
    seconds = summary.get("seconds", {})
    if seconds:
        lines += ["", "| stage, as its summary states | s | MP/s |", "|---|---:|---:|"]
        lines += [
            f"| {name} | {s:.1f} | {f'{megapixels / s:.1f}' if s > 0 else '-'} |"
            for name, s in seconds.items()
        ]
    lines += [
        "",
        "RSS: resident memory of all its processes added up, with pages that they share counted in each, looked at "
        "10 times a second. PSS: shared pages counted once, looked at once a second.",
    ]
    return "\n".join(lines)


def time_part(slide: Path, side: int, precision: str | None) -> tuple[Plan, Stages, Work]:
    """Do the stages of the upper left part of a slide one after the other, in rounds of which the second counts."""
    from benchmarks._stages import Work, run_stages, write_stages
    from napari_nucseg.core.tiling import Box
    from napari_nucseg.inference import Region, make_plan, run_tiles
    from napari_nucseg.io.slide import read_image
    from napari_nucseg.models.registry import find_model
    from napari_nucseg.models.runtime import OpenVINORuntime, load_runtime

    model = find_model("default")
    runtime = OpenVINORuntime(model, precision) if precision else load_runtime(model, "cpu")
    with read_image(slide) as image:
        region = Region(Box(0, min(side, image.shape[0]), 0, min(side, image.shape[1])))
        plan = make_plan(image, runtime, model.card, region=region)
        tiles = [tile for block in plan.blocks for tile in run_tiles(plan, block)]  # warms up, too
        stages, work = Stages(), Work()
        run_stages(plan, stages, work)
        write_stages(plan, tiles, stages, work)
    return plan, stages, work


def roofline_table(plan: Plan, stages: Stages, work: Work, peaks: Peaks, macs: float) -> str:
    """Return how near every stage comes to what the machine can do, in markdown."""
    from benchmarks._roofline import traffic

    precision = "bf16" if "bf16" in plan.runtime.name else "f32"
    lines = [
        "| stage | s | MP/s | achieved | peak | share of the peak |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    bytes_of = traffic(plan.card, work, precision)
    for name, seconds in stages.seconds.items():
        if name == "network":
            rate, peak, unit = (
                2 * macs * work.seen / seconds / 1e9,
                peaks.gflops.get(precision, math.nan),
                "GFLOP/s",
            )
        else:
            rate, peak, unit = bytes_of[name] / seconds / 1e9, peaks.gbs, "GB/s"
        lines.append(
            f"| {name} | {seconds:.2f} | {work.owned / seconds / 1e6:.1f} | {rate:,.3g} {unit} | {peak:,.3g} {unit} | "
            f"{100 * rate / peak:.1f} % |"
        )
    total = sum(stages.seconds.values())
    lines.append(f"| all, one after the other | {total:.2f} | {work.owned / total / 1e6:.1f} | | | |")
    note = (
        f"{plan.runtime.name}; {work.owned / 1e6:.1f} MP of tiles; the network saw {work.seen / work.owned:.2f} times "
        f"as many pixels (halos and seams) and does {macs / 1e3:.1f} thousand multiply-adds per pixel. Bytes: what a "
        "stage must read and write at least, its input and its output once each, against copying with all cores; "
        "compressing, parsing and comparing is work that such a bound does not see."
    )
    return "\n".join([*lines, "", note])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slides",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data sets (%(default)s)")
    parser.add_argument("--size", type=int, default=10000, help="side of the mosaic in pixels (%(default)s)")
    parser.add_argument("--slide", type=Path, help="a slide to take in place of a mosaic")
    parser.add_argument("--out", type=Path, help="folder that keeps the results (default: they are removed)")
    parser.add_argument(
        "--precision", choices=("bf16", "f32"), help="of the network (default: this machine's)"
    )
    parser.add_argument("--threads", type=int, help="limit of every library (default: none)")
    parser.add_argument(
        "--part", type=int, default=4096, help="side of the part for the stages; 0: none (%(default)s)"
    )
    parser.add_argument("--no-command", action="store_true", help="the stages only")
    parser.add_argument("more", nargs="*", metavar="-- ARGUMENTS", help="further arguments of the command")
    return parser


def report(args: argparse.Namespace, slide: Path, out: Path) -> None:
    """Measure and print."""
    from napari_nucseg.io.slide import read_image

    with read_image(slide) as image:
        shape = image.shape
    megapixels = math.prod(shape) / 1e6
    if not args.no_command:
        print(f"\n## The whole command, {shape[1]:,} x {shape[0]:,} px ({megapixels:.0f} MP)\n", flush=True)
        usage, summary = run_command(slide, out, args.precision, args.more)
        print(command_table(usage, summary, megapixels), flush=True)
    if args.part:
        from benchmarks._roofline import Peaks, multiply_adds
        from napari_nucseg.models.registry import find_model

        print("\n## Each stage against the machine\n", flush=True)
        peaks = Peaks.measure(args.threads or cores())
        print(f"{peaks.lines()}\n", flush=True)
        plan, stages, work = time_part(slide, args.part, args.precision)
        print(roofline_table(plan, stages, work, peaks, multiply_adds(find_model("default"))), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks.slides``."""
    args = _parser().parse_args(argv)
    if args.threads:
        limit_threads(args.threads)
    print(machine(args.threads or cores()))
    try:
        with tempfile.TemporaryDirectory(prefix="nucseg-slides-") as scratch:
            slide = args.slide
            if slide is None:
                slide = Path(scratch) / "mosaic.tif"
                print(f"Mosaic: {write_mosaic(args.data, args.size, slide)}", flush=True)
            report(args, slide, args.out or Path(scratch) / "results")
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
