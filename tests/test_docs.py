"""The documentation names files that exist, and the keys that there are."""

from __future__ import annotations

import re
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
