"""A slide segmented again, of which a person has reviewed parts: these are carried over into the new result."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_nucseg.core.tiling import Box
from napari_nucseg.io.atomic import told
from napari_nucseg.slides.outputs import FORMATS, SUMMARY, older_names
from napari_nucseg.slides.result import SlideResult, border_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

RING = 192
"""How far around a reviewed part new nuclei may reach into it, level-0 pixels."""


def work_folder(folder: Path, name: str) -> Path:
    """Return where a slide is segmented again while the earlier result stays in its folder."""
    return folder / f".{name}.again"


def carry_over(old: SlideResult, new: SlideResult) -> int:
    """Put the reviewed parts of a result into another one of the same slide; return how many nuclei that are.

    In a reviewed part the nuclei are those of the old result. New nuclei beside it that would overlap them are dropped.
    """
    carried = 0
    for place in old.reviewed:
        part = old.read_region(place)
        wide = place.grown(RING, new.shape)
        here = new.read_region(wide)
        mine = np.zeros(wide.shape, np.uint32)
        mine[place.relative(wide).slices] = part.labels
        ids = part.nuclei["id"].to_numpy(np.uint32)
        fresh = np.arange(here.next_id, here.next_id + len(ids), dtype=np.uint32)
        lookup = np.zeros(int(ids.max(initial=0)) + 1, np.uint32)
        lookup[ids] = fresh
        mine = lookup[mine]
        others = _beside(here.labels, mine, place.relative(wide), here.nuclei, wide)
        labels = np.where(mine > 0, mine, np.where(np.isin(here.labels, others), here.labels, np.uint32(0)))
        rows = [here.nuclei[here.nuclei["id"].isin(others)], part.nuclei.assign(id=fresh)]
        nuclei = pd.concat(rows, ignore_index=True)
        for name, default in (("state", "predicted"), ("origin", "model")):
            if name in nuclei:
                nuclei[name] = nuclei[name].astype(object).where(nuclei[name].notna(), default)
        new.put_back(wide, labels.astype(np.uint32), nuclei, reviewed=place)
        carried += len(ids)
    return carried


def _beside(
    labels: NDArray[np.uint32], mine: NDArray[np.uint32], place: Box, nuclei: pd.DataFrame, wide: Box
) -> NDArray[np.integer]:
    """Return the ids of new nuclei beside a reviewed part, or cut by its border, and over no nucleus of it."""
    y = nuclei["centre_y"].to_numpy() - wide.y0
    x = nuclei["centre_x"].to_numpy() - wide.x0
    inside = (y >= place.y0) & (y < place.y1) & (x >= place.x0) & (x < place.x1)
    over = np.unique(labels[(mine > 0) & (labels > 0)])
    ids = nuclei["id"].to_numpy()
    cut = border_ids(labels[place.slices], place, labels.shape)
    found: NDArray[np.integer] = ids[(~inside | np.isin(ids, cut)) & ~np.isin(ids, over)]
    return found


def replace_result(old: SlideResult, new: SlideResult) -> Path:
    """Put a result in the place of an earlier one, which is kept in a folder beside it; the reviews stay.

    Returns
    -------
    Path
        Where the earlier one is now.
    """
    folder = old.folder
    kept = folder / f"{old.name}_earlier-{datetime.now():%Y%m%d-%H%M%S}"
    with told(folder):
        kept.mkdir()
        for result, target in ((old, kept), (new, folder)):
            for name in (*older_names(result.name, FORMATS), f"{result.name}_{SUMMARY}"):
                if (result.folder / name).exists():
                    os.replace(result.folder / name, target / name)
    return kept
