import numpy as np
import pytest
import torch

from napari_nucseg.core.decode import DecodeConfig, compress, decode
from napari_nucseg.core.maps import MapLayout
from napari_nucseg.core.metrics import panoptic_quality
from napari_nucseg.core.targets import make_targets
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.student import activate
from train.task import LossWeights, MapTask
from train.without import stand_ins

LAYOUT = MapLayout((0, 90), 2)


def perfect(labels, layout):
    """Raw maps of a network that makes no mistake in foreground and distances, and says nothing else."""
    targets = make_targets(labels, None, layout)
    raw = torch.zeros(1, layout.channels, *labels.shape)
    raw[0, layout.foreground] = torch.from_numpy(targets.foreground.astype(np.float32) * 20 - 10)
    raw[0, layout.distance] = torch.from_numpy(targets.distance)
    return raw


@pytest.mark.parametrize("angles", [(0, 90), (0, 45, 90, 135)])
def test_distances_alone_are_enough_for_the_decoder(synthetic, angles):
    layout = MapLayout(angles, 2)
    raw = stand_ins(perfect(synthetic.labels, layout), layout, ("centre", "boundary"))
    maps = activate(raw, layout)[0].numpy()
    found = decode(compress(maps, layout), DecodeConfig()).owner
    assert panoptic_quality(synthetic.labels, found).pq > 0.9
    assert maps[layout.boundary][2].max() < 1e-6


def test_the_bump_is_that_of_the_centre_map():
    labels = np.zeros((64, 64), np.int32)
    y, x = np.mgrid[:64, :64]
    labels[(y - 31) ** 2 + (x - 31) ** 2 <= 144] = 1
    raw = stand_ins(perfect(labels, LAYOUT), LAYOUT, ("centre",))
    bump = raw[0, LAYOUT.centre][0].sigmoid().numpy()
    assert (
        np.abs(bump - make_targets(labels, None, LAYOUT).centre).max() < 0.25
    )  # distances are from a pixel off
    assert np.hypot(*(np.array(np.unravel_index(bump.argmax(), bump.shape)) - 31)) <= 1.5


def test_only_what_is_left_out_is_replaced():
    raw = torch.randn(2, LAYOUT.channels, 8, 8)
    before = raw.clone()
    assert stand_ins(raw, LAYOUT, ()) is raw
    changed = stand_ins(raw, LAYOUT, ("boundary",)) != raw
    assert changed[:, LAYOUT.boundary].all()
    assert changed.sum() == changed[:, LAYOUT.boundary].sum()
    changed = stand_ins(raw, LAYOUT, ("centre",)) != raw
    assert changed.sum() == changed[:, LAYOUT.centre].sum() == 2 * 64
    assert torch.equal(raw, before)


def task(without, layout=LAYOUT):
    network = torch.nn.Conv2d(3, layout.channels, 1)
    return MapTask(network, layout, (128.0,) * 3, (60.0,) * 3, LossWeights(), torch.ones(3), without)


def test_a_task_neither_learns_nor_predicts_these_maps():
    t = task(("centre", "boundary"))
    targets = make_targets(np.pad(np.ones((8, 8), np.int32), 12), None, LAYOUT)
    batch = {"image": torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)}
    for name in ("foreground", "distance", "centre", "boundary", "type"):
        batch[name] = torch.from_numpy(getattr(targets, name))[None]
    t(batch)["total"].backward()
    gradient = t.network.weight.grad.flatten(1).abs().sum(1)
    assert (gradient[LAYOUT.centre] == 0).all()
    assert (gradient[LAYOUT.boundary] == 0).all()
    assert (gradient[LAYOUT.distance] > 0).all()
    assert (t.predict(batch["image"])[:, LAYOUT.boundary][:, 2] < -20).all()


@pytest.mark.parametrize(
    ("without", "layout", "says"),
    [(("type",), LAYOUT, "'type'"), (("centre",), MapLayout((0,), 2), "two or more angles")],
)
def test_what_cannot_be_left_out_is_named(without, layout, says):
    with pytest.raises(NucSegError, match=says):
        task(without, layout)
