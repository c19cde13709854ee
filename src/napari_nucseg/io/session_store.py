"""A session on disk: a checkpoint (labels, table) and a journal of the changes since.

Order is all that makes it safe. A change counts once its line in the journal is on the disk. A checkpoint never
reads the labels that are being edited: it brings the chunks on disk up to date with the changes of closed journals,
and these are deleted only when chunks and table are on the disk and `session.json` no longer lists them. Changes are
absolute values, so replaying listed journals over a partly newer checkpoint gives the same state. The format is
described in docs/session-format.md.
"""

from __future__ import annotations

import glob
import shutil
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.session_files import (
    LOCK,
    SessionDamaged,
    SessionGone,
    lock_folder,
    reason,
    remove_strays,
    sync,
)
from napari_nucseg.io.session_format import (
    LABELS,
    MANIFEST,
    TABLE,
    Manifest,
    Snapshot,
    first_free_id,
    read_manifest,
)
from napari_nucseg.io.session_journal import Entry, Journal, check_entry
from napari_nucseg.io.session_labels import LabelFiles, Read
from napari_nucseg.io.session_read import load
from napari_nucseg.io.session_table import Table, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_nucseg.core.nuclei import Change, NucleusClass

__all__ = ["SessionDamaged", "SessionGone", "SessionStore", "Snapshot"]

_DRAFT = ".{}.{}.part"


