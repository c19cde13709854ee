"""Several files of a folder replaced together: after a crash they are all the old ones or all the new ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucseg.io.atomic import told

if TYPE_CHECKING:
    from types import TracebackType


class Transaction:
    """New files, made beside the old ones and put in their place by `commit`; a context manager.

    The new files lie in a hidden folder. Once all of them are on the disk it is renamed, and from then on they count:
    they are moved to their places, at once or, if the program is killed meanwhile, by the next `settle`.

    Parameters
    ----------
    folder : path
    name : str
        Of the results; one transaction at a time, which is up to the caller.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._draft, self._ready = _places(folder, name)

    def __enter__(self) -> Transaction:
        with told(self._folder):
            shutil.rmtree(self._draft, ignore_errors=True)
            self._draft.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)

    def path(self, relative: str) -> Path:
        """Return where the new file of a name is to be written."""
        path = self._draft / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def commit(self) -> None:
        """Put all new files in their places.

        Raises
        ------
        NucSegError
            They can't be written; the old ones are as they were.
        """
        with told(self._folder):
            for path in self._draft.rglob("*"):
                if path.is_file():
                    _sync(path)
            os.replace(self._draft, self._ready)
            _sync(self._folder)
            settle(self._folder, self._name)


def settle(folder: Path, name: str) -> None:
    """End what a program that was killed has left: go on with what was complete, forget what was not."""
    draft, ready = _places(folder, name)
    if draft.exists():
        shutil.rmtree(draft, ignore_errors=True)
    if not ready.exists():
        return
    with told(folder):
        for path in sorted(ready.rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(ready)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
        shutil.rmtree(ready)


def is_unsettled(folder: Path, name: str) -> bool:
    """Return whether a transaction is under way, or was when its program was killed."""
    return any(path.exists() for path in _places(folder, name))


def is_half_done(folder: Path, name: str) -> bool:
    """Return whether some of its files may be in their places, and others not."""
    return _places(folder, name)[1].exists()


def _places(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f".{name}.putting-draft", folder / f".{name}.putting-back"


def _sync(path: Path) -> None:
    """Have a file or folder on the disk; folders can't be opened everywhere."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
