"""The simulated reviewer sees what is wrong, mends it with the allowed edits alone, and counts honestly."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import review
from benchmarks._agreement import Agreement
from benchmarks._curves import Mark, as_table, reached
from benchmarks._doubt import Suspects, area_under_curve
from benchmarks._reviewer import Fix, Reviewer, fixes_for_pred, fixes_for_true
from benchmarks._validation import open_session
from napari_nucseg.core.metrics import detection_f1, panoptic_quality
from napari_nucseg.core.targets import IGNORE
from tests.fakes import CLASSES, FakeRuntime, fake_card
from train.data import AnnotatedImage, nucleus_classes


def image_of(*rects, size=60):
    """Labels of rectangles (rows, columns, id)."""
    labels = np.zeros((size, size), np.uint32)
    for y0, y1, x0, x1, id_ in rects:
        labels[y0:y1, x0:x1] = id_
    return labels


def agreement(truth, pred, types=None):
    return Agreement(truth, types, pred, 12)


def annotated(tile, part=np.s_[:256, :256]):
    types = np.zeros(tile.labels.shape, np.uint8)
    for id_, name in tile.types.items():
        types[tile.labels == id_] = CLASSES.index(name) + 1
    labels = tile.labels[part].astype(np.int32)
    return AnnotatedImage(
        "toy",
        "im",
        np.ascontiguousarray(tile.image[part]),
        labels,
        types[part],
        0.25,
        np.zeros((0, 3), np.int64),
    )


@pytest.fixture
def started(synthetic):
    """A session on part of the sample tile, and its agreement with the truth."""
    item = annotated(synthetic)
    session = open_session(item, FakeRuntime(), fake_card())
    return session, Agreement(item.labels, item.types, session.labels, 12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_table_stays_equal_to_the_metrics(seed):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.repeat(rng.integers(0, 5, (6, 6)), 8, 0), 8, 1)
    pred = np.roll(truth, rng.integers(0, 4, 2), (0, 1)).astype(np.uint32)
    table = agreement(truth, pred)
    for _ in range(4):
        pixels = np.unique(rng.integers(0, pred.size, 300))
        values = rng.integers(0, 7, pixels.size).astype(np.uint32)
        pred.ravel()[pixels] = values
        table.update(pixels, values)
        assert table.bpq == pytest.approx(panoptic_quality(truth, pred).pq)
        ids, areas = np.unique(pred[pred > 0], return_counts=True)
        assert table.area == dict(zip(ids.tolist(), areas.tolist(), strict=True))
        for t, true_id in enumerate(np.unique(truth[truth > 0]), start=1):
            for p, shared in table.preds_of(t).items():
                assert shared == ((truth == true_id) & (pred == p)).sum() == table.trues_of(p)[t]


def test_detection_is_that_of_the_metrics_where_nuclei_lie_apart():
    truth = image_of((5, 15, 5, 15, 1), (5, 15, 40, 50, 2), (40, 50, 5, 15, 3))
    pred = image_of((6, 16, 5, 15, 1), (40, 50, 40, 50, 2))
    table = agreement(truth, pred)
    a, b = nucleus_classes(truth, None)[0], nucleus_classes(pred, None)[0]
    for edit in (None, (50, 60, 50, 60, 0), (40, 50, 7, 17, 9), (6, 16, 5, 15, 0)):
        if edit is not None:
            before = pred.copy()
            pred[edit[0] : edit[1], edit[2] : edit[3]] = edit[4]
            pixels = np.flatnonzero(before != pred)
            table.update(pixels, pred.ravel()[pixels])
            b = nucleus_classes(pred, None)[0]
        expected = detection_f1(a, [0] * len(a), b, [0] * len(b)).f1_d
        assert table.f1_d == pytest.approx(expected)


def test_every_error_has_its_edit():
    one, two = (10, 30, 10, 20, 1), (10, 30, 20, 30, 2)
    typed = np.where(image_of(one) > 0, 3, 0).astype(np.uint8)
    cases = [
        (image_of(one), image_of(), None, Fix("add", 1, (), 200)),
        (image_of(one, two), image_of((10, 30, 10, 30, 7)), None, Fix("split", 1, (7,), 200)),
        (image_of((10, 30, 10, 30, 1)), image_of((10, 30, 10, 20, 7), (10, 30, 20, 30, 8)), None,
         Fix("merge", 1, (7, 8), 200)),
        (image_of(one), image_of((10, 30, 10, 14, 7)), None, Fix("move", 1, (7,), 120)),
        (image_of(one), image_of((10, 30, 10, 20, 7)), typed, Fix("retype", 1, (7,), 200)),
    ]  # fmt: skip
    for truth, pred, types, expected in cases:
        table = agreement(truth, pred, types)
        assert fixes_for_true(table, 1, {7: 0})[0] == expected
    right = agreement(image_of(one), image_of((10, 30, 10, 20, 7)), typed)
    assert fixes_for_true(right, 1, {7: 2}) == []
    unknown = np.where(typed, IGNORE, 0).astype(np.uint8)
    assert fixes_for_true(agreement(image_of(one), image_of((10, 30, 10, 20, 7)), unknown), 1, {7: 4}) == []


def test_what_stands_for_nothing_is_rejected_or_joined():
    truth = image_of((10, 30, 10, 30, 1))
    pred = image_of((10, 30, 10, 26, 7), (10, 30, 26, 30, 8), (45, 50, 45, 50, 9))
    table = agreement(truth, pred)
    assert fixes_for_pred(table, 7) == []
    assert fixes_for_pred(table, 8) == [Fix("merge", 1, (7, 8), 80), Fix("reject", 0, (8,), 80)]
    assert fixes_for_pred(table, 9) == [Fix("reject", 0, (9,), 25)]


def test_a_click_goes_into_the_nucleus_even_where_its_centroid_does_not():
    ring = image_of((10, 30, 10, 30, 1))
    ring[12:30, 12:28] = 0
    y, x = agreement(ring, image_of()).anchor[1]
    assert ring[y, x] == 1


def test_a_review_mends_the_image_and_is_the_same_each_time(synthetic):
    item, done = annotated(synthetic), []
    for _ in range(2):
        session = open_session(item, FakeRuntime(), fake_card())
        table = Agreement(item.labels, item.types, session.labels, 12)
        reviewer = Reviewer(session, table)
        before, errors = (table.bpq, table.f1_d), reviewer.left()
        edits = list(reviewer.edits(10_000))
        done.append([(e.verb, e.undone, e.refused) for e in edits])
        assert session.check() is None
        assert table.bpq == pytest.approx(panoptic_quality(item.labels, session.labels).pq)
        assert table.bpq > before[0] + 0.05
        assert table.f1_d > max(0.95, before[1])
        assert reviewer.left().total() < errors.total()
        assert reviewer.left()["wrong class"] == 0
    assert done[0] == done[1]
    verbs = [verb for verb, _, _ in done[0]]
    assert set(verbs) <= {"add", "split", "move", "reject", "merge", "retype"}
    assert set(verbs[verbs.index("retype") :]) == {"retype"}  # classes last


def test_no_edit_leaves_the_image_worse(started):
    session, table = started
    reviewer = Reviewer(session, table)
    worth = table.bpq + table.f1_d
    for edit in reviewer.edits(10_000):
        now = table.bpq + table.f1_d
        assert now >= worth - 1e-9
        if edit.undone or edit.refused:
            assert now == pytest.approx(worth)
        worth = now


def test_doubt_is_measured_as_the_chance_to_rank_a_pair_rightly(started):
    rng = np.random.default_rng(0)
    score, wrong = rng.integers(0, 9, 60), rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in score[wrong] for b in score[~wrong]]
    assert area_under_curve(score, wrong) == pytest.approx(np.mean(pairs))
    assert math.isnan(area_under_curve(score, np.ones(60, bool)))
    session, table = started
    suspects = Suspects.of(session, table)
    matched = [table.match_of(p) for p in sorted(table.area)]
    assert suspects.parts.shape == (len(matched), 3)
    assert all(wrong or match for wrong, match in zip(suspects.wrong, matched, strict=True))


def test_the_goal_counts_once_it_is_kept():
    marks = [Mark("toy", k, k, 0.5, f1, {}) for k, f1 in enumerate((0.8, 0.96, 0.94, 0.95, 0.99))]
    goal = reached(marks)
    assert goal is not None
    assert goal.per_100 == 3
    assert reached(marks[:3]) is None
    assert len(as_table([marks[0]] * 40 + [marks[-1]]).splitlines()) <= 20


@pytest.fixture
def data(tmp_path, synthetic):
    """A data set of two typed images, one held out; its test split cannot be read."""
    item = annotated(synthetic)
    for kind in ("images", "instances", "types"):
        (tmp_path / "toy" / "train" / kind).mkdir(parents=True)
        (tmp_path / "toy" / "test" / kind).mkdir(parents=True)
        (tmp_path / "toy" / "test" / kind / "kept_1.png").write_text("never opened")
    for name in ("kept_1", "other_1"):
        for kind, array in (("images", item.image), ("instances", item.labels), ("types", item.types)):
            mode = array.astype(np.uint16) if kind == "instances" else array
            Image.fromarray(mode).save(tmp_path / "toy" / "train" / kind / f"{name}.png")
    meta = {"mpp": 0.25, "classes": ["background", *CLASSES]}
    (tmp_path / "toy" / "dataset.json").write_text(json.dumps(meta))
    (tmp_path / "held.toml").write_text('[data.sets.toy]\nheld_out = ["kept"]\n')
    return tmp_path


def test_the_command_prints_and_writes(data, monkeypatch, capsys):
    monkeypatch.setattr("napari_nucseg.models.runtime.load_runtime", lambda *_: FakeRuntime())
    monkeypatch.setattr(review, "limit_threads", lambda _: None)
    out = data / "out"
    options = ["--data", str(data), "--sets", "toy", "--held-out", str(data / "held.toml"), "--out", str(out)]
    assert review.main(options) == 0
    said = capsys.readouterr().out
    for word in (
        "toy: 1 validation images",
        "| edits per 100 nuclei |",
        "| add |",
        "p95 ms",
        "AUC",
        "bPQ",
        "true centres",
    ):
        assert word in said
    rows = (out / "review.csv").read_text().splitlines()
    assert rows[0].startswith("dataset,edits_per_100,done_per_100,bPQ,F1_d,F1_c,F1_c neoplastic")
    assert len(rows) > 5
    with Image.open(out / "review.png") as picture:
        assert picture.width > 300


def test_a_missing_data_set_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("napari_nucseg.models.runtime.load_runtime", lambda *_: FakeRuntime())
    monkeypatch.setattr(review, "limit_threads", lambda _: None)
    assert review.main(["--data", str(tmp_path), "--sets", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
