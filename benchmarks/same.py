"""Whether results are the same nuclei: ``python -m benchmarks.same A_labels.zarr B_labels.zarr ...``.

Two label images are equal up to renumbering if every id of one always lies where one and the same id of the other lies.
They are read in bands, so they may be larger than memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

BAND = 1024


def same_partition(a: Any, b: Any) -> bool:
    """Return whether two (H, W) label images are equal up to renumbering."""
    if a.shape != b.shape:
        return False
    forth: dict[int, int] = {}
    back: dict[int, int] = {}
    for y in range(0, a.shape[0], BAND):
        one, other = (np.asarray(x[y : y + BAND]).astype(np.uint64) for x in (a, b))
        if not np.array_equal(one > 0, other > 0):
            return False
        pairs = np.unique((one << np.uint64(32)) | other)
        for left, right in zip((pairs >> 32).tolist(), (pairs & 0xFFFFFFFF).tolist(), strict=True):
            if forth.setdefault(left, right) != right or back.setdefault(right, left) != left:
                return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks.same``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same", description=__doc__)
    parser.add_argument(
        "labels", type=Path, nargs="+", help="label pyramids, the first is compared with the others"
    )
    args = parser.parse_args(argv)
    from napari_nucseg.io.omezarr import open_labels

    first, *others = (open_labels(path)[0] for path in args.labels)
    equal = [same_partition(first, other) for other in others]
    for path, same in zip(args.labels[1:], equal, strict=True):
        print(f"{path.name}: {'the same nuclei' if same else 'OTHER nuclei'} as {args.labels[0].name}")
    return 0 if all(equal) else 1


if __name__ == "__main__":
    raise SystemExit(main())
