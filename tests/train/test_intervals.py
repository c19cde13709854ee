"""Intervals of figures: against theory, seeded, paired, within strata."""

import numpy as np
import pytest

from napari_nucseg.errors import NucSegError
from train.intervals import bootstrap, paired_bootstrap
from train.scores import PER_IMAGE, POOLED, Figure


def mean(values):
    return [Figure("mean", PER_IMAGE, float(np.mean(values)) if len(values) else float("nan"))]


def test_bootstrap_of_a_mean_matches_theory():
    values = np.random.default_rng(0).normal(5, 2, 400).tolist()
    (found,) = bootstrap(values, mean, 2000)
    half = 1.96 * np.std(values) / 20
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert found.low < found.value < found.high


def test_draws_are_seeded():
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    spans = [bootstrap(values, mean, 50, seed=seed)[0] for seed in (5, 5, 6)]
    assert spans[0] == spans[1]
    assert (spans[0].low, spans[0].high) != (spans[2].low, spans[2].high)


def test_one_image_or_no_draws_give_no_interval():
    (alone,) = bootstrap([3.0], lambda s: [Figure("n", POOLED, float(len(s)))])
    assert np.isnan(alone.low)
    assert np.isnan(bootstrap([3.0, 4.0], mean, draws=0)[0].low)
    assert np.isnan(bootstrap([3.0, 4.0, 5.0], mean, 20, strata=["a", "a", "b"])[0].low)


def test_strata_keep_their_sizes():
    strata = ["a"] * 3 + ["b"] * 5

    def share(some):
        return [Figure("b", POOLED, sum(s == "b" for s in some) / len(some))]

    (found,) = bootstrap(strata, share, 50, strata=strata)
    assert (found.low, found.high) == (5 / 8, 5 / 8)
    assert bootstrap(strata, share, 50)[0].low < 5 / 8


def test_a_model_compared_with_itself_differs_by_nothing():
    values = [1.0, 5.0, 2.0]
    (found,) = paired_bootstrap(values, values, mean, 50)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert not found.clear


def test_what_both_models_share_cancels_in_the_difference():
    """Images differ by 10, the models by 1: the difference is sure where each value is not."""
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 10, 100)
    one, two = hard.tolist(), (hard + 1 + rng.normal(0, 0.5, 100)).tolist()
    (found,) = paired_bootstrap(one, two, mean, 500)
    assert found.clear
    assert found.high - found.low < 0.4
    (alone,) = bootstrap(one, mean, 500)
    assert alone.high - alone.low > 2
    assert found.second - found.first == pytest.approx(found.difference)
    assert found.low < 1 < found.high


def test_models_scored_on_different_images_are_refused():
    with pytest.raises(NucSegError, match="3 images are compared with 2"):
        paired_bootstrap([1, 2, 3], [1, 2], mean)
