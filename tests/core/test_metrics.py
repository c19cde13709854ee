"""Metrics against hand-computed cases, properties, and the values of the field's published code."""

import json
import time
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nucseg.core import metrics as m
from napari_nucseg.errors import NucSegError

# ------------------------------------------------------------------------------------------ synthetic


def discs(seed: int, size: int = 128, n: int = 30, radius: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = np.zeros((size, size), np.int64)
    for i, (cy, cx) in enumerate(rng.integers(0, size, (n, 2)), start=1):
        y, x = np.ogrid[max(cy - radius, 0) : cy + radius + 1, max(cx - radius, 0) : cx + radius + 1]
        window = out[y[0, 0] : cy + radius + 1, x[0, 0] : cx + radius + 1]
        y, x = y[: window.shape[0]], x[:, : window.shape[1]]
        window[(y - cy) ** 2 + (x - cx) ** 2 <= rng.integers(2, radius + 1) ** 2] = i
    return out


def row(*ids: int) -> np.ndarray:
    return np.array([ids], np.uint32)


small_maps = arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 5))
map_pairs = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(*[arrays(np.int32, shape, elements=st.integers(0, 5))] * 2)
)


def brute_iou(true, pred):
    out = {}
    for i in np.unique(true[true > 0]):
        for j in np.unique(pred[pred > 0]):
            a, b = true == i, pred == j
            out[int(i), int(j)] = (int((a & b).sum()), int((a | b).sum()))
    return out


def test_identity_scores_one():
    t = discs(0)
    types = {int(i): 1 + int(i) % 3 for i in np.unique(t)}
    assert m.dice(t, t) == m.aji(t, t) == m.aji_plus(t, t) == 1
    q = m.panoptic_quality(t, t)
    assert (q.dq, q.sq, q.pq, q.fp, q.fn) == (1, 1, 1, 0, 0)
    assert m.multiclass_pq(t, types, t, types, [1, 2, 3]).mpq == 1
    points = np.argwhere(t > 0)[::40]
    result = m.detection_f1(points, [1] * len(points), points, [1] * len(points))
    assert result.f1_d == 1
    assert result.f1_c == {1: 1}


def test_hand_computed():
    true = row(1, 1, 1, 1, 0, 0, 2, 2, 0, 3)
    pred = row(7, 7, 7, 0, 9, 0, 8, 8, 8, 0)
    # overlaps: 1-7 is 3/4, 2-8 is 2/3; 3 is missed, 9 is invented
    assert m.dice(true, pred) == pytest.approx(2 * 5 / (7 + 7))
    assert m.aji(true, pred) == pytest.approx((3 + 2) / (4 + 3 + 1 + 1))
    assert m.aji_plus(true, pred) == m.aji(true, pred)
    q = m.panoptic_quality(true, pred)
    assert (q.tp, q.fp, q.fn) == (2, 1, 1)
    assert q.dq == pytest.approx(2 / 3)
    assert q.sq == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert q.pq == pytest.approx(q.dq * q.sq)
    assert q.iou_sum == pytest.approx(3 / 4 + 2 / 3)


def test_aji_may_take_a_prediction_twice_and_aji_plus_may_not():
    true, pred = row(1, 1, 1, 2, 2), row(5, 5, 5, 5, 5)
    assert m.aji(true, pred) == pytest.approx((3 + 2) / (5 + 5))
    assert m.aji_plus(true, pred) == pytest.approx(3 / (5 + 2))


def test_aji_tie_goes_to_the_lower_id():
    true, pred = row(1, 1, 1, 1), row(9, 9, 4, 4)
    assert m.aji(true, pred) == pytest.approx(2 / (4 + 2))
    true, pred = row(1, 1, 1, 1, 0, 0, 0), row(9, 9, 9, 4, 4, 4, 4)
    assert m.aji(true, pred) == pytest.approx(3 / (4 + 4))


def test_iou_of_one_half_is_no_match():
    assert m.panoptic_quality(row(1, 1), row(1, 0)).tp == 0
    assert m.panoptic_quality(row(1, 1, 1), row(1, 1, 0)).tp == 1
    assert m.panoptic_quality(row(1, 1), row(1, 0), iou=0.49).tp == 1
    typed = m.multiclass_pq(row(1, 1), {1: 1}, row(1, 0), {1: 1}, [1])
    assert typed.per_class[1].tp == typed.binary.tp == 0


