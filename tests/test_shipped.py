"""The shipped student: its card, its size, and that it does on a whole image what it does in tiles."""

import subprocess
import sys

import numpy as np
import pytest

import napari_nucseg as nn
from napari_nucseg.core.metrics import aji, dice, panoptic_quality
from napari_nucseg.inference import collect, make_plan, run
from napari_nucseg.models.checkpoint import load_student
from napari_nucseg.models.runtime import TorchRuntime, load_runtime


@pytest.fixture(scope="module")
def model():
    return nn.load_model()


@pytest.fixture(scope="module", params=["eager torch in f32", "the fastest of this machine"])
def runtime(request, model):
    return TorchRuntime(model, "cpu", "f32") if "f32" in request.param else load_runtime(model)


def test_it_is_small_and_its_card_is_complete(model):
    assert model.weights.stat().st_size <= 10_000_000
    assert sum(p.numel() for p in load_student(model).parameters()) <= 5_000_000
    card = model.card
    assert card.mpp == 0.25
    assert card.classes == ("neoplastic", "inflammatory", "connective", "epithelial", "other")
    assert "non-commercial" in card.licence
    assert "colon" in card.caution
    assert card.training_data
    assert card.weaknesses
    assert card.decode.type_temperature > 1  # calibrated
    assert card.cite
    assert card.sha256
    assert set(card.metrics) == {"monuseg/test", "consep/test"}


def test_it_finds_the_nuclei_of_the_synthetic_tile(model, synthetic):
    result = nn.segment(synthetic.image, mpp=0.25, model=model)
    assert dice(synthetic.labels, result.labels) > 0.85
    assert panoptic_quality(synthetic.labels, result.labels).dq > 0.75
    wrong_scale = nn.segment(synthetic.image, mpp=0.6, model=model)
    assert aji(synthetic.labels, wrong_scale.labels) < aji(synthetic.labels, result.labels)


def test_its_answer_to_the_synthetic_tile_is_pinned(model, synthetic, runtime):
    """Within what processors differ by: silent damage of weights, card, network or decoder shows here."""
    result = nn.segment(synthetic.image, mpp=0.25, model=model, runtime=runtime)
    assert len(result.nuclei) == pytest.approx(139, abs=1)
    assert (result.labels > 0).sum() == pytest.approx(90_607, rel=0.003)
    assert result.nuclei["score"].mean() == pytest.approx(0.908, abs=0.003)
    counts = result.nuclei["class"].value_counts()
    for name, count in {"neoplastic": 93, "other": 37, "connective": 5, "inflammatory": 4}.items():
        assert counts[name] == pytest.approx(count, abs=3)
    assert panoptic_quality(synthetic.labels, result.labels).pq == pytest.approx(0.8776, abs=0.005)


def test_tiles_give_what_the_whole_gives(model, synthetic, runtime):
    """The halo covers what the network sees: pixel by pixel the same."""
    wide = np.tile(synthetic.image, (2, 3, 1))

    def segment(tile):
        plan = make_plan(wide, runtime, model.card, mpp=0.25, tile=tile)
        return len(plan.tiles), collect(run(plan), plan)

    one, whole = segment(None)
    for tile in (128, 300):
        some, tiled = segment(tile)
        assert one == 1 < some
        quality = panoptic_quality(whole.labels, tiled.labels)
        assert (quality.dq, quality.sq) == (1, 1)


def test_it_is_as_good_as_its_card_says_on_real_images(model, shared):
    """Validation images, which were held out of training: a floor against silent damage of weights or decoder."""
    from train.data import SetConfig, load_image

    runtime = load_runtime(model)
    for name, key, floor in (("monuseg", "TCGA-G9-6336-01Z-00-DX1", 0.67), ("consep", "train_3", 0.51)):
        item = load_image(shared / "data" / name, "train", key, SetConfig(), ())
        result = nn.segment(item.image, mpp=item.mpp, model=model, runtime=runtime)
        assert panoptic_quality(item.labels, result.labels).pq > floor


def test_saving_and_reading_back(model, synthetic, tmp_path):
    import json

    import pandas as pd
    import tifffile

    result = nn.segment(synthetic.image[:200, :200], mpp=0.25, model=model)
    paths = result.save(tmp_path)
    assert [p.name for p in paths] == ["image_instances.tif", "image_nuclei.csv", "image_nuclei.geojson"]
    with pytest.raises(nn.NucSegError, match="exists already"):
        result.save(tmp_path)
    assert len(result.save(tmp_path, name="other")) == 3
    assert len(result.save(tmp_path, overwrite=True)) == 3
    assert "nuclei" in repr(result)
    assert len(repr(result)) + len(repr(model)) < 300
    np.testing.assert_array_equal(tifffile.imread(paths[0]), result.labels)
    assert pd.read_csv(paths[1])["id"].tolist() == result.nuclei["id"].tolist()
    assert len(json.loads(paths[2].read_text())["features"]) == len(result.nuclei)


LANES = """
import threading
import numpy as np
from napari_nucseg.models.registry import find_model
from napari_nucseg.models.runtime import load_runtime

runtime, gate = load_runtime(find_model("default"), "cpu"), threading.Barrier(2)

def answer():
    gate.wait()
    runtime(np.zeros((64, 64, 3), np.uint8))

threads = [threading.Thread(target=answer) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_the_first_answers_of_two_lanes_do_not_wait_for_each_other():
    """In a process of its own, since only its very first answers could."""
    subprocess.run([sys.executable, "-c", LANES], check=True, timeout=120)