class SessionStore:
    """The folder of a session, held by this process. Use from one thread at a time.

    Made by `create`, `begin` or `open`. `append` writes changes to the journal, `checkpoint` brings labels and table
    up to date, `close` does so for the last time and gives the folder back.
    """

    def __init__(self, folder: Path, manifest: Manifest, records: NDArray[Any]) -> None:
        self._folder = self._place = folder
        self._manifest = self._written = manifest
        self._unsure = False  # whether session.json may differ from `_manifest` in its journals
        self._table = Table(records)
        self._files = LabelFiles(folder / LABELS, manifest.shape)
        self._pending: list[Entry] = []
        self._entries = 0
        self._journal: Journal | None = None
        self._lock: Any = None

    # -- making and opening

    @classmethod
    def create(cls, folder: str | Path, snapshot: Snapshot) -> SessionStore:
        """Save a session to a new folder, which appears when it is complete.

        Raises
        ------
        NucSegError
            Something is there already, or the folder can't be written.
        """
        store = cls.begin(folder, snapshot)
        try:
            for _ in store.writing(snapshot.labels.__getitem__):
                pass
            store.publish()
        except BaseException:
            store.abandon()
            raise
        return store

    @classmethod
    def begin(cls, folder: str | Path, snapshot: Snapshot) -> SessionStore:
        """Start a new folder under a hidden name; `writing` and `publish` complete it.

        `append` takes changes at once. Labels may change while they are written, if every change that a part of them
        has seen reaches `append` before `publish`.

        Raises
        ------
        NucSegError
            Something is there already, or the folder can't be written.
        """
        folder = Path(folder).absolute()
        if folder.exists():
            raise NucSegError(f"{folder} is there already and is never overwritten; choose another name")
        draft = folder.with_name(_DRAFT.format(folder.name, uuid.uuid4().hex[:8]))
        try:
            _remove_drafts(folder)
            draft.mkdir(parents=True)
        except OSError as error:
            raise NucSegError(f"{folder} can't be made ({reason(error)}); choose another folder") from error
        store = cls(folder, Manifest.of(snapshot), snapshot.records)
        store._settle_in(draft)
        try:
            store._lock = lock_folder(draft)
            store._journal, store._manifest = store._new_journal()
        except BaseException:
            store.abandon()
            raise
        return store

    @classmethod
    def open(cls, folder: str | Path, shape: tuple[int, int] | None = None) -> tuple[SessionStore, Snapshot]:
        """Restore a session and go on with it.

        Parameters
        ----------
        folder
            Of a session.
        shape
            Height and width of the image it is opened for, if that is known.

        Raises
        ------
        NucSegError
            No session, one of a newer version, of an image of another shape, open elsewhere, or it can't be written
            to; `read_session` reads also where nothing can be written.
        SessionDamaged
            A file is missing, cut short or changed, or labels and table disagree; see `salvage`.
        """
        folder = Path(folder).absolute()
        read_manifest(folder)  # a folder that is none gets no lock
        lock = lock_folder(folder)
        try:
            loaded = load(folder, shape)
            store = cls(folder, loaded.manifest, loaded.snapshot.records)
            store._pending = loaded.entries
            store._entries = loaded.number
            store._resume(loaded.journal_size)
        except BaseException:
            lock.release()
            raise
        store._lock = lock
        return store, loaded.snapshot

    def writing(self, read: Read) -> Iterator[None]:
        """Write labels and table of a new folder, step by step.

        Parameters
        ----------
        read
            Returns a part of the labels as it is after some change, never within one.
        """
        table = self._table.records.copy()
        mpp = self._manifest.about.get("mpp")
        self._files.write_metadata(mpp if isinstance(mpp, int | float) else None)
        yield from self._files.write_all(read)
        yield from write_table(self._place / TABLE, table, self._manifest.classes)

    def publish(self) -> None:
        """Give the new folder its name.

        Raises
        ------
        NucSegError
            The name was taken meanwhile, or the disk failed.
        """
        self._write_manifest(self._manifest)
        size = self._journal.size if self._journal else 0
        self._let_go()  # neither an open file nor a lock may be in a folder that is renamed, on Windows
        try:
            if self._folder.exists():
                raise FileExistsError(17, "something is there already")
            self._place.rename(self._folder)
            sync(self._folder.parent)
        except OSError as error:
            raise NucSegError(
                f"{self._folder} can't be made ({reason(error)}); choose another folder"
            ) from error
        self._settle_in(self._folder)
        self._lock = lock_folder(self._folder)
        self._resume(size)

    def abandon(self) -> None:
        """Let go of the folder as it is, and remove it if it isn't published; changes on disk stay there."""
        self._let_go()
        if self._place != self._folder:
            shutil.rmtree(self._place, ignore_errors=True)

    # -- saving

    @property
    def folder(self) -> Path:
        """The session's folder."""
        return self._folder

    @property
    def journal_bytes(self) -> int:
        """Bytes of the journal being written; 0 if every change is in the checkpoint."""
        return self._journal.size if self._journal and self._pending else 0

    @property
    def has_pending(self) -> bool:
        """Whether there are changes that no checkpoint holds."""
        return bool(self._pending)

    def append(self, *changes: Change) -> None:
        """Write changes to the journal; when this returns, they are on the disk.

        Parameters
        ----------
        *changes
            In order; their arrays are kept and must not be written to.

        Raises
        ------
        OSError, NucSegError
            They can't be written (disk full, ...); none of them counts then, and they may be given again.
        SessionGone
            The folder has vanished; see `reattach`.
        """
        self._append([Entry.of(change) for change in changes], [change.name for change in changes])

    def set_classes(self, classes: Sequence[NucleusClass]) -> None:
        """Write the classes to the journal, when one was added; errors as of `append`."""
        empty = self._table.records[:0]
        entry = Entry.of_classes(tuple(classes), empty.dtype)
        self._append([entry], ["Classes"])

    def checkpoint(self) -> None:
        """Bring labels and table up to date, and drop the journals that are then in them.

        Raises
        ------
        OSError, NucSegError
            Something can't be written; nothing is lost, the journals stay.
        """
        for _ in self.checkpointing():
            pass

    def checkpointing(self) -> Iterator[None]:
        """Do a `checkpoint` step by step; `append` may be called between the steps."""
        if not self._pending:
            return
        self._check_place()
        self._rotate()
        count, table = len(self._pending), self._table.records.copy()
        for _ in self._files.update([entry.runs for entry in self._pending]):
            self._check_place()
            yield
        for _ in write_table(self._folder / TABLE, table, self._manifest.classes):
            self._check_place()
            yield
        done = replace(
            self._manifest,
            journals=self._manifest.journals[-1:],
            rows=len(table),
            checkpoint=self._manifest.checkpoint + 1,
        )
        self._write_manifest(done)
        del self._pending[:count]
        self._remove_old_journals()

    def close(self) -> None:
        """Make a last checkpoint, remove the journal and give the folder back.

        Raises
        ------
        OSError, NucSegError
            The checkpoint can't be written; the store stays open, so that it can be tried again or abandoned.
        """
        self.checkpoint()
        if self._journal is not None:
            self._write_manifest(replace(self._manifest, journals=()))
            self._remove_old_journals()
        self._let_go()

    def reattach(self) -> bool:
        """Go on after `SessionGone` if the folder is back as it was; return whether it is."""
        journal, known = self._journal, self._written
        try:
            found = read_manifest(self._folder)
            if journal is None or (found.created, found.saved) != (known.created, known.saved):
                return False
            self._let_go()
            self._lock = lock_folder(self._folder)
            self._journal = Journal(self._folder / journal.path.name, journal.size)
        except (OSError, NucSegError):
            return False
        return True

    # -- inside

    def _append(self, entries: list[Entry], names: list[str]) -> None:
        journal = self._journal
        if journal is None:
            raise NucSegError(f"{self._folder} is closed; open it again to save changes")
        self._check_entries(entries)
        if self._unsure:
            self._write_manifest(self._manifest)
        lines: list[bytes] = []
        for offset, (entry, name) in enumerate(zip(entries, names, strict=True)):
            lines += entry.lines(self._entries + offset, name)
        journal.append(b"".join(lines))
        self._entries += len(entries)
        self._pending += entries
        manifest = self._manifest
        for entry in entries:
            self._table.put(entry.rows, entry.records)
            manifest = replace(manifest, classes=entry.classes or manifest.classes)
            manifest = replace(manifest, next_id=max(manifest.next_id, first_free_id(entry.records)))
        self._manifest = manifest

    def _rotate(self) -> None:
        """Start a journal for the changes to come, unless the current one is empty."""
        if self._manifest.journals[-1][1] == self._entries:
            return
        journal, manifest = self._new_journal()
        try:
            self._write_manifest(manifest)
        except BaseException:
            journal.close()
            raise
        if self._journal is not None:
            self._journal.close()
        self._journal = journal

    def _new_journal(self) -> tuple[Journal, Manifest]:
        """Return a new journal, and the manifest that lists it; nothing may be written to it before that one is."""
        used = [int(name.split("-")[1].split(".")[0]) for name, _ in self._manifest.journals]
        name = f"journal-{max(used, default=self._manifest.checkpoint) + 1}.jsonl"
        listed = (*self._manifest.journals, (name, self._entries))
        return Journal(self._place / name), replace(self._manifest, journals=listed)

    def _resume(self, size: int) -> None:
        """Write on in the last journal behind `size` bytes, or in a new one."""
        if self._manifest.journals:
            self._journal = Journal(self._place / self._manifest.journals[-1][0], size)
        else:
            self._journal, manifest = self._new_journal()
            self._write_manifest(manifest)
        self._remove_old_journals()
        remove_strays(self._place, (), ".*.part")
        remove_strays(self._place, (), f"{LABELS}/0/*/.*.part")

    def _write_manifest(self, manifest: Manifest) -> None:
        self._check_place()
        self._unsure = True
        self._manifest = self._written = manifest.write(self._place)
        self._unsure = False

    def _check_place(self) -> None:
        if self._journal is not None:
            self._journal.check()

    def _check_entries(self, entries: Sequence[Entry]) -> None:
        """Refuse changes that could not be replayed, before they are written."""
        height, width = self._manifest.shape
        size, last = len(self._table.records), self._table.last_id
        for entry in entries:
            check_entry(entry, height * width, size, last)
            if len(entry.rows) and entry.rows[-1] >= size:
                size, last = int(entry.rows[-1]) + 1, int(entry.records["id"][-1])

    def _remove_old_journals(self) -> None:
        remove_strays(self._place, (name for name, _ in self._manifest.journals), "journal-*.jsonl")

    def _settle_in(self, place: Path) -> None:
        self._place = place
        self._files = LabelFiles(place / LABELS, self._manifest.shape)

    def _let_go(self) -> None:
        if self._journal is not None:
            self._journal.close()
        self._journal = None
        if self._lock is not None:
            with suppress(OSError):
                self._lock.release()
        self._lock = None


def remove_session(folder: Path) -> None:
    """Delete the files of a session, and the folder if nothing else is in it; what can't be deleted stays."""
    for name in (MANIFEST, TABLE, LOCK):  # without its manifest it is no session any more
        with suppress(OSError):
            (folder / name).unlink()
    remove_strays(folder, (), "journal-*.jsonl")
    shutil.rmtree(folder / LABELS, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def _remove_drafts(folder: Path) -> None:
    """Remove what a killed process has left of making this folder."""
    for draft in folder.parent.glob(_DRAFT.format(glob.escape(folder.name), "*")):
        with suppress(OSError, NucSegError):
            lock_folder(draft).release()
            shutil.rmtree(draft, ignore_errors=True)
