"""What the thread of `Autosave` does: journal first, then folders, moves and checkpoints, one small step at a time."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucseg.core.nuclei import Change, NucleusClass
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.session_files import SessionGone, reason
from napari_nucseg.io.session_format import Snapshot, first_free_id
from napari_nucseg.io.session_places import free_name
from napari_nucseg.io.session_store import SessionStore, remove_session
from napari_nucseg.io.session_table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    Part = NDArray[np.uint32]

_log = logging.getLogger(__name__)

Classes = tuple[NucleusClass, ...]
_SLOWEST = 12  # most times longer than the first that a wait before another try becomes


@dataclass(frozen=True)
class Pace:
    """When a checkpoint is made, and when what failed is tried again.

    Parameters
    ----------
    idle
        Seconds without an edit after which labels and table are brought up to date.
    journal_bytes
        Size of the journal beyond which this is done at once.
    retry
        Seconds after a failure; more after further ones.
    """

    idle: float = 10.0
    journal_bytes: int = 16 << 20
    retry: float = 5.0


@dataclass(frozen=True)
class Move:
    """A wish to go on in another folder; see `Autosave.move_to`."""

    folder: Path
    keep_old: bool


class Target:
    """A store, and what it still has to write."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self.backlog: deque[Change | Classes] = deque()

    def flush(self) -> None:
        """Write the backlog; what can't be written stays in it."""
        while self.backlog:
            together = list(itertools.takewhile(lambda item: isinstance(item, Change), self.backlog))
            first = self.backlog[0]
            if isinstance(first, Change):
                self.store.append(*(item for item in together if isinstance(item, Change)))
            else:
                self.store.set_classes(first)
            for _ in range(len(together) or 1):
                self.backlog.popleft()


class Problems:
    """What fails at present, told when the first failure comes and when the last is over.

    Parameters
    ----------
    tell : callable
        Takes the sentence, or None.
    retry : float
        Seconds.
    """

    def __init__(self, tell: Callable[[str | None], None], retry: float) -> None:
        self._tell_user, self._retry = tell, retry
        self._sentences: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._due: dict[str, float] = {}

    @property
    def sentence(self) -> str | None:
        """The first of them."""
        return next(iter(list(self._sentences.values())), None)

    def due(self, what: str) -> float:
        """Return the time (monotonic) from which on something may be tried."""
        return self._due.get(what, 0.0)

    def hurry(self, what: str) -> None:
        """Let it be tried at once."""
        self._due[what] = 0.0

    def fails(self, what: str, error: Exception, folder: Path) -> None:
        """Note that saving failed."""
        if not isinstance(error, OSError | NucSegError):
            _log.exception("The session can't be saved", exc_info=error)
        known = self.sentence
        self._sentences[what] = (
            f"The review can't be saved in {folder} at present ({reason(error)}); nothing is lost while this window "
            "stays open: make room there or choose another folder"
        )
        count = self._counts[what] = self._counts.get(what, 0) + 1
        self._due[what] = time.monotonic() + self._retry * min(2 ** (count - 1), _SLOWEST)
        if known is None:
            self._tell(self.sentence)

    def works(self, what: str) -> None:
        """Note that it did not."""
        self._counts.pop(what, None)
        if self._sentences.pop(what, None) and not self._sentences:
            self._tell(None)

    def _tell(self, sentence: str | None) -> None:
        try:
            self._tell_user(sentence)
        except Exception:
            _log.exception("The report of a problem failed")


