"""Doubt: borders between nuclei are counted right, in whole and nearby, and every part pulls the right way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from napari_nucseg.core.doubt import (
    CENTRE,
    CONTACT,
    MARGIN,
    DoubtWeights,
    contact_shares,
    contact_shares_near,
    doubt,
    doubt_parts,
    reasons,
)
from napari_nucseg.core.nuclei import UNCLASSIFIED, State, record_dtype
from napari_nucseg.core.tiling import Box

SMALL = npst.arrays(
    np.uint32,
    npst.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.sampled_from([0, 0, 2, 3, 9]),
)


def plain_share(labels, wanted):
    """The definition: every pair of 4-neighbours once."""
    edges = touching = 0
    for y, x in np.argwhere(labels == wanted):
        for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= ny < labels.shape[0] and 0 <= nx < labels.shape[1] and labels[ny, nx] != wanted:
                edges += 1
                touching += labels[ny, nx] != 0
    return touching / edges if edges else 0.0


def record(**values):
    one = np.zeros(1, record_dtype(3))
    one["score"], one["prob"], one["state"] = 0.9, (0.9, 0.1, 0.0), State.PREDICTED
    for name, value in values.items():
        one[name] = value
    return one


@given(SMALL)
@settings(max_examples=80, deadline=None)
def test_shares_are_those_of_the_definition(labels):
    ids = np.array([1, 2, 3, 9])
    np.testing.assert_allclose(
        contact_shares(labels, ids), [plain_share(labels, wanted) for wanted in ids], rtol=1e-6
    )


def test_a_nucleus_between_two_others():
    labels = np.array([[0, 0, 0, 0, 0], [0, 4, 5, 6, 0], [0, 0, 0, 0, 0]], np.uint32)
    np.testing.assert_allclose(contact_shares(labels, np.array([4, 5, 6])), [0.25, 0.5, 0.25])


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(0, 199), st.integers(0, 199)),
    st.sampled_from([3, 40, 150]),
)
@settings(max_examples=30, deadline=None)
def test_updates_nearby_give_what_a_whole_sweep_gives(seed, corner, side):
    """Blocks up to 190 pixels long reach far beyond the window that is looked at first."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((200, 200), np.uint32)
    ids = np.sort(rng.choice(1000, 12, replace=False) + 1).astype(np.uint32)
    for wanted in ids:
        y, x = rng.integers(0, 190, 2)
        labels[y : y + rng.integers(1, 190), x : x + rng.integers(1, 12)] = wanted
    before = contact_shares(labels, ids)
    box = Box(corner[0], min(corner[0] + side, 200), corner[1], min(corner[1] + side, 200))
    labels[box.slices] = np.where(rng.random(box.shape) < 0.5, rng.choice(ids), labels[box.slices])
    places, shares = contact_shares_near(labels, ids, box)
    after = before.copy()
    after[places] = shares
    whole = contact_shares(labels, ids)
    # as in a session: every nucleus is of one piece, and one that has lost its last pixel has no share
    kept = np.array([ndimage.label(labels == wanted)[1] == 1 for wanted in ids])
    np.testing.assert_array_equal(after[kept], whole[kept])


@pytest.mark.parametrize(
    ("worse", "contact"),
    [({"score": 0.3}, 0.0), ({}, 0.4), ({"prob": (0.5, 0.45, 0.05)}, 0.0)],
    ids=["faint centre", "contested outline", "unsure class"],
)
def test_each_part_raises_the_doubt(worse, contact):
    good = doubt(record(), np.zeros(1))[0]
    bad = doubt(record(**worse), np.array([contact]))[0]
    assert 0 < good < bad < 1


def test_what_nobody_knows_is_never_nan():
    lost = record(score=np.nan, prob=np.nan, kind=UNCLASSIFIED)
    assert doubt_parts(lost, np.array([np.nan]))[0].tolist() == [0.5, 0.0, 1.0]
    assert doubt_parts(record(prob=np.nan, kind=2), np.zeros(1))[0, MARGIN] == 0


def test_a_class_set_by_a_person_is_not_in_doubt():
    unsure = {"prob": (0.4, 0.4, 0.2)}
    assert doubt_parts(record(**unsure), np.zeros(1))[0, MARGIN] == 1
    assert doubt_parts(record(**unsure, typed=True), np.zeros(1))[0, MARGIN] == 0


@pytest.mark.parametrize("n_classes", [0, 1])
def test_models_of_fewer_than_two_classes_have_no_doubt_about_them(n_classes):
    records = np.zeros(4, record_dtype(n_classes))
    assert not doubt_parts(records, np.zeros(4))[:, MARGIN].any()
    assert doubt(records[:0], np.zeros(0)).shape == (0,)


def test_weights_choose_what_counts():
    records = np.concatenate([record(score=0.1), record(prob=(0.5, 0.5, 0))])
    only = {"bias": 0.0, "contact": 0.0}
    assert np.argmax(doubt(records, np.zeros(2), DoubtWeights(**only, centre=1, margin=0))) == 0
    assert np.argmax(doubt(records, np.zeros(2), DoubtWeights(**only, centre=0, margin=1))) == 1


def test_reasons_name_what_is_wrong():
    parts = np.zeros(3)
    assert reasons(parts) == ()
    parts[CONTACT], parts[MARGIN] = 0.5, 0.9
    assert reasons(parts) == ("touches a neighbour", "class unsure")
    parts[CENTRE] = 1
    assert reasons(parts)[0] == "faint centre"
