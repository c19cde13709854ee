"""Validation scores the same whatever the number of processes that share it out."""

import math

import pytest
import torch

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.core.tiling import Grid
from napari_nucseg.models.card import Card
from tests.train.toy_run import LAYOUT, make_task
from train import distributed
from train.augment import AugmentConfig
from train.crops import CropConfig
from train.data import SetConfig, load_split
from train.validate import Predicted, Validator, mean_known, validation_crops


@pytest.fixture
def scored(monkeypatch):
    """A validator of seven images in two sets; the score of an image is its number."""

    class Figure:
        name = "sum"

        def __init__(self, scores):
            self.value = float(sum(scores))

    class Binary:
        def __init__(self, number):
            self.bpq = math.nan if number == 3 else number / 10

    class Score(int):
        @property
        def binary(self):
            return Binary(int(self))

    class Item:
        types = None

        def __init__(self, number):
            self.number, self.dataset = number, "ab"[number % 2]

    class Predicted:
        def __init__(self, item):
            self.item = item

        @classmethod
        def of(cls, item, task, card):
            return cls(item)

        def score(self, decode, classes):
            return Score(self.item.number)

    class Card:
        decode, classes = None, ()

    monkeypatch.setattr("train.validate.Predicted", Predicted)
    monkeypatch.setattr("train.validate.figures", lambda scores, schemes: [Figure(scores)])
    return Validator([Item(k) for k in range(7)], Card())


def test_images_are_shared_out_among_processes(scored, monkeypatch):
    task = make_task()
    alone = scored(task)
    assert alone == {"bPQ": pytest.approx((0 + 1 + 2 + 4 + 5 + 6) / 60), "a/sum": 12.0, "b/sum": 9.0}
    shares = []
    monkeypatch.setattr(distributed, "world", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "gathered", lambda mine: shares.append(mine) or [mine * 3] * 3)
        scored(task)
    assert [len(share) for share in shares] == [3, 2, 2]
    monkeypatch.setattr(distributed, "gathered", lambda mine: shares)
    assert scored(task) == alone


def test_an_image_of_any_size_is_computed_in_windows(dataset, monkeypatch):
    """The network looks one pixel far, so that windows and the whole give the same."""
    item = load_split(dataset, {"toy": SetConfig(held_out=("im_3",))}, ("a", "b"), held_out=True)[0]
    card = Card(
        name="x", version="0", title="", classes=("a", "b"), colours={}, mpp=item.mpp, mean=(128.0,) * 3,
        std=(60.0,) * 3, network={"layout": {"angles": [0, 90], "n_classes": 2}}, licence="",
    )  # fmt: skip
    task = make_task().eval()
    assert task.layout == LAYOUT
    whole = Predicted.of(item, task, card).fields
    sizes = []
    predict = task.predict
    monkeypatch.setattr(task, "predict", lambda image: sizes.append(image.shape) or predict(image))
    halos = []

    def small(shape, halo, margin):
        halos.append(halo)
        return Grid(shape, cell=32, halo=16, margin=margin)

    monkeypatch.setattr("train.validate.Grid", small)
    windows = Predicted.of(item, task, card).fields
    assert halos == [card.halo]
    assert len(sizes) > 3
    assert max(s[2] for s in sizes) <= 64  # and as wide as the image
    for name in ("foreground", "centre", "type"):
        a, b = (getattr(f, name).astype(int) for f in (whole, windows))
        assert a.shape[-2:] == item.labels.shape
        assert abs(a - b).max() <= a.max() / 100  # rounding


def test_validation_crops_are_as_scanned(dataset):
    sets = {"toy": SetConfig(held_out=("im_3",)), "absent": SetConfig()}
    held = load_split(dataset, {"toy": sets["toy"]}, ("neoplastic",), held_out=True)
    crops = validation_crops(held, sets, MapLayout(n_classes=1), CropConfig(size=32), seed=1)
    chances = [name for name in AugmentConfig.__dataclass_fields__ if name.startswith("p_")]
    assert len(chances) > 4
    assert [getattr(crops.augment, name) for name in ("scale", *chances)] == [0] * (1 + len(chances))
    first, again = crops[4], crops[4]
    assert first["image"].shape == (3, 32, 32)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_mean_is_of_what_is_known():
    assert mean_known([1.0, math.nan, 3.0]) == 2.0
    assert math.isnan(mean_known([math.nan]))
