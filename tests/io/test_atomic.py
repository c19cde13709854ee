"""Drafts take the place of files and folders in one step, or leave them as they are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import Draft, Writer, remove_drafts, told

if TYPE_CHECKING:
    from pathlib import Path


def folder_of(path: Path, *names: str) -> None:
    path.mkdir()
    for name in names:
        (path / name).write_text(name)


def test_a_folder_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    folder_of(tmp_path / "a", "old")
    draft = Draft(tmp_path / "a")
    folder_of(draft.path, "new")
    draft.commit()
    draft.discard()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "new"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "a", "old")
    draft = Draft(tmp_path / "a")
    folder_of(draft.path, "new")
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if source == draft.path:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(NucSegError, match=r"can't be written \(Permission denied\)"), told(tmp_path / "a"):
        draft.commit()
    draft.discard()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]


def test_drafts_of_a_process_that_was_killed(tmp_path: Path) -> None:
    for target in (tmp_path / "a[1].csv", tmp_path / "b.csv"):
        Draft(target).path.write_text("cut sh")
    folder_of(Draft(tmp_path / "a[1].csv").path, "part")
    (tmp_path / "a[1].csv").write_text("whole")
    remove_drafts(tmp_path / "a[1].csv")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert names[0].startswith(".b.csv.")
    assert names[1] == "a[1].csv"


class Toy(Writer):
    def __init__(self, path: Path, fails: bool = False) -> None:
        self.path, self.fails, self.done = path, fails, 0
        self._draft = Draft(path)
        self._draft.path.write_text("new")

    def _finish(self) -> list[Path]:
        self.done += 1
        if self.fails:
            raise NucSegError("no")
        self._draft.commit()
        return [self.path]

    def _drop(self) -> None:
        self._draft.discard()


def test_a_writer_is_finished_once(tmp_path: Path) -> None:
    with Toy(tmp_path / "a") as toy:
        assert toy.close() == [tmp_path / "a"]
        assert toy.close() == [tmp_path / "a"]
    assert toy.done == 1
    assert (tmp_path / "a").read_text() == "new"
    with Toy(tmp_path / "b") as toy:
        toy.abort()
    assert toy.done == 0
    with pytest.raises(NucSegError), Toy(tmp_path / "c", fails=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
