"""Measures of nuclei against scikit-image, hand-computed shapes, and properties."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nucseg.core.measure import measure
from napari_nucseg.core.stain import haematoxylin
from napari_nucseg.errors import NucSegError

regionprops = pytest.importorskip("skimage.measure").regionprops


def colours(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def ellipses(seed=0, size=200, n=60):
    """Ellipses of any size and turn, overlapping and cut by the borders."""
    rng = np.random.default_rng(seed)
    out = np.zeros((size, size), np.uint32)
    for i in range(1, n + 1):
        cy, cx = rng.uniform(0, size, 2)
        a, b = rng.uniform(1, 14, 2)
        angle = rng.uniform(0, np.pi)
        y, x = np.ogrid[:size, :size]
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        out[(u / a) ** 2 + (v / b) ** 2 <= 1] = i
    return out


def one(mask):
    mask = np.asarray(mask, np.uint32)
    return measure(mask, colours(mask.shape), 1.0)


def check_against_skimage(labels, mpp=0.25):
    rgb = colours(labels.shape)
    got = measure(labels, rgb, mpp)
    props = regionprops(labels.astype(np.int64), intensity_image=haematoxylin(rgb).astype(np.float64))
    assert got.id.tolist() == [p.label for p in props]
    assert len(got) == len(props)
    if not props:
        return
    np.testing.assert_allclose(np.c_[got.centroid_y, got.centroid_x], [p.centroid for p in props], rtol=1e-12)
    np.testing.assert_array_equal(got.area_px, [p.area for p in props])
    np.testing.assert_allclose(got.area_um2, got.area_px * mpp**2)
    np.testing.assert_array_equal(got.bbox, [p.bbox for p in props])
    np.testing.assert_allclose(got.perimeter_um, [p.perimeter * mpp for p in props], rtol=1e-12)
    np.testing.assert_allclose(got.mean_haematoxylin, [p.intensity_mean for p in props], atol=1e-5)
    # the square root makes of a rounding error of 1e-16 in a round shape an eccentricity of 1e-8
    np.testing.assert_allclose(got.eccentricity, [p.eccentricity for p in props], atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_blobs_agree_with_scikit_image(seed):
    check_against_skimage(ellipses(seed))


def test_noise_agrees_with_scikit_image():
    labels = np.random.default_rng(0).integers(0, 6, (40, 50))  # not connected, with holes, single pixels
    check_against_skimage(labels)


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)))
@settings(deadline=None, max_examples=150)
def test_any_map_agrees_with_scikit_image(labels):
    check_against_skimage(labels)


def corner_hull_area(mask):
    """Area of the hull of all four corners of every pixel, by another library."""
    points = [(y + dy, x + dx) for y, x in np.argwhere(mask) for dy in (0, 1) for dx in (0, 1)]
    hull = pytest.importorskip("scipy.spatial").ConvexHull(points)
    return hull.volume  # of two dimensions: the area


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(deadline=None, max_examples=150)
def test_solidity_is_area_over_the_hull_of_the_corners(mask):
    if not mask.any():
        return
    solidity = one(mask).solidity[0]
    assert 0 < solidity <= 1
    assert solidity == pytest.approx(mask.sum() / corner_hull_area(mask))


def test_solidity_is_near_that_of_scikit_image():
    labels = ellipses(5, 600, 60)
    got = measure(labels, colours(labels.shape), 1.0)
    props = regionprops(labels.astype(np.int64))
    large = got.area_px > 100
    difference = np.array([p.solidity for p in props])[large] - got.solidity[large]
    assert difference.min() > -0.01  # the hull of the corners is the larger one
    assert difference.max() < 0.10
    assert np.median(difference) < 0.06


def test_rectangle():
    mask = np.zeros((20, 30))
    mask[4:10, 5:25] = 1
    r = one(mask)
    assert (r.area_px[0], r.centroid_y[0], r.centroid_x[0]) == (120, 6.5, 14.5)
    assert r.bbox[0].tolist() == [4, 5, 10, 25]
    assert r.solidity[0] == 1
    assert r.perimeter_um[0] == pytest.approx(2 * (5 + 19))
    assert r.eccentricity[0] == pytest.approx(np.sqrt(1 - (6**2 - 1) / (20**2 - 1)))


def test_square_is_round_and_line_is_not():
    assert one(np.ones((5, 5))).eccentricity[0] == pytest.approx(0, abs=1e-6)
    assert one(np.ones((1, 7))).eccentricity[0] == 1
    assert one(np.ones((7, 1))).eccentricity[0] == 1


def test_l_shape():
    r = one([[1, 0], [1, 0], [1, 1]])
    assert r.solidity[0] == pytest.approx(4 / 5)  # the hull lacks a triangle of 2 x 1


def test_single_pixels_even_in_the_corner():
    r = measure(np.array([[7, 0], [0, 3]], np.uint32), colours((2, 2)), 0.5)
    assert r.id.tolist() == [3, 7]
    assert r.centroid_y.tolist() == [1, 0]
    assert r.centroid_x.tolist() == [1, 0]
    assert r.area_um2.tolist() == [0.25, 0.25]
    assert r.perimeter_um.tolist() == [0, 0]
    assert r.eccentricity.tolist() == [0, 0]
    assert r.solidity.tolist() == [1, 1]


def test_a_nucleus_may_fill_the_image():
    r = one(np.ones((6, 9)))
    assert r.area_px[0] == 54
    assert r.perimeter_um[0] == pytest.approx(2 * (5 + 8))


def test_no_nuclei():
    for shape in ((5, 5), (0, 0), (0, 4)):
        r = measure(np.zeros(shape, np.uint32), colours(shape), 0.25)
        assert len(r) == 0
        assert r.bbox.shape == (0, 4)


def test_lengths_scale_with_the_pixel_size():
    labels, rgb = ellipses(1), colours((200, 200))
    a, b = measure(labels, rgb, 0.25), measure(labels, rgb, 0.5)
    np.testing.assert_allclose(b.area_um2, 4 * a.area_um2)
    np.testing.assert_allclose(b.perimeter_um, 2 * a.perimeter_um)
    np.testing.assert_array_equal(b.solidity, a.solidity)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_dtypes_and_strides(dtype):
    labels, rgb = ellipses(2).astype(dtype), colours((200, 200))
    want = measure(ellipses(2)[::-1, ::2], rgb[::-1, ::2], 0.25)
    got = measure(labels[::-1, ::2], rgb[::-1, ::2], 0.25)
    np.testing.assert_array_equal(got.perimeter_um, want.perimeter_um)
    assert got.id.dtype == np.uint32


def test_ids_may_be_large_and_sparse():
    labels, rgb = ellipses(3), colours((200, 200))
    ids = np.random.default_rng(0).choice(2**32 - 1, labels.max() + 1, replace=False).astype(np.uint32) + 1
    ids[0], ids[1] = 0, 2**32 - 1
    plain, wide = measure(labels, rgb, 0.25), measure(ids[labels], rgb, 0.25)
    order = np.argsort(ids[plain.id])
    np.testing.assert_array_equal(wide.id, ids[plain.id][order])
    for name in ("centroid_y", "perimeter_um", "solidity", "eccentricity", "mean_haematoxylin", "area_px"):
        np.testing.assert_array_equal(getattr(wide, name), getattr(plain, name)[order])


def test_a_choice_of_ids():
    labels, rgb = ellipses(4), colours((200, 200))
    everything = measure(labels, rgb, 0.25)
    chosen = everything.id[[9, 2, 5]]
    some = measure(labels, rgb, 0.25, ids=[*chosen.tolist(), int(chosen[0])])
    np.testing.assert_array_equal(some.id, np.sort(chosen))
    np.testing.assert_array_equal(some.perimeter_um, everything.perimeter_um[[2, 5, 9]])
    np.testing.assert_array_equal(some.solidity, everything.solidity[[2, 5, 9]])
    np.testing.assert_array_equal(some.bbox, everything.bbox[[2, 5, 9]])
    assert len(measure(labels, rgb, 0.25, ids=[])) == 0


def test_moments_keep_their_precision_far_from_the_origin():
    labels = np.zeros((40, 30_000), np.uint32)
    labels[10:30, 29_970:29_990] = 1
    labels[12, 29_990] = 1
    check_against_skimage(labels)


def test_faster_than_regionprops():
    """Measured 5 ms for a megapixel; the margin is for a busy machine."""
    block = ellipses(6, 250, 60)
    labels = np.block(
        [[block + (block > 0) * np.uint32(60 * (4 * i + j)) for j in range(4)] for i in range(4)]
    )
    rgb = colours(labels.shape)
    measure(labels, rgb, 0.25)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        measure(labels, rgb, 0.25)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.03


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: measure(np.zeros((4, 4), int), colours((4, 5)), 1), r"\(4, 4\).*\(4, 5\)"),
        (lambda: measure(np.zeros((4, 4)), colours((4, 4)), 1), "float64"),
        (lambda: measure(np.zeros((4, 4, 1), int), colours((4, 4)), 1), r"\(4, 4, 1\)"),
        (lambda: measure(np.full((4, 4), -3), colours((4, 4)), 1), "-3"),
        (lambda: measure(np.zeros((4, 4), int), np.zeros((4, 4, 3)), 1), "8-bit RGB"),
        (lambda: measure(np.zeros((4, 4), int), colours((4, 4)), 0), "0 um"),
        (lambda: measure(np.zeros((4, 4), int), colours((4, 4)), float("nan")), "nan um"),
        (lambda: measure(np.ones((4, 4), int), colours((4, 4)), 1, ids=[1, 8]), "Nucleus 8"),
    ],
)
def test_bad_input_is_told(call, says):
    with pytest.raises(NucSegError, match=says):
        call()
