"""The tiles of a slide that are finished, on disk: what a run that was killed goes on from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg.errors import NucSegError
from napari_nucseg.slides.tilefile import DamagedTile, pack, read_header, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_nucseg.core.tiling import Index
    from napari_nucseg.inference import Tile

PARTIAL = ".nucseg-partial"
"""How the name of the working folder of a slide ends."""

_SETTINGS = "settings.json"


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return a name for a set of settings: the same facts give the same name, any other ones another.

    Parameters
    ----------
    facts : mapping
        Plain values, sequences, mappings and dataclasses; everything that decides the result.
    """
    return hashlib.sha256(_text(facts).encode()).hexdigest()[:20]


def _text(facts: Mapping[str, Any]) -> str:
    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)

    return json.dumps(dict(facts), sort_keys=True, default=plain)


def identity(path: Path) -> list[Any]:
    """Return what changes when an image on disk does: size and time of its files.

    A slide may consist of several files (the folder beside an .mrxs, the series around a .dcm, a Zarr store); those
    that lie directly in its folder count too.

    Raises
    ------
    NucSegError
        The image is gone.
    """
    try:
        files = [path]
        if path.is_dir():
            files = [p for p in sorted(path.rglob(".z*")) if p.is_file()] or sorted(path.iterdir())
        elif path.suffix.lower() == ".mrxs" and path.with_suffix("").is_dir():
            files += sorted(path.with_suffix("").iterdir())
        elif path.suffix.lower() == ".dcm":
            files = sorted(path.parent.glob("*" + path.suffix))
        return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    except OSError as error:
        raise NucSegError(
            f"{path} cannot be read any more ({error.strerror}); make it available again and repeat the command."
        ) from error


class TileStore:
    """A folder of finished tiles of one slide under one set of settings, one file for each tile.

    A file appears complete or not at all; one that is damaged counts as missing. Several processes may write into the
    same folder.

    Parameters
    ----------
    folder : path
        Made by `put` where it is missing.
    shared : bool
        Whether the folder belongs to another process: where it is gone, nobody wants its tiles any more, and it is not
        made again.
    """

    def __init__(self, folder: str | Path, *, shared: bool = False) -> None:
        self.folder = Path(folder)
        self._shared = shared

    def path(self, index: Index) -> Path:
        """Return where a tile lies."""
        return self.folder / f"tile-{index[0]:05d}-{index[1]:05d}.nst"

    def put(self, tile: Tile, notes: dict[str, Any] | None = None) -> None:
        """Write a tile.

        Raises
        ------
        NucSegError
            It cannot be written: no space, no permission.
        """
        self.write(self.path(tile.index), pack(tile, notes or {}))

    def write(self, path: Path, data: bytes) -> None:
        """Write a file of the folder, complete or not at all; `NucSegError` where it cannot be."""
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            if not self._shared:
                self.folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(data)
            os.replace(draft, path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise cannot_write(self.folder, error) from error

    def get(self, index: Index) -> tuple[Tile, dict[str, Any]] | None:
        """Return a tile and its notes, or None where it is missing or damaged."""
        with suppress(OSError, DamagedTile):
            tile, notes = unpack(self.path(index).read_bytes())
            if tile.index == tuple(index):
                return tile, notes
        return None

    def finished(self, tiles: Iterable[Index]) -> dict[Index, tuple[int, dict[str, Any]]]:
        """Return number of nuclei and notes of those tiles that are there and whole."""
        found: dict[Index, tuple[int, dict[str, Any]]] = {}
        try:
            there = {entry.name for entry in os.scandir(self.folder)}
        except OSError:
            return found
        for index in tiles:
            if self.path(index).name not in there:
                continue
            with suppress(OSError, DamagedTile):
                header = read_header(self.path(index).read_bytes())
                if tuple(header["index"]) == tuple(index):
                    found[index] = header["rows"], header["notes"]
        return found

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Leave a file that says which settings the tiles were made with."""
        self.write(self.folder / _SETTINGS, _text(facts).encode())


def cannot_write(folder: Path, error: OSError) -> NucSegError:
    """Return the sentence that says why nothing can be written, and that what is finished is kept."""
    reason = error.strerror or str(error)
    return NucSegError(
        f"{folder} cannot be written to ({reason}); what is finished is kept: free some space or mend the folder, then "
        "repeat the command."
    )


def discard(folder: Path) -> None:
    """Remove a folder as far as that is possible; what another program holds open stays."""
    shutil.rmtree(folder, ignore_errors=True)
