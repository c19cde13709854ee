"""A saved result of as many nuclei as wanted, made up quickly: what a viewer is measured with."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.mosaic import MPP
from napari_nucseg.core.tiling import Box
from napari_nucseg.io.omezarr import LabelPyramid
from napari_nucseg.io.tables import TableWriter
from napari_nucseg.models.card import Card

CELL = 1024
PER_SIDE = 32
"""Nuclei along a side of a cell: about 1,000 per megapixel, as in a cellular tumour."""

STEP = CELL // PER_SIDE
RADII = (7.0, 14.0)


def nuclei_of_a_cell(seed: int = 0) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    """Draw ellipses in a shaken grid.

    Returns
    -------
    labels : uint32 (CELL, CELL)
        1..n, each nucleus whole.
    centres : (n, 2)
    """
    random = np.random.default_rng(seed)
    labels = np.zeros((CELL, CELL), np.uint32)
    y, x = np.mgrid[:STEP, :STEP] + 0.5
    centres: list[tuple[float, float]] = []
    for row in range(PER_SIDE):
        for column in range(PER_SIDE):
            height, width = random.uniform(*RADII, 2)
            cy, cx = random.uniform(height, STEP - height), random.uniform(width, STEP - width)
            inside = ((y - cy) / height) ** 2 + ((x - cx) / width) ** 2 <= 1
            part = labels[row * STEP : (row + 1) * STEP, column * STEP : (column + 1) * STEP]
            part[inside] = len(centres) + 1
            centres.append((row * STEP + cy - 0.5, column * STEP + cx - 0.5))
    return labels, np.array(centres)


def side_for(nuclei: int) -> int:
    """Return the side in pixels of a slide that holds at least so many nuclei."""
    return CELL * math.ceil(math.sqrt(nuclei) / PER_SIDE)


def make_result(folder: Path, name: str, nuclei: int, card: Card) -> int:
    """Write labels, table and summary of a slide of at least so many nuclei; return how many there are.

    Parameters
    ----------
    folder : Path
    name : str
        Stem of the files.
    nuclei : int
    card : Card
        Its classes are given to the nuclei, some to each.
    """
    side = side_for(nuclei)
    cells = side // CELL
    pattern, centres = nuclei_of_a_cell()
    count = len(centres)
    area = np.bincount(pattern.ravel())[1:] * MPP**2
    folder.mkdir(parents=True, exist_ok=True)
    with (
        LabelPyramid(folder / f"{name}_labels.zarr", (side, side), MPP) as pyramid,
        TableWriter(folder, name) as tables,
    ):
        boxes: dict[Hashable, Box] = {
            (row, column): Box(row * CELL, (row + 1) * CELL, column * CELL, (column + 1) * CELL)
            for row in range(cells)
            for column in range(cells)
        }
        pyramid.expect(boxes)
        for number, (key, box) in enumerate(boxes.items()):
            first = number * count
            pyramid.paint(key, box, np.where(pattern > 0, pattern + np.uint32(first), np.uint32(0)))
            tables.add(_table(first, centres + np.array([box.y0, box.x0], np.float64), area, card, number))
    summary = {"name": name, "mpp": MPP, "colours": {k: list(v) for k, v in card.colours.items()}}
    (folder / f"{name}_summary.json").write_text(json.dumps(summary))
    return cells**2 * count


def _table(
    first: int, centres: NDArray[np.floating], area: NDArray[np.floating], card: Card, seed: int
) -> pd.DataFrame:
    """Return the rows of a cell."""
    random = np.random.default_rng(seed)
    n = len(centres)
    probabilities = random.dirichlet(np.full(len(card.classes), 0.4), n)
    return pd.DataFrame(
        {
            "id": np.arange(first + 1, first + n + 1, dtype=np.uint32),
            "centre_y": centres[:, 0],
            "centre_x": centres[:, 1],
            "class": np.array(card.classes, object)[probabilities.argmax(1)],
            "score": random.uniform(0.4, 1, n),
            **{f"prob_{k}": probabilities[:, i] for i, k in enumerate(card.classes)},
            "area_um2": area,
            "perimeter_um": 3.6 * np.sqrt(area),
            "eccentricity": random.uniform(0, 0.9, n),
            "solidity": random.uniform(0.9, 1, n),
            "mean_haematoxylin": random.uniform(0.1, 0.6, n),
        }
    )
