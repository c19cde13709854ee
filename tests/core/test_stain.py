"""Optical densities, colour deconvolution and stain augmentation."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nucseg.core import stain
from napari_nucseg.errors import NucSegError

images = arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(3)))


def noise(seed=0, shape=(64, 48)):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def stained(h, e, shape=(32, 32)):
    """An image of constant stain amounts."""
    hed = np.broadcast_to(np.array([h, e, 0], np.float32), (*shape, 3))
    return stain.hed_to_rgb(hed)


def test_optical_density_known_values():
    rgb = np.array([[[255, 0, 1]]], np.uint8)
    np.testing.assert_allclose(stain.optical_density(rgb)[0, 0], [0, np.log10(255), np.log10(255)], rtol=1e-6)
    assert stain.optical_density(rgb).dtype == np.float32
    tenth = stain.optical_density(np.full((1, 1, 3), 26, np.uint8))
    assert tenth[0, 0, 0] == pytest.approx(-np.log10(26 / 255))


def test_matrix_is_that_of_ruifrok_and_johnston():
    np.testing.assert_allclose(np.linalg.norm(stain.RGB_FROM_HED, axis=1), 1)
    np.testing.assert_allclose(stain.RGB_FROM_HED[0] / stain.RGB_FROM_HED[0, 0], np.array([65, 70, 29]) / 65)
    np.testing.assert_allclose(stain.RGB_FROM_HED[1] / stain.RGB_FROM_HED[1, 0], np.array([7, 99, 11]) / 7)
    np.testing.assert_allclose(stain.RGB_FROM_HED @ stain.HED_FROM_RGB, np.eye(3), atol=1e-12)


def test_pure_stains_are_recovered():
    for k in range(3):
        amounts = np.zeros((2, 2, 3), np.float32)
        amounts[..., k] = 0.6
        np.testing.assert_allclose(stain.rgb_to_hed(stain.hed_to_rgb(amounts)), amounts, atol=0.02)


def test_direction_agrees_with_scikit_image():
    skimage_color = pytest.importorskip("skimage.color")
    rgb = np.maximum(noise(), 1)
    ours, theirs = stain.rgb_to_hed(rgb), skimage_color.rgb2hed(rgb)
    for k in range(3):  # theirs is clipped at 0 and each stain has another unit
        a, b = ours[..., k], theirs[..., k]
        np.testing.assert_allclose(a[b > 0.01] / b[b > 0.01], np.median(a[b > 0.01] / b[b > 0.01]), rtol=1e-3)
        assert a[b == 0].max() < 1e-4


@given(images)
@settings(deadline=None, max_examples=50)
def test_round_trip(rgb):
    np.testing.assert_array_equal(stain.hed_to_rgb(stain.rgb_to_hed(rgb)), np.maximum(rgb, 1))


@given(images)
@settings(deadline=None, max_examples=50)
def test_haematoxylin_is_the_first_channel(rgb):
    h = stain.haematoxylin(rgb)
    assert h.dtype == np.float32
    np.testing.assert_allclose(h, stain.rgb_to_hed(rgb)[..., 0], atol=1e-5)


def test_views_are_fine():
    rgb = noise()
    np.testing.assert_array_equal(stain.haematoxylin(rgb[::2, ::-1]), stain.haematoxylin(rgb)[::2, ::-1])


def test_statistics_see_the_tissue_alone():
    rgb = np.full((32, 64, 3), 255, np.uint8)
    rgb[:, :32] = stained(0.5, 0.3)
    s = stain.stain_statistics(rgb)
    assert s.tissue_fraction == 0.5
    assert s.haematoxylin_mean == pytest.approx(0.5, abs=0.02)
    assert s.eosin_mean == pytest.approx(0.3, abs=0.02)
    assert s.haematoxylin_std == pytest.approx(0, abs=1e-3)


def test_statistics_agree_with_numpy():
    rgb = noise(3)
    tissue = stain.optical_density(rgb).mean(2) > 0.15
    hed = stain.rgb_to_hed(rgb)[tissue]
    s = stain.stain_statistics(rgb)
    assert s.haematoxylin_mean == pytest.approx(hed[:, 0].mean(), rel=1e-4)
    assert s.haematoxylin_std == pytest.approx(hed[:, 0].std(), rel=1e-4)
    assert s.eosin_mean == pytest.approx(hed[:, 1].mean(), rel=1e-4)
    assert s.eosin_std == pytest.approx(hed[:, 1].std(), rel=1e-4)


def test_statistics_of_glass():
    s = stain.stain_statistics(np.full((4, 4, 3), 250, np.uint8))
    assert np.isnan(s.haematoxylin_mean)
    assert s.tissue_fraction == 0


@given(images, st.integers(0, 1000), st.floats(0, 0.6))
@settings(deadline=None, max_examples=60)
def test_jitter_equals_the_formula(rgb, seed, strength):
    got = stain.jitter_stain(rgb, np.random.default_rng(seed), strength)
    rng = np.random.default_rng(seed)
    alpha = rng.uniform(1 - strength, 1 + strength, 3)
    beta = rng.uniform(-strength / 4, strength / 4, 3)
    od = -np.log10(np.maximum(rgb, 1) / 255) @ stain.HED_FROM_RGB * alpha + beta
    exact = np.clip(255 * 10 ** -(od @ stain.RGB_FROM_HED), 1, 255)
    assert np.abs(got - exact).max() <= 0.6  # half a level of rounding and a little for the table


def test_jitter_of_no_strength_changes_nothing():
    rgb = np.maximum(noise(), 1)
    np.testing.assert_array_equal(stain.jitter_stain(rgb, np.random.default_rng(0), 0.0), rgb)


def test_jitter_is_drawn_from_the_generator_and_leaves_the_input_alone():
    rgb = noise()
    before = rgb.copy()
    one, two = (stain.jitter_stain(rgb, np.random.default_rng(5), 0.2) for _ in range(2))
    other = stain.jitter_stain(rgb, np.random.default_rng(6), 0.2)
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    np.testing.assert_array_equal(rgb, before)


def test_jitter_keeps_glass_bright():
    glass = np.full((8, 8, 3), 245, np.uint8)
    worst = min(stain.jitter_stain(glass, np.random.default_rng(s), 0.2).min() for s in range(50))
    assert worst > 190


def test_kernels_release_the_gil():
    rgb = noise(0, (1500, 1500))
    stain.jitter_stain(rgb[:8, :8], np.random.default_rng(0), 0.1)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    for _ in range(5):
        stain.jitter_stain(rgb, np.random.default_rng(0), 0.1)
    end = time.perf_counter()
    stop.set()
    thread.join()
    inside = [t for t in ticks if start < t < end]
    assert len(inside) >= 5  # the other thread went on while the kernel ran


def test_jitter_is_fast():
    rgb = noise(0, (256, 256))
    rng = np.random.default_rng(0)
    stain.jitter_stain(rgb, rng, 0.2)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        stain.jitter_stain(rgb, rng, 0.2)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.006  # measured below 0.001


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: stain.haematoxylin(np.zeros((4, 4), np.uint8)), r"\(4, 4\)"),
        (lambda: stain.optical_density(np.zeros((4, 4, 3))), "float64"),
        (lambda: stain.rgb_to_hed(np.zeros((4, 4, 4), np.uint8)), r"\(4, 4, 4\)"),
        (lambda: stain.hed_to_rgb(np.zeros((4, 4, 3), int)), "float"),
        (lambda: stain.stain_statistics(np.zeros((4, 4, 3), np.uint16)), "uint16"),
        (lambda: stain.jitter_stain(noise(), np.random.default_rng(0), 1.2), "jitter 1.2"),
        (lambda: stain.jitter_stain(noise(), np.random.default_rng(0), 0.2, -1), "-1"),
    ],
)
def test_bad_input_is_told(call, says):
    with pytest.raises(NucSegError, match=says):
        call()
