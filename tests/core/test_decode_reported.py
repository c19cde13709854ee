"""Calibration changes what is reported, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucseg.core.calibration import NEUTRAL, calibrated, tempered
from napari_nucseg.core.decode import DecodeConfig, Fields, decode, find_centres, vote
from napari_nucseg.core.doubt import doubt, doubt_of, doubt_parts
from napari_nucseg.core.nuclei import record_dtype
from napari_nucseg.errors import NucSegError

PLAIN = DecodeConfig(max_cost=60, max_hole=10, support=4, centre=0.2)
REPORTED = replace(PLAIN, score_slope=2.5, score_shift=-0.7, type_temperature=1.8)


@pytest.fixture
def fields():
    """Fields with blobs of foreground, and centres and classes at random."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(3)
    fields = Fields.empty((90, 110), 5)
    fields.foreground[:] = np.where(gaussian_filter(rng.standard_normal(fields.shape), 3) > 0, 255, 0)
    fields.centre[:] = 65535 * np.clip(gaussian_filter(rng.standard_normal(fields.shape), 2) * 4, 0, 1)
    fields.type[:] = rng.integers(0, 256, fields.type.shape)
    return fields


def distributions(draw_from, n=400, classes=5):
    """Return rows that add up to 1, as float32: with ties, and with neighbours that differ by one rounding."""
    rng = np.random.default_rng(draw_from)
    rows = rng.dirichlet(np.full(classes, 0.3), n).astype(np.float32)
    rows[: n // 4, 1] = rows[: n // 4, 0]
    rows[n // 4 : n // 2, 1] = np.nextafter(rows[n // 4 : n // 2, 0], np.float32(2))
    return rows / rows.sum(1, keepdims=True)


def test_by_default_every_bit_is_the_networks(fields):
    found = decode(fields, PLAIN)
    assert len(found.centres) > 20
    _, raw = find_centres(fields, PLAIN)
    np.testing.assert_array_equal(found.scores, raw)
    np.testing.assert_array_equal(found.probabilities, vote(found.owner, fields, len(raw)))
    assert PLAIN.uncalibrated() == PLAIN == REPORTED.uncalibrated()
    assert set(PLAIN.to_dict()) & set(NEUTRAL) == set()
    assert REPORTED.to_dict() == PLAIN.to_dict() | {
        "score_slope": 2.5, "score_shift": -0.7, "type_temperature": 1.8
    }  # fmt: skip
    for settings_ in (PLAIN, REPORTED):
        assert DecodeConfig(**settings_.to_dict()) == settings_


def test_calibration_changes_neither_the_nuclei_nor_their_classes(fields):
    plain, other = decode(fields, PLAIN), decode(fields, REPORTED)
    np.testing.assert_array_equal(plain.owner, other.owner)
    np.testing.assert_array_equal(plain.centres, other.centres)
    np.testing.assert_array_equal(plain.probabilities.argmax(1), other.probabilities.argmax(1))
    assert (plain.probabilities != other.probabilities).any()
    raw = np.clip(plain.scores.astype(float), 1e-6, 1 - 1e-6)
    wanted = 1 / (1 + np.exp(-(2.5 * np.log(raw / (1 - raw)) - 0.7)))
    np.testing.assert_allclose(other.scores, wanted, atol=1e-5)
    assert other.scores.dtype == other.probabilities.dtype == np.float32


@settings(deadline=None, max_examples=60)
@given(slope=st.floats(0.01, 50), shift=st.floats(-20, 20))
def test_a_higher_score_stays_higher_and_within_bounds(slope, shift):
    raw = np.linspace(0, 1, 3001).astype(np.float32)
    out = calibrated(raw, slope, shift)
    assert (np.diff(out) >= 0).all()
    assert out.min() >= 0
    assert out.max() <= 1
    assert np.isnan(calibrated(np.array([np.nan], np.float32), slope, shift)).all()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), temperature=st.floats(1e-3, 1e6))
def test_the_most_probable_class_stays_so_and_all_add_up_to_one(seed, temperature):
    raw = distributions(seed)
    out = tempered(raw, temperature)
    np.testing.assert_array_equal(out.argmax(1), raw.argmax(1))
    np.testing.assert_allclose(out.sum(1), 1, atol=1e-6)
    assert out.min() >= 0


def test_odd_probabilities_stay_as_they_are():
    raw = np.array([[1, 0, 0], [0.5, 0.5, 0], [np.nan] * 3], np.float32)
    np.testing.assert_allclose(tempered(raw, 3.0), raw)
    assert tempered(np.zeros((0, 5), np.float32), 3.0).shape == (0, 5)
    assert tempered(np.ones((4, 1), np.float32), 3.0).tolist() == [[1.0]] * 4


def test_doubt_is_about_what_the_network_says():
    rng = np.random.default_rng(0)
    records = np.zeros(200, record_dtype(5))
    records["score"], records["prob"] = rng.random(200), rng.dirichlet(np.ones(5), 200)
    records["score"][:3] = np.nan
    records["prob"][2:5] = np.nan
    contact = rng.random(200)
    reported = records.copy()
    reported["score"] = calibrated(records["score"], 2.5, -0.7)
    reported["prob"] = tempered(records["prob"], 1.8)
    found = doubt_of(doubt_parts(reported, contact, REPORTED))
    np.testing.assert_allclose(found, doubt(records, contact), atol=1e-4)
    np.testing.assert_array_equal(doubt_parts(records, contact, PLAIN), doubt_parts(records, contact))


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "1", None])
@pytest.mark.parametrize("name", NEUTRAL)
def test_values_without_sense_are_refused(name, value):
    if name == "score_shift" and value in (0, -1.0):
        assert replace(PLAIN, **{name: value}).score_shift == value
        return
    with pytest.raises(NucSegError, match=rf"{name}=.*must be a finite number") as raised:
        replace(PLAIN, **{name: value})
    assert str(raised.value).count(".") <= 2  # one sentence, and the point of a number
