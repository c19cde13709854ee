"""Our pipeline and its peers, timed side by side on one real mosaic: ``python -m benchmarks.peers``.

Only speed is compared: the peers' networks have random weights (their time does not depend on them; nothing is
downloaded), and their post-processing gets what a network would answer that found the very nuclei that ours found, so
it has the same work to do. What any of them gets right is not measured here.

- StarDist: the package from PyPI in an environment that is made for it (once, in the cache folder). Network: the
  default configuration of the H&E model (32 rays, grid 2 x 2, RGB). Post-processing: its NMS and drawing of polygons.
- HoVer-Net: written anew in its published shape, "fast" form, windows of 256 px for 164 px, in f32 as published and
  in bf16. Post-processing: Sobel filters, markers, watershed, vote of the classes.
- scikit-image: our network, then peaks, watershed, vote and table with scikit-image.

Every contender has a process of its own and the same number of threads; a round to warm up is left out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks._peer import Report
from benchmarks._peer_env import STARDIST, NotInstalled, call, environment
from benchmarks.mosaic import MPP
from benchmarks.timing import cores, limit_threads, machine
from napari_nucseg.errors import NucSegError

TITLES = {
    "ours-default": "napari-nucseg",
    "ours-f32": "napari-nucseg, f32",
    "skimage": "our network + scikit-image",
    "stardist": "StarDist",
    "hovernet-f32": "HoVer-Net, f32 as published",
    "hovernet-bf16": "HoVer-Net, bf16",
}
"""Contenders, in the order in which they run and are shown; the first must succeed."""


@dataclass(frozen=True)
class Row:
    """A contender in the table: seconds of its best rounds, or why there are none."""

    title: str
    report: Report | None = None
    network: float = 0.0
    post: float = 0.0
    together: float = 0.0
    reason: str = ""


def row_of(title: str, report: Report, first: Report | None) -> Row:
    """Take the best round of every part; a contender without a network of its own has that of the first."""
    network = min(report.network or (first.network if first else ()))
    post = min(report.post)
    return Row(title, report, network, post, min(report.together, default=network + post))


def contend(name: str, folder: Path, rounds: int, threads: int) -> Report:
    """Run one contender in its own process.

    Raises
    ------
    NotInstalled
        It cannot be had, or it failed; the text says why.
    """
    numbers = [str(rounds), str(threads)]
    if name == "stardist":
        script = Path(__file__).with_name("_peer_stardist.py")
        call([str(environment(STARDIST)), str(script), str(folder), *numbers])
    else:
        call([sys.executable, "-m", "benchmarks._peer", name, str(folder), *numbers])
    return Report.read(folder, name)


def compare(image: np.ndarray, names: Sequence[str], rounds: int, threads: int) -> list[Row]:
    """Time the contenders one after the other."""
    rows: list[Row] = []
    first: Report | None = None
    with tempfile.TemporaryDirectory(prefix="nucseg-peers-") as scratch:
        folder = Path(scratch)
        np.save(folder / "image.npy", image)
        for name in names:
            print(f"{TITLES[name]} ...", file=sys.stderr, flush=True)
            try:
                report = contend(name, folder, rounds, threads)
            except NotInstalled as error:
                if first is None:
                    raise NucSegError(
                        f"Our own pipeline did not run, so there is nothing to compare: {error}"
                    ) from error
                rows.append(Row(TITLES[name], reason=str(error)))
                continue
            first = first or report
            rows.append(row_of(TITLES[name], report, first))
    return rows


def table(rows: Sequence[Row], megapixels: float) -> str:
    """Return the comparison in markdown."""
    lines = [
        "| | network MP/s | post-processing MP/s | together MP/s | time / ours | nuclei | parameters | versions |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        if row.report is None:
            lines.append(f"| {row.title} | - | - | - | - | - | - | not measured: {row.reason} |")
            continue
        speeds = " | ".join(f"{megapixels / s:.3g}" for s in (row.network, row.post, row.together))
        report, ratio = row.report, row.together / rows[0].together
        size = f"{report.parameters / 1e6:.1f} M" if report.parameters else "ours"
        versions = "; ".join(text for text in (report.versions, report.note) if text)
        lines.append(f"| {row.title} | {speeds} | {ratio:.1f}x | {report.nuclei:,} | {size} | {versions} |")
    return "\n".join(lines)


def notes() -> str:
    """Return how to read the table."""
    return (
        "Speed only, accuracy is not compared: the networks of StarDist and HoVer-Net have random weights, and their "
        "post-processing gets perfect maps of the nuclei that ours found. StarDist finds no classes here; ours and "
        "scikit-image also measure every nucleus. Ours overlaps network and post-processing; for the others the times "
        "are added. Reading the file and writing the results are in none of them."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data sets (%(default)s)")
    parser.add_argument("--size", type=int, default=2048, help="side of the mosaic in pixels (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds of each, the best counts (%(default)s)")
    parser.add_argument("--threads", type=int, default=min(2, cores()), help="of each (%(default)s)")
    peers = list(TITLES)[1:]
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers, metavar="NAME",
                        help=f"which, of {', '.join(peers)} (all)")  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks.peers``."""
    args = _parser().parse_args(argv)
    limit_threads(args.threads)
    from benchmarks._canvas import make_canvas

    where = machine(args.threads)
    try:
        canvas = make_canvas(args.data, (args.size, args.size))
        names = ["ours-default", *(name for name in TITLES if name in args.peers)]
        rows = compare(canvas.rows(0, args.size), names, max(1, args.repeat), args.threads)
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    megapixels = args.size**2 / 1e6
    print(f"A mosaic of {args.size} x {args.size} px ({megapixels:.2f} MP, {MPP} um per px): {canvas.origin}")
    print(f"{where}; a warm-up is left out, the best of {args.repeat} counts\n")
    print(f"{table(rows, megapixels)}\n\n{notes()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
