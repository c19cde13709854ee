"""The folder of a session: what is saved comes back, bit by bit, whatever was cut off."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_nucseg.core.nuclei import Change, State, record_dtype
from napari_nucseg.errors import NucSegError
from napari_nucseg.io import session_files, session_journal
from napari_nucseg.io.session_read import read_session, salvage
from napari_nucseg.io.session_runs import clip_runs, expand_runs, runs_of
from napari_nucseg.io.session_store import SessionDamaged, SessionGone, SessionStore, Snapshot
from tests.io.fake_session import FakeSession, live_ids, same


def saved(tmp_path: Path, edits: int = 6, shape: tuple[int, int] = (100, 600)) -> tuple[FakeSession, Path]:
    """A session on disk, of which the process died: a checkpoint and a journal of edits."""
    fake = FakeSession(shape, seed=3, filled=0.7)
    store = SessionStore.create(tmp_path / "a.nucseg", fake.snapshot())
    for _ in range(edits):
        store.append(fake.edit())
    store.abandon()
    return fake, store.folder


def reopened(folder: Path) -> Snapshot:
    store, snapshot = SessionStore.open(folder)
    store.abandon()
    return snapshot


# ---- round trip


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 1), (30, 700), (513, 40), (520, 1030)]),
    filled=st.sampled_from([0.0, 0.5]),
    steps=st.lists(st.sampled_from(["edit", "edits", "class", "checkpoint", "die", "close"]), max_size=12),
)
def test_what_comes_back_is_what_was_there(tmp_path_factory, seed, shape, filled, steps):
    fake = FakeSession(shape, seed, filled)
    folder = tmp_path_factory.mktemp("s") / "x.nucseg"
    store = SessionStore.create(folder, fake.snapshot())
    for step in steps:
        if step == "edit":
            store.append(fake.edit())
        elif step == "edits":
            store.append(*(fake.edit() for _ in range(5)))
        elif step == "class":
            store.set_classes(fake.add_class(f"class {len(fake.classes)}"))
        elif step == "checkpoint":
            store.checkpoint()
        else:
            store.close() if step == "close" else store.abandon()
            store, snapshot = SessionStore.open(folder, shape)
            same(snapshot, fake.snapshot())
    store.abandon()
    same(reopened(folder), fake.snapshot())
    same(read_session(folder), fake.snapshot())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 60), unique=True, max_size=40).map(sorted),
    st.data(),
)
def test_runs_hold_every_pixel(pixels, data):
    values = data.draw(
        st.lists(st.sampled_from([0, 1, 2**32 - 1]), min_size=len(pixels), max_size=len(pixels))
    )
    given_pixels, given_values = np.array(pixels, np.int64), np.array(values, np.uint32)
    runs = runs_of(given_pixels, given_values)
    for found, expected in zip(expand_runs(runs), (given_pixels, given_values), strict=True):
        assert np.array_equal(found, expected)
    inside = (given_pixels >= 13) & (given_pixels < 31)
    assert np.array_equal(expand_runs(clip_runs(runs, 13, 31))[0], given_pixels[inside])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-1e9, 1e9),
            st.floats(width=32, allow_infinity=False),
            st.floats(0, 1, width=32),
            st.integers(0, 255),
        ),
        max_size=6,
    )
)
def test_every_bit_of_a_number_survives_in_table_and_journal(tmp_path_factory, rows):
    records = np.zeros(len(rows), record_dtype(1))
    records["id"] = np.arange(len(rows)) + 2**32 - 10
    records["state"], records["origin"], records["kind"] = State.REJECTED, 1, -1
    for record, (y, score, prob, floor) in zip(records, rows, strict=True):
        record["y"], record["x"], record["score"], record["prob"], record["floor"] = (
            y,
            -y / 3,
            score,
            prob,
            floor,
        )
    fake = FakeSession((4, 4))
    snapshot = Snapshot(fake.labels, records[:0], fake.classes[:1], 1, {})
    folder = tmp_path_factory.mktemp("n") / "n.nucseg"
    store = SessionStore.create(folder, snapshot)
    if rows:
        none = np.zeros(0, np.int64)
        store.append(Change("", None, none, none.astype(np.uint32), np.arange(len(rows)), records))
    after = replace(snapshot, records=records, next_id=2**32 - 10 + len(rows) if rows else 1)
    same(read_session(folder), after)
    store.close()
    same(read_session(folder), after)


def test_a_change_of_many_pixels_and_records_goes_over_several_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(session_journal, "_RUNS", 3)
    monkeypatch.setattr(session_journal, "_RECORDS", 2)
    fake, folder = saved(tmp_path)
    same(reopened(folder), fake.snapshot())
    journal = next(folder.glob("journal-*"))
    content = journal.read_bytes().splitlines(keepends=True)
    cut = max(k for k, line in enumerate(content) if b'"part":[2,' in line)
    journal.write_bytes(b"".join(content[:cut]))  # one of the lines alone counts for nothing
    assert reopened(folder).labels.shape == fake.labels.shape


def test_nuclei_that_came_and_went_in_one_edit_leave_no_gap(tmp_path):
    fake = FakeSession((60, 60), 5)
    store = SessionStore.create(tmp_path / "a.nucseg", fake.snapshot())
    fake.records = np.zeros(
        1, fake.records.dtype
    )  # as the session leaves it: absent, with its id; no change says so
    fake.records["id"] = 1
    change = fake.edit()
    store.append(change)
    assert change.rows.tolist() == [1]
    fake.records["id"][0] = change.records["id"][0] - 1
    same(read_session(store.folder), fake.snapshot())
    store.close()
    same(read_session(store.folder), fake.snapshot())


def test_an_id_is_never_given_again(tmp_path):
    fake = FakeSession((50, 50), 1, 1.0)
    store = SessionStore.create(tmp_path / "a.nucseg", replace(fake.snapshot(), next_id=1000))
    store.append(fake.edit())
    store.close()
    assert reopened(store.folder).next_id == 1000


# ---- order of what is written


class Power(Exception):
    """The process ends here."""


@pytest.mark.parametrize("last", range(24))
def test_a_checkpoint_may_be_cut_off_after_any_file(tmp_path, monkeypatch, last):
    fake = FakeSession((530, 600), 8, 0.5)
    store = SessionStore.create(tmp_path / "a.nucseg", fake.snapshot())
    store.append(*(fake.edit() for _ in range(8)))
    left = [last]
    real_replace, real_unlink = os.replace, Path.unlink

    def limited(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Power
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", limited(real_replace))
        patch.setattr(Path, "unlink", limited(real_unlink))
        try:
            for step, _ in enumerate(store.checkpointing()):
                if step == 1:
                    store.append(fake.edit())
            store.close()
        except Power:
            pass
    store.abandon()
    same(reopened(store.folder), fake.snapshot())
    same(reopened(store.folder), fake.snapshot())


def test_only_touched_chunks_are_written(tmp_path):
    fake = FakeSession((1100, 1100), 4, 0.3)
    store = SessionStore.create(tmp_path / "a.nucseg", fake.snapshot())
    chunks = sorted(p for p in (store.folder / "labels.zarr/0").glob("[0-9]*/*"))
    assert len(chunks) == 9  # also those without a nucleus, so that a missing one is noticed
    times = [p.stat().st_mtime_ns for p in chunks]
    change = fake.edit()
    while not change.pixels.size:
        change = fake.edit()
    store.append(change)
    store.checkpoint()
    assert sum(p.stat().st_mtime_ns != t for p, t in zip(chunks, times, strict=True)) in (1, 2, 4)
    store.close()
    assert list(store.folder.glob("journal-*")) == []


# ---- what others have done to the files


def cut(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("name", ["session.json", "nuclei.csv", "labels.zarr/0/0/1"])
def test_a_file_cut_short_is_told_in_one_sentence(tmp_path, name, keep):
    _, folder = saved(tmp_path)
    cut(folder / name, keep)
    with pytest.raises(SessionDamaged, match=name.split("/")[-1]) as error:
        SessionStore.open(folder)
    assert "\n" not in str(error.value)
    with pytest.raises(SessionDamaged):  # the failed try has not kept the lock
        SessionStore.open(folder)


@pytest.mark.parametrize("drop", [1, 5, 40])
def test_a_torn_last_line_is_dropped(tmp_path, drop):
    fake = FakeSession((100, 600), 3, 0.7)
    store = SessionStore.create(tmp_path / "a.nucseg", fake.snapshot())
    store.append(fake.edit(), fake.edit())
    before = fake.snapshot(copy=True)
    store.append(fake.edit())
    store.abandon()
    journal = next(store.folder.glob("journal-*"))
    journal.write_bytes(journal.read_bytes()[:-drop])
    store, snapshot = SessionStore.open(store.folder)
    same(snapshot, before)
    store.set_classes(fake.classes)  # what is written now follows on the good lines
    store.abandon()
    same(reopened(store.folder), before)


def test_a_journal_damaged_in_the_middle_is_not_taken_for_torn(tmp_path):
    _, folder = saved(tmp_path)
    journal = next(folder.glob("journal-*"))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"#" + lines[1][1:], *lines[2:]]))
    with pytest.raises(SessionDamaged, match="damaged in the middle, with 4 lines behind"):
        SessionStore.open(folder)


@pytest.mark.parametrize("what", ["chunk", "journal", "table"])
def test_a_missing_file_is_told(tmp_path, what):
    _, folder = saved(tmp_path)
    path = {
        "chunk": folder / "labels.zarr/0/0/0",
        "journal": next(folder.glob("journal-*")),
        "table": folder / "nuclei.csv",
    }[what]
    path.unlink()
    with pytest.raises(SessionDamaged, match=path.name):
        SessionStore.open(folder)


def test_table_and_labels_that_disagree_are_not_handed_out(tmp_path):
    fake, folder = saved(tmp_path, edits=0)
    other = FakeSession((100, 600), seed=4, filled=0.7)
    SessionStore.create(tmp_path / "b.nucseg", other.snapshot()).close()
    (folder / "nuclei.csv").write_bytes((tmp_path / "b.nucseg/nuclei.csv").read_bytes())
    manifest = json.loads((folder / "session.json").read_text())
    (folder / "session.json").write_text(json.dumps(manifest | {"rows": 0}))
    with pytest.raises(SessionDamaged, match="nuclei of the table have no pixels"):
        SessionStore.open(folder)
    assert len(fake.records)


def test_a_newer_version_is_left_alone(tmp_path):
    _, folder = saved(tmp_path)
    manifest = json.loads((folder / "session.json").read_text())
    (folder / "session.json").write_text(json.dumps(manifest | {"version": 2}))
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(NucSegError, match=r"format 2, this one reads up to 1\); update napari-nucseg"):
        SessionStore.open(folder)
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_image_of_another_shape_is_refused(tmp_path):
    _, folder = saved(tmp_path)
    with pytest.raises(NucSegError, match="600 x 100 pixels, but this one has 7 x 5"):
        SessionStore.open(folder, (5, 7))


@pytest.mark.parametrize("content", [b"[]", b"{}", b"\xff"])
def test_a_folder_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "session.json").write_bytes(content)
    with pytest.raises(NucSegError, match=r"session\.json"):
        SessionStore.open(tmp_path)
    with pytest.raises(NucSegError, match="can't be opened as a session"):
        SessionStore.open(tmp_path / "nowhere")


@pytest.mark.parametrize("harm", ["chunk", "table cut", "table", "journal", "journal middle", "nothing"])
def test_salvage_restores_the_rest(tmp_path, harm):
    fake, folder = saved(tmp_path, shape=(100, 1100), edits=8)
    journal = next(folder.glob("journal-*"))
    if harm == "chunk":
        (folder / "labels.zarr/0/0/0").unlink()
    elif harm == "table cut":
        cut(folder / "nuclei.csv", 0.5)
    elif harm == "table":
        (folder / "nuclei.csv").unlink()
    elif harm == "journal":
        journal.unlink()
    elif harm == "journal middle":
        data = journal.read_bytes()
        journal.write_bytes(data[:50] + b"\0\0" + data[52:])
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    snapshot, notes = salvage(folder)
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    store = SessionStore.create(tmp_path / "rescued.nucseg", snapshot)
    store.abandon()
    same(reopened(store.folder), snapshot)  # labels and records belong together again
    assert bool(notes) == (harm != "nothing")
    assert snapshot.next_id >= fake.next_id - 8
    everywhere = live_ids(fake.snapshot())
    if harm == "nothing":
        same(snapshot, fake.snapshot())
    elif harm == "chunk":
        right = set(np.unique(fake.labels[:, 512:]).tolist()) - {0}
        assert everywhere > live_ids(snapshot) >= right
    elif harm.startswith("table"):
        assert live_ids(snapshot) == everywhere


# ---- one owner, and a disk that fails


def test_a_second_opener_is_told(tmp_path):
    fake, folder = saved(tmp_path)
    store, _ = SessionStore.open(folder)
    with pytest.raises(NucSegError, match="is open in another window or process"):
        SessionStore.open(folder)
    code = f"from napari_nucseg.io.session_store import SessionStore; SessionStore.open({str(folder)!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "is open in another window or process" in other.stderr
    store.append(fake.edit())
    store.close()
    same(reopened(folder), fake.snapshot())


def test_the_lock_of_a_killed_process_does_not_count(tmp_path):
    fake, folder = saved(tmp_path)
    code = textwrap.dedent(
        f"""
        import os, signal
        from napari_nucseg.io.session_store import SessionStore
        store = SessionStore.open({str(folder)!r})
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    same(reopened(folder), fake.snapshot())


