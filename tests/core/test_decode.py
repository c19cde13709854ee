"""The four properties of the decoder, and that it gives back what the maps say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label as connected

from napari_nucseg.core.decode import (
    DecodeConfig,
    Fields,
    compress,
    decode,
    find_centres,
    flood,
    quantise,
    unpack,
    vote,
    warm_up,
)  # fmt: skip
from napari_nucseg.core.maps import BAND, MapLayout
from napari_nucseg.core.metrics import panoptic_quality
from napari_nucseg.core.targets import centre_points, make_targets, split_parts
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError

LAYOUT = MapLayout()
SMALL = DecodeConfig(max_cost=60, max_hole=10, support=4)  # reach 15: locality is testable on small arrays


def perfect_maps(labels, types=None):
    """Return the maps of a network that knows the truth."""
    targets = make_targets(labels, types, LAYOUT)
    maps = np.zeros((LAYOUT.channels, *labels.shape), np.float32)
    maps[LAYOUT.foreground] = targets.foreground
    maps[LAYOUT.distance] = targets.distance
    maps[LAYOUT.centre] = targets.centre
    for k in range(3):
        maps[LAYOUT.boundary.start + k] = targets.boundary == k
    for k in range(LAYOUT.n_classes + 1):
        maps[LAYOUT.type.start + k] = targets.type == k
    return maps


def random_fields(seed, shape=(60, 70)):
    """Return fields without any sense: nothing that holds may depend on well-behaved maps."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.standard_normal(shape), 3)
    fields = Fields.empty(shape, LAYOUT.n_classes)
    fields.foreground[:] = np.where(blobs > 0, 255, 0)
    fields.border[:] = rng.integers(0, 256, fields.border.shape) * (rng.random(fields.border.shape) < 0.5)
    fields.centre[:] = (65535 * np.clip(gaussian_filter(rng.standard_normal(shape), 2) * 4, 0, 1)).astype(
        np.uint16
    )
    fields.type[:] = rng.integers(0, 256, fields.type.shape)
    return fields


def random_centres(seed, fields, n):
    rng = np.random.default_rng(seed + 1)
    flat = rng.choice(fields.foreground.size, n, replace=False)
    return np.stack(np.unravel_index(flat, fields.shape), axis=1)


def test_truth_comes_back_from_perfect_maps(synthetic):
    types = np.zeros(synthetic.labels.shape, np.uint8)
    for number, name in enumerate(synthetic.class_names, 1):
        ids = [i for i, t in synthetic.types.items() if t == name]
        types[np.isin(synthetic.labels, ids)] = number
    found = decode(compress(perfect_maps(synthetic.labels, types), LAYOUT), DecodeConfig())
    quality = panoptic_quality(synthetic.labels, found.owner)
    assert quality.dq > 0.98
    assert quality.sq > 0.98
    voted = found.probabilities.argmax(1) + 1
    truth = types[found.centres[:, 0], found.centres[:, 1]]
    assert (voted == truth).mean() > 0.99
    assert found.scores.min() > 0.5


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 40))
def test_one_centre_one_connected_nucleus_that_holds_it(seed, n):
    fields = random_fields(seed)
    centres = random_centres(seed, fields, n)
    owner = flood(fields, centres, SMALL)
    assert set(np.unique(owner)) - {0} == set(range(1, n + 1))
    assert (owner[centres[:, 0], centres[:, 1]] == np.arange(1, n + 1)).all()
    assert split_parts(owner)[1] == n  # 4-connected: as many parts as nuclei
    outside = (fields.foreground == 0) & (owner > 0)
    outside[centres[:, 0], centres[:, 1]] = False
    assert connected(outside, connectivity=1).max(initial=0) <= n  # nothing but filled holes


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40))
def test_an_edit_changes_nothing_outside_its_neighbourhood(seed, n):
    fields = random_fields(seed, (120, 130))
    centres = random_centres(seed, fields, n)
    before = flood(fields, centres, SMALL)
    after = flood(fields, centres[1:], SMALL)  # delete the first
    after = np.where(after > 0, after + 1, 0)
    rows, cols = np.nonzero(before != after)
    distance = np.abs(rows - centres[0, 0]) + np.abs(cols - centres[0, 1])
    assert distance.max(initial=0) <= SMALL.reach + SMALL.max_hole
    assert (before[before != after] <= 1).all()  # only its own pixels go over to others, or become background


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), cell=st.integers(20, 70))
def test_tiles_give_the_same_nuclei_as_the_whole(seed, cell):
    fields = random_fields(seed, (130, 150))
    whole = decode(fields, SMALL)
    stitched = np.zeros(fields.shape, np.int32)
    number = {tuple(c): k + 1 for k, c in enumerate(whole.centres)}
    seen = 0
    for y in range(0, 130, cell):
        for x in range(0, 150, cell):
            y0, x0 = max(0, y - SMALL.margin), max(0, x - SMALL.margin)
            part = decode(
                fields.crop(slice(y0, y + cell + SMALL.margin), slice(x0, x + cell + SMALL.margin)), SMALL
            )
            for k, (row, col) in enumerate(part.centres + np.array([y0, x0])):
                if y <= row < y + cell and x <= col < x + cell:
                    mask = part.owner == k + 1
                    stitched[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]][mask] = number[(row, col)]
                    seen += 1
    assert seen == len(whole.centres)
    np.testing.assert_array_equal(stitched, whole.owner)


