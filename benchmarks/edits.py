"""How long an edit takes: ``python -m benchmarks.edits``.

On a session with about 1,000 nuclei, a real image of 1000 x 1000 pixels, and on one with about 100,000, the same
image laid side by side 10 x 10 times. First the edits alone: from the call to the labels and records being
up to date. Then the same in a real napari window: what our views do for an edit, and what napari then takes to draw
the changed part; beside it, what it takes to draw the whole layer anew.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.timing import cores, limit_threads, machine
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from benchmarks._edits import Clock
    from napari_nucseg.session import Session

GOAL_MS = 16.0
"""p95 of an edit is to be no more: one frame at 60 Hz."""

HELD = ("add", "add inside (split)", "move (one step of a drag)", "delete")
"""Edits that are held to the goal."""


def edit_table(clock: Clock) -> str:
    """Return times by kind of edit, in markdown."""
    lines = [
        f"| edit -> labels updated | times | p50 ms | p95 ms | most ms | p95 CPU ms | p95 <= {GOAL_MS:.0f} ms |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for kind, spent in clock.spent.items():
        middle, slow = np.percentile(spent, [50, 95])
        cpu = np.percentile(clock.computed[kind], 95)
        held = ("yes" if slow <= GOAL_MS else "NO") if kind in HELD else "-"
        times = f"{middle:.2f} | {slow:.2f} | {max(spent):.2f} | {cpu:.2f}"
        lines.append(f"| {kind} | {len(spent)} | {times} | {held} |")
    return "\n".join(lines)


def draw_table(clock: Clock) -> str:
    """Return times with a window, by kind of edit, in markdown."""
    stages = list(dict.fromkeys(name for rows in clock.more.values() for row in rows for name in row))
    lines = [
        f"| in napari, p50 / p95 | edit and our views, ms | {' | '.join(stages)} |",
        "|---|---:|" + "---:|" * len(stages),
    ]
    for kind, spent in clock.spent.items():
        cells = [spent] + [[row[name] for row in clock.more[kind]] for name in stages]
        texts = ["{:,.5g} / {:,.5g}".format(*np.percentile(some, [50, 95]).round(1)) for some in cells]
        lines.append(f"| {kind} | {' | '.join(texts)} |")
    return "\n".join(lines)


def measure(session: Session, rounds: int, seed: int) -> str:
    """Time the edits of a session without a window; return the report."""
    from benchmarks._edits import Clock, edit_all

    edit_all(session, Clock(), min(rounds, 3), seed + 1)  # warm up
    clock = Clock()
    same = edit_all(session, clock, rounds, seed)
    wrong = session.check()
    ending = (
        f"Undone to the start, the labels are {'what they were' if same else 'NOT what they were'}; "
        f"labels and records {'agree' if wrong is None else 'DISAGREE: ' + wrong}. {clock.refused} edits were refused."
    )
    return f"{edit_table(clock)}\n\n{ending}"


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    import torch

    from benchmarks._tissue import choose_tile, make_session
    from napari_nucseg.models.registry import find_model
    from napari_nucseg.models.runtime import load_runtime

    torch.set_num_threads(cores())
    model = find_model(args.model)
    tile = choose_tile(args.data, load_runtime(model, "cpu"), model.card)
    print(f"{model} on {tile.name}; {machine(cores())}", flush=True)
    for times in args.times:
        began = time.perf_counter()
        session = make_session(tile, times, model.card)
        height, width = session.labels.shape
        how = (
            "one image"
            if times == 1
            else f"{times} x {times} times the same image, whose maps were computed once"
        )
        print(f"\n## {int(session.live.sum()):,} nuclei in {width:,} x {height:,} px\n")
        print(f"{how}; made in {time.perf_counter() - began:.0f} s.\n", flush=True)
        print(measure(session, args.rounds, args.seed), flush=True)
        if not args.no_window:
            from benchmarks._window import measure_window

            print(f"\n{measure_window(session, tile.image, model.card, args.rounds, args.seed)}", flush=True)
        print(f"\nMemory at most: {peak_gb():.1f} GB", flush=True)
        del session
        gc.collect()


def peak_gb() -> float:
    """Return the most memory that this process has had, in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.edits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data sets (%(default)s)")
    parser.add_argument(
        "--times", type=int, nargs="+", default=[1, 10], help="images along a side (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=100, help="edits of each kind (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the places (%(default)s)")
    parser.add_argument("--no-window", action="store_true", help="without napari")
    parser.add_argument("--model", default="default", help="name or path (default: the shipped one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks.edits``."""
    args = _parser().parse_args(argv)
    limit_threads(cores())
    try:
        run(args)
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
