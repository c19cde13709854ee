"""Files that survive a crash: written in full, brought to the disk, then put in place; and the lock of a session."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable

LOCK = "session.lock"
WAY_OUT = "; restore it from a backup, or open what can still be read"


class SessionDamaged(NucSegError):
    """What a session's folder holds does not fit together; `salvage` still restores the readable part."""


class SessionGone(NucSegError):
    """The folder of an open session has vanished: deleted, renamed, or its disk taken out."""


def write_durably(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file that appears complete or not at all, even if the power goes.

    Parameters
    ----------
    path
        File to write.
    data
        Its content.
    durable
        Whether to wait for the disk; if not, `sync` has to follow.

    Raises
    ------
    NucSegError
        The file can't be written.
    """
    with replacing(path) as draft, draft.open("wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Raises
    ------
    OSError
        They can't be brought there.
    """
    if path.is_dir() and os.name == "nt":  # Windows keeps the names in order by itself, and opens no folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_all(paths: Iterable[Path]) -> None:
    """Wait until files and the names in their folders are on the disk."""
    folders = set()
    for path in paths:
        sync(path)
        folders.add(path.parent)
    for folder in sorted(folders):
        sync(folder)


def reason(error: Exception) -> str:
    """Return in a few words why a file could not be read or written."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def lock_folder(folder: Path) -> Any:
    """Take a session for this process until `release`; the operating system frees the lock of a killed one.

    Raises
    ------
    NucSegError
        Another window or process has it, or the folder can't be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise NucSegError(
            f"{folder} is open in another window or process, which saves its edits there; close it there first"
        ) from error
    except OSError as error:
        raise NucSegError(
            f"{folder} can't be locked ({reason(error)}); copy it to a folder that can be written"
        ) from error
    return lock


def remove_strays(folder: Path, keep: Iterable[str], pattern: str) -> None:
    """Delete the files of a pattern which a crash has left, but those named in `keep`."""
    kept = set(keep)
    for path in folder.glob(pattern):
        if path.name not in kept:
            with suppress(OSError):
                path.unlink()
