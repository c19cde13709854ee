"""The run folder survives what happens to runs."""

import pytest
import torch

from napari_nucseg.errors import NucSegError
from train import distributed
from train.runlog import RunLog


class Stop(Exception):
    """Of a test."""


def test_a_kill_while_saving_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    run = RunLog(tmp_path)
    run.save("last.pt", {"step": 1, "average": {}})

    def half(state, path):
        path.write_bytes(b"PK\x03\x04 and no more")
        raise Stop

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Stop):
        run.save("last.pt", {"step": 2, "average": {}})
    assert run.load("last.pt") == {"step": 1, "average": {}}
    monkeypatch.undo()
    run.save("last.pt", {"step": 3, "average": {}})
    assert run.load("last.pt") == {"step": 3, "average": {}}


def test_rewinding_keeps_what_was_measured_before(tmp_path):
    run = RunLog(tmp_path)
    for step in (1, 2, 3):
        run.metrics(step, {"a": step / 10, "b": 1.0})
    with (tmp_path / "metrics.csv").open("a") as handle:
        handle.write("17.0,2,")  # a line that a kill cut
    run.rewind(2)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert rows[0] == "time,step,name,value"
    assert [row.split(",")[1:] for row in rows[1:]] == [
        ["1", "a", "0.1"], ["1", "b", "1"], ["2", "a", "0.2"], ["2", "b", "1"],
    ]  # fmt: skip


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    run = RunLog(tmp_path / "run")
    run.config({"a": 1})
    run.metrics(1, {"a": 1.0})
    run.save("last.pt", {})
    run.rewind(0)
    assert run.curves() is None
    assert not (tmp_path / "run").exists()
    assert run.load("last.pt") is None


def test_curves_are_drawn_of_whatever_there_is(tmp_path):
    run = RunLog(tmp_path)
    assert run.curves() is None
    run.metrics(
        1, {"train/total": 2.0, "val/loss_total": 3.0, "val/bPQ": float("nan"), "speed/data_wait": 0.1}
    )
    assert run.curves() == tmp_path / "curves.png"
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NucSegError, match="cannot be made"):
        RunLog(tmp_path / "file" / "run").config({})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"no checkpoint at all"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(NucSegError, match=r"last\.pt' cannot be read \(.+\); put a copy"):
        RunLog(tmp_path).load("last.pt")


def test_another_file_of_torch_is_no_checkpoint(tmp_path):
    torch.save({"model": {}}, tmp_path / "last.pt")
    with pytest.raises(NucSegError, match="is no checkpoint of a run"):
        RunLog(tmp_path).load("last.pt")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("failed writing\nat")]
)
def test_a_full_disk_is_told_and_spoils_nothing(tmp_path, monkeypatch, error):
    run = RunLog(tmp_path)
    run.save("last.pt", {"average": {}})

    def full(state, path):
        path.write_bytes(b"PK")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NucSegError, match=r"cannot be written .* free space") as told:
        run.save("last.pt", {"average": {"a": 1}})
    assert "\n" not in str(told.value)
    assert run.load("last.pt") == {"average": {}}


def test_names_in_any_script_are_kept(tmp_path):
    run = RunLog(tmp_path)
    run.metrics(1, {"val/größe/AJI": 0.5})
    run.rewind(1)
    assert "val/größe/AJI" in (tmp_path / "metrics.csv").read_text(encoding="utf-8")


def test_a_folder_of_other_things_is_no_run_folder(tmp_path):
    run = RunLog(tmp_path / "run")
    run.check()  # not there yet
    run.folder.mkdir()
    (run.folder / ".DS_Store").write_text("")
    run.check()
    (run.folder / "dataset.json").write_text("{}")
    with pytest.raises(NucSegError, match=r"holds no run but 'dataset\.json'; give a new or empty one"):
        run.check()
    run.metrics(1, {"a": 1.0})
    run.check()


def test_a_validation_that_is_done_again_is_dropped(tmp_path):
    run = RunLog(tmp_path)
    run.metrics(2, {"train/total": 1.0, "val/bPQ": 0.5})
    run.rewind(2)
    assert "val/bPQ" in (tmp_path / "metrics.csv").read_text()
    run.rewind(2, validated=False)
    text = (tmp_path / "metrics.csv").read_text()
    assert "val/bPQ" not in text
    assert "train/total" in text