def test_low_threshold_pairs_one_to_one():
    q = m.panoptic_quality(row(1, 1, 1, 1), row(1, 1, 2, 2), iou=0.3)
    assert (q.tp, q.fp, q.fn) == (1, 1, 0)


def test_empty_sides():
    full, none = row(1, 1, 0), row(0, 0, 0)
    for metric in (m.dice, m.aji, m.aji_plus):
        assert metric(full, none) == 0
        assert metric(none, full) == 0
        assert isnan(metric(none, none))
    assert m.panoptic_quality(full, none) == m.PanopticQuality(0, 0, 1, 0.0)
    assert m.panoptic_quality(none, full).pq == 0
    both = m.panoptic_quality(none, none)
    assert isnan(both.dq)
    assert isnan(both.sq)
    assert isnan(both.pq)


def test_pannuke_leaves_out_classes_that_the_truth_does_not_hold():
    true, pred = row(1, 1, 1, 0, 0, 0), row(1, 1, 1, 0, 2, 2)
    r = m.multiclass_pq(true, {1: 1}, pred, {1: 1, 2: 2}, [1, 2, 3])
    assert r.pq_per_class[1] == 1
    assert isnan(r.pq_per_class[2])
    assert isnan(r.pq_per_class[3])
    assert r.mpq == 1
    assert r.bpq == pytest.approx(1 / 1.5)
    assert r.per_class[2] == m.PanopticQuality(0, 1, 0, 0.0)
    assert m.mpq_plus([r]) == pytest.approx(1 / 2)  # class 2 was invented, class 3 does not exist
    assert m.mpq_plus([r], absent=0) == pytest.approx(1 / 3)
    empty = m.multiclass_pq(pred * 0, {}, pred, {1: 1, 2: 2}, [1, 2])
    assert isnan(empty.bpq)
    assert isnan(empty.mpq)
    assert empty.binary.fp == 2


def test_pooling_differs_from_averaging():
    a = m.multiclass_pq(row(1, 1), {1: 1}, row(1, 1), {1: 1}, [1])
    b = m.multiclass_pq(row(1, 0, 2, 0, 3), {1: 1, 2: 1, 3: 1}, row(0, 0, 0, 0, 0), {}, [1])
    assert m.pooled_pq([a, b])[1] == m.PanopticQuality(1, 0, 3, 1.0)
    assert m.mpq_plus([a, b]) == pytest.approx(1 / 2.5)
    assert m.average_pq([a, b]).mpq_images == pytest.approx(0.5)
    with_tissue = m.average_pq([a, b, b], ["colon", "skin", "skin"])
    assert with_tissue.per_tissue == {"colon": (1, 1), "skin": (0, 0)}
    assert with_tissue.mpq_tissues == pytest.approx(0.5)
    assert with_tissue.mpq_images == pytest.approx(1 / 3)


def test_wrong_class_is_a_miss_and_a_false_positive():
    t = row(1, 1, 1)
    r = m.multiclass_pq(t, {1: 1}, t, {1: 2}, [1, 2])
    assert r.binary.tp == 1
    assert r.per_class == {1: m.PanopticQuality(0, 0, 1, 0.0), 2: m.PanopticQuality(0, 1, 0, 0.0)}


def test_types_as_map_or_mapping_give_the_same():
    t, p = discs(1), discs(1, radius=7)
    t_types = {int(i): int(i) % 4 for i in np.unique(t)}
    p_types = {int(i): (int(i) * 7) % 5 for i in np.unique(p)}
    as_map = [np.vectorize(d.get)(a).astype(np.uint8) * (a > 0) for d, a in ((t_types, t), (p_types, p))]
    one = m.multiclass_pq(t, t_types, p, p_types, [3, 1, 2])
    two = m.multiclass_pq(t, as_map[0], p, as_map[1], [3, 1, 2])
    assert one == two
    assert list(one.per_class) == [3, 1, 2]


