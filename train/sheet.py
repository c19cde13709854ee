"""Contact sheet of a prepared data set: images with the outlines of their nuclei, for a look before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from napari_nucseg.models.card import Colour
from train.colours import class_colours
from train.prepared import Row

UNKNOWN = (255, 255, 255)
"""Outlines of nuclei without a class, as in the panel."""

_TILE, _LINE, _MARGIN = 320, 13, 6
_MOST_CUT = 480  # pixels of the image that a tile shows at most, so that outlines can be judged


def draw_sheet(
    folder: Path, rows: Sequence[Row], classes: Sequence[str], path: Path, count: int = 24
) -> Path:
    """Draw a grid of overlays and save it.

    Parameters
    ----------
    folder
        A prepared data set.
    rows
        Its images. Half of the sheet at most goes to those with warnings, the rest is spread evenly.
    classes
        Their names, for the legend and the colours.
    path
        Of the PNG file.
    count
        Tiles at most.

    Returns
    -------
    Path
        `path`.
    """
    chosen, colours = choose(rows, count), class_colours(classes)
    columns = min(6, max(1, int(np.ceil(np.sqrt(len(chosen) * 1.5)))))
    lines = -(-len(chosen) // columns)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    captions = [_caption(measure, row) for row in chosen]
    caption = 4 + _LINE * max(map(len, captions), default=0)
    legend = 24 if classes else 0
    width, height = columns * (_TILE + _MARGIN), lines * (_TILE + caption + _MARGIN) + legend
    sheet = Image.new("RGB", (max(width, _TILE), max(height, legend + 1)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (row, texts) in enumerate(zip(chosen, captions, strict=True)):
        x = (place % columns) * (_TILE + _MARGIN)
        y = legend + (place // columns) * (_TILE + caption + _MARGIN)
        sheet.paste(Image.fromarray(_tile(folder, row, list(colours.values()))), (x, y + caption))
        for number, (text, colour) in enumerate(texts):
            pen.text((x + 2, y + 1 + number * _LINE), text, colour)
    _legend(pen, colours)
    sheet.save(path)
    return path


def choose(rows: Sequence[Row], count: int) -> list[Row]:
    """Return at most `count` rows in order: some with warnings, the others spread evenly."""
    suspects = [i for i, row in enumerate(rows) if row.warnings]
    taken = set(_spread(suspects, count // 2))
    rest = [i for i in range(len(rows)) if i not in taken]
    return [rows[i] for i in sorted(taken | set(_spread(rest, count - len(taken))))]


def overlay(
    image: NDArray[np.uint8],
    labels: NDArray[np.integer],
    types: NDArray[np.uint8] | None,
    colours: Sequence[Colour],
) -> NDArray[np.uint8]:
    """Return a copy of an image (H, W, 3) with the inner outlines of its nuclei in the colours of classes 1, 2, ..."""
    edge = np.zeros(labels.shape, np.bool_)
    for axis in (0, 1):
        step = np.diff(labels.astype(np.int64), axis=axis) != 0
        first, second = [slice(None)] * 2, [slice(None)] * 2
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        edge[tuple(first)] |= step
        edge[tuple(second)] |= step
    edge &= labels > 0
    palette = np.full((256, 3), UNKNOWN, np.uint8)
    palette[1 : len(colours) + 1] = np.reshape(colours, (-1, 3))
    out = image.copy()
    out[edge] = palette[types[edge]] if types is not None else UNKNOWN
    return out


def _tile(folder: Path, row: Row, colours: Sequence[Colour]) -> NDArray[np.uint8]:
    """Return the middle of an image with outlines, enlarged or reduced to a tile."""
    height, width = row.shape
    side = min(height, width, _MOST_CUT)
    top, left = (height - side) // 2, (width - side) // 2
    box = (left, top, left + side, top + side)
    loaded = {}
    for kind, how in (("images", Image.Resampling.BICUBIC), ("instances", None), ("types", None)):
        path = folder / row.split / kind / f"{row.name}.png"
        if not path.exists():
            continue
        with Image.open(path) as picture:
            part = picture.crop(box)
            if kind == "instances":
                part = part.convert("I")  # 16-bit pictures can't be resized by all versions
            loaded[kind] = np.asarray(part.resize((_TILE, _TILE), how or Image.Resampling.NEAREST))
    image, labels = loaded["images"], loaded.get("instances")
    return image if labels is None else overlay(image, labels, loaded.get("types"), colours)


def _caption(pen: ImageDraw.ImageDraw, row: Row) -> list[tuple[str, str]]:
    """Return the lines above a tile with their colours: name, facts and all warnings."""
    nuclei = f"{row.nuclei:,} {'nucleus' if row.nuclei == 1 else 'nuclei'}, " if row.nuclei else ""
    lines = [(_fitting(pen, f"{row.split}/{row.name}"), "black"), (f"{nuclei}{row.mpp:.3g} um/px", "dimgrey")]
    for warning in row.warnings:
        line = "!"
        for word in warning.split():
            if pen.textlength(f"{line} {word}") > _TILE:
                lines.append((line, "firebrick"))
                line = " "
            line = f"{line} {word}"
        lines.append((line, "firebrick"))
    return lines


def _fitting(pen: ImageDraw.ImageDraw, text: str) -> str:
    """Return a text that a tile has room for."""
    if pen.textlength(text) <= _TILE:
        return text
    while pen.textlength(text + "...") > _TILE:
        text = text[:-1]
    return text + "..."


def _legend(pen: ImageDraw.ImageDraw, colours: Mapping[str, Colour]) -> None:
    x = 4
    for name, colour in colours.items():
        pen.rectangle((x, 5, x + 12, 17), fill=colour)
        pen.text((x + 16, 5), name, "black")
        x += 28 + int(pen.textlength(name))


def _spread(items: Sequence[int], count: int) -> list[int]:
    """Return `count` of the items, evenly spaced, or all."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)] if count > 0 else []
