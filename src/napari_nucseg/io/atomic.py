"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import glob
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self


class Draft:
    """A hidden name beside a file or folder that is being written, which takes its place when it is complete.

    Parameters
    ----------
    target : path
        What it is to become; missing folders above it are made.

    Attributes
    ----------
    target : Path
    path : Path
        The hidden name, ``.<name>.<random>.part``. Nothing is there until the writer makes a file or a folder of it.

    Raises
    ------
    OSError
        From every method but `discard`; `told` makes a sentence of it.
    """

    def __init__(self, target: str | Path) -> None:
        self.target = Path(target)
        self.path = self.target.with_name(f".{self.target.name}.{uuid.uuid4().hex[:8]}.part")
        self.target.parent.mkdir(parents=True, exist_ok=True)

    def commit(self) -> None:
        """Put what was written in the target's place. An older folder steps aside first, and is then removed."""
        if not (self.path.is_dir() and self.target.is_dir()):
            os.replace(self.path, self.target)
            return
        older = Draft(self.target).path
        os.replace(self.target, older)
        try:
            os.replace(self.path, self.target)
        except OSError:
            os.replace(older, self.target)
            raise
        remove(older)

    def discard(self) -> None:
        """Remove what was written."""
        remove(self.path)


class Writer(ABC):
    """Something that is written piece by piece, and appears when it is complete.

    As a context manager it is closed at the end, or aborted on an error. What comes after that does nothing.
    """

    _written: list[Path] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def close(self) -> list[Path]:
        """Finish, and return what now is there.

        Raises
        ------
        NucSegError
            It can't be written; then older files of these names are as they were.
        """
        if self._written is None:
            try:
                self._written = self._finish()
            finally:
                self.abort()
        return self._written

    def abort(self) -> None:
        """Drop what isn't finished."""
        if self._written is None:
            self._written = []
        self._drop()

    @abstractmethod
    def _finish(self) -> list[Path]:
        """Complete the drafts and put them in place."""

    @abstractmethod
    def _drop(self) -> None:
        """Remove the drafts that are there, quietly."""


def remove(path: Path) -> None:
    """Remove a file or a folder as far as possible, whether it is there or not."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def remove_drafts(target: str | Path) -> None:
    """Remove the drafts of a file or folder that a process which was killed has left; nobody may be writing it."""
    target = Path(target)
    for path in target.parent.glob(f".{glob.escape(target.name)}.????????.part"):
        remove(path)


@contextmanager
def told(path: str | Path) -> Iterator[None]:
    """Turn the errors of the system while `path` is being written into one sentence.

    Raises
    ------
    NucSegError
        Instead of an OSError: no permission, no space, a folder of that name ...
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise NucSegError(
            f"{path} can't be written ({reason}); choose another folder or free some space"
        ) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, which takes its place when the block ends without an error.

    Missing folders are made. A crash leaves an older file of that name as it was.

    Raises
    ------
    NucSegError
        The file can't be written: no permission, no space, a folder of that name ...
    """
    with told(path):
        draft = Draft(path)
        try:
            yield draft.path
            draft.commit()
        finally:
            draft.discard()