def test_detection_hand_computed():
    true, pred = [[0, 0], [0, 40], [0, 80], [0, 200]], [[0, 12], [0, 40], [0, 93], [0, 300]]
    r = m.detection_f1(true, [1, 1, 2, 2], pred, [1, 2, 2, 1])
    assert r.counts.pairs == {(1, 1): 1, (1, 2): 1}  # 12 px still pairs, 13 px does not
    assert r.counts.missed == {2: 2}
    assert r.counts.spurious == {2: 1, 1: 1}
    assert r.f1_d == pytest.approx(4 / 8)
    assert r.counts.type_accuracy == 0.5
    assert r.f1_c[1] == pytest.approx(2 / (2 + 2 + 1))
    assert r.f1_c[2] == pytest.approx(0 / (0 + 2 + 2 + 1))
    assert isnan(r.counts.f1_c([1, 2, 9])[9])
    assert m.detection_f1(true, list("aabb"), pred, list("abba")).f1_c == {"a": r.f1_c[1], "b": r.f1_c[2]}


def test_centres_far_apart_count_for_the_pairing_of_near_ones():
    """The least total distance pairs 0 with 9 and 10 with 100: a pairing within the radius alone would find (10, 9)."""
    found = m.detection_f1([(0, 0), (10, 0)], [1, 1], [(9, 0), (100, 0)], [1, 1], radius=5)
    assert found.counts == m.DetectionCounts({}, {1: 2}, {1: 2})


def test_detection_with_an_empty_side_adds_only_what_is_there():
    none, some = np.zeros((0, 2)), [[0.0, 0.0], [5.0, 5.0]]
    missed = m.detection_f1(some, [1, 2], none, [])
    assert missed.counts == m.DetectionCounts({}, {1: 1, 2: 1}, {})
    assert missed.f1_d == 0
    assert isnan(m.detection_f1(none, [], none, []).f1_d)
    assert isnan(m.detection_f1([], [], [], []).f1_d)
    total = missed.counts + m.detection_f1(some, [1, 2], some, [1, 1]).counts
    assert total.f1_d == pytest.approx(4 / 6)


@given(map_pairs)
@settings(deadline=None, max_examples=80)
def test_agrees_with_brute_force(pair):
    true, pred = pair
    iou = brute_iou(true, pred)
    matches = [i / u for i, u in iou.values() if i / u > 0.5]
    q = m.panoptic_quality(true, pred)
    assert q.tp == len(matches)
    assert q.iou_sum == pytest.approx(sum(matches))
    assert q.tp + q.fn == np.unique(true[true > 0]).size
    assert q.tp + q.fp == np.unique(pred[pred > 0]).size
    types = {i: 1 + i % 2 for i in range(6)}
    r = m.multiclass_pq(true, types, pred, types, [1, 2])
    for c in (1, 2):
        t, p = (np.where(a % 2 == c - 1, a, 0) for a in (true, pred))
        expected = m.panoptic_quality(t, p)
        assert r.per_class[c].iou_sum == pytest.approx(expected.iou_sum)
        assert (r.per_class[c].tp, r.per_class[c].fp, r.per_class[c].fn) == (
            expected.tp,
            expected.fp,
            expected.fn,
        )


@given(map_pairs)
@settings(deadline=None, max_examples=60)
def test_symmetry_and_bounds(pair):
    true, pred = pair
    q, r = m.panoptic_quality(true, pred), m.panoptic_quality(pred, true)
    assert (q.tp, q.fp, q.fn) == (r.tp, r.fn, r.fp)
    np.testing.assert_allclose(m.dice(true, pred), m.dice(pred, true))
    np.testing.assert_allclose(m.aji_plus(true, pred), m.aji_plus(pred, true), rtol=1e-9)
    for value in (m.dice(true, pred), m.aji(true, pred), m.aji_plus(true, pred), q.pq):
        assert isnan(value) or 0 <= value <= 1
    if not isnan(m.aji(true, pred)):
        assert m.aji(true, pred) <= m.dice(true, pred) + 1e-12


