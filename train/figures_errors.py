"""What is wrong with a segmentation, nucleus by nucleus: missed, invented, merged, split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core._overlap import Overlap


@dataclass(frozen=True)
class Errors:
    """Ids of the true and of the predicted nuclei by what became of them.

    A pair matches at IoU > 0.5, as in PQ. Each true nucleus without a match is in one of `missed`, `merged_true` and
    `split_true`, so together they are the false negatives of PQ; each predicted one in one of `invented`, `merged`
    and `split`, the false positives. A poor outline alone, with IoU <= 0.5, is missed and invented at once, as PQ
    counts it.

    Attributes
    ----------
    right : (n,) int64
        Predicted nuclei with a match.
    found : (n,) int64
        True nuclei with a match.
    missed : int64
        True nuclei where nothing else explains the loss.
    invented : int64
        Predicted nuclei likewise.
    merged, merged_true : int64
        Predicted nuclei that hold most of each of several true ones, and the true ones so held.
    split, split_true : int64
        Predicted nuclei most of which lies in one true nucleus together with others, and such true nuclei.
    """

    right: NDArray[np.int64]
    found: NDArray[np.int64]
    missed: NDArray[np.int64]
    invented: NDArray[np.int64]
    merged: NDArray[np.int64]
    merged_true: NDArray[np.int64]
    split: NDArray[np.int64]
    split_true: NDArray[np.int64]


def _grouped(
    holder: NDArray[np.int64], held: NDArray[np.int64], pairs: NDArray[np.bool_], sizes: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return who holds several others by these pairs, and who is so held."""
    several = np.bincount(holder[pairs], minlength=sizes[0]) >= 2
    out = np.zeros(sizes[1], np.bool_)
    out[held[pairs & several[holder]]] = True
    return several, out


def find_errors(true: NDArray[Any], pred: NDArray[Any]) -> Errors:
    """Compare two label images of one shape, any ids, 0 = background."""
    table = Overlap.of(true, pred)
    t, p = table.t, table.p
    n, m = table.true_ids.size, table.pred_ids.size
    good = table.iou > 0.5
    found, right = np.zeros(n, np.bool_), np.zeros(m, np.bool_)
    found[t[good]], right[p[good]] = True, True
    merging, swallowed = _grouped(p, t, 2 * table.shared > table.true_areas[t], (m, n))
    broken, shards = _grouped(t, p, 2 * table.shared > table.pred_areas[p], (n, m))
    swallowed, broken = swallowed & ~found, broken & ~found & ~swallowed
    merging, shards = merging & ~right, shards & ~right & ~merging
    a, b = table.true_ids, table.pred_ids
    return Errors(
        right=b[right],
        found=a[found],
        missed=a[~found & ~swallowed & ~broken],
        invented=b[~right & ~merging & ~shards],
        merged=b[merging],
        merged_true=a[swallowed],
        split=b[shards],
        split_true=a[broken],
    )


def matches(true: NDArray[Any], pred: NDArray[Any]) -> dict[int, int]:
    """Return the true nucleus of every predicted one that matches one at IoU > 0.5, by id."""
    table = Overlap.of(true, pred)
    good = table.iou > 0.5
    return dict(
        zip(table.pred_ids[table.p[good]].tolist(), table.true_ids[table.t[good]].tolist(), strict=True)
    )
