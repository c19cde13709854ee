"""Areas and summaries."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucseg.core.tiling import Box
from napari_nucseg.core.tissue import TissueMask
from napari_nucseg.inference import Region
from napari_nucseg.slides.report import Place, Summary, covered_px, damages_in, read_summary

SHAPE = (300, 500)


def boxes():
    spans = st.tuples(st.integers(0, 299), st.integers(1, 200), st.integers(0, 499), st.integers(1, 200))
    return spans.map(lambda s: Box(s[0], min(s[0] + s[1], 300), s[2], min(s[2] + s[3], 500)))


@given(region=st.none() | boxes(), without=st.lists(boxes(), max_size=3), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_area_covered_is_that_of_the_pixels(region, without, seed):
    mask = np.random.default_rng(seed).random((30, 50)) < 0.5
    tissue = None if seed == 0 else TissueMask(mask, SHAPE, (10.0, 10.0))
    inside = np.ones(SHAPE, bool) if tissue is None else mask.repeat(10, 0).repeat(10, 1)
    if region is not None:
        outside = np.ones(SHAPE, bool)
        outside[region.slices] = False
        inside &= ~outside
    for box in without:
        inside[box.slices] = False
    got = covered_px(SHAPE, tissue, None if region is None else Region(region), without)
    assert got == pytest.approx(inside.sum(), abs=1e-6)


def test_the_area_of_a_drawn_region_is_near_that_of_the_polygon():
    triangle = np.array([[0.0, 0.0], [40_000.0, 0.0], [40_000.0, 60_000.0]])
    region = Region.from_polygons([triangle], (50_000, 70_000))
    assert covered_px((50_000, 70_000), None, region) == pytest.approx(40_000 * 60_000 / 2, rel=2e-3)


def test_damaged_places_are_told_once_and_in_raster_order():
    notes = [
        {"damaged": [[0, 256, 512, 0, 256, "b"], [0, 0, 256, 256, 512, "a"]]},
        {},
        {"damaged": [[0, 256, 512, 0, 256, "another word for b"], [1, 0, 256, 0, 256, "c"]]},
    ]
    told = damages_in(notes)
    assert [(p.level, p.box, p.reason) for p in told] == [
        (0, (0, 256, 256, 512), "a"),
        (0, (256, 512, 0, 256), "b"),
        (1, (0, 256, 0, 256), "c"),
    ]


def summary(**changes):
    facts = {
        "name": "a", "image": "a.svs", "shape": (10, 20), "mpp": 0.25, "mpp_origin": "0.25 um/px", "complete": True,
        "area_mm2": 12.5, "image_mm2": 50.0, "nuclei": 123_456, "nuclei_per_mm2": 9876.5,
        "classes": {"neoplastic": 100_000, "other": 23_456}, "tiles": 9, "failed": (), "damaged": (),
        "seconds": {"total": 1.0}, "versions": {}, "outputs": (), "fingerprint": "f", "colours": {"other": (1, 2, 3)},
    }  # fmt: skip
    return Summary(**{**facts, **changes})


def test_a_summary_says_area_density_and_classes_and_names_what_is_missing(tmp_path):
    (line,) = summary().lines()
    assert line == (
        "12.5 mm2 of 50 mm2 segmented, 123,456 nuclei, 9,876 per mm2 (100,000 neoplastic, 23,456 other)"
    )
    places = (Place((0, 256, 512, 768), 0, "RuntimeError: burst"), Place((1, 2, 3, 4), 0, "x"))
    told = summary(failed=places, damaged=places[:1]).complaints()
    assert told == [
        "2 tiles failed and are blank: rows 0..255, columns 512..767 of level 0: RuntimeError: burst (and 1 more, see "
        "the summary)",
        "1 place cannot be read: rows 0..255, columns 512..767 of level 0: RuntimeError: burst",
    ]
    path = tmp_path / "a_summary.json"
    path.write_text(summary(failed=places).to_json())
    again = read_summary(path)
    assert again["failed"][1] == {"box": [1, 2, 3, 4], "level": 0, "reason": "x"}
    assert again["colours"] == {"other": [1, 2, 3]}
    assert json.loads(summary().to_json())["nuclei"] == 123_456
    path.write_text("[]")
    assert read_summary(path) is None
    assert read_summary(tmp_path / "none.json") is None
