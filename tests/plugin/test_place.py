"""Parts of a large image: results of the region alone, where they belong, as those of the whole would be."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nucseg._plugin import place as places
from napari_nucseg._plugin.images import placement
from napari_nucseg._plugin.place import Crop, as_list, from_list, place_of
from napari_nucseg._plugin.questions import Choice
from napari_nucseg._plugin.results import KEY
from napari_nucseg._plugin.review_keeper import keeper_of
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp
from napari_nucseg.io.resample import Resampled
from napari_nucseg.io.slide import ArraySource

RNG = np.random.default_rng(3)
IMAGE = RNG.integers(0, 255, (1000, 1300, 3)).astype(np.uint8)
PYRAMID = [IMAGE, np.ascontiguousarray(IMAGE[::4, ::4]), np.ascontiguousarray(IMAGE[::16, ::16])]


@given(st.integers(0, 999), st.integers(1, 400), st.integers(0, 1299), st.integers(1, 400), st.floats(0.3, 4))
def test_a_place_holds_its_box_with_all_that_is_looked_at(y, rows, x, cols, zoom):
    box = Box(y, min(1000, y + rows), x, min(1300, x + cols))
    found = place_of(box, (1000, 1300), zoom)
    assert found.cut(box) == box
    assert found.y0 % places.ALIGN == found.x0 % places.ALIGN == 0
    assert found.y0 == 0 or box.y0 - found.y0 >= places.CONTEXT * zoom
    assert found.x1 == 1300 or found.x1 - box.x1 >= places.CONTEXT * zoom
    assert from_list(as_list(found)) == found


def test_a_place_that_is_too_large_is_refused():
    with pytest.raises(NucSegError, match="900 megapixels, and a layer holds 400; zoom in"):
        place_of(Box(0, 30_000, 0, 30_000), (30_000, 30_000))


@pytest.mark.parametrize("place", [Box(64, 640, 128, 448), Box(960, 1000, 1280, 1300), Box(0, 1000, 0, 1300)])
def test_a_crop_reads_what_the_image_holds(place):
    whole = ArraySource(PYRAMID, Mpp.stated(0.25))
    crop = Crop(whole, place)
    assert crop.shape == place.shape
    np.testing.assert_array_equal(crop.read(0, crop.shape[0], 0, crop.shape[1]), IMAGE[place.slices])
    assert len(crop.level_shapes) == 3
    for level, (rows, cols) in enumerate(crop.level_shapes):
        seen = crop.read(0, rows, 0, cols, level)
        factor = 4**level
        expected = PYRAMID[level][place.y0 // factor :, place.x0 // factor :][:rows, :cols]
        np.testing.assert_array_equal(seen, expected)
    with pytest.raises(NucSegError, match="do not lie in a place"):
        crop.read(0, crop.shape[0] + 1, 0, 3)


def test_at_the_models_resolution_a_crop_is_what_the_whole_is_there():
    whole = ArraySource([IMAGE], Mpp.stated(0.25))
    place = Box(128, 640, 64, 576)
    part, all_of_it = Resampled(Crop(whole, place), 0.5), Resampled(whole, 0.5)
    mine = part.read(Box(20, 200, 20, 200))
    theirs = all_of_it.read(Box(64 + 20, 64 + 200, 32 + 20, 32 + 200))
    assert np.abs(mine.astype(int) - theirs).max() <= 1


@pytest.fixture
def slide(make_panel, synthetic, monkeypatch):
    """A panel on an image that is held for a large one, turned and scaled in the world."""
    monkeypatch.setattr(places, "LARGE", 1_000_000)
    monkeypatch.setattr(places, "CONTEXT", 128)
    made = make_panel(show=True)
    image = np.tile(synthetic.image, (3, 4, 1))
    made.viewer.add_image(
        [image, image[::4, ::4]],
        name="slide",
        scale=(0.25, 0.25),
        units=("um", "um"),
        translate=(7, -3),
        rotate=20,
    )
    return made


def draw(panel, *corners):
    image = panel.layer("slide")
    world = [image.data_to_world(corner)[-2:] for corner in corners]
    panel.viewer.add_shapes([np.array(world)], shape_type="polygon", units=("um", "um"))
    panel.widget.region.box.setCurrentIndex(2)


def square(y0, y1, x0, x1):
    return (y0, x0), (y0, x1), (y1, x1), (y1, x0)


def test_a_region_of_a_large_image_gets_a_layer_of_its_own(slide, synthetic):
    draw(slide, *square(700, 1100, 900, 1300))
    slide.run()
    labels = slide.layer("slide 1 drawn shape nuclei")
    place = from_list(labels.metadata[KEY]["place"])
    assert place == Box(512, 1280, 768, 1472)
    assert labels.data.shape == place.shape
    np.testing.assert_allclose(labels.data_to_world((3, 5)), slide.layer("slide").data_to_world((515, 773)))
    table = labels.metadata[KEY]["nuclei"]
    assert len(table) > 10
    # the same nuclei as in the whole image, which one gets where it is not held for a large one
    centres = table[["centre_y", "centre_x"]].to_numpy() + np.array([place.y0, place.x0])
    places.LARGE = 10**9  # the fixture puts it back
    slide.widget.region.box.setCurrentIndex(0)
    slide.run()
    everything = slide.layer("slide nuclei")
    whole = everything.metadata[KEY]["nuclei"]
    inside = whole[
        whole["centre_y"].between(699.5, 1100.5, "left") & whole["centre_x"].between(899.5, 1300.5, "left")
    ]
    order, other = np.lexsort(centres.T), np.lexsort(inside[["centre_y", "centre_x"]].to_numpy().T)
    np.testing.assert_allclose(centres[order], inside[["centre_y", "centre_x"]].to_numpy()[other])
    mask = np.isin(everything.data[place.slices], inside["id"])
    np.testing.assert_array_equal(labels.data > 0, mask)


def test_edits_beyond_the_region_compute_maps_and_a_new_run_keeps_them(slide, world):
    draw(slide, *square(700, 900, 900, 1100))
    slide.run()
    results = slide.widget.results
    review, place = results.review, results.place
    free = np.argwhere(results.labels.data[20:200, 20:200] == 0)[0] + 20
    review.points.add([free.astype(float)])
    slide.until(lambda: review.edits.waiting == 0 and review.reviewed() == 1)
    world.answer = Choice.UPDATE
    slide.run()
    assert slide.status.startswith("Updated: the 1 nucleus you reviewed was kept")
    assert slide.widget.results.place == place
    # another region stands beside it, and nobody is asked
    asked = len(world.asked)
    shapes = next(layer for layer in slide.viewer.layers if type(layer).__name__ == "Shapes")
    slide.viewer.layers.remove(shapes)
    draw(slide, *square(100, 250, 100, 250))
    slide.run()
    assert len(world.asked) == asked
    assert slide.widget.results.place != place
    assert review.reviewed() == 1


def test_saved_regions_come_back_where_they_were(slide, world, tmp_path):
    draw(slide, *square(700, 900, 900, 1100))
    slide.run()
    results = slide.widget.results
    first = int(results.nuclei["id"].iloc[0])
    results.review.session.accept([first])
    before = results.labels.data.copy()
    place = results.place
    keeper = keeper_of(results.review)
    slide.until(lambda: keeper.saved_at is not None)
    slide.viewer.layers.remove(results.labels)
    slide.until(lambda: slide.widget.files.offer.folder is not None)
    slide.widget.files.offer.button.click()
    slide.until(lambda: slide.widget.results is not None and slide.widget.results.review is not None)
    again = slide.widget.results
    assert again.place == place
    np.testing.assert_array_equal(again.labels.data, before)
    assert again.review.reviewed() == 1
    np.testing.assert_allclose(
        again.labels.data_to_world((0, 0)), slide.layer("slide").data_to_world((place.y0, place.x0))
    )


def test_saved_files_are_in_pixels_of_the_slide(slide, world, tmp_path):
    draw(slide, *square(700, 900, 900, 1100))
    slide.run()
    world.folder = tmp_path / "out"
    slide.widget.save_button.click()
    slide.until(lambda: slide.status.startswith("Saved"))
    text = next((tmp_path / "out").glob("*.geojson")).read_text()
    first = json.loads(text)["features"][0]["geometry"]["coordinates"][0][0]
    assert 890 < first[0] < 1110
    assert 690 < first[1] < 910
    table = pd.read_csv(next((tmp_path / "out").glob("*.csv")))
    assert table["centre_y"].between(699, 901).all()
    assert table["centre_x"].between(899, 1101).all()


def test_one_can_click_in_what_is_seen_of_a_large_image(slide):
    image = slide.layer("slide")
    slide.viewer.scene.camera.center = tuple(image.data_to_world((800, 1000)))[-2:]
    slide.viewer.scene.camera.zoom = 8.0
    slide.widget.review.panel.click_toggled.emit(True)
    place = slide.widget.results.place
    assert place is not None
    assert place.cut(Box(800, 801, 1000, 1001)) is not None
    assert place.shape < (1536, 2048)


def test_placement_of_a_part_follows_every_transform(slide):
    image = slide.layer("slide")
    about = placement(image, Box(100, 200, 40, 90))
    labels = slide.viewer.add_labels(np.zeros((100, 50), int), **about)
    np.testing.assert_allclose(labels.data_to_world((4, 9)), image.data_to_world((104, 49)))
