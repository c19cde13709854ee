"""The benchmarks run, and measure the work they say they measure."""

import json
import time

import numpy as np
import pytest
from PIL import Image

from benchmarks import baseline, pipeline
from benchmarks._stages import COMPUTING, run_stages
from benchmarks.mosaic import Mosaic, mosaic, training_images
from benchmarks.timing import Stages, in_turns
from napari_nucseg.core.decode import decode
from napari_nucseg.inference import make_plan
from tests.fakes import FakeRuntime, fake_card


@pytest.fixture
def data(tmp_path):
    """Two sets in the folder layout, each image of one grey; the test split must never be opened."""
    for number, name in enumerate(("monuseg", "consep")):
        for split in ("train", "test"):
            folder = tmp_path / name / split / "images"
            folder.mkdir(parents=True)
            for k in range(2):
                grey = 255 if split == "test" else 10 + 100 * number + k
                Image.fromarray(np.full((40, 50, 3), grey, np.uint8)).save(folder / f"{k}.png")
        (tmp_path / name / "dataset.json").write_text(json.dumps({"mpp": 0.25}))
    return tmp_path


def test_the_mosaic_takes_training_images_of_the_sets_in_turns(data):
    assert [p.parts[-4] for p in training_images(data)] == ["monuseg", "consep"] * 2
    made = mosaic(data, (90, 120))
    assert made.image.shape == (90, 120, 3)
    assert [made.image[0, x, 0] for x in (0, 49, 50, 99, 100)] == [10, 10, 110, 110, 11]
    assert made.image[40, 0, 0] == 111
    assert made.image.max() < 255
    assert "4 training images" in made.origin
    assert made.megapixels == pytest.approx(0.0108)


def test_sets_of_another_resolution_are_left_out(data):
    (data / "consep" / "dataset.json").write_text(json.dumps({"mpp": 0.5}))
    assert {p.parts[-4] for p in training_images(data)} == {"monuseg"}


def test_without_data_the_mosaic_is_synthetic_and_says_so(tmp_path):
    made = mosaic(tmp_path, (64, 80))
    assert made.image.shape == (64, 80, 3)
    assert "synthetic" in made.origin


def test_the_report_holds_every_contender_and_stage(synthetic):
    image = Mosaic(synthetic.image[:200, :200], "the sample")
    runtimes = [("default", FakeRuntime()), ("other", FakeRuntime())]
    report = pipeline.bench(image, fake_card(), runtimes, rounds=2)
    for word in ("| default |", "| other |", "network", "scikit-image", "MP/s best", "Rounds: 2"):
        assert word in report


def test_the_stages_do_all_the_work_of_the_pipeline(synthetic):
    card, runtime = fake_card(), FakeRuntime()
    plan = make_plan(synthetic.image[:200, :200], runtime, card, mpp=0.25)
    stages = Stages()
    fields = run_stages(plan, stages)
    assert tuple(stages.seconds) == COMPUTING
    assert len(decode(fields, card.decode).centres) == pipeline.run_whole(plan)


def test_the_baseline_finds_about_the_same_nuclei(synthetic):
    card = fake_card()
    plan = make_plan(synthetic.image[:200, :200], FakeRuntime(), card, mpp=0.25)
    fields = run_stages(plan, Stages())
    ours, theirs = decode(fields, card.decode), baseline.decode(fields, card.decode)
    assert theirs.max() == pytest.approx(len(ours.centres), rel=0.25)
    assert ((theirs > 0) == (ours.owner > 0)).mean() > 0.9
    assert len(baseline.vote(theirs, fields)) == theirs.max()
    table = baseline.measure(theirs, np.zeros(theirs.shape, np.float32))
    assert len(table["solidity"]) == theirs.max()


def test_in_turns_alternates_and_keeps_to_the_budget():
    order = []
    works = [lambda: order.append("a"), lambda: order.append("b")]
    times = in_turns(works, 3)
    assert order == list("ababab")
    assert [len(t.seconds) for t in times] == [3, 3]
    assert times[0].best <= times[0].median
    (slow,) = in_turns([lambda: time.sleep(0.02)], 50, budget=0.1)
    assert 1 <= len(slow.seconds) < 10


def test_an_unknown_model_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr(pipeline, "limit_threads", lambda n: None)
    assert pipeline.main(["--model", "nope"]) == 2
    assert "nope" in capsys.readouterr().err