@given(map_pairs, st.lists(st.integers(1, 2**32 - 1), min_size=5, max_size=5, unique=True))
@settings(deadline=None, max_examples=60)
def test_ids_do_not_matter(pair, ids):
    true, pred = pair
    wide = np.array([0, *sorted(ids)], np.uint32)[pred]  # order kept: it decides ties of AJI
    for metric in (m.dice, m.aji, m.aji_plus):
        np.testing.assert_allclose(metric(true, wide), metric(true, pred))
    shuffled = np.array([0, *ids], np.uint32)[pred]
    assert m.panoptic_quality(true, shuffled).tp == m.panoptic_quality(true, pred).tp
    np.testing.assert_allclose(m.panoptic_quality(true, shuffled).pq, m.panoptic_quality(true, pred).pq)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint32, np.int64])
def test_dtypes(dtype):
    t = (discs(2) > 0).astype(dtype)
    assert m.panoptic_quality(t, t).tp == 1


def test_fast_on_many_nuclei():
    t = discs(3, 1000, 1000, 12)
    p = np.roll(t, 2, 0) * 4_000_003
    types = {int(i): 1 + int(i) % 5 for i in np.unique(t)}
    p_types = {i * 4_000_003: c for i, c in types.items()}
    calls = [
        lambda: m.dice(t, p),
        lambda: m.aji(t, p),
        lambda: m.aji_plus(t, p),
        lambda: m.panoptic_quality(t, p),
        lambda: m.multiclass_pq(t, types, p, p_types, range(1, 6)),
    ]
    for call in calls:
        call()
        best = min(_seconds(call) for _ in range(3))
        assert best < 0.5  # measured 0.01 to 0.04 s; the margin is for a busy machine


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: m.dice(np.zeros((2, 2), int), np.zeros((2, 3), int)), r"\(2, 2\).*\(2, 3\)"),
        (lambda: m.aji(np.zeros((2, 2)), np.zeros((2, 2), int)), "float64"),
        (lambda: m.aji(np.full((2, 2), -1), np.zeros((2, 2), int)), "-1"),
        (lambda: m.aji(np.zeros((2, 2, 2), int), np.zeros((2, 2), int)), r"\(2, 2, 2\)"),
        (lambda: m.panoptic_quality(row(1), row(1), iou=1.5), "1.5"),
        (lambda: m.multiclass_pq(row(1), {}, row(1), {1: 1}, [1]), "nucleus 1 has no class"),
        (lambda: m.multiclass_pq(row(1), np.ones((2, 2), int), row(1), {1: 1}, [1]), "type map"),
        (lambda: m.multiclass_pq(row(1), {1: 1}, row(1), {1: 1}, [0]), "Class 0"),
        (lambda: m.detection_f1([[1, 2, 3]], [1], [[1, 2]], [1]), r"\(1, 3\)"),
        (lambda: m.detection_f1([[1, nan]], [1], [[1, 2]], [1]), "finite"),
        (lambda: m.detection_f1([[1, 2]], [1, 2], [[1, 2]], [1]), "2 true types for 1"),
        (lambda: m.detection_f1([[1, 2]], [1], [[1, 2]], [1], radius=-1), "-1"),
        (lambda: m.average_pq([], ["colon"]), "1 tissues for 0"),
    ],
)
def test_bad_input_is_told(call, says):
    with pytest.raises(NucSegError, match=says):
        call()


# ------------------------------------------------------------------------------------------ reference values

CONIC = range(1, 7)


@pytest.fixture(scope="module")
def vectors(request):
    folder = request.getfixturevalue("shared") / "vectors"
    if not folder.is_dir():
        pytest.skip(f"no reference values at {folder}")
    expected = json.loads((folder / "expected.json").read_text(), parse_constant=float)
    pairs = {}
    for file in ("pairs_synthetic.npz", "pairs_real.npz"):
        with np.load(folder / file) as archive:
            for key in archive.files:
                name, part = key.split("/")
                pairs.setdefault(name, {})[part] = archive[key]
    with np.load(folder / "centroids.npz") as archive:
        for key in archive.files:
            name, part = key.split("/")
            pairs[name]["points_" + part] = archive[key]
    with np.load(folder / "points.npz") as archive:
        points = {key: archive[key] for key in archive.files}
    return expected, pairs, points


