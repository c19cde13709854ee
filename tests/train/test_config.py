from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path

import pytest
import torch

from napari_nucseg.errors import NucSegError
from train.command import run_command
from train.config import describe, load_config, meanings, to_mapping
from train.loop import LoopConfig


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    widths: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    limit: float | None = None
    folder: Path = Path(".")
    inner: Inner = field(default_factory=Inner)
    many: dict[str, Inner] = field(default_factory=dict)


def test_file_and_overrides_are_merged(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('name = "a"\nfolder = "data"\n[inner]\nrate = 1\n[many.one]\nwidths = [3]\n')
    config = load_config(Outer, path, ["inner.widths=[4, 5]", "limit=2", "many.two.rate=0.25", "name=word"])
    assert config.inner == Inner(1.0, (4, 5))
    assert config.limit == 2.0
    assert config.folder == Path("data")
    assert config.name == "word"
    assert config.many == {"one": Inner(widths=(3,)), "two": Inner(0.25)}
    assert to_mapping(config)["many"]["one"] == {"rate": 0.5, "widths": [3]}


@pytest.mark.parametrize("name", ["2026-11-21", "2026-11-21T10:00:00", "10:00:00", "true story"])
def test_dates_are_names_like_others(name):
    assert load_config(Outer, None, [f"name={name}", f"folder={name}"]) == Outer(name, folder=Path(name))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("inner.rte=1", "did you mean 'inner.rate'"),
        ("inner.rate=fast", "inner.rate='fast'"),
        ("inner.widths=[1.5]", "inner.widths"),
        ("inner", "lacks a '='"),
        ("name.x=1", "unknown|kind|plain"),
    ],
)
def test_bad_keys_and_values_are_named(tmp_path, override, says):
    path = tmp_path / "c.toml"
    path.write_text('name = "a"\n')
    with pytest.raises(NucSegError, match=says):
        load_config(Outer, path, [override])


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(NucSegError, match="cannot be read"):
        load_config(Outer, tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("= 1")
    with pytest.raises(NucSegError, match="not valid TOML"):
        load_config(Outer, tmp_path / "bad.toml")


@pytest.mark.parametrize("command", ["fit", "teach", "distill"])
def test_the_shipped_config_loads(command):
    path = Path(__file__).parents[2] / "train" / "configs" / "student.toml"
    config = load_config(import_module(f"train.{command}").CONFIG, path, (), command)
    assert config.data.sets["consep"].merge == "merge_pannuke"
    assert all(config.data.sets[name].held_out for name in ("monuseg", "consep"))


@dataclass(frozen=True)
class Told(Inner):
    """Keys with and without a word on them.

    Parameters
    ----------
    rate : float
        Pace of the
        `thing`.
    first, second : int
        Both.

    Notes
    -----
    second : not this.
    """

    first: int = 1
    second: int | None = None
    pair: tuple[float, float] = (1.0, 2.0)
    sure: bool = False


@dataclass(frozen=True)
class Needy:
    """One key is needed.

    Attributes
    ----------
    count : int
        How many.
    """

    count: int
    parts: dict[str, Told] = field(default_factory=dict)


def test_every_key_is_described_with_kind_default_and_meaning():
    assert meanings(Told) == {"rate": "Pace of the `thing`.", "first": "Both.", "second": "Both."}
    assert describe(Needy).splitlines() == [
        "  count = needed  (int)",
        "      How many.",
        "  parts.NAME.rate = 0.5  (float)",
        "      Pace of the thing.",
        "  parts.NAME.widths = [1, 2]  (list of int)",
        "  parts.NAME.first = 1  (int)",
        "      Both.",
        "  parts.NAME.second = not set  (int or nothing)",
        "      Both.",
        "  parts.NAME.pair = [1.0, 2.0]  (list of 2 float)",
        "  parts.NAME.sure = false  (true or false)",
    ]


def test_nothing_of_the_loop_is_left_unexplained():
    assert set(meanings(LoopConfig)) == {item.name for item in fields(LoopConfig)}


def test_missing_keys_and_lists_of_another_length_are_named():
    with pytest.raises(NucSegError, match="'count' is missing"):
        load_config(Needy, None)
    with pytest.raises(NucSegError, match=r"parts\.a\.pair=.* has 3 values; it takes 2"):
        load_config(Needy, None, ["count=1", "parts.a.pair=[1, 2, 3]"])
    with pytest.raises(NucSegError, match=r"parts\.a\.sure=3 is not of the kind true or false"):
        load_config(Needy, None, ["count=1", "parts.a.sure=3"])


seen: list[Outer] = []


def command(*argv):
    return run_command(lambda config: seen.append(config), Outer, list(argv), prog="python -m train.x",
                       about="Does x.", example="python -m train.x --config x.toml")  # fmt: skip


def test_a_command_runs_and_says_what_is_wrong_in_one_sentence(capsys):
    assert command("inner.rate=2") == 0
    assert seen.pop() == Outer(inner=Inner(2.0))
    assert command("inner.rte=2") == 2
    out = capsys.readouterr()
    assert out.err.count("\n") == 1
    assert "did you mean 'inner.rate'" in out.err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--rate", "2", "name=x"], "'--rate' is no option; write inner.rate=2."),
        (["--inner.rate=3"], "write inner.rate=3."),
        (["--rat"], "write inner.rate=VALUE."),
        (["--xyz", "4"], "'--xyz' is no option; settings are written key.sub=value"),
        (["rate=2"], "Config key 'rate' is not known; did you mean 'inner.rate'?"),
    ],
)
def test_options_that_are_none_are_told_with_the_key(capsys, given, says):
    assert command(*given) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "runs/x"), "No space left on device: 'runs/x'"),
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
            "(CUDA out of memory); lower",
        ),
    ],
)
def test_full_disks_and_full_gpus_are_told_in_one_sentence(capsys, error, says):
    def fails(config):
        raise error

    assert run_command(fails, Outer, [], prog="python -m train.x", about="", example="") == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        command("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for part in ("Does x.", "python -m train.x --config x.toml", "inner.rate = 0.5", "torchrun"):
        assert part in text


def test_one_file_serves_several_commands(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(
        'name = "shared"\n[inner]\nrate = 1\nwidths = [7]\n[teach]\nname = "mine"\n[teach.inner]\nrate = 2\n'
        "[evaluate]\nlimit = 3\n"
    )
    assert load_config(Outer, path, [], "teach") == Outer("mine", inner=Inner(2.0, (7,)))
    assert load_config(Outer, path, [], "distill") == Outer("shared", inner=Inner(1.0, (7,)))
    assert load_config(Outer, path) == Outer("shared", inner=Inner(1.0, (7,)))
    assert load_config(Outer, path, ["name=x"], "evaluate") == Outer("x", limit=3.0)
    assert load_config(Outer, path, ["inner.rate=5"], "teach").inner == Inner(5.0, (7,))
    path.write_text(path.read_text() + "[taech]\nname = 1\n")
    with pytest.raises(NucSegError, match="taech"):
        load_config(Outer, path, [], "teach")
    path.write_text("fit = 3")
    with pytest.raises(NucSegError, match=r"'fit' is 3; it names a table, \[fit\]"):
        load_config(Outer, path, [], "fit")
