"""A slide that is segmented again."""

from __future__ import annotations

from napari_nucseg.slides.again import replace_result
from napari_nucseg.slides.result import SlideResult


def fill(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(f"{folder.name} {name}")


def test_the_earlier_result_is_kept_and_other_slides_and_reviews_stay(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    others = ("a_b_nuclei.csv", "a_b_summary.json", "a_reviews", "manifest.csv")
    fill(old, "a_nuclei.csv", "a_nuclei.geojson", "a_summary.json", *others)
    fill(new, "a_nuclei.csv", "a_summary.json")
    kept = replace_result(SlideResult(old, "a", [], {}), SlideResult(new, "a", [], {}))
    assert {p.name for p in kept.iterdir()} == {"a_nuclei.csv", "a_nuclei.geojson", "a_summary.json"}
    assert (kept / "a_nuclei.csv").read_text() == "old a_nuclei.csv"
    assert {p.name for p in old.iterdir()} == {"a_nuclei.csv", "a_summary.json", kept.name, *others}
    assert (old / "a_nuclei.csv").read_text() == "new a_nuclei.csv"
    assert (old / "a_b_nuclei.csv").read_text() == "old a_b_nuclei.csv"
