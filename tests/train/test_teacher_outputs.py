"""A teacher's output is the same live, kept on disk, and in every orientation in which it can be."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.student import Student, StudentConfig
from train.augment import AugmentConfig
from train.crops import CropConfig, Crops, to_batch_item
from train.data import AnnotatedImage, SetConfig, load_split
from train.losses import directional_derivative
from train.orient import ALL
from train.pool import PooledCrops
from train.task import LossWeights, MapTask
from train.teacher_outputs import CachedTeacher, LiveTeacher, MeanTeacher, TeacherOutput, TurnedTeacher

LAYOUT = MapLayout((0, 45, 90, 135), 2)


class Equivariant(nn.Module):
    """Smoothed brightness for every map, and its slopes for the distances: turns exactly with the image."""

    config = "equivariant"
    feature_widths = (2, 1)
    feature_strides = (2, 1)

    def forward_with_features(self, image):
        smooth = F.avg_pool2d(F.pad(image.mean(1, keepdim=True), (1,) * 4, mode="replicate"), 3, 1)
        slopes = directional_derivative(smooth.repeat(1, 4, 1, 1), LAYOUT.angles)
        others = torch.cat([smooth * k for k in (2, 1, -1, 3, 0.5, -2, 1)], 1)
        raw = torch.cat([smooth, slopes, others], 1)
        coarse = F.avg_pool2d(smooth, 2)
        return raw, [torch.cat([coarse, -coarse], 1), smooth]


def task_of(network):
    return MapTask(network, LAYOUT, (128.0,) * 3, (60.0,) * 3, LossWeights(), torch.ones(3))


def equivariant():
    return LiveTeacher(task_of(Equivariant()))


def convolutional(seed=0):
    torch.manual_seed(seed)
    return task_of(Student(StudentConfig((6, 8), (1, 1), (1,), LAYOUT)))


class Counted:
    """A source that counts the images it is asked for."""

    def __init__(self, source):
        self.source, self.images = source, 0
        self.layout, self.fingerprint = source.layout, source.fingerprint
        self.feature_widths, self.feature_strides = source.feature_widths, source.feature_strides

    def __call__(self, image, levels=(), orientation=None):
        self.images += len(image)
        return self.source(image, levels, orientation)


@pytest.fixture
def image():
    return torch.randint(
        0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_live_is_the_frozen_task(image):
    task = convolutional()
    teacher = LiveTeacher(task)
    told = teacher(image, (1,))
    assert torch.equal(told.raw, task.predict(image))
    assert set(told.features) == {1}
    assert told.features[1].shape == (8, 6, 8, 8)
    assert not told.raw.requires_grad
    assert not task.training
    assert copy.deepcopy(teacher) is teacher
    half = LiveTeacher(convolutional(), torch.bfloat16)(image, (0,))
    assert half.raw.dtype == half.features[0].dtype == torch.float32
    assert 0 < (half.raw - told.raw).abs().max() < 0.1


def test_a_fingerprint_tells_teachers_apart():
    teachers = [LiveTeacher(convolutional(0)), LiveTeacher(convolutional(1)), equivariant()]
    teachers += [LiveTeacher(convolutional(0), torch.bfloat16), TurnedTeacher(teachers[0])]
    assert len({t.fingerprint for t in teachers}) == 5
    assert LiveTeacher(convolutional(0)).fingerprint == teachers[0].fingerprint


def test_the_mean_over_orientations_of_an_equivariant_teacher_is_itself(image):
    live = equivariant()
    turned = TurnedTeacher(live)(image, (0, 1))
    plain = live(image, (0, 1))
    torch.testing.assert_close(turned.raw, plain.raw)
    assert all(torch.equal(turned.features[k], plain.features[k]) for k in (0, 1))


@pytest.mark.parametrize("number", range(1, 8))
def test_the_mean_over_orientations_makes_any_teacher_equivariant(image, number):
    """Also of an image that is not square."""
    teacher, o, image = TurnedTeacher(LiveTeacher(convolutional())), ALL[number], image[:2, :, :12]
    there = teacher(o.turn(image).contiguous()).raw
    torch.testing.assert_close(there, o.turn_maps(teacher(image).raw, LAYOUT), atol=1e-5, rtol=1e-4)
    alone = LiveTeacher(convolutional())
    assert (alone(o.turn(image).contiguous()).raw - o.turn_maps(alone(image).raw, LAYOUT)).abs().max() > 1e-3


def test_an_ensemble_says_the_mean_and_shows_the_features_of_the_first(image):
    one, two = LiveTeacher(convolutional(0)), LiveTeacher(convolutional(1))
    both = MeanTeacher((one, two))(image, (0,))
    torch.testing.assert_close(both.raw, (one(image).raw + two(image).raw) / 2)
    assert torch.equal(both.features[0], one(image, (0,)).features[0])
    marks = {MeanTeacher(some).fingerprint for some in ((one,), (one, two), (two, one))}
    assert len(marks | {one.fingerprint, two.fingerprint}) == 5


def test_an_ensemble_is_of_one_kind():
    class Other(LiveTeacher):
        def __init__(self, task):
            super().__init__(task)
            self.layout = MapLayout((0, 90), 2)

    with pytest.raises(NucSegError, match="same maps"):
        MeanTeacher((LiveTeacher(convolutional()), Other(convolutional())))


def test_large_features_are_kept_as_numbers(image, tmp_path):
    class Loud(LiveTeacher):
        def __call__(self, *args):
            told = super().__call__(*args)
            return TeacherOutput(told.raw, {k: f * 1e9 for k, f in told.features.items()})

    teacher = CachedTeacher(Loud(convolutional()), tmp_path)
    for _ in range(2):
        features = teacher(image, (0,)).features[0]
        assert features.abs().max() == 65504


def test_what_is_kept_is_what_the_live_teacher_said(image, tmp_path):
    live = Counted(LiveTeacher(convolutional()))
    cached, wanted = CachedTeacher(live, tmp_path), live.source(image, (0, 1))
    first = cached(image, (0, 1))
    assert live.images == 8
    again = CachedTeacher(live, tmp_path)(image.flip(0), (1,))  # another run, another order
    assert live.images == 8
    torch.testing.assert_close(first.raw, wanted.raw, atol=2e-3, rtol=1e-3)
    assert torch.equal(again.raw.flip(0), first.raw)
    assert torch.equal(again.features[1].flip(0), first.features[1])
    assert set(again.features) == {1}
    assert first.raw.dtype == torch.float32


def test_only_what_is_missing_is_computed(image, tmp_path):
    live = Counted(LiveTeacher(convolutional()))
    cached = CachedTeacher(live, tmp_path)
    cached(image[:5])
    cached(image)
    assert (live.images, cached.hits, cached.misses) == (8, 5, 8)
    cached(image, (0,))  # the maps are there, the features are not
    assert live.images == 16
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 8
    files[0].write_bytes(b"damaged")
    cached(image, (0,))
    assert live.images == 17
    other = Counted(LiveTeacher(convolutional(1)))
    CachedTeacher(other, tmp_path)(image)
    assert other.images == 8
    assert not list(tmp_path.rglob("*.tmp"))


def test_kept_outputs_turn_as_the_live_teachers_do(image, tmp_path):
    """Every image of the batch in another orientation, none of them seen but upright."""
    live = equivariant()
    seen = Counted(live)
    cached = CachedTeacher(seen, tmp_path)
    cached(image, (0, 1))
    turned = torch.stack([o.turn(x) for o, x in zip(ALL, image, strict=True)])
    got, wanted = cached(turned, (0, 1), torch.arange(8)), live(turned, (0, 1))
    assert seen.images == 8
    torch.testing.assert_close(got.raw, wanted.raw, atol=2e-3, rtol=1e-3)
    for k in (0, 1):
        torch.testing.assert_close(got.features[k], wanted.features[k], atol=2e-3, rtol=1e-3)


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NucSegError, match="file"):
        CachedTeacher(equivariant(), tmp_path / "file")


# the pool


@pytest.fixture
def crops(dataset):
    classes = ("neoplastic", "inflammatory")
    sets = {"toy": SetConfig(merge="merge_two")}
    images = load_split(dataset, sets, classes, held_out=False)
    return Crops(images, sets, LAYOUT, CropConfig(size=32), AugmentConfig(), seed=5)


def test_a_pool_begins_with_the_crops_themselves_and_comes_again_turned(crops):
    pool = PooledCrops(crops, 3)
    for k in range(3):
        plain, pooled = crops[k], pool[k]
        assert all(torch.equal(plain[name], pooled[name]) for name in plain)
        assert pooled["orientation"] == 0
    for turn in range(1, 8):
        assert sorted(pool.order(turn)) == [0, 1, 2]
        item = pool[3 * turn + pool.order(turn).tolist().index(2)]
        assert item["orientation"] == turn
        assert torch.equal(item["image"], ALL[turn].turn(crops[2]["image"]))
        sample = crops.sample(2)
        turned = (
            np.ascontiguousarray(ALL[turn].turn_array(x)) for x in (sample.image, sample.labels, sample.types)
        )
        wanted = to_batch_item(*turned, LAYOUT)
        assert all(torch.equal(item[name], wanted[name]) for name in wanted)
    ninth = [pool[24 + k]["image"] for k in range(3)]
    assert all(torch.equal(ninth[k], crops[int(pool.order(8)[k])]["image"]) for k in range(3))


def test_each_pass_over_a_pool_has_an_order_of_its_own(crops):
    pool, again = PooledCrops(crops, 50), PooledCrops(crops, 50)
    orders = [tuple(pool.order(turn)) for turn in range(4)]
    assert orders[0] == tuple(range(50))
    assert len(set(orders)) == 4
    assert [tuple(again.order(turn)) for turn in (3, 0, 2)] == [orders[3], orders[0], orders[2]]


def test_over_all_passes_the_teacher_runs_once_a_crop(crops, tmp_path):
    live = Counted(LiveTeacher(convolutional()))
    cached, pool = CachedTeacher(live, tmp_path), PooledCrops(crops, 3)
    for batch in torch.utils.data.DataLoader(pool, batch_size=3, sampler=range(24)):
        told = cached(batch["image"], (), batch["orientation"])
        assert told.raw.shape == (3, LAYOUT.channels, 32, 32)
    assert live.images == 3


def test_images_without_labels_are_read_and_marked(tmp_path):
    from PIL import Image

    folder = tmp_path / "bare"
    (folder / "images").mkdir(parents=True)
    (folder / "dataset.json").write_text('{"mpp": 0.5}')
    Image.fromarray(np.full((40, 50, 3), 200, np.uint8)).save(folder / "images" / "a.png")
    sets = {"bare": SetConfig(labelled=False)}
    (only,) = load_split(tmp_path, sets, ("x", "y"), held_out=False)
    assert (only.labelled, only.mpp, only.types, only.labels.max()) == (False, 0.5, None, 0)
    item = Crops([only], sets, LAYOUT, CropConfig(size=16), AugmentConfig(), 0)[0]
    assert item["labelled"].item() is False
    blank = np.zeros((40, 50), np.int32)
    known = AnnotatedImage("bare", "b", only.image, blank, None, 0.5, np.zeros((0, 3), np.int64))
    crops = Crops([only, known], sets, LAYOUT, CropConfig(size=16), AugmentConfig(), 0)
    assert {crops[k]["labelled"].item() for k in range(12)} == {True, False}
    assert "labelled" not in Crops([known], sets, LAYOUT, CropConfig(size=16), AugmentConfig(), 0)[0]
    (folder / "dataset.json").write_text("{}")
    with pytest.raises(NucSegError, match="Resolution"):
        load_split(tmp_path, sets, (), held_out=False)
    with pytest.raises(NucSegError, match="does not exist"):
        load_split(tmp_path, {"bare": SetConfig()}, (), held_out=False)
