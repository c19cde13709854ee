"""Saving in the background: quick for the caller, safe against a kill at any moment, patient with a failing disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_nucseg.errors import NucSegError
from napari_nucseg.io import session_journal, session_store, session_writer
from napari_nucseg.io.session_autosave import Autosave, Pace
from napari_nucseg.io.session_format import Snapshot
from napari_nucseg.io.session_read import read_session
from napari_nucseg.io.session_store import SessionStore
from tests.io.fake_session import FakeSession, same
from tests.session.boards import make_session, random_edit

if TYPE_CHECKING:
    from collections.abc import Callable

BUSY = Pace(idle=0.0, retry=0.02)
LAZY = Pace(idle=1000.0, retry=0.02)


class Told(list):
    """What the user was told."""

    def __call__(self, sentence: str | None) -> None:
        self.append(sentence)


def until(true: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)


def reopened(folder: Path) -> Any:
    store, snapshot = SessionStore.open(folder)
    store.abandon()
    return snapshot


def saving(target: Any, fake: FakeSession, told: Told, pace: Pace | None = None) -> Autosave:
    return Autosave(target, fake.snapshot(), told, between_edits=fake.between_edits, pace=pace)


@pytest.mark.parametrize("pace", [BUSY, LAZY, Pace(1000.0, 2000, 0.02)])
def test_edits_while_everything_is_being_written(tmp_path, pace):
    fake, told = FakeSession((530, 1100), 1, 0.5), Told()
    autosave = saving(tmp_path / "a.nucseg", fake, told, pace)
    for k in range(150):
        fake.edit(autosave.append)
        if k == 70:
            autosave.set_classes(fake.add_class("mitosis"))
        time.sleep(0.001)
    assert autosave.flush()
    assert autosave.is_ready
    assert autosave.close()
    same(read_session(autosave.folder), fake.snapshot())
    assert list(autosave.folder.glob("journal-*")) == []
    assert told == []
    assert autosave.problem is None
    assert [p.name for p in tmp_path.iterdir()] == ["a.nucseg"]


def test_a_session_goes_on_after_it_was_opened(tmp_path):
    fake = FakeSession((100, 600), 1, 0.5)
    saving(tmp_path / "a.nucseg", fake, Told()).close()
    store, snapshot = SessionStore.open(tmp_path / "a.nucseg")
    same(snapshot, fake.snapshot())
    autosave = saving(store, fake, Told())
    fake.edit(autosave.append)
    assert autosave.close()
    same(reopened(autosave.folder), fake.snapshot())


def test_append_costs_the_caller_nothing(tmp_path):
    fake = FakeSession((530, 600), 1, 0.5)
    autosave = saving(tmp_path / "a.nucseg", fake, Told(), pace=LAZY)
    autosave.flush()
    took = []
    for _ in range(50):
        change = fake.edit()
        start = time.perf_counter()
        autosave.append(change)
        took.append(time.perf_counter() - start)
    assert np.median(took) < 1e-3
    autosave.close()


def test_an_edit_is_on_the_disk_within_a_second(tmp_path):
    fake = FakeSession((100, 600), 1, 0.5)
    autosave = saving(tmp_path / "a.nucseg", fake, Told(), pace=LAZY)
    autosave.flush()
    for _ in range(5):
        fake.edit(autosave.append)
        until(lambda: np.array_equal(read_session(autosave.folder).labels, fake.labels), 1.0)
    autosave.close()


# ---- a process that is killed


CHILD = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from napari_nucseg.io.session_autosave import Autosave, Pace
    from napari_nucseg.io.session_store import SessionStore
    from tests.io.fake_session import FakeSession
    folder, seed, idle = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    fake = FakeSession((530, 600), seed, 0.5)
    autosave = Autosave(folder, fake.snapshot(), print, between_edits=fake.between_edits, pace=Pace(idle, 3000))
    autosave.flush()
    sys.stdout.write("ready\\n"); sys.stdout.flush()
    for k in range(100000):
        fake.edit(autosave.append)
        sys.stdout.write(f"{k + 1} {time.time()}\\n"); sys.stdout.flush()
        time.sleep(0.002)
    """
)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment(tmp_path, seed):
    """What comes back is the state after some edit, and none older than a second is missing."""
    folder = tmp_path / "a.nucseg"
    command = [sys.executable, "-c", CHILD, str(folder), str(seed), "0.0" if seed % 2 else "1000"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(np.random.default_rng(seed).uniform(0.05, 0.8))
    child.kill()
    killed = time.time()
    lines = [line.split() for line in child.stdout.read().splitlines() if line.count(".") == 1]
    child.wait()
    due = max((int(k) for k, at in lines if float(at) < killed - 1.0), default=0)
    fake, restored = FakeSession((530, 600), seed, 0.5), reopened(folder)
    done = 0
    while not (done >= due and same_state(fake, restored)):
        assert done <= len(lines) + 1, f"{restored.next_id} is no state after {due} to {done} edits"
        fake.edit()
        done += 1
    same(restored, fake.snapshot())
    same(reopened(folder), fake.snapshot())


def same_state(fake: FakeSession, snapshot: Any) -> bool:
    records = fake.records
    return len(records) == len(snapshot.records) and (
        records.tobytes() == snapshot.records.tobytes() and np.array_equal(fake.labels, snapshot.labels)
    )


# ---- a disk that fails


def failing(real: Callable[..., Any], broken: threading.Event) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if broken.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **kwargs)

    return call


