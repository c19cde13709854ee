"""Labels of any size as an OME-Zarr pyramid, written chunk by chunk while tiles come in, and read lazily.

Every chunk is written once: a canvas takes the pixels of the tiles that touch it, and goes to the disk, and halved
into the canvas above it, as soon as no tile that could touch it is due any more. So nothing is read back, and what
is in memory depends on the order of the tiles, not on the size of the image; canvases that have to wait long
(along the border of two rows of blocks) wait compressed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import Draft, Writer, told
from napari_nucseg.io.canvases import LEVEL, Canvases, Place, compressed, holds_any, overlay

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from numpy.typing import NDArray


class LabelPyramid(Writer):
    """Writes labels as an OME-Zarr image (OME-NGFF 0.4, Zarr 2), which appears when it is complete.

    First `expect` all tiles, then `paint` each or declare it `done`, in any order; an order in which neighbours come
    soon after each other keeps memory low. Tiles that are still due at the end paint nothing.

    Parameters
    ----------
    path : Path
        Folder to write, by custom ``*.zarr``; one of that name is replaced at the end.
    shape : (int, int)
        Height and width.
    mpp : float or None
        Micrometres per pixel.
    chunk : int
        Side of the chunks, even.
    levels : int or None
        Sizes, each half of the one before; by default down to one chunk.

    Raises
    ------
    NucSegError
        From every method: the folder can't be written.
    """

    def __init__(
        self,
        path: str | Path,
        shape: tuple[int, int],
        mpp: float | None = None,
        chunk: int = 1024,
        levels: int | None = None,
    ) -> None:
        if min(shape) < 1 or chunk < 2 or chunk % 2:
            raise NucSegError(
                f"labels of {shape} in chunks of {chunk} can't be saved; give an even chunk size"
            )
        self.path, self.chunk = Path(path), chunk
        self.shapes = _halved(shape, chunk, levels)
        self._boxes: dict[Hashable, Box] = {}
        self._due = [np.zeros((-(-h // chunk), -(-w // chunk)), np.int64) for h, w in self.shapes]
        self._canvases = Canvases(chunk)
        with told(self.path):
            self._draft = Draft(self.path)
            try:
                _write_metadata(self._draft.path, self.shapes, chunk, mpp)
            except BaseException:
                self._draft.discard()
                raise

    def expect(self, boxes: Mapping[Hashable, Box]) -> None:
        """Tell of all tiles that are due, once and before the first of them.

        Parameters
        ----------
        boxes
            For the key of each tile, a box that holds everything it may paint.
        """
        self._boxes = {key: self._cut(box) for key, box in boxes.items()}
        for box in self._boxes.values():
            self._due[0][self._chunks(box)] += 1
        for below, above in zip(self._due, self._due[1:], strict=False):
            rows, cols = np.nonzero(below)
            np.add.at(above, (rows // 2, cols // 2), 1)

    def paint(self, key: Hashable, box: Box, labels: NDArray[np.uint32]) -> None:
        """Set the pixels of a tile, those that aren't 0, and count it off.

        Parameters
        ----------
        key
            Of `expect`.
        box
            Where `labels` lie, inside the box expected.
        labels
            uint32 of the shape of `box`.

        Raises
        ------
        NucSegError
            The tile wasn't expected, or not there, or the chunks can't be written.
        """
        due = self._boxes.get(key)
        if due is None or (due.cut(box) != box and labels.any()) or labels.shape != box.shape:
            raise NucSegError(f"tile {key!r} of {labels.shape} at {box} isn't due there; {due} is expected")
        labels = np.ascontiguousarray(labels, np.uint32)
        rows, cols = self._chunks(box)
        for row in range(rows.start, rows.stop):
            for col in range(cols.start, cols.stop):
                y, x = row * self.chunk, col * self.chunk
                shared = box.cut(Box(y, y + self.chunk, x, x + self.chunk))
                if shared is None:
                    continue
                source = shared.relative(box)
                if holds_any(labels, source.y0, source.y1, source.x0, source.x1):
                    canvas = self._canvases.take((0, row, col))
                    overlay(
                        canvas,
                        shared.y0 - y,
                        shared.x0 - x,
                        labels,
                        source.y0,
                        source.y1,
                        source.x0,
                        source.x1,
                    )
        self.done(key)

    def done(self, key: Hashable) -> None:
        """Count a tile off that paints nothing (more)."""
        rows, cols = self._chunks(self._boxes.pop(key))
        with told(self.path):
            for row in range(rows.start, rows.stop):
                for col in range(cols.start, cols.stop):
                    self._count_off((0, row, col))

    def _finish(self) -> list[Path]:
        for key in list(self._boxes):  # they paint nothing
            self.done(key)
        with told(self.path):
            self._draft.commit()
        return [self.path]

    def _drop(self) -> None:
        self._canvases.clear()
        self._draft.discard()

    def _count_off(self, place: Place) -> None:
        """Count one thing off that was due for a chunk; the last one completes it, and counts for the chunk above."""
        while True:
            level, row, col = place
            due = self._due[level]
            due[row, col] -= 1
            if due[row, col]:
                return
            canvas = self._canvases.pop(place)
            if canvas is not None:
                self._write(place, canvas)
            if level + 1 == len(self.shapes):
                return
            place = (level + 1, row // 2, col // 2)
            if canvas is not None:
                half = self.chunk // 2
                y, x = row % 2 * half, col % 2 * half
                self._canvases.take(place)[y : y + half, x : x + half] = canvas[::2, ::2]
                self._canvases.give_back(canvas)

    def _write(self, place: Place, canvas: NDArray[np.uint32]) -> None:
        level, row, col = map(str, place)
        folder = self._draft.path / level / row
        folder.mkdir(exist_ok=True)
        (folder / col).write_bytes(compressed(canvas))

    def _cut(self, box: Box) -> Box:
        height, width = self.shapes[0]
        return box.cut(Box(0, height, 0, width)) or Box(0, 0, 0, 0)

    def _chunks(self, box: Box) -> tuple[slice, slice]:
        """Return the rows and columns of the chunks that a box touches."""
        return (
            slice(box.y0 // self.chunk, -(-box.y1 // self.chunk)),
            slice(box.x0 // self.chunk, -(-box.x1 // self.chunk)),
        )


def open_labels(path: str | Path) -> list[Any]:
    """Open the labels of an OME-Zarr image lazily.

    Parameters
    ----------
    path
        The ``*.zarr`` folder.

    Returns
    -------
    list of zarr.Array
        Its levels, the largest first: (H, W) unsigned integers, read where they are sliced.

    Raises
    ------
    NucSegError
        There is no such image, or it isn't one of labels.
    """
    import zarr

    try:
        group = zarr.open_group(str(path), mode="r")
        levels = [group[dataset["path"]] for dataset in group.attrs["multiscales"][0]["datasets"]]
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise NucSegError(
            f"{path} is no OME-Zarr image ({error}); choose a folder <name>_labels.zarr"
        ) from error
    for level in levels:
        if level.ndim != 2 or level.dtype.kind != "u":
            raise NucSegError(
                f"{path} holds {level.dtype} of shape {level.shape}; labels are (H, W) unsigned integers"
            )
    return levels


def _halved(shape: tuple[int, int], chunk: int, levels: int | None) -> list[tuple[int, int]]:
    """Return the shapes of the levels."""
    shapes = [shape]
    while max(shapes[-1]) > chunk if levels is None else len(shapes) < levels:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def _write_metadata(path: Path, shapes: list[tuple[int, int]], chunk: int, mpp: float | None) -> None:
    import zarr

    unit = {"unit": "micrometer"} if mpp else {}
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [float(mpp or 1) * 2**level] * 2}],
        }
        for level in range(len(shapes))
    ]
    image = {
        "version": "0.4",
        "name": "nuclei",
        "axes": [{"name": name, "type": "space", **unit} for name in "yx"],
        "datasets": datasets,
    }
    attributes = {"multiscales": [image], "image-label": {"version": "0.4"}}
    group = zarr.create_group(str(path), zarr_format=2, attributes=attributes)
    for level, shape in enumerate(shapes):
        group.create_array(
            str(level),
            shape=shape,
            dtype="<u4",
            chunks=(chunk, chunk),
            compressors={"id": "zlib", "level": LEVEL},
            filters=None,
            fill_value=0,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