def test_nothing_is_ever_overwritten(tmp_path):
    fake, folder = saved(tmp_path)
    with pytest.raises(NucSegError, match="never overwritten"):
        SessionStore.create(folder, fake.snapshot())
    (tmp_path / "file.nucseg").write_text("mine")
    with pytest.raises(NucSegError, match="never overwritten"):
        SessionStore.create(tmp_path / "file.nucseg", fake.snapshot())


def test_a_full_disk_takes_no_part_of_a_change(tmp_path, monkeypatch):
    fake = FakeSession((100, 600), 3, 0.7)
    store = SessionStore.create(tmp_path / "a.nucseg", fake.snapshot())
    before = fake.snapshot(copy=True)
    change = fake.edit()

    def full(handle: int, data: Any) -> None:
        os.write(handle, bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(session_journal, "write_fully", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                store.append(change)
    same(read_session(store.folder), before)
    store.append(change)
    store.close()
    same(reopened(store.folder), fake.snapshot())


@pytest.mark.parametrize("at", range(12))
def test_a_checkpoint_that_fails_can_be_made_again(tmp_path, monkeypatch, at):
    fake = FakeSession((530, 600), 8, 0.5)
    store = SessionStore.create(tmp_path / "a.nucseg", fake.snapshot())
    store.append(*(fake.edit() for _ in range(8)))
    calls = [0]
    real = os.fsync

    def failing(handle: int) -> None:
        calls[0] += 1
        if calls[0] == at + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises((OSError, NucSegError), match="No space left"):
            store.checkpoint()
        store.append(fake.edit())
    same(read_session(store.folder), fake.snapshot())
    store.close()
    same(reopened(store.folder), fake.snapshot())


def test_a_real_limit_of_the_disk(tmp_path):
    """Files may not grow beyond a limit, so writes end in the middle, as on a full disk."""
    code = textwrap.dedent(
        f"""
        import resource
        from tests.io.fake_session import FakeSession
        from napari_nucseg.io.session_store import SessionStore
        fake = FakeSession((100, 600), 3, 0.7)
        store = SessionStore.create({str(tmp_path / "a.nucseg")!r}, fake.snapshot())
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
        failed = 0
        for _ in range(30):
            change = fake.edit()
            try:
                store.append(change)
            except OSError:
                failed += 1
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
                store.append(change)
        assert failed == 1, failed
        store.abandon()
        import numpy; numpy.save({str(tmp_path / "labels.npy")!r}, fake.labels)
        """
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert np.array_equal(reopened(tmp_path / "a.nucseg").labels, np.load(tmp_path / "labels.npy"))


def test_a_folder_that_has_vanished_is_noticed_and_taken_up_again(tmp_path):
    fake, folder = saved(tmp_path)
    store, _ = SessionStore.open(folder)
    folder.rename(tmp_path / "elsewhere")
    change = fake.edit()
    with pytest.raises(SessionGone, match="has vanished"):
        store.append(change)
    with pytest.raises(SessionGone):
        store.checkpoint()
    assert not folder.exists()
    assert not store.reattach()
    (tmp_path / "elsewhere").rename(folder)
    assert store.reattach()
    store.append(change)
    store.close()
    same(reopened(folder), fake.snapshot())


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    fake, folder = saved(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NucSegError, match=r"can't be made .*; choose another folder"):
        SessionStore.create(tmp_path / "file" / "a.nucseg", fake.snapshot())

    def denied(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("filelock.FileLock.acquire", denied)
    with pytest.raises(NucSegError, match=r"can't be locked \(Permission denied\)"):
        SessionStore.open(folder)
    same(read_session(folder), fake.snapshot())


def test_what_a_killed_process_left_half_made_is_cleared(tmp_path):
    fake = FakeSession((100, 600), 3, 0.7)
    half = SessionStore.begin(tmp_path / "a [1].nucseg", fake.snapshot())
    next(half.writing(fake.labels.__getitem__))
    half._let_go()  # killed
    assert len(list(tmp_path.iterdir())) == 1
    running = SessionStore.begin(tmp_path / "a [1].nucseg", fake.snapshot())
    assert len(list(tmp_path.iterdir())) == 1
    SessionStore.create(tmp_path / "a [1].nucseg", fake.snapshot()).close()
    assert len(list(tmp_path.iterdir())) == 2  # that of the running one stays
    with pytest.raises(NucSegError, match="can't be made"):
        running.publish()
    running.abandon()
    assert [p.name for p in tmp_path.iterdir()] == ["a [1].nucseg"]


# ---- open to others


def test_plain_zarr_and_pandas_read_it(tmp_path):
    zarr = pytest.importorskip("zarr")
    fake = FakeSession((530, 600), 8, 0.5)
    store = SessionStore.create(tmp_path / "a.nucseg", fake.snapshot())
    store.append(*(fake.edit() for _ in range(20)))
    store.close()
    group = zarr.open_group(store.folder / "labels.zarr", mode="r")
    image = group.attrs["multiscales"][0]
    assert image["version"] == "0.4"
    assert [axis["name"] for axis in image["axes"]] == ["y", "x"]
    assert [axis["unit"] for axis in image["axes"]] == ["micrometer"] * 2
    assert image["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": [0.25, 0.25]}]
    assert "image-label" in group.attrs
    array = group[image["datasets"][0]["path"]]
    assert array.chunks == (512, 512)
    assert np.array_equal(array[:], fake.labels)
    table = pd.read_csv(store.folder / "nuclei.csv")
    assert table["id"].tolist() == fake.records["id"].tolist()
    assert table["centre_y"].tolist() == pytest.approx(fake.records["y"].tolist())
    assert set(table["state"]) <= {s.word for s in State}
    assert table["locked"].tolist() == fake.records["locked"].tolist()
    kinds = fake.records["kind"]
    assert table["class"].fillna("").tolist() == [fake.classes[k].name if k >= 0 else "" for k in kinds]
    assert np.allclose(table['prob_lympho, "small"'], fake.records["prob"][:, 1], equal_nan=True)


def test_the_example_of_the_documentation_works(tmp_path):
    pytest.importorskip("zarr")
    fake = FakeSession((530, 600), 8, 0.5)
    store = SessionStore.create(tmp_path / "slide.nucseg", fake.snapshot())
    store.append(*(fake.edit() for _ in range(20)))
    store.close()
    text = (Path(__file__).parents[2] / "docs/session-format.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    assert 'folder = "slide.nucseg"' in code
    exec(code.replace('"slide.nucseg"', repr(str(store.folder))), names)
    assert np.array_equal(names["labels"], fake.labels)
    assert set(names["live"]["id"]) == live_ids(fake.snapshot()) == set(np.unique(fake.labels).tolist()) - {0}
    assert session_files.LOCK in text
