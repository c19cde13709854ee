"""Flags, overrides and a config file say the same thing in three ways."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from napari_nucseg.errors import NucSegError
from train.flags import parse, run_flags


@dataclass(frozen=True)
class Inner:
    """Below.

    Parameters
    ----------
    depth : int
        How deep.
    """

    depth: int = 1


@dataclass(frozen=True)
class Config:
    """A command's.

    Parameters
    ----------
    in_file : Path
        What to read.
    names : tuple of str
        Some names.
    share : float
        Of the whole.
    count : int, optional
        How many.
    place : tuple of int, optional
        Where.
    again : bool
        Once more.
    """

    in_file: Path
    names: tuple[str, ...] = ()
    share: float = 0.5
    count: int | None = None
    inner: Inner = field(default_factory=Inner)
    place: tuple[int, int] | None = None
    again: bool = False


def read(*argv):
    return parse(Config, argv, prog="python -m train.x", about="Does x.", example="x")


@pytest.mark.parametrize(
    "argv",
    [
        ("--in-file", "a b", "--names", "7", "true", "--share", "1", "--count", "3", "inner.depth=2"),
        ("inner.depth=2", "--share", "1", "count=3", "--in-file", "a b", "--names", "7", "true"),
        ("--names", "7", "true", "inner.depth=2", "count=3", "share=1", "in_file=a b"),
        ("in_file=a b", 'names=["7", "true"]', "share=1.0", "count=3", "inner.depth=2"),
    ],
)
def test_flags_and_overrides_in_any_order(argv):
    assert read(*argv) == Config(Path("a b"), ("7", "true"), 1.0, 3, Inner(2))


def test_the_command_line_wins_over_the_file(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('in_file = "f"\nshare = 0.1\ncount = 1\n[inner]\ndepth = 5\n')
    assert read("--config", str(path)) == Config(Path("f"), (), 0.1, 1, Inner(5))
    assert read("--config", str(path), "--share", "0.2", "count=9").share == 0.2


def test_a_list_that_may_be_left_out_has_a_flag_too():
    assert read("--in-file", "a").place is None
    assert read("--place", "3", "4", "--in-file", "a").place == (3, 4)
    with pytest.raises(NucSegError, match="has 1 values; it takes 2"):
        read("--place", "3", "in_file=a")


def test_a_word_with_an_equals_sign_stays_a_name():
    assert read("in_file=x", "--names", "a=b", "c").names == ("a=b", "c")


def test_bad_values_are_one_sentence(capsys):
    with pytest.raises(NucSegError, match="count='many'"):
        read("in_file=x", "--count", "many")
    with pytest.raises(NucSegError, match="'in_file' is missing"):
        read()
    done = []
    status = run_flags(done.append, Config, ["in_fil=x"], prog="p", about="", example="")
    assert (status, done) == (2, [])
    assert "did you mean 'in_file'" in capsys.readouterr().err
    assert run_flags(done.append, Config, ["in_file=x"], prog="p", about="", example="") == 0
    assert done == [Config(Path("x"))]


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    action = lambda config: config.in_file.mkdir()  # noqa: E731
    assert run_flags(action, Config, [f"in_file={tmp_path}/file/x"], prog="p", about="", example="") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_full_gpu_is_one_sentence_and_other_errors_are_not_hidden(capsys):
    def fails(error):
        def action(config):
            raise error

        return run_flags(action, Config, ["in_file=x"], prog="p", about="", example="")

    assert fails(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")) == 2
    assert capsys.readouterr().err == "The GPU's memory is full (CUDA out of memory); choose device=cpu.\n"
    with pytest.raises(RuntimeError, match="else"):
        fails(RuntimeError("something else"))


def test_a_flag_for_true_needs_no_word():
    assert not read("in_file=a").again
    for argv in (("--again", "in_file=a"), ("in_file=a", "--again"), ("--again", "true", "--in-file", "a")):
        assert read(*argv).again
    assert not read("--again", "false", "in_file=a").again
    with pytest.raises(NucSegError, match="again='often'"):
        read("--again", "often", "in_file=a")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--in_file", "a"], "'--in_file' is no option; write in_file=a"),
        (["--shar", "0.2", "in_file=a"], "write share="),
        (["--depth", "3", "in_file=a"], "write inner.depth=3"),
        (["--depth=3", "in_file=a"], "write inner.depth=3"),
        (["--zzz", "in_file=a"], "'--zzz' is no option"),
        (["--names"], "--names: expected at least one argument; see --help."),
        (["--count"], "--count: expected one argument"),
    ],
)
def test_flags_that_there_are_not_are_told_with_what_is_meant(argv, said, capsys):
    assert run_flags(print, Config, argv, prog="p", about="", example="") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
