"""Local edits give what the decoder makes of the centres after the edit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label as connected

from napari_nucseg.core.decode import DecodeConfig, Fields, flood
from napari_nucseg.core.edit import ANY, Nuclei, anchor, areas, bounds, refit, region_at
from napari_nucseg.core.tiling import Box

SMALL = DecodeConfig(max_cost=60, max_hole=10, support=4)
SHAPE = (60, 70)


def random_fields(rng):
    """Return fields without any sense: nothing that holds may depend on well-behaved maps."""
    from scipy.ndimage import gaussian_filter

    fields = Fields.empty(SHAPE, 3)
    fields.foreground[:] = np.where(gaussian_filter(rng.standard_normal(SHAPE), 3) > -0.02, 255, 0)
    fields.border[:] = rng.integers(0, 256, fields.border.shape) * (rng.random(fields.border.shape) < 0.5)
    return fields


class Board:
    """Centres by id, and the labels that a full flood makes of them."""

    def __init__(self, seed, n):
        self.rng = np.random.default_rng(seed)
        self.fields = random_fields(self.rng)
        flat = self.rng.choice(SHAPE[0] * SHAPE[1], n, replace=False)
        self.centres = {k + 1: divmod(int(f), SHAPE[1]) for k, f in enumerate(flat)}
        self.labels = self.whole()
        self.next_id = n + 1

    def whole(self):
        ids = np.array([0, *self.centres], np.uint32)
        return ids[flood(self.fields, np.array(list(self.centres.values())).reshape(-1, 2), SMALL)]

    def nuclei(self, floor=None, locked=()):
        ids = np.array(sorted(self.centres), np.uint32)
        floors = np.array([(floor or {}).get(int(i), 0) for i in ids], np.uint8)
        centres = np.array([self.centres[int(i)] for i in ids], np.int64).reshape(-1, 2)
        return Nuclei(ids, centres, floors, np.isin(ids, list(locked)))

    def free_pixel(self):
        while True:
            point = (int(self.rng.integers(SHAPE[0])), int(self.rng.integers(SHAPE[1])))
            if point not in self.centres.values():
                return point

    def edit(self):
        """Do one random edit, both ways."""
        kind = self.rng.integers(3) if self.centres else 0
        freed, added = [], []
        if kind:
            chosen = int(self.rng.choice(list(self.centres)))
            freed.append(self.centres.pop(chosen))
        if kind != 1:
            name = chosen if kind == 2 else self.next_id
            self.next_id += kind == 0
            self.centres[name] = self.free_pixel()
            added.append(name)
        return refit(
            self.labels, self.fields, self.nuclei(), SMALL, freed=np.array(freed), added=added, radius=8
        )


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 40), edits=st.integers(1, 12))
def test_edits_equal_a_flood_of_the_whole(seed, n, edits):
    board = Board(seed, n)
    for _ in range(edits):
        before = board.labels.copy()
        box = board.edit()
        np.testing.assert_array_equal(board.labels, board.whole())
        changed = before != board.labels
        if box is None:
            assert not changed.any()
        else:
            changed[box.slices] = False
            assert not changed.any()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 30), edits=st.integers(1, 8), data=st.data())
def test_any_mixture_of_floors_and_locks_leaves_one_connected_nucleus_per_centre(seed, n, edits, data):
    board = Board(seed, n)
    floors = {k: int(board.rng.choice([0, 0, 60, 255])) for k in range(1, n + 20)}
    locked = set(data.draw(st.lists(st.sampled_from(sorted(board.centres)), max_size=n // 3)))
    rng = board.rng
    board.fields.foreground[:] = rng.integers(0, 256, SHAPE)
    board.labels[:] = 0
    nuclei = board.nuclei(floors)
    refit(board.labels, board.fields, nuclei, SMALL, freed=np.zeros((0, 2)), added=nuclei.ids, radius=8)
    fixed = {k: board.labels == k for k in locked}
    for _ in range(edits):
        free = [k for k in board.centres if k not in locked]
        chosen = int(rng.choice(free)) if free else None
        freed = [board.centres.pop(chosen)] if chosen is not None else []
        point = board.free_pixel()
        added = [board.next_id] if board.labels[point] not in locked else []
        if added:
            board.centres[board.next_id] = point
            board.next_id += 1
        refit(
            board.labels, board.fields, board.nuclei(floors, locked), SMALL,
            freed=np.array(freed), added=added, radius=8,
        )  # fmt: skip
        assert set(np.unique(board.labels)) - {0} == set(board.centres)
        for name, point in board.centres.items():
            assert board.labels[point] == name
            assert connected(board.labels == name, connectivity=1).max() == 1
        for name, mask in fixed.items():
            np.testing.assert_array_equal(board.labels == name, mask)


def test_a_floor_lets_a_nucleus_grow_where_the_decoder_sees_none_but_not_beyond_its_radius():
    fields = Fields.empty(SHAPE, 3)
    labels = np.zeros(SHAPE, np.uint32)
    nuclei = Nuclei(
        np.array([7], np.uint32), np.array([[30, 30]]), np.array([ANY], np.uint8), np.zeros(1, bool)
    )
    box = refit(labels, fields, nuclei, SMALL, freed=np.zeros((0, 2)), added=[7], radius=10)
    rows, cols = np.nonzero(labels)
    assert ((rows - 30) ** 2 + (cols - 30) ** 2).max() <= 25
    assert len(rows) == sum(y * y + x * x <= 25 for y in range(-5, 6) for x in range(-5, 6))
    assert box == Box(25, 36, 25, 36)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_anchored_nuclei_are_connected_and_hold_their_centres(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, (20, 24)).astype(np.uint32)
    centres = np.stack([rng.integers(0, 20, 4), rng.integers(0, 24, 4)], 1)
    ids = np.arange(1, 5, dtype=np.uint32)
    foreign = labels == 5
    kept = anchor(labels, ids, centres)
    for k, name in enumerate(ids):
        twin = (centres[:k] == centres[k]).all(1).any()
        assert kept[k] == (not twin)
        assert connected(labels == name, connectivity=1).max() == int(kept[k])
        if kept[k]:
            assert labels[tuple(centres[k])] == name
    left = (labels == 5) != foreign
    left[centres[:, 0], centres[:, 1]] = False
    assert not left.any()
    counted = areas(labels, ids)
    assert counted.tolist() == [(labels == k).sum() for k in ids]


def test_region_and_bounds():
    labels = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 1]], np.uint32)
    pixels = region_at(labels, 0, 0)
    assert pixels.tolist() == [0, 1, 4]
    assert bounds(pixels, 3) == Box(0, 2, 0, 2)


@pytest.mark.parametrize("y", [0, 10, 19])
def test_a_locked_nucleus_stands_in_the_way(y):
    fields = Fields.empty((20, 20), 3)
    fields.foreground[:] = 255
    labels = np.zeros((20, 20), np.uint32)
    labels[:, 10] = 3
    nuclei = Nuclei(
        np.array([3, 4], np.uint32),
        np.array([[5, 10], [y, 2]]),
        np.zeros(2, np.uint8),
        np.array([True, False]),
    )
    refit(labels, fields, nuclei, SMALL, freed=np.zeros((0, 2)), added=[4], radius=5)
    assert (labels[:, 10] == 3).all()
    assert (labels[:, 11:] == 0).all()
    assert (labels[:, :10] == 4).sum() > 50


def test_pixels_that_maps_computed_anew_would_not_give_stay_but_holes_are_settled():
    fields = Fields.empty((30, 40), 3)
    fields.foreground[5:25, 5:25] = 255
    fields.foreground[5:25, 26:36] = 255
    fields.foreground[10:12, 10:12] = 0  # a hole
    centres = np.array([[15, 15], [15, 30]])
    labels = flood(fields, centres, SMALL).astype(np.uint32)
    assert labels[10, 10] == 1
    fields.foreground[5:25, 5] = 120  # a trifle below the threshold, at the edge
    before = labels.copy()
    nuclei = Nuclei(
        np.array([1, 2, 3], np.uint32),
        np.array([*centres, [7, 20]]),
        np.zeros(3, np.uint8),
        np.zeros(3, bool),
    )
    refit(labels, fields, nuclei, SMALL, freed=np.zeros((0, 2)), added=[3], radius=5)
    assert (labels == 3).any()
    assert not ((before > 0) & (labels == 0)).any()
    assert labels[10, 10] == 1
