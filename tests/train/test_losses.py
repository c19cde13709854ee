import pytest
import torch

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.core.targets import IGNORE, make_targets
from train import losses
from train.task import LossWeights, MapTask

LAYOUT = MapLayout()


@pytest.fixture
def batch(synthetic):
    labels = synthetic.labels[:64, :64].astype("int64")
    types = (labels % 5 + 1) * (labels > 0)
    t = make_targets(labels, types.astype("uint8"), LAYOUT)
    fields = ("foreground", "distance", "centre", "boundary", "type")
    return {k: torch.from_numpy(getattr(t, k))[None] for k in fields} | {
        "image": torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    }


def perfect(batch):
    """Raw maps that say the truth with great confidence."""
    raw = torch.zeros(1, LAYOUT.channels, 64, 64)
    raw[:, LAYOUT.foreground] = 40 * batch["foreground"][:, None] - 20.0
    raw[:, LAYOUT.distance] = batch["distance"]
    raw[:, LAYOUT.centre] = torch.logit(batch["centre"][:, None], 1e-6)
    for part, key, n in ((LAYOUT.boundary, "boundary", 3), (LAYOUT.type, "type", 6)):
        one_hot = torch.nn.functional.one_hot(batch[key].long(), n).movedim(-1, 1)
        raw[:, part] = 20.0 * one_hot
    return raw


def make_task():
    return MapTask(torch.nn.Identity(), LAYOUT, (0,) * 3, (1,) * 3, LossWeights(), torch.ones(6))


def test_truth_costs_nothing_and_every_map_matters(batch):
    task, raw = make_task(), perfect(batch)
    best = task.losses(raw, batch)
    assert best["total"] < 0.1
    for name in ("foreground", "distance", "centre", "boundary", "type"):
        worse = raw.clone()
        worse[:, getattr(LAYOUT, name)] *= -1
        spoilt = task.losses(worse, batch)
        assert spoilt[name] > best[name] + 0.05
        for other in set(best) - {name, "total"}:
            assert torch.isclose(spoilt[other], best[other])


def test_images_without_classes_train_everything_but_the_type(batch):
    batch = {**batch, "type": torch.full_like(batch["type"], IGNORE)}
    raw = (perfect(batch | {"type": torch.zeros_like(batch["type"])}) * 0.1).requires_grad_()
    make_task().losses(raw, batch)["total"].backward()
    assert (raw.grad[:, LAYOUT.type] == 0).all()
    for part in (LAYOUT.foreground, LAYOUT.distance, LAYOUT.centre, LAYOUT.boundary):
        assert (raw.grad[:, part] != 0).any()


def test_unknown_pixels_do_not_count(batch):
    half = batch["type"].clone()
    half[:, :, 32:] = IGNORE
    raw = torch.randn(1, 6, 64, 64, requires_grad=True)
    losses.type_loss(raw, half, torch.ones(6)).backward()
    assert (raw.grad[..., 32:] == 0).all()
    assert (raw.grad[..., :32] != 0).any()


def test_derivative_runs_along_each_angle():
    rows, cols = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    maps = torch.stack([cols, rows + cols, rows, rows - cols])[None]
    slopes = losses.directional_derivative(maps, (0, 45, 90, 135))[..., 2:-2, 2:-2]
    expected = torch.tensor([1.0, 2.0, 1.0, 2.0]).view(1, 4, 1, 1).expand_as(slopes)
    torch.testing.assert_close(slopes, expected)


def test_dice_and_tversky_bounds():
    target = torch.zeros(1, 2, 8, 8)
    target[:, 0, :4] = 1
    target[:, 1, 4:] = 1
    assert losses.soft_dice(target, target) < 1e-6
    assert losses.soft_dice(1 - target, target) > 0.9
    valid = torch.ones(1, 1, 8, 8)
    assert losses.focal_tversky(target, target, valid) < 1e-3
    assert losses.focal_tversky(1 - target, target, valid) > 0.8
