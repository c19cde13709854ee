from dataclasses import dataclass, field
from pathlib import Path

import pytest

from napari_nucseg.errors import NucSegError
from train.config import load_config, to_mapping
from train.fit import FitConfig


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


def test_the_shipped_config_loads():
    config = load_config(FitConfig, Path(__file__).parents[2] / "train" / "configs" / "student.toml")
    assert config.data.sets["consep"].merge == "merge_pannuke"
    assert all(config.data.sets[name].held_out for name in ("monuseg", "consep"))