def cheapest(fields, centre, config):
    """Return the cost of the cheapest path from one centre to every pixel, by plain Dijkstra."""
    import heapq

    height, width = fields.shape
    cost = np.full(fields.shape, 10**9)
    cost[tuple(centre)] = 0
    queue = [(0, int(centre[0]), int(centre[1]))]
    while queue:
        now, y, x = heapq.heappop(queue)
        if now > cost[y, x]:
            continue
        for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= ny < height and 0 <= nx < width) or fields.foreground[ny, nx] < quantise(
                config.foreground
            ):
                continue
            band, edge = (int(v) for v in fields.border[:, ny, nx])
            total = now + config.base + (config.band * band + config.edge * edge) // 255
            if total <= config.max_cost and total < cost[ny, nx]:
                cost[ny, nx] = total
                heapq.heappush(queue, (total, ny, nx))
    return cost


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 15))
def test_every_pixel_goes_to_the_centre_that_reaches_it_at_the_least_cost(seed, n):
    """Each centre alone, by another algorithm; of equal costs the first centre in raster order wins."""
    config = DecodeConfig(max_cost=60, max_hole=0, base=4, band=8, edge=8)
    fields = random_fields(seed, (24, 26))
    centres = random_centres(seed, fields, n)
    order = np.argsort(centres[:, 0] * 26 + centres[:, 1])
    costs = np.stack([cheapest(fields, c, config) for c in centres[order]])
    for k, (row, col) in enumerate(centres[order]):
        costs[:, row, col] = 10**9
        costs[k, row, col] = 0
    expected = np.where(costs.min(0) < 10**9, order[costs.argmin(0)] + 1, 0)
    np.testing.assert_array_equal(flood(fields, centres, config), expected)


def test_a_nucleus_reaches_no_farther_than_said():
    fields = Fields.empty((3, 300), 1)
    fields.foreground[1] = 255
    config = DecodeConfig()
    assert (flood(fields, np.array([[1, 0]]), config) > 0).sum() == config.reach + 1


def test_order_of_the_centres_changes_names_only():
    fields = random_fields(5)
    centres = random_centres(5, fields, 30)
    shuffle = np.random.default_rng(0).permutation(30)
    first, second = flood(fields, centres, SMALL), flood(fields, centres[shuffle], SMALL)
    back = np.concatenate([[0], shuffle + 1])
    np.testing.assert_array_equal(first, back[second])
    np.testing.assert_array_equal(first, flood(fields, centres, SMALL))


def test_the_border_map_decides_where_touching_nuclei_part():
    """Two centres, one blob, a border nearer to one of them: the cut lies on the border, not half-way."""
    fields = Fields.empty((21, 60), 2)
    fields.foreground[2:19, 2:58] = 255
    fields.border[0, :, 20:22] = 255
    owner = flood(fields, np.array([[10, 8], [10, 45]]), DecodeConfig())
    assert (owner[2:19, 2:19] == 1).all()
    assert (owner[2:19, 23:57] == 2).all()


def test_falling_distance_maps_part_touching_nuclei_without_a_boundary_map():
    labels = np.zeros((30, 60), np.int32)
    labels[5:25, 5:20], labels[5:25, 20:55] = 1, 2
    maps = perfect_maps(labels)
    maps[LAYOUT.boundary] = 0
    owner = flood(compress(maps, LAYOUT), centre_points(labels), DecodeConfig())
    assert (owner == labels).mean() > 0.97