def test_a_full_disk_is_told_once_and_nothing_is_lost(tmp_path, monkeypatch):
    fake, told, broken = FakeSession((100, 600), 1, 0.5), Told(), threading.Event()
    monkeypatch.setattr(session_journal, "write_fully", failing(session_journal.write_fully, broken))
    autosave = saving(tmp_path / "a.nucseg", fake, told, pace=LAZY)
    fake.edit(autosave.append)
    assert autosave.flush()
    broken.set()
    for _ in range(10):
        fake.edit(autosave.append)
        time.sleep(0.01)
    until(lambda: told)
    assert not autosave.flush(0.1)
    assert told == [autosave.problem]
    assert "can't be saved" in told[0]
    assert "No space left on device" in told[0]
    assert "\n" not in told[0]
    broken.clear()
    assert autosave.flush()
    until(lambda: told[-1] is None)
    assert len(told) == 2
    same(read_session(autosave.folder), fake.snapshot())
    assert autosave.close()


def test_a_checkpoint_that_finds_no_room_keeps_the_journal(tmp_path, monkeypatch):
    fake, told, broken = FakeSession((100, 600), 1, 0.5), Told(), threading.Event()
    monkeypatch.setattr(session_store, "write_table", failing(session_store.write_table, broken))
    autosave = saving(tmp_path / "a.nucseg", fake, told, pace=BUSY)
    autosave.flush()
    broken.set()
    for _ in range(5):
        fake.edit(autosave.append)
        time.sleep(0.02)
    until(lambda: told)
    assert autosave.close()  # the journal holds everything
    broken.clear()
    same(reopened(autosave.folder), fake.snapshot())


@pytest.mark.parametrize("back", [True, False])
def test_a_folder_that_vanishes(tmp_path, back):
    fake, told = FakeSession((100, 600), 1, 0.5), Told()
    (tmp_path / "disk").mkdir()
    autosave = saving(tmp_path / "disk/a.nucseg", fake, told, pace=LAZY)
    fake.edit(autosave.append)
    autosave.flush()
    (tmp_path / "disk").rename(tmp_path / "away")
    for _ in range(5):
        fake.edit(autosave.append)
    until(lambda: told)
    assert "vanished" in told[0]
    assert not (tmp_path / "disk").exists()
    (tmp_path / "away").rename(tmp_path / "disk") if back else (tmp_path / "disk").mkdir()
    assert autosave.flush()
    until(lambda: told[-1] is None)
    assert len(told) == 2
    same(read_session(tmp_path / "disk/a.nucseg"), fake.snapshot())
    assert autosave.close()


def test_a_folder_that_cannot_be_written_from_the_start(tmp_path):
    fake, told = FakeSession((100, 600), 1, 0.5), Told()
    (tmp_path / "file").write_text("")
    autosave = saving(tmp_path / "file/a.nucseg", fake, told, pace=LAZY)
    fake.edit(autosave.append)
    until(lambda: told)
    assert not autosave.is_ready
    autosave.move_to(tmp_path / "b.nucseg")
    fake.edit(autosave.append)
    assert autosave.flush()
    assert told[-1] is None
    assert len(told) == 2
    assert autosave.close()
    same(reopened(tmp_path / "b.nucseg"), fake.snapshot())


