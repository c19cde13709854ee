"""What is drawn after an edit, and no more: outlines, boxes, colours, points of the view."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Labels, Points
from napari.layers.labels._labels_utils import get_contours

from napari_nucseg._plugin import review_points
from napari_nucseg._plugin.colouring import BY_INSTANCE, MARK, Look, NucleusColormap
from napari_nucseg._plugin.contour_kernel import outlines
from napari_nucseg._plugin.drawing import box_of, draw, draw_around, draw_palette, quick_contours
from napari_nucseg.core.tiling import Box

COLOURS = {"a": (255, 0, 0), "b": (0, 0, 255)}


def blobs(seed, shape=(60, 50), n=9):
    """Random rectangles, which overlap and touch."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    for id_ in range(1, n + 1):
        y, x = rng.integers(-3, shape[0]), rng.integers(-3, shape[1])
        h, w = rng.integers(1, 15, 2)
        labels[max(0, y) : y + h, max(0, x) : x + w] = id_
    return labels


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_outlines_are_napari_s(seed, thickness):
    labels = blobs(seed)
    whole = get_contours(labels, thickness, 0)
    np.testing.assert_array_equal(outlines(labels, 0, 60, 0, 50, thickness), whole)
    np.testing.assert_array_equal(outlines(labels, 7, 31, 11, 50, thickness), whole[7:31, 11:50])


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_the_box_of_a_nucleus(seed, id_):
    labels = np.where(blobs(seed) == id_, id_, 0).astype(np.uint32)
    labels[25:32, 20:23] = id_  # what is to be found must be connected
    labels[:24], labels[33:] = 0, 0
    rows, cols = np.nonzero(labels)
    if (np.diff(np.unique(cols)) > 1).any():
        return
    found = box_of(labels, id_, (28, 21), 1)
    assert found == Box(rows.min(), rows.max() + 1, cols.min(), cols.max() + 1)
    assert box_of(labels, id_ + 1, (28, 21), 9) is None
    assert box_of(labels, id_, (500, 500), 9) is None


@pytest.fixture
def layer():
    cmap = NucleusColormap()
    cmap.set_look(Look(), COLOURS, ("a", "b"))
    made = Labels(np.zeros((1200, 900), np.uint32), colormap=cmap)
    quick_contours(made)
    return made


@pytest.mark.parametrize("contour", [0, 2])
def test_what_is_drawn_piece_by_piece_is_what_a_full_update_draws(layer, contour):
    rng = np.random.default_rng(contour)
    layer.contour, cmap = contour, layer.colormap
    drawn = []
    layer.events.labels_update.connect(lambda event: drawn.append(event.data.shape))
    for id_ in range(1, 60):
        y, x = rng.integers(0, 1150), rng.integers(0, 850)
        box = Box(y, y + 30, x, x + 25)
        layer.data[box.slices] = id_
        cmap.set_kinds(np.array([id_]), np.array([id_ % 3 - 1]))
        draw(layer, box)
    assert max(rows for rows, _ in drawn) <= 30 + 2 * contour
    cmap.set_kinds(np.arange(1, 60), np.zeros(59, int))
    centres = np.array([np.argwhere(layer.data == k).mean(0) for k in np.unique(layer.data)[1:]])
    draw_around(layer, centres)
    shown = layer._slice.image.view.copy()
    layer.refresh()
    np.testing.assert_array_equal(shown, layer._slice.image.view)
    assert (shown == 3).any()


def test_a_selected_nucleus_is_marked_in_outlines_and_keeps_its_class_when_filled():
    cmap = NucleusColormap()
    cmap.set_look(Look(), COLOURS, ("a", "b"))
    cmap.set_kinds(np.array([4, 5]), np.array([0, 1]))
    assert cmap.set_marked([5]) == [5]
    np.testing.assert_allclose(cmap.map(5), MARK)
    cmap.set_kinds(np.array([5]), np.array([0]))
    np.testing.assert_allclose(cmap.map(5), MARK)
    assert cmap.set_marked([4, 70_000]) == [4, 5, 70_000]
    np.testing.assert_allclose(cmap.map(np.array([4, 5])), [MARK, (1, 0, 0, 1)])
    cmap.set_look(Look(outlines=False), COLOURS, ("a", "b"))
    np.testing.assert_allclose(cmap.map(4), (1, 0, 0, 1))
    assert cmap.set_marked([]) == []
    cmap.set_look(Look(BY_INSTANCE), COLOURS, ("a", "b"))
    assert cmap.set_marked([4]) == [4]
    np.testing.assert_allclose(cmap.map(4), MARK)


def test_hiding_a_class_maps_no_pixel_again(layer):
    layer.data[:30, :30] = 1
    layer.colormap.set_kinds(np.array([1]), np.array([0]))
    layer.refresh()
    mapped = []
    layer.events.set_data.connect(mapped.append)
    assert not layer.colormap.set_look(Look(hidden=frozenset("a")), COLOURS, ("a", "b"))
    draw_palette(layer)
    assert not mapped
    assert layer.colormap.map(1)[3] == 0


def test_of_many_nuclei_the_points_of_the_view_are_shown(desk, monkeypatch):
    n = len(desk.session.records)
    monkeypatch.setattr(review_points, "MOST", 40)
    monkeypatch.setattr("napari_nucseg._plugin.review.MOST", 40)
    desk.activate(desk.points, "select")
    desk.viewer.reset_view()
    desk.panel.until(lambda: len(desk.points.data) == 0)
    assert "Zoom in to see the centres" in desk.panel.status
    [id_] = desk.nuclei()
    desk.hand.see(desk.centre(id_), zoom=30)
    desk.panel.until(lambda: 0 < len(desk.points.data) <= 40)
    box = desk.review.view.window
    inside = [
        r["id"] for r in desk.session.records if box.y0 <= r["y"] < box.y1 and box.x0 <= r["x"] < box.x1
    ]
    np.testing.assert_array_equal(desk.points.features["id"], inside)
    start = desk.centre(id_)
    desk.hand.drag(start, (start[0] + 5, start[1] + 5))
    np.testing.assert_allclose(desk.centre(id_), (start[0] + 5, start[1] + 5), atol=0.2)
    desk.hand.key("x")
    assert desk.session.live.sum() == n - 1
    desk.viewer.scene.camera.zoom = 4
    desk.hand.key("n")  # goes where the points are not shown yet
    [there] = desk.review.view.selected
    assert list(desk.points.features["id"]) == [there]  # the zoom was kept


def test_points_are_written_only_where_they_differ(desk):
    written = []
    desk.points.events.set_data.connect(written.append)
    desk.review.view.sync()
    assert not written
    [id_] = desk.nuclei()
    desk.session.retype([id_], 4)
    assert len(written) == 1
    desk.session.undo()
    desk.agree()
    assert isinstance(desk.points, Points)