def test_enclosed_holes_are_filled_and_open_or_large_ones_are_not():
    fields = Fields.empty((40, 40), 1)
    fields.foreground[5:35, 5:35] = 255
    fields.foreground[18:20, 24:27] = 0  # 6 px, enclosed
    fields.foreground[8:16, 8:16] = 0  # 64 px, enclosed
    fields.foreground[30:35, 20] = 0  # open
    owner = flood(fields, np.array([[22, 20]]), DecodeConfig(max_hole=40))
    assert (owner[18:20, 24:27] == 1).all()
    assert (owner[9:15, 9:15] == 0).all()
    assert (owner[31:35, 20] == 0).all()


def test_centres_are_peaks_inside_the_foreground_and_apart():
    fields = Fields.empty((50, 50), 1)
    fields.foreground[5:45, 5:45] = 255
    fields.centre[20, 20] = fields.centre[20, 22] = 65535  # equal twins: the first in raster order stays
    fields.centre[19:22, 19:24] = np.maximum(fields.centre[19:22, 19:24], 40000)
    fields.centre[36:39, 36:39] = 60000
    fields.centre[1:4, 1:4] = 65535  # outside the foreground
    centres, scores = find_centres(fields, DecodeConfig())
    assert centres.tolist() == [[20, 20], [37, 37]]
    assert ((scores > 0.35) & (scores <= 1)).all()


def test_bumps_on_the_ridge_of_a_long_nucleus_are_one_centre_and_peaks_across_a_saddle_are_two():
    fields = Fields.empty((30, 60), 1)
    fields.foreground[5:25, 5:55] = 255
    fields.centre[13:16, 10:40] = 50000  # a ridge with two bumps
    fields.centre[14, 15], fields.centre[14, 30] = 60000, 55000
    assert find_centres(fields, DecodeConfig())[0].tolist() == [[14, 15]]
    assert len(find_centres(fields, DecodeConfig(ridge=10))[0]) == 2
    fields.centre[:, 20:25] = 20000  # a saddle between them
    assert find_centres(fields, DecodeConfig())[0].tolist() == [[14, 15], [14, 30]]


def test_a_speck_of_foreground_is_no_nucleus():
    fields = Fields.empty((30, 30), 1)
    fields.centre[14:17, 14:17] = 65535
    fields.foreground[14:17, 14:17] = 255
    assert len(find_centres(fields, DecodeConfig())[0]) == 0
    fields.foreground[11:20, 11:20] = 255
    assert len(find_centres(fields, DecodeConfig())[0]) == 1


def test_votes_are_probabilities_and_weighted():
    fields = Fields.empty((4, 4), 3)
    owner = np.zeros((4, 4), np.int32)
    owner[:2], owner[3] = 1, 2
    fields.type[1, 0] = 100
    fields.type[2, 1] = 200
    votes = vote(owner, fields, 2)
    np.testing.assert_allclose(votes[0], [1 / 3, 2 / 3, 0], atol=1e-5)
    np.testing.assert_allclose(votes[1], [1 / 3] * 3, atol=1e-5)  # nothing is known of it


@pytest.mark.parametrize(
    ("centres", "says"),
    [([[5, 70]], "outside"), ([[-1, 3]], "outside"), ([[3, 3], [8, 9], [3, 3]], "share the pixel")],
)
def test_impossible_centres_are_refused(centres, says):
    with pytest.raises(NucSegError, match=says):
        flood(Fields.empty((60, 60), 1), np.array(centres), DecodeConfig())


def test_maps_of_another_layout_are_refused():
    with pytest.raises(NucSegError, match="channels"):
        compress(np.zeros((4, 8, 8), np.float32), LAYOUT)


def test_thresholds_are_kept_by_the_quantisation():
    for threshold in (0.0, 0.3, 0.5, 0.9, 1.0):
        least = quantise(threshold)
        assert 1 <= least <= 255
        assert least > threshold * 255 or least == 255


def test_nothing_comes_out_of_nothing():
    found = decode(Fields.empty((20, 20), 5), DecodeConfig())
    assert found.owner.max() == 0
    assert found.centres.shape == (0, 2)
    assert found.probabilities.shape == (0, 5)
    warm_up()


def test_compress_takes_the_falling_edge_along_its_own_angle():
    maps = np.zeros((LAYOUT.channels, 9, 12), np.float32)
    maps[LAYOUT.foreground] = 1
    maps[LAYOUT.distance.start, :, :6], maps[LAYOUT.distance.start, :, 6:] = 1, -1  # falls along the columns
    maps[LAYOUT.boundary.start + BAND, 4] = 0.5
    fields = compress(maps, LAYOUT)
    assert (fields.border[1, :, 5:7] == 255).all()
    assert (fields.border[1, :, :4] == 0).all()
    assert (fields.border[0, 4] == 128).all()
    rising = maps.copy()
    rising[LAYOUT.distance.start] *= -1
    assert (compress(rising, LAYOUT).border[1] == 0).all()


