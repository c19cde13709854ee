"""The frames of a slide with many nuclei: the made-up result is a real one, and the flight times every frame."""

import numpy as np
import pytest

from benchmarks._big_result import CELL, make_result, nuclei_of_a_cell, side_for
from benchmarks.frames import ZOOMING, ZOOMS, Flight, Way, table
from benchmarks.mosaic import write_mosaic
from napari_nucseg.slides.result import SlideResult
from tests.fakes import fake_card


def test_every_nucleus_of_a_cell_is_whole_and_around_its_centre():
    labels, centres = nuclei_of_a_cell()
    assert len(centres) == labels.max() == 1024
    places = np.rint(centres).astype(int)
    assert (labels[places[:, 0], places[:, 1]] == np.arange(1, 1025)).all()
    assert np.bincount(labels.ravel())[1:].min() > 100


@pytest.mark.parametrize("nuclei", [1, 1024, 1025, 1_000_000])
def test_a_slide_holds_as_many_nuclei_as_asked_for(nuclei):
    side = side_for(nuclei)
    assert side % CELL == 0
    assert (side // CELL) ** 2 * 1024 >= nuclei > (side // CELL - 1) ** 2 * 1024


def test_the_result_opens_as_that_of_a_slide(tmp_path):
    card = fake_card()
    assert make_result(tmp_path, "big", 3000, card) == 4096
    result = SlideResult.open(tmp_path, "big")
    assert result.shape == (2048, 2048)
    assert len(result.centres.ids) == 4096
    level0 = np.asarray(result.levels[0][:])
    assert level0.max() == len(np.unique(level0)) - 1 == 4096
    order = np.argsort(result.centres.ids)
    y, x = (np.rint(np.asarray(c)[order]).astype(int) for c in (result.centres.y, result.centres.x))
    assert (level0[y, x] == result.centres.ids[order]).all()
    assert tuple(result.colours) == tuple(card.colours)


def test_the_table_names_every_way():
    ways = {name: Way([10.0, 20.0, 30.0], 0.5) for name in ZOOMS}
    twice = {name: Way([20.0, 40.0, 60.0], 0.25) for name in ZOOMS}
    text = table(ways, twice, ways)
    for name in ZOOMS:
        assert f"| {name} | 20 / 29 / 30 | 40 / 58 / 60 | 20 / 29 / 30 | 2.00 | 0.25 / 0.50 |" in text


def test_a_flight_over_a_slide_times_every_frame(make_napari_viewer, tmp_path):
    from napari_nucseg._plugin.slide_results import add_result

    make_result(tmp_path, "slide", 3000, fake_card())
    write_mosaic(tmp_path, 2048, tmp_path / "slide.tif")
    viewer = make_napari_viewer(show=True)
    (image,) = viewer.open(str(tmp_path / "slide.tif"), plugin="napari-nucseg")
    layers = add_result(viewer, tmp_path, "slide")
    flight = Flight(viewer, (2048, 2048), float(image.scale[-1]), 4)
    flown = flight.fly(lambda: layers.is_resting)
    assert list(flown) == [*ZOOMS, ZOOMING]
    assert all(len(way.frames) == 3 and min(way.frames) > 0 for way in flown.values())
    assert layers.is_resting
    assert len(layers.points.data) > 0
    assert layers.view is not None
