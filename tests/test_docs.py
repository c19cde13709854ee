"""The documentation names files that exist, and the keys that there are."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_every_picture_of_a_review_is_shown_and_small():
    pictures = sorted((ROOT / "docs" / "review").iterdir())
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [p.name for p in pictures if f"review/{p.name}" not in shown] == []
    assert sum(p.stat().st_size for p in pictures) < 2.5e6


def test_the_keys_of_a_review_are_those_of_the_plugin():
    pytest.importorskip("napari")
    from napari_nucseg._plugin.shortcuts_help import markdown

    assert markdown().strip() in (ROOT / "docs" / "review.md").read_text(encoding="utf-8")


def test_the_readme_quotes_the_measured_effort_of_a_review():
    measured = (ROOT / "docs" / "review-effort.md").read_text(encoding="utf-8").replace("*", "")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \(4 images, ([\d,]+) nuclei\) \| (.*) \|$", readme, re.MULTILINE)
    assert [name for name, *_ in rows] == ["CoNSeP", "MoNuSeg"]
    for name, nuclei, figures in rows:
        row = re.search(rf"^\| {name} \(4\) \| {nuclei} \|(.*)$", measured, re.MULTILINE)
        assert row is not None
        assert set(re.findall(r"[\d.]+", figures)) <= set(re.findall(r"[\d.]+", row[1]))


class _ReachedError(Exception):
    """A command has read its arguments and would begin."""


ACTIONS = {
    "prepare": "prepare", "fit": "fit", "teach": "teach", "distill": "distill", "thresholds": "choose",
    "evaluate": "run", "export": "run", "compress": "run", "figures": "figures", "ablate": "ablate",
    "teacher.cost": "table", "calibrate": "calibrate", "robustness": "run", "average": "average",
}  # fmt: skip
"""What each training command calls with its settings."""
WITH_COMMANDS = [
    *PAGES,
    *sorted((ROOT / "train").rglob("*.py")),
    *sorted((ROOT / "train/configs").glob("*.toml")),
]
_COMMAND = re.compile(r"(?:python|torchrun [^\n`]*?) -m train\.([\w.]+)((?:[^\n`\\]|\\\n|\\(?=\S))*)")


def commands():
    """Every training command that is written down with arguments, once: where, name, arguments."""
    found = {}
    for page in WITH_COMMANDS:
        written = page.read_text(encoding="utf-8")
        if page.suffix == ".py":
            written = ast.get_docstring(ast.parse(written)) or ""
        for name, text in _COMMAND.findall(written):
            text = re.split(r"\s{2,}\(", text.replace("\\\n", " "))[0]  # what stands in brackets explains
            words = tuple(shlex.split(text, comments=True)) if text.startswith(" ") else ()
            if any("=" in w or w.startswith("-") for w in words) and "FILE.toml" not in words:
                found.setdefault((name, words), page.relative_to(ROOT))
    return [pytest.param(name, list(words), id=f"{page}: {name}") for (name, words), page in found.items()]


@pytest.mark.parametrize(("name", "words"), commands())
def test_training_commands_can_be_given_as_written(name, words, monkeypatch, capsys):
    pytest.importorskip("torch")
    module = importlib.import_module(f"train.{name}")

    def reached(*config, **more):
        raise _ReachedError

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(module, ACTIONS[name], reached)
    with pytest.raises(_ReachedError):
        pytest.fail(f"exit {module.main(words)}: {capsys.readouterr().err}")


def test_enough_training_commands_are_checked():
    names = [p.values[0] for p in commands()]
    assert set(names) >= {"prepare", "fit", "teach", "distill", "thresholds", "evaluate", "export", "ablate"}
    assert len(names) > 25


def test_the_guide_names_every_training_command_and_only_keys_that_there_are():
    pytest.importorskip("torch")
    from train.config import COMMANDS, describe
    from train.distill import DistillRunConfig
    from train.prepare import PrepareConfig
    from train.teach import TeachConfig

    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `train\.(\w+)` \|", text, re.MULTILINE)) == set(COMMANDS)
    known = set()
    for cls in (DistillRunConfig, TeachConfig, PrepareConfig):
        known |= set(re.findall(r"^  ([\w.]+) =", describe(cls), re.MULTILINE))
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    tables = "|".join({key.partition(".")[0] for key in known if "." in key})
    said = set(re.findall(rf"`((?:{tables})\.[a-z_.NAME]+)(?:=[^`]*)?`", prose))
    assert len(said) > 8
    assert said <= known


def test_commands_of_the_program_can_be_given_as_written():
    from napari_nucseg.cli import _parser

    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    written = re.findall(r"^napari-nucseg ([^\n#]+)", blocks, re.MULTILINE)
    assert len(written) > 4
    for line in written:
        assert callable(_parser().parse_args(shlex.split(line)).run), line
