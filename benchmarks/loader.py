"""How many crops a second the training data give, for themselves: ``python -m benchmarks.loader --config FILE.toml``.

Per core, by the clock of the processor, so that other work on the machine counts little; then with loader processes, by
the clock on the wall. A network that trains faster than that waits for its data.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

from benchmarks.timing import cores, limit_threads, machine

limit_threads(1)

from napari_nucseg.core.maps import MapLayout  # noqa: E402
from napari_nucseg.errors import NucSegError  # noqa: E402
from train.config import load_config  # noqa: E402
from train.crops import Crops, loader  # noqa: E402
from train.data import load_data  # noqa: E402
from train.fit import FitConfig  # noqa: E402
from train.runs import resolved  # noqa: E402


def measure(config: FitConfig, crops: int, workers: list[int]) -> None:
    """Print the time to the first crop, and crops per second cold and warm, in this process and with loaders."""
    began = time.perf_counter()
    images, _ = load_data(config.data)
    layout = MapLayout(config.model.angles, len(config.data.classes))
    data = Crops(images, config.data.sets, layout, config.crop, config.augment, config.loop.seed)
    data[0]
    print(f"{len(images)} images, first crop after {time.perf_counter() - began:.1f} s")
    for name in ("images mostly read for the first time", "the same crops again"):
        began = time.process_time()
        for index in range(crops):
            data[index]
        rate = crops / (time.process_time() - began)
        print(f"{rate:6.0f} crops of {config.crop.size} px per second and core, {name}")
    batch = config.loop.batch_size
    for count in workers:
        batches = iter(loader(data, 0, (count * 4 + 1) * batch + crops * count, batch, count))
        # the first batches contain the start of the processes
        for _ in itertools.islice(batches, 4 * count):
            pass
        began = time.perf_counter()
        done = sum(len(item["image"]) for item in batches)
        print(
            f"{done / (time.perf_counter() - began):6.0f} crops per second by the clock, {count} loader processes"
        )


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks.loader``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="configuration of train.fit")
    parser.add_argument("--crops", type=int, default=400, help="crops to measure (400)")
    parser.add_argument(
        "--workers", type=int, nargs="*", help="numbers of loader processes (1 and all cores)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value")
    args = parser.parse_intermixed_args(argv)
    print(machine(1))
    try:
        config = resolved(load_config(FitConfig, args.config, args.overrides))
        measure(config, args.crops, sorted({1, cores()}) if args.workers is None else args.workers)
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
