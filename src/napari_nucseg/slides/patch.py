"""A reviewed part of a slide on its way back: pixels, chunks of all levels, rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.edit import region_at
from napari_nucseg.core.tiling import Box
from napari_nucseg.slides.table_file import TableFile, rewrite

if TYPE_CHECKING:
    import pandas as pd

    from napari_nucseg.slides.transaction import Transaction


def renumbered(
    labels: NDArray[np.uint32], nuclei: pd.DataFrame, taken: NDArray[np.integer], known: NDArray[np.integer]
) -> tuple[NDArray[np.uint32], pd.DataFrame]:
    """Return a reviewed part with new ids for some nuclei, which neither it nor the slide has.

    Parameters
    ----------
    labels, nuclei
        See `SlideResult.put_back`.
    taken : integers
        Ids to replace.
    known : integers
        All ids of the slide.
    """
    if not len(taken):
        return labels, nuclei
    free = max(int(known.max(initial=0)), int(labels.max(initial=0)), int(nuclei["id"].max())) + 1
    ids = np.arange(free, dtype=np.uint32)
    ids[taken] = np.arange(free, free + len(taken))
    return ids[labels], nuclei.assign(id=ids[nuclei["id"].to_numpy()])


def merged(
    before: NDArray[np.uint32],
    foreign: NDArray[np.uint32],
    labels: NDArray[np.uint32],
    nuclei: pd.DataFrame,
    place: Box,
) -> tuple[NDArray[np.uint32], pd.DataFrame, list[int]]:
    """Return the labels of a place with reviewed nuclei in it; those that the border cuts keep all their pixels.

    Parameters
    ----------
    before : uint32 (h, w)
        As they are in the slide.
    foreign : ids of nuclei that the place cuts
    labels, nuclei
        Reviewed, see `SlideResult.put_back`.

    Returns
    -------
    labels : uint32 (h, w)
    nuclei : DataFrame
        Of the reviewed ones that have room, sorted by id. One whose centre was taken gets another centre.
    lost : list of int
    """
    ids = nuclei["id"].to_numpy()
    held = np.where(np.isin(before, foreign), before, np.uint32(0))
    wanted = np.where(np.isin(labels, ids), labels, np.uint32(0))
    new = np.where(held > 0, held, wanted).astype(np.uint32)
    present = np.isin(ids, new)
    kept = nuclei[present].sort_values("id", ignore_index=True)
    cut = np.unique(wanted[(held > 0) & (wanted > 0)])
    for id_ in cut[np.isin(cut, kept["id"])].tolist():
        row = int(np.flatnonzero(kept["id"].to_numpy() == id_)[0])
        _keep_one_part(new, id_, kept, row, place)
    return new, kept, ids[~present].tolist()


def _keep_one_part(new: NDArray[np.uint32], id_: int, nuclei: pd.DataFrame, row: int, place: Box) -> None:
    """Leave one connected part of a nucleus that has lost pixels, with its centre in it."""
    pixels = np.argwhere(new == id_)
    centre = nuclei.loc[row, ["centre_y", "centre_x"]].to_numpy(float) - (place.y0, place.x0)
    y, x = pixels[((pixels - centre) ** 2).sum(1).argmin()]
    part = region_at(new, int(y), int(x))
    flat = new.reshape(-1)
    flat[flat == id_] = 0
    flat[part] = id_
    middle = np.floor(centre + 0.5).astype(int)
    if not (((middle >= 0) & (middle < new.shape)).all() and new[tuple(middle)] == id_):
        nuclei.loc[row, ["centre_y", "centre_x"]] = (float(y + place.y0), float(x + place.x0))


def stage_levels(
    change: Transaction, path: Path, levels: list[Any], place: Box, labels: NDArray[np.uint32]
) -> None:
    """Write the chunks of all levels that a part touches, each as a new file.

    A pixel of a coarser level is that pixel of level 0 whose coordinates are a multiple of its factor.
    """
    step = 1
    for level in levels:
        rows = range(-(-place.y0 // step), min(-(-place.y1 // step), level.shape[0]))
        cols = range(-(-place.x0 // step), min(-(-place.x1 // step), level.shape[1]))
        if not rows or not cols:
            break
        part = labels[rows[0] * step - place.y0 :: step, cols[0] * step - place.x0 :: step]
        box = Box(rows[0], rows[-1] + 1, cols[0], cols[-1] + 1)
        _stage_level(change, path, level, box, np.ascontiguousarray(part[: len(rows), : len(cols)]))
        step *= 2


def _stage_level(change: Transaction, path: Path, level: Any, box: Box, labels: NDArray[np.uint32]) -> None:
    import zarr
    from zarr.storage import LocalStore

    name = level.path.rsplit("/", 1)[-1]
    target = change.path(f"{path.name}/{name}/.zarray")
    target.write_bytes((path / name / ".zarray").read_bytes())
    tall, wide = level.chunks
    first = (box.y0 // tall, box.x0 // wide)
    last = (-(-box.y1 // tall), -(-box.x1 // wide))
    whole = Box(
        first[0] * tall,
        min(last[0] * tall, level.shape[0]),
        first[1] * wide,
        min(last[1] * wide, level.shape[1]),
    )
    # one row of chunks after the other, so that memory stays small
    with zarr.config.set({"array.write_empty_chunks": True}):
        staged = zarr.open_array(LocalStore(str(target.parent)), mode="r+", zarr_format=2)
        for y in range(whole.y0, whole.y1, tall):
            band = Box(y, min(y + tall, whole.y1), whole.x0, whole.x1)
            pixels = np.array(level[band.slices], np.uint32)
            shared = band.cut(box)
            if shared is not None:
                pixels[shared.relative(band).slices] = labels[shared.relative(box).slices]
            staged[band.slices] = pixels


def stage_table(
    change: Transaction, table: TableFile, without: NDArray[np.integer], more: pd.DataFrame
) -> None:
    """Write a table anew, see `rewrite`."""
    rewrite(table, change.path(table.path.name), without, more)