def test_closing_does_not_hang_on_a_failing_disk(tmp_path):
    fake, told = FakeSession((100, 600), 1, 0.5), Told()
    (tmp_path / "file").write_text("")
    autosave = saving(tmp_path / "file/a.nucseg", fake, told)
    start = time.monotonic()
    assert not autosave.close()
    assert time.monotonic() - start < 5
    assert autosave.problem


def test_closing_in_an_event_loop_that_no_longer_runs(tmp_path):
    """The thread of the window closes, so what is posted to it is never called."""
    fake = FakeSession((530, 600), 1, 0.5)
    autosave = Autosave(tmp_path / "a.nucseg", fake.snapshot(), Told(), between_edits=lambda call: None)
    time.sleep(0.2)
    assert not autosave.is_ready
    fake.edit(autosave.append)
    assert autosave.close(5.0)
    same(reopened(tmp_path / "a.nucseg"), fake.snapshot())


def test_an_edit_that_a_full_copy_has_seen_is_in_the_journal_when_it_counts(tmp_path, monkeypatch):
    fake, told, seen = FakeSession((530, 600), 1, 0.5), Told(), []
    publish = SessionStore.publish

    def published(store: SessionStore) -> None:
        publish(store)
        seen.append(read_session(store.folder))

    monkeypatch.setattr(SessionStore, "publish", published)

    def between_edits(call: Callable[[], None]) -> None:
        for _ in range(10):
            fake.edit(autosave.append)
        call()
        fake.edit(autosave.append)

    autosave = Autosave(tmp_path / "a.nucseg", fake.snapshot(), told, between_edits=between_edits, pace=LAZY)
    assert autosave.flush()
    same(seen[0], fake.snapshot())
    assert autosave.close()


@pytest.mark.parametrize("seed", range(8))
def test_a_real_session_comes_back(tmp_path, seed):
    session, told, rng = make_session(seed), Told(), np.random.default_rng(seed)
    snapshot = Snapshot(session.labels, session.records.copy(), session.classes, session.next_id)
    lock = threading.Lock()

    def between_edits(call: Callable[[], None]) -> None:
        with lock:
            call()

    pace = BUSY if seed % 2 else LAZY
    autosave = Autosave(tmp_path / "a.nucseg", snapshot, told, between_edits=between_edits, pace=pace)
    session.changed.connect(autosave.append)
    session.classes_changed.connect(lambda: autosave.set_classes(session.classes))
    for _ in range(25):
        with lock:
            random_edit(session, rng)
    assert autosave.flush()
    now = Snapshot(session.labels, session.records, session.classes, session.next_id)
    if seed % 2 == 0:
        same(read_session(autosave.folder), now)
    assert autosave.close()
    same(reopened(autosave.folder), now)
    assert told == []


# ---- another folder


@pytest.mark.parametrize("keep_old", [True, False])
def test_moving_while_edits_go_on(tmp_path, keep_old):
    fake, told = FakeSession((530, 1100), 1, 0.5), Told()
    autosave = saving(tmp_path / "a.nucseg", fake, told)
    autosave.flush()
    (tmp_path / "b.nucseg").mkdir()  # taken
    autosave.move_to(tmp_path / "b.nucseg", keep_old)
    for _ in range(60):
        fake.edit(autosave.append)
        time.sleep(0.002)
    until(lambda: autosave.folder.name == "b-2.nucseg")
    fake.edit(autosave.append)
    assert autosave.close()
    assert told == []
    same(reopened(tmp_path / "b-2.nucseg"), fake.snapshot())
    assert (tmp_path / "a.nucseg").exists() == keep_old
    if keep_old:
        assert reopened(tmp_path / "a.nucseg").labels.shape == fake.labels.shape


def test_a_move_that_fails_changes_nothing(tmp_path):
    fake, told = FakeSession((100, 600), 1, 0.5), Told()
    autosave = saving(tmp_path / "a.nucseg", fake, told, pace=LAZY)
    (tmp_path / "file").write_text("")
    autosave.move_to(tmp_path / "file/b.nucseg")
    until(lambda: told)
    fake.edit(autosave.append)
    assert autosave.flush()
    autosave.close()
    same(reopened(tmp_path / "a.nucseg"), fake.snapshot())


def test_a_folder_in_use_elsewhere_is_told(tmp_path):
    fake = FakeSession((100, 600), 1, 0.5)
    autosave = saving(tmp_path / "a.nucseg", fake, Told())
    autosave.flush()
    with pytest.raises(NucSegError, match="open in another window"):
        SessionStore.open(tmp_path / "a.nucseg")
    autosave.close()
    assert session_writer.Pace().idle > 1