class Writer:
    """Keeps a folder up to date with a session; to be used by one thread.

    Parameters
    ----------
    target : Path or SessionStore
        New folder, or an open store.
    snapshot : Snapshot
        The session at present; labels are shared, records copied.
    problems : Problems
    pace : Pace
    quietly : callable
        Returns what a function returns that is called between two edits.
    catch_up : callable
        Has every change that was told so far come to `note`.
    """

    def __init__(
        self,
        target: Path | SessionStore,
        snapshot: Snapshot,
        problems: Problems,
        pace: Pace,
        quietly: Callable[[Callable[[], Part]], Part],
        catch_up: Callable[[], None],
    ) -> None:
        self._labels, self._about = snapshot.labels, snapshot.about
        self._table, self._classes, self._next_id = (
            Table(snapshot.records),
            snapshot.classes,
            snapshot.next_id,
        )
        self._problems, self._pace = problems, pace
        self._quietly, self._catch_up = quietly, catch_up
        self._active = Target(target) if isinstance(target, SessionStore) else None
        self._draft: Target | None = None
        self._gone: Target | None = None
        self._job: Iterator[None] | None = None
        self._move: Move | None = None
        self._last_edit = 0.0
        self.folder = target.folder if isinstance(target, SessionStore) else Path(target).absolute()

    @property
    def is_ready(self) -> bool:
        """Whether a complete folder is being kept."""
        return self._active is not None

    @property
    def is_done(self) -> bool:
        """Whether every change noted is on the disk."""
        return self._active is not None and not self._active.backlog

    def note(self, item: Change | Classes | Move) -> None:
        """Take a change, classes, or a wish to move."""
        if isinstance(item, Move):
            self._move = item
            self._problems.hurry("job")
            return
        self._last_edit = time.monotonic()
        if isinstance(item, Change):
            self._table.put(item.rows, item.records)
            self._next_id = max(self._next_id, first_free_id(item.records))
        else:
            self._classes = item
        for target in (self._active, self._draft, self._gone):
            if target is not None:
                target.backlog.append(item)

    def timeout(self) -> float | None:
        """Return the seconds after which there is something to do; None if only a note brings something."""
        if self._job is not None:
            return 0.0
        due = None
        if self._active is None or self._move is not None:
            due = self._problems.due("job")
        elif self._active.store.has_pending and not self._active.backlog:
            due = max(self._last_edit + self._pace.idle, self._problems.due("job"))
        if self._active is not None and self._active.backlog:
            due = min(self._problems.due("journal"), due if due is not None else float("inf"))
        return None if due is None else max(0.0, due - time.monotonic())

    def step(self) -> None:
        """Write what was noted, and do a little of what else is due."""
        if time.monotonic() >= self._problems.due("journal"):
            self._write()
        if self._job is None and time.monotonic() >= self._problems.due("job"):
            self._job = self._due_job()
        self._advance()

    def finish(self) -> bool:
        """Save everything, trying once what had failed, and give the folder back; return whether all is saved."""
        self._write()
        if self._job is None and (self._move is not None or self._active is None):
            self._job = self._due_job()
        while self._job is not None:
            self._advance()
            self._write()
        if self._active is None:
            return False
        store = self._active.store
        if self._active.backlog:
            store.abandon()
            return False
        try:
            store.close()
        except Exception as error:  # the journal holds everything, so nothing is missing
            _log.warning("%s keeps its journal: %s", self.folder, error)
            store.abandon()
        return True

    def _write(self) -> None:
        target = self._active
        if target is None or not target.backlog:
            return
        try:
            target.flush()
            self._problems.works("journal")
        except Exception as error:
            self._fails("journal", error)

    def _due_job(self) -> Iterator[None] | None:
        if self._move is not None:
            return self._copying(self._move)
        if self._active is None:
            return self._making()
        store = self._active.store
        if self._active.backlog or not store.has_pending:
            return None
        rested = time.monotonic() >= self._last_edit + self._pace.idle
        return store.checkpointing() if rested or store.journal_bytes > self._pace.journal_bytes else None

    def _advance(self) -> None:
        if self._job is None:
            return
        try:
            next(self._job)
        except StopIteration:
            self._job = None
            self._problems.works("job")
        except Exception as error:
            self._fails("job", error)

    def _fails(self, what: str, error: Exception) -> None:
        if what == "job" or isinstance(error, SessionGone):
            self._drop_job()
        if isinstance(error, SessionGone) and self._active is not None:
            self._gone, self._active = self._active, None
            what = "job"  # which will mend it
        self._problems.fails(what, error, self.folder)

    def _making(self) -> Iterator[None]:
        """Make the folder, or take it up again after it had vanished."""
        gone = self._gone
        if gone is not None and gone.store.reattach():
            self._active, self._gone = gone, None
            return
        if gone is not None and not self.folder.parent.is_dir():
            raise SessionGone(f"{self.folder.parent} has vanished")
        yield from self._full_copy(self.folder)
        if gone is not None:
            gone.store.abandon()

    def _copying(self, move: Move) -> Iterator[None]:
        """Make the folder moved to, and leave the old one."""
        old = self._active or self._gone
        yield from self._full_copy(move.folder)
        self._move = None if self._move is move else self._move
        if old is None:
            return
        if move.keep_old:
            with suppress(OSError, NucSegError):
                old.flush()
                old.store.close()
            old.store.abandon()
        else:
            old.store.abandon()
            remove_session(old.store.folder)

    def _full_copy(self, folder: Path) -> Iterator[None]:
        """Write everything to a new folder and go on there."""
        snapshot = Snapshot(
            self._labels, self._table.records.copy(), self._classes, self._next_id, self._about
        )
        draft = self._draft = Target(SessionStore.begin(free_name(folder), snapshot))
        for _ in draft.store.writing(self._read):
            yield
            draft.flush()
        self._catch_up()
        draft.flush()
        draft.store.publish()
        self._active, self._draft, self._gone = draft, None, None
        self.folder = draft.store.folder
        self._problems.works("journal")

    def _read(self, place: tuple[slice, slice]) -> NDArray[np.uint32]:
        """Copy a part of the labels between two edits, since what an edit does on its way is in no change."""
        return self._quietly(lambda: self._labels[place].copy())

    def _drop_job(self) -> None:
        self._job = None
        if self._draft is not None:
            self._draft.store.abandon()
        self._draft = None
