"""The working folder of a slide beside its results: lock, finished tiles, and outputs until all are complete."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from napari_nucseg.errors import NucSegError
from napari_nucseg.slides.store import PARTIAL, TileStore, cannot_write, discard
from napari_nucseg.slides.transaction import settle

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

_LOCK, _PLACING = "lock", "placing.json"
_TILES = "tiles-"


class WorkFolder:
    """``<stem>.nucseg-partial`` in the folder of the results; a context manager, inside of which nobody else has it.

    Parameters
    ----------
    out : path
        Folder of the results; made where it is missing.
    stem : str
        Name of the image.

    Raises
    ------
    NucSegError
        On entering: another run has the folder, or it cannot be made.
    """

    def __init__(self, out: Path, stem: str) -> None:
        self.out, self.stem = out, stem
        self.folder = out / f"{stem}{PARTIAL}"
        self.stage = self.folder / "outputs"
        self._lock = FileLock(self.folder / _LOCK, timeout=0, thread_local=False)

    def __enter__(self) -> WorkFolder:
        try:
            self._take()
            for left in self.folder.glob(f"{self.stage.name}*"):
                discard(left)  # of a run that was killed; made anew from the tiles
            self.stage.mkdir()
        except Timeout as error:
            raise NucSegError(
                f"Another run is writing the results of '{self.stem}' in '{self.out}'; wait for it, or choose another "
                "folder."
            ) from error
        except OSError as error:
            self._lock.release()
            raise cannot_write(self.out, error) from error
        return self

    def _take(self) -> None:
        """Lock; once more where the one who had the lock has meanwhile removed the folder with it."""
        for _ in range(5):
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                self._lock.acquire()
                if (self.folder / _LOCK).exists():
                    return
                self._lock.release()
        raise OSError("its folder vanishes again and again")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        discard(self.stage)
        empty = not any(any(f.glob("*.nst")) for f in self.folder.glob(f"{_TILES}*"))
        if empty:
            for folder in self.folder.glob(f"{_TILES}*"):
                discard(folder)
            (self.folder / _PLACING).unlink(missing_ok=True)
        self._lock.release()
        if empty:
            with suppress(OSError):
                (self.folder / _LOCK).unlink(missing_ok=True)
                self.folder.rmdir()

    def tiles(self, fingerprint: str) -> TileStore:
        """Return the store of the tiles made with the settings of this fingerprint."""
        return TileStore(self.folder / f"{_TILES}{fingerprint}")

    def others(self, fingerprint: str) -> int:
        """Return how many tiles of other settings lie here."""
        own = self.tiles(fingerprint).folder
        return sum(
            len(list(folder.glob("*.nst"))) for folder in self.folder.glob(f"{_TILES}*") if folder != own
        )

    def place(self, last: str, replaces: Iterable[str] = ()) -> list[Path]:
        """Move all outputs from the stage to the folder of the results; what has their names there is replaced.

        Parameters
        ----------
        last : str
            Name of the output that comes last, so that it tells that the others are there.
        replaces : iterable of str
            Names of older outputs that go, where no new one has the name.

        Raises
        ------
        NucSegError
            An output cannot be moved.
        """
        names = sorted((p.name for p in self.stage.iterdir()), key=lambda n: (n == last, n))
        placed = [self.out / name for name in names]
        settle(
            self.out, self.stem
        )  # a review that was killed while it was put back must not come after these
        try:
            self._say(names, done=False)
            for name in set(replaces).difference(names):
                self._remove(self.out / name)
            for name, target in zip(names, placed, strict=True):
                if target.is_dir() or (self.stage / name).is_dir():
                    self._remove(target)
                os.replace(self.stage / name, target)
        except OSError as error:
            raise cannot_write(self.out, error) from error
        return placed

    def finish(self) -> None:
        """Say that all results are in place, and remove the tiles."""
        with suppress(OSError):
            self._say([], done=True)
        for folder in self.folder.glob(f"{_TILES}*"):
            # away in one step, for a worker of a cluster may still be at a tile that nobody waits for any more
            grave = self.stage.with_name(f"{self.stage.name}-{uuid.uuid4().hex[:8]}")
            with suppress(OSError):
                os.replace(folder, grave)
            discard(grave)
            discard(folder)

    def unsay(self) -> None:
        """Say that the results in place are no longer those of an interrupted run, though the tiles are kept."""
        (self.folder / _PLACING).unlink(missing_ok=True)

    def _say(self, names: list[str], *, done: bool) -> None:
        draft = self.folder / f".{_PLACING}"
        draft.write_text(json.dumps({"names": names, "done": done}), encoding="utf-8")
        os.replace(draft, self.folder / _PLACING)

    def _remove(self, path: Path) -> None:
        """Take an older output out of the way, a folder in one step."""
        if path.is_dir():
            grave = self.folder / f"outputs-{uuid.uuid4().hex[:8]}"
            os.replace(path, grave)
            discard(grave)
        else:
            path.unlink(missing_ok=True)


def tiles_kept(out: Path, stem: str) -> int:
    """Return how many finished tiles an earlier run has left, which was stopped or killed, or in which others failed.

    Of several sets of settings, that with the most counts; 0 where there is none, or nobody can tell.
    """
    try:
        folders = (out / f"{stem}{PARTIAL}").glob(f"{_TILES}*")
        return max((len(list(folder.glob("*.nst"))) for folder in folders), default=0)
    except OSError:  # the disk is away, or a run elsewhere has just removed them
        return 0


def half_placed(out: Path, stem: str) -> set[str]:
    """Return the names of outputs which a run that was killed had begun to put in place; it may replace them.

    What a run that was killed *after* that has left behind is removed.
    """
    folder = out / f"{stem}{PARTIAL}"
    try:
        told = json.loads((folder / _PLACING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    if not told.get("done"):
        return set(told.get("names", ()))
    with suppress(NucSegError), WorkFolder(out, stem) as work:
        work.finish()
    return set()
