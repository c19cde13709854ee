"""Intervals of figures: against theory, seeded, paired, within strata."""

import numpy as np
import pytest

from train.intervals import bootstrap, paired_bootstrap
from train.tally import PER_IMAGE, POOLED, Figure


def mean_of(values):
    def mean(chosen):
        return [Figure("mean", PER_IMAGE, float(np.mean([values[i] for i in chosen])))]

    return mean


def test_bootstrap_of_a_mean_matches_theory():
    values = np.random.default_rng(0).normal(5, 2, 400)
    (found,) = bootstrap(400, mean_of(values), 2000)
    half = 1.96 * np.std(values) / 20
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert found.low < found.value < found.high


def test_draws_are_seeded():
    mean = mean_of([1.0, 2.0, 4.0, 8.0, 16.0])
    spans = [bootstrap(5, mean, 50, seed=seed)[0] for seed in (5, 5, 6)]
    assert spans[0] == spans[1]
    assert (spans[0].low, spans[0].high) != (spans[2].low, spans[2].high)


def test_one_image_or_no_draws_give_no_interval():
    mean = mean_of([3.0, 4.0, 5.0])
    assert np.isnan(bootstrap(1, mean)[0].low)
    assert np.isnan(bootstrap(3, mean, draws=0)[0].low)
    assert np.isnan(bootstrap(3, mean, 20, strata=["a", "a", "b"])[0].low)


def test_a_figure_of_a_single_image_has_no_interval_and_no_clear_difference():
    """Such as the PQ of a class that one image holds: the draws differ in whether it is there, not in its value."""
    nan = float("nan")

    def of(values):
        def mean(chosen):
            known = [values[i] for i in chosen if not np.isnan(values[i])]
            return [Figure("PQ", PER_IMAGE, float(np.mean(known)) if known else nan)]

        return mean

    one, two = of([nan, 0.2, nan, nan]), of([nan, 0.3, nan, nan])
    assert np.isnan(bootstrap(4, one, 200)[0].low)
    (found,) = paired_bootstrap(4, one, two, 200)
    assert found.difference == pytest.approx(0.1)
    assert not found.clear
    assert bootstrap(4, of([nan, 0.2, 0.4, nan]), 200)[0].low == pytest.approx(0.2)


def test_strata_keep_their_sizes():
    strata = ["a"] * 3 + ["b"] * 5

    def share(chosen):
        return [Figure("b", POOLED, sum(strata[i] == "b" for i in chosen) / len(chosen))]

    (found,) = bootstrap(8, share, 50, strata=strata)
    assert (found.low, found.high) == (5 / 8, 5 / 8)
    assert bootstrap(8, share, 50)[0].low < 5 / 8


def test_a_model_compared_with_itself_differs_by_nothing():
    mean = mean_of([1.0, 5.0, 2.0])
    (found,) = paired_bootstrap(3, mean, mean, 50)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert not found.clear


def test_what_both_models_share_cancels_in_the_difference():
    """Images differ by 10, the models by 1: the difference is sure where each value is not."""
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 10, 100)
    one, two = mean_of(hard), mean_of(hard + 1 + rng.normal(0, 0.5, 100))
    (found,) = paired_bootstrap(100, one, two, 500)
    assert found.clear
    assert found.high - found.low < 0.4
    (alone,) = bootstrap(100, one, 500)
    assert alone.high - alone.low > 2
    assert found.value - found.base == pytest.approx(found.difference)
    assert found.low < 1 < found.high
