"""What a review by centre points costs and brings on real images: ``python -m benchmarks.review``.

A simulated reviewer, who knows the truth, is given what the shipped model found on the validation images (those held
out of the training). It may only add, move, delete, merge and retype centres, and mends the worst error first: of
errors of the outline, the one with the most pixels in the wrong nucleus; then wrong classes. Each edit is one call of
the session. One that makes bPQ + F1_d of the image worse is undone, and counted all the same.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.timing import cores, limit_threads, machine
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from benchmarks._agreement import Agreement
    from benchmarks._curves import Mark, Track
    from benchmarks._doubt import Suspects
    from benchmarks._reviewer import Edit
    from benchmarks._validation import Case

SETS = ("consep", "monuseg")
EVERY = 1.0
"""Edits per 100 nuclei from one score to the next."""

MOST = 10
"""No review goes on for more than this many edits per nucleus."""


@dataclass(frozen=True)
class Review:
    """The reviews of all the images of one data set.

    Attributes
    ----------
    before, after : Counter
        Errors by kind.
    suspects : list
        The nuclei of each image as the model found them.
    ceilings : list of float
        bPQ of each image as the decoder makes it of all the true centres.
    """

    dataset: str
    tracks: list[Track]
    edits: list[Edit]
    before: Counter[str]
    after: Counter[str]
    suspects: list[Suspects]
    ceilings: list[float]

    @property
    def marks(self) -> list[Mark]:
        """Figures against the number of edits."""
        from benchmarks._curves import curve

        return curve(self.dataset, self.tracks, EVERY)


def review(dataset: str, cases: Sequence[Case]) -> Review:
    """Let the reviewer mend every image of a data set."""
    from benchmarks._agreement import Agreement
    from benchmarks._curves import Track
    from benchmarks._doubt import Suspects
    from benchmarks._reviewer import Reviewer
    from train.scores import PAIRING_UM

    out = Review(dataset, [], [], Counter(), Counter(), [], [])
    for case in cases:
        item, session = case.item, case.session
        table = Agreement(item.labels, item.types, session.labels, PAIRING_UM / item.mpp)
        reviewer, track = Reviewer(session, table), Track.begin(case)
        out.before.update(reviewer.left())
        out.ceilings.append(ceiling(case, table))
        out.suspects.append(Suspects.of(session, table))
        done = 0
        for done, edit in enumerate(reviewer.edits(MOST * table.n), start=1):
            out.edits.append(edit)
            track.note(done, EVERY)
        track.end(done)
        out.after.update(reviewer.left())
        out.tracks.append(track)
    return out


def ceiling(case: Case, table: Agreement) -> float:
    """Return the bPQ of the decoder, given one centre in each true nucleus; NaN where the image was resampled."""
    from napari_nucseg.core.decode import flood
    from napari_nucseg.core.metrics import panoptic_quality
    from napari_nucseg.core.tiling import Box

    session = case.session
    height, width = session.scale.model
    fields = session.fields.gather(Box(0, height, 0, width))
    if fields is None or not session.scale.is_identity:
        return float("nan")
    owner = flood(fields, np.unique(table.anchor[1:], axis=0), session.ground.config)
    return panoptic_quality(case.item.labels, owner).pq


def report(found: Review) -> str:
    """Return what a review cost and brought, in markdown."""
    from benchmarks._curves import GOAL, as_table, reached
    from benchmarks._doubt import doubt_report

    marks = found.marks
    nuclei, images = sum(t.nuclei for t in found.tracks), len(found.tracks)
    goal = reached(marks)
    first, last = marks[0], marks[-1]
    said = (
        f"F1_d {GOAL} was reached after {goal.done:.1f} edits per 100 nuclei, with bPQ {first.bpq:.3f} before and "
        f"{goal.bpq:.3f} then ({last.bpq:.3f} at the end, after {last.done:.1f} edits)."
        if goal
        else f"F1_d {GOAL} was not reached: {last.f1_d:.3f} after {last.done:.1f} edits per 100 nuclei."
    )
    blocks = [
        f"## {found.dataset}: {images} validation images, {nuclei:,} nuclei",
        said,
        as_table(marks),
        verbs(found.edits, nuclei),
        errors(found),
        f"The decoder makes bPQ {np.nanmean(found.ceilings):.3f} of all the true centres.",
        doubt_report(found.suspects),
    ]
    return "\n\n".join(blocks)


def verbs(edits: Sequence[Edit], nuclei: int) -> str:
    """Return the edits by kind: how many, and how long each took."""
    lines = [
        "| edit | done | per 100 nuclei | undone | refused | median ms | p95 ms "
        "| median IoU of the new nucleus | above 0.5 |",
        "|---|" + "---:|" * 8,
    ]
    for verb in ("add", "split", "move", "reject", "merge", "retype", "all"):
        some = [e for e in edits if verb in (e.verb, "all")]
        if not some:
            continue
        middle, slow = np.percentile([1e3 * e.seconds for e in some], [50, 95])
        made = np.array([e.iou for e in some if verb in ("add", "split") and not np.isnan(e.iou)])
        shape = f"{np.median(made):.2f} | {(made > 0.5).mean():.0%}" if made.size else "- | -"
        undone, refused = sum(e.undone for e in some), sum(e.refused for e in some)
        share = 100 * len(some) / nuclei
        lines.append(
            f"| {verb} | {len(some)} | {share:.1f} | {undone} | {refused} | {middle:.1f} | {slow:.1f} | {shape} |"
        )
    return "\n".join(lines)


def errors(found: Review) -> str:
    """Return the errors by kind, before and after."""
    lines = ["| errors | before | after |", "|---|---:|---:|"]
    kinds = sorted(found.before | found.after)
    return "\n".join(lines + [f"| {kind} | {found.before[kind]} | {found.after[kind]} |" for kind in kinds])


def run(args: argparse.Namespace) -> None:
    """Review, print, write."""
    import torch

    from benchmarks._curves import plot, write_csv
    from benchmarks._validation import cases, validation
    from napari_nucseg.models.registry import find_model
    from napari_nucseg.models.runtime import load_runtime

    torch.set_num_threads(cores())
    model = find_model(args.model)
    runtime = load_runtime(model, "cpu")
    print(f"{model} on {runtime.name}; {machine(cores())}\n", flush=True)
    curves: list[list[Mark]] = []
    for name in args.sets:
        chosen = validation(args.data, name, args.held_out, args.limit)
        found = review(name, list(cases(chosen, runtime, model.card)))
        print(report(found) + "\n", flush=True)
        curves.append(found.marks)
    csv_path = args.out / "review.csv"
    write_csv(csv_path, [mark for marks in curves for mark in marks])
    picture = args.plot or args.out / "review.png"
    plot(picture, curves)
    print(f"Written: {csv_path}, {picture}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.review",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data sets (%(default)s)")
    parser.add_argument("--sets", nargs="+", default=list(SETS), help="which of them (%(default)s)")
    parser.add_argument(
        "--held-out", type=Path, default=Path("train/configs/student.toml"),
        help="training configuration that names the images kept for validation (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, help="only the first so many images of each")
    parser.add_argument("--model", default="default", help="name or path (default: the shipped one)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the csv (%(default)s)")
    parser.add_argument("--plot", type=Path, help="picture to write (default: review.png in that folder)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks.review``."""
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