def same(value, reference, tolerance=1e-6):
    """NaN equals NaN; where the reference raised or computed no value, there is nothing to compare."""
    if isinstance(reference, dict):
        return True
    reference = nan if reference == "NaN" else reference
    return value == pytest.approx(reference, abs=tolerance, nan_ok=True)


def typed(pair, classes=CONIC):
    return m.multiclass_pq(pair["gt_inst"], pair["gt_type"], pair["pred_inst"], pair["pred_type"], classes)


def detected(pair):
    return m.detection_f1(
        pair["points_gt_xy"], pair["points_gt_class"], pair["points_pred_xy"], pair["points_pred_class"]
    )


@pytest.mark.shared
def test_vectors_instance_metrics(vectors):
    expected, pairs, _ = vectors
    for name, pair in pairs.items():
        want = expected["pairs"][name]["hover_net_instance"]
        args = pair["gt_inst"], pair["pred_inst"]
        q = m.panoptic_quality(*args)
        got = {
            "dice1": m.dice(*args),
            "aji": m.aji(*args),
            "aji_plus": m.aji_plus(*args),
            **{k: getattr(q, k) for k in ("dq", "sq", "pq")},
        }
        for key, value in got.items():
            assert same(value, want[key]), (name, key, value, want[key])
        for key in {"tp", "fp", "fn"} & set(want):
            assert getattr(q, key) == want[key], (name, key)


@pytest.mark.shared
def test_vectors_where_the_reference_raises(vectors):
    _, pairs, _ = vectors
    for name, value in (("syn07_emptypred", 0.0), ("syn09_bothempty", nan)):
        got = m.aji(pairs[name]["gt_inst"], pairs[name]["pred_inst"])
        assert got == pytest.approx(value, nan_ok=True)
    both = pairs["syn09_bothempty"]
    assert isnan(m.panoptic_quality(both["gt_inst"], both["pred_inst"]).pq)


@pytest.mark.shared
def test_vectors_instance_metrics_of_sets(vectors):
    expected, pairs, _ = vectors
    for name in ("synthetic_nonempty", "real", "all_nonempty"):
        members = [pairs[p] for p in expected["sets"][name]["pairs"]]
        want = expected["sets"][name]["hover_net_instance_mean"]
        for key, metric in (("dice1", m.dice), ("aji", m.aji), ("aji_plus", m.aji_plus)):
            assert same(np.mean([metric(p["gt_inst"], p["pred_inst"]) for p in members]), want[key])


@pytest.mark.shared
def test_vectors_pannuke(vectors):
    expected, pairs, _ = vectors
    for name, pair in pairs.items():
        want, got = expected["pairs"][name]["pannuke"], typed(pair)
        assert same(got.bpq, want["bPQ"]), name
        assert same(got.mpq, want["mPQ"]), name
        for c, value in want["PQ_per_class"].items():
            assert same(got.pq_per_class[int(c)], value), (name, c)
    for name, group in expected["sets"].items():
        want = group["pannuke"]
        got = m.average_pq([typed(pairs[p]) for p in group["pairs"]], want["tissue_of_each_pair"])
        assert same(got.bpq_tissues, want["bPQ"]), name
        assert same(got.mpq_tissues, want["mPQ"]), name
        for c, value in want["PQ_per_class"].items():
            assert same(got.pq_per_class[int(c)], value), (name, c)
        for tissue, values in want["tissues"].items():
            assert same(got.per_tissue[tissue][0], values["bPQ"])
            assert same(got.per_tissue[tissue][1], values["mPQ"])


@pytest.mark.shared
def test_vectors_conic(vectors):
    expected, pairs, _ = vectors
    for name, pair in pairs.items():
        want, got = expected["pairs"][name]["conic"], typed(pair)
        binary = want["binary"]
        assert (got.binary.tp, got.binary.fp, got.binary.fn) == tuple(binary[k] for k in ("tp", "fp", "fn"))
        assert same(got.binary.iou_sum, binary["iou_sum"], 1e-9)
        if not isnan(got.binary.pq):  # both sides empty: the reference counts 0, here it is NaN
            assert same(got.binary.pq, binary["pq"])
        for c, (tp, fp, fn, iou_sum) in want["per_class_tp_fp_fn_iousum"].items():
            counts = got.per_class[int(c)]
            assert (counts.tp, counts.fp, counts.fn) == (tp, fp, fn), (name, c)
            assert same(counts.iou_sum, iou_sum, 1e-9)


