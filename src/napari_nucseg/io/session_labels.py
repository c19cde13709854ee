"""The labels of a session: an OME-Zarr image that is brought up to date chunk by chunk.

The chunks are written here and not through a Zarr library, since a crash must leave every chunk as it was or as it
becomes: each is replaced in one step and brought to the disk. Compression is zlib, which every reader of Zarr
knows, and whose checksum tells a damaged chunk.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.io.session_files import WAY_OUT, SessionDamaged, reason, sync_all, write_durably
from napari_nucseg.io.session_runs import clip_runs, expand_runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Read = Callable[[tuple[slice, slice]], NDArray[np.uint32]]

CHUNK = 512
_LEVEL = 1
_TOGETHER = 8  # chunks of a row that are read at once: 8 MiB, a few milliseconds
_BYTES = CHUNK * CHUNK * 4


class LabelFiles:
    """Chunks of `labels.zarr`.

    Parameters
    ----------
    root : Path
        The Zarr group.
    shape : (int, int)
        Height and width of the labels.
    """

    def __init__(self, root: Path, shape: tuple[int, int]) -> None:
        self.root, self.shape = root, shape
        self.counts = (-(-shape[0] // CHUNK), -(-shape[1] // CHUNK))

    def write_metadata(self, mpp: float | None) -> None:
        """Write what makes the folder an OME-Zarr label image (OME-NGFF 0.4, Zarr 2)."""
        array = {
            "zarr_format": 2,
            "shape": list(self.shape),
            "chunks": [CHUNK, CHUNK],
            "dtype": "<u4",
            "compressor": {"id": "zlib", "level": _LEVEL},
            "fill_value": 0,
            "order": "C",
            "filters": None,
            "dimension_separator": "/",
        }
        unit = {"unit": "micrometer"} if mpp else {}
        scale = [float(mpp or 1.0)] * 2
        image: dict[str, Any] = {
            "version": "0.4",
            "name": "nuclei",
            "axes": [{"name": name, "type": "space", **unit} for name in "yx"],
            "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
        }
        attributes = {"multiscales": [image], "image-label": {"version": "0.4"}}
        for name, content in (
            (".zgroup", {"zarr_format": 2}),
            (".zattrs", attributes),
            ("0/.zarray", array),
        ):
            write_durably(self.root / name, json.dumps(content, indent=1).encode())

    def write_all(self, read: Read) -> Iterator[None]:
        """Write every chunk, step by step; all are on the disk at the end.

        Parameters
        ----------
        read
            Returns a part of the labels, which nobody writes to any more.
        """
        written = []
        for row, start in itertools.product(range(self.counts[0]), range(0, self.counts[1], _TOGETHER)):
            rows = slice(row * CHUNK, (row + 1) * CHUNK)
            block = read((rows, slice(start * CHUNK, (start + _TOGETHER) * CHUNK)))
            for col in range(start, min(start + _TOGETHER, self.counts[1])):
                part = block[:, (col - start) * CHUNK : (col - start + 1) * CHUNK]
                written.append(self._write(row, col, part, durable=False))
                yield
        for start in range(0, len(written), 16):
            sync_all(written[start : start + 16])
            yield

    def update(self, changes: Sequence[NDArray[np.int64]]) -> Iterator[None]:
        """Set the pixels of changes (lists of runs, oldest first) in the chunks that hold them, step by step.

        Raises
        ------
        SessionDamaged
            A chunk can't be read.
        NucSegError
            A chunk can't be written.
        """
        runs = np.concatenate([np.zeros((0, 3), np.int64), *changes])
        band = CHUNK * self.shape[1]
        ends = runs[:, 0] + runs[:, 1]
        rows = range(int(runs[:, 0].min()) // band, -(-int(ends.max()) // band)) if len(runs) else ()
        for row in rows:
            part = clip_runs(runs, row * band, (row + 1) * band)
            if len(part):
                yield from self._update_row(row, part)

    def read(self, row: int, col: int) -> NDArray[np.uint32]:
        """Read a chunk, (512, 512) also at the edges.

        Raises
        ------
        SessionDamaged
            It is missing, cut short or changed.
        """
        path = self._path(row, col)
        try:
            data = zlib.decompress(path.read_bytes())
        except (OSError, zlib.error) as error:
            raise SessionDamaged(f"{path} is missing or damaged ({reason(error)}){WAY_OUT}") from error
        if len(data) != _BYTES:
            raise SessionDamaged(f"{path} holds {len(data)} bytes where {_BYTES} are due{WAY_OUT}")
        return np.frombuffer(data, "<u4").reshape(CHUNK, CHUNK).astype(np.uint32)

    def read_all(self, damaged: list[str] | None = None) -> NDArray[np.uint32]:
        """Read the whole image.

        Parameters
        ----------
        damaged
            Takes a sentence for every chunk that can't be read, which then is background; without it the first raises.

        Raises
        ------
        SessionDamaged
            A chunk can't be read.
        """
        labels = np.zeros(self.shape, np.uint32)
        for row in range(self.counts[0]):
            for col in range(self.counts[1]):
                part = labels[row * CHUNK : (row + 1) * CHUNK, col * CHUNK : (col + 1) * CHUNK]
                try:
                    part[...] = self.read(row, col)[: part.shape[0], : part.shape[1]]
                except SessionDamaged as error:
                    if damaged is None:
                        raise
                    damaged.append(str(error))
        return labels

    def _update_row(self, row: int, runs: NDArray[np.int64]) -> Iterator[None]:
        pixels, values = expand_runs(runs)
        y, x = np.divmod(pixels, self.shape[1])
        cols = x // CHUNK
        order = np.argsort(cols, kind="stable")  # within a chunk, later changes stay behind earlier ones
        edges = np.flatnonzero(np.diff(cols[order])) + 1
        for index in np.split(order, edges):
            col = int(cols[index[0]])
            chunk = self.read(row, col)
            chunk[y[index] - row * CHUNK, x[index] - col * CHUNK] = values[index]
            self._write(row, col, chunk, durable=True)
            yield

    def _write(self, row: int, col: int, part: NDArray[np.uint32], durable: bool) -> Path:
        chunk = np.zeros((CHUNK, CHUNK), "<u4")
        chunk[: part.shape[0], : part.shape[1]] = part
        path = self._path(row, col)
        write_durably(path, zlib.compress(chunk.data, _LEVEL), durable)
        return path

    def _path(self, row: int, col: int) -> Path:
        return self.root / "0" / str(row) / str(col)
