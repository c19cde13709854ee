"""Figures of a set against the same figures written out from the records."""

import numpy as np
import pytest

from napari_nucseg.core.metrics import (
    DetectionCounts,
    MulticlassPQ,
    PanopticQuality,
    average_pq,
    pooled_pq,
)
from train.scores import ImageScore, Scheme, TypedScore
from train.tally import Tally

CLASSES = ("a", "b", "c")
SCHEME = Scheme("s", CLASSES, {})


def quality(rng, absent=0.3):
    if rng.random() < absent:
        return PanopticQuality()
    tp, fp, fn = rng.integers(0, 5, 3).tolist()
    return PanopticQuality(tp, fp, fn, 0.8 * tp)


def record(rng, name):
    counts = lambda kinds: {k: int(rng.integers(0, 3)) for k in kinds}  # noqa: E731
    pairs = counts([(t, p) for t in range(4) for p in range(1, 4)])
    typed = DetectionCounts(pairs, counts(range(4)), counts(range(1, 4)))
    plain = DetectionCounts({(0, 0): int(rng.integers(0, 9))}, counts([0]), counts([0]))
    pq = MulticlassPQ(quality(rng), {k: quality(rng) for k in range(1, 4)})
    dice = float("nan") if rng.random() < 0.2 else rng.random()
    organ = str(rng.choice(["lung", "skin"]))
    scores = (dice, rng.random(), rng.random())
    return ImageScore(name, 0.25, 1, 1, 0.0, *scores, pq, plain, {"s": TypedScore(pq, typed, CLASSES)}, organ)


def written_out(scores):
    typed = [s.typed["s"].detection for s in scores]
    pooled = sum(typed[1:], start=typed[0])
    known = DetectionCounts({k: n for k, n in pooled.pairs.items() if k[0]}, pooled.missed, pooled.spurious)
    plain = [s.detection for s in scores]
    mean = average_pq([s.typed["s"].pq for s in scores])
    plus = pooled_pq(s.typed["s"].pq for s in scores)
    held = {k: counts for k, counts in plus.items() if counts.tp + counts.fn}
    out = {
        "Dice": np.nanmean([s.dice for s in scores]),
        "AJI": np.mean([s.aji for s in scores]),
        "DQ": np.nanmean([s.binary.binary.dq for s in scores]),
        "bPQ": average_pq([s.binary for s in scores]).bpq_images,
        "F1_d": sum(plain[1:], start=plain[0]).f1_d,
        "mPQ (s)": mean.mpq_images,
        "mPQ+ (s)": np.mean([counts.pq for counts in held.values()]) if held else np.nan,
    }
    for k, name in enumerate(CLASSES, start=1):
        out[f"F1_c {name} (s)"] = known.f1_c([k])[k] if k in held else np.nan
        out[f"PQ {name} (s)"] = mean.pq_per_class[k]
    return out


@pytest.mark.parametrize("seed", range(3))
def test_any_choice_of_images_is_summed_up_as_the_metrics_say(seed):
    rng = np.random.default_rng(seed)
    scores = [record(rng, str(k)) for k in range(12)]
    tally = Tally(scores, [SCHEME])
    for chosen in (None, [3, 3, 0, 7], rng.integers(12, size=12).tolist()):
        found = {f.name: f.value for f in tally.figures(chosen)}
        wanted = written_out(scores if chosen is None else [scores[i] for i in chosen])
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, nan_ok=True)


def test_organs_are_summed_up_apart():
    rng = np.random.default_rng(0)
    scores = [record(rng, str(k)) for k in range(12)]
    skin = [s for s in scores if s.organ == "skin"]
    tally = Tally(scores, [SCHEME])
    assert tally.by_organ()["skin"] == Tally(skin, [SCHEME]).figures()
    only = [k for k, s in enumerate(scores) if s.organ == "lung"]
    assert list(tally.by_organ(only)) == ["lung"]
    assert [f.value for f in tally.organ_means(only)] == [f.value for f in tally.figures(only)]


def test_nothing_known_is_nan_and_no_organ_is_no_mean():
    empty = MulticlassPQ(PanopticQuality(), {k: PanopticQuality() for k in range(1, 4)})
    typed = {"s": TypedScore(empty, DetectionCounts(), CLASSES)}
    one = ImageScore("x", 0.25, 0, 0, 0.0, *[float("nan")] * 3, empty, DetectionCounts(), typed)
    tally = Tally([one, one], [SCHEME])
    assert all(np.isnan(f.value) for f in tally.figures())
    assert tally.organ_means() == []


def test_a_class_that_the_images_lack_has_no_figure_whatever_a_model_made_up():
    right, wrong = PanopticQuality(4, 0, 0, 4.0), PanopticQuality(2, 2, 2, 2.0)

    def scored(found, made_up):
        pq = MulticlassPQ(found, {1: found, 2: PanopticQuality(fp=made_up), 3: PanopticQuality()})
        counts = DetectionCounts({(1, 1): 4}, {}, {2: made_up})
        typed = {"s": TypedScore(pq, counts, CLASSES)}
        return [ImageScore("x", 0.25, 4, 4, 0.0, 1.0, 1.0, 1.0, pq, DetectionCounts(), typed)]

    def figures(scores):
        return {f.name: f.value for f in Tally(scores, [SCHEME]).figures()}

    assert figures(scored(right, 1))["mPQ+ (s)"] == figures(scored(right, 0))["mPQ+ (s)"] == 1
    assert figures(scored(wrong, 0))["mPQ+ (s)"] == 0.5
    unknown = {name for name, value in figures(scored(right, 1)).items() if np.isnan(value)}
    assert unknown >= {f"{figure} {name} (s)" for figure in ("F1_c", "PQ") for name in "bc"}
    assert figures(scored(right, 1))["F1_c a (s)"] == 1