def as_maps(subpixels, layout):
    """Do what the network's last layers do, in double precision."""
    channels, height, width = layout.channels, *subpixels.shape[1:]
    raw = subpixels.reshape(channels, 2, 2, height, width).transpose(0, 3, 1, 4, 2)
    raw = raw.reshape(channels, 2 * height, 2 * width).astype(np.float64)
    maps = 1 / (1 + np.exp(-raw))
    maps[layout.distance] = np.clip(raw[layout.distance], -1, 1)
    for group in (layout.boundary, layout.type):
        powers = np.exp(raw[group])
        maps[group] = powers / powers.sum(0)
    return maps.astype(np.float32)


@pytest.mark.parametrize("angles", [(0, 90), (0, 45, 90, 135)])
@pytest.mark.parametrize("bfloat", [False, True])
@pytest.mark.parametrize("part", [Box(0, 32, 0, 48), Box(3, 20, 5, 42), Box(4, 5, 1, 2)])
def test_a_raw_answer_gives_the_fields_of_its_maps(angles, bfloat, part):
    layout = MapLayout(angles, 4)
    raw = (3 * np.random.default_rng(0).normal(size=(4 * layout.channels, 16, 24))).astype(np.float32)
    answer = raw
    if bfloat:
        answer = (raw.view(np.uint32) >> 16).astype(np.uint16)
        raw = (answer.astype(np.uint32) << 16).view(np.float32)
    expected = compress(as_maps(raw, layout), layout).crop(*part.slices)
    found = unpack(answer, layout, part)
    solid = (expected.foreground >= 17) & (found.foreground >= 17)  # below 16 there are no edges
    for got, want, off in (
        (found.foreground, expected.foreground, 1), (found.centre, expected.centre, 1 if bfloat else 8),
        (found.type, expected.type, 1), (found.border[0], expected.border[0], 1),
        (found.border[1][solid], expected.border[1][solid], 1),
    ):  # fmt: skip
        assert got.shape == want.shape
        assert got.dtype == want.dtype
        assert np.abs(got.astype(int) - want).max(initial=0) <= off


@pytest.mark.parametrize("bfloat", [False, True])
def test_what_differs_from_one_pixel_to_the_next_is_no_outline(bfloat):
    """The even and the odd pixels of a faint nucleus, made by different channels, disagree by half."""
    layout = MapLayout()
    raw = np.zeros((4 * layout.channels, 16, 16), np.float32)
    raw[:4], raw[:4:2, :, 8:], raw[1:4:2, :, 8:] = -9, 2, -2
    answer = (raw.view(np.uint32) >> 16).astype(np.uint16) if bfloat else raw
    for fields in (
        unpack(answer, layout, Box(0, 32, 0, 32)),
        unpack(answer, layout, Box(3, 30, 0, 31)),
        compress(as_maps(raw, layout), layout),
    ):
        inside = fields.foreground[:, 18:-1].astype(int)
        assert np.abs(inside - 127.5).max() <= 1.5
        assert (fields.foreground[:, :15] == 0).all()


def test_raw_answers_of_any_size_of_number_are_taken():
    layout = MapLayout()
    raw = np.zeros((4 * layout.channels, 8, 8), np.float32)
    raw[:, :, :4], raw[:, :, 4:] = 1e30, -1e30
    for answer in (raw, (raw.view(np.uint32) >> 16).astype(np.uint16)):
        found = unpack(answer, layout, Box(0, 16, 0, 16))
        assert set(np.unique(found.foreground[:, :7])) == {255}
        assert set(np.unique(found.foreground[:, 9:])) == {0}
        assert set(np.unique(found.centre)) == {0, 65535}
    with pytest.raises(NucSegError, match="4 times"):
        unpack(raw[:-1], layout, Box(0, 16, 0, 16))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_of_the_nuclei_asked_for_all_come_out_as_in_the_whole(seed):
    """Whatever lies in the holes of nuclei and between them."""
    fields = random_fields(seed, (90, 90))
    config = DecodeConfig(max_cost=40, max_hole=30, support=1, centre=0.02, spacing=1, ridge=2)
    whole = decode(fields, config)
    owned = Box(30, 61, 25, 64)
    part = decode(fields, config, owned)
    np.testing.assert_array_equal(part.centres, whole.centres)
    for k in np.flatnonzero(owned.holds(whole.centres)):
        np.testing.assert_array_equal(part.owner == k + 1, whole.owner == k + 1)
        np.testing.assert_array_equal(part.probabilities[k], whole.probabilities[k])