@pytest.mark.shared
def test_vectors_conic_pooled(vectors):
    expected, pairs, _ = vectors
    for name, group in expected["sets"].items():
        want, results = group["conic"], [typed(pairs[p]) for p in group["pairs"]]
        pooled = m.pooled_pq(results)
        for c, row_ in zip(CONIC, want["pooled_tp_fp_fn_iousum"], strict=True):
            got = pooled[c]
            np.testing.assert_allclose([got.tp, got.fp, got.fn, got.iou_sum], row_, atol=1e-9)
            assert same(np.nan_to_num(got.pq), want["PQ_plus_per_class"][str(c)]), (name, c)
        assert same(m.mpq_plus(results, absent=0), want["multi_PQ_plus_as_printed_mean_over_6"])
        for value in want["mean_over_the_classes_in_use"].values():
            assert same(m.mpq_plus(results), value)


@pytest.mark.shared
def test_vectors_detection(vectors):
    expected, pairs, _ = vectors
    for name, pair in pairs.items():
        want = expected["pairs"][name]["hover_net_type"]
        if "raises" in want or name == "syn09_bothempty":
            continue
        check_detection(detected(pair).counts, want, name)
    for name in ("synthetic_nonempty", "real", "all_nonempty"):
        group = expected["sets"][name]
        check_detection(pooled_detection(pairs, group["pairs"]), group["hover_net_type"], name)


def pooled_detection(pairs, names):
    return sum((detected(pairs[p]).counts for p in names), m.DetectionCounts())


def check_detection(counts, want, name):
    assert same(counts.f1_d, want["F1_d"]), name
    assert same(counts.type_accuracy, want["acc_type"]), name
    got = counts.f1_c([int(c) for c in want["F1_c"]])
    for c, value in want["F1_c"].items():
        assert same(got[int(c)], value), (name, c)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("with_empty", "without"), [("synthetic_with_empty", "synthetic_nonempty"), ("all", "all_nonempty")]
)
def test_vectors_detection_with_empty_images(vectors, with_empty, without):
    """The published code invents a class-0 nucleus at (0, 0) on each empty side, which is wrong.

    Right: the counts of the other images, plus 25 misses (empty prediction), plus 25 false positives (empty
    truth), plus nothing (both empty). Adding the inventions, that is one pair, one miss and one false
    positive of class 0, gives the published figure.
    """
    expected, pairs, _ = vectors
    counts = pooled_detection(pairs, expected["sets"][with_empty]["pairs"])
    base = pooled_detection(pairs, expected["sets"][without]["pairs"])
    tp = sum(base.pairs.values())
    fp, fn = sum(base.spurious.values()), sum(base.missed.values())
    right = 2 * tp / (2 * tp + fp + 25 + fn + 25)
    assert counts.f1_d == pytest.approx(right, abs=1e-12)
    assert counts.pairs == base.pairs
    assert counts.type_accuracy == base.type_accuracy
    invented = m.DetectionCounts({(0, 0): 1}, {0: 1}, {0: 1})
    check_detection(counts + invented, expected["sets"][with_empty]["hover_net_type"], with_empty)
    assert counts.f1_d != pytest.approx(expected["sets"][with_empty]["hover_net_type"]["F1_d"], abs=1e-6)


@pytest.mark.shared
def test_vectors_points(vectors):
    expected, _, points = vectors
    for name, radii in expected["points"].items():
        true, pred = points[f"{name}/true"], points[f"{name}/pred"]
        for radius in (6, 12):
            want = radii[f"radius_{radius}"]
            # every point its own class: the pair counts then name the pairs
            counts = m.detection_f1(true, range(len(true)), pred, range(len(pred)), radius).counts
            assert sorted(counts.pairs) == sorted(map(tuple, want["pairs"])), (name, radius)
            assert sorted(counts.missed) == sorted(want["unpaired_true"])
            assert sorted(counts.spurious) == sorted(want["unpaired_pred"])
