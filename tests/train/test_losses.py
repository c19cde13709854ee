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


def random_targets(layout, size=5):
    """Targets of two small images with every kind of pixel in them."""
    draw = torch.Generator().manual_seed(0)
    shape = (2, size, size)
    types = torch.randint(0, layout.n_classes + 1, shape, generator=draw)
    types[0, 0] = IGNORE
    return {
        "foreground": torch.randint(0, 2, shape, generator=draw),
        "distance": torch.rand(2, len(layout.angles), size, size, generator=draw, dtype=torch.float64) * 2
        - 1,
        "centre": torch.rand(shape, generator=draw, dtype=torch.float64),
        "boundary": torch.randint(0, 3, shape, generator=draw),
        "type": types,
    }


@pytest.mark.parametrize("part", ["foreground", "distance", "centre", "boundary", "type", "total"])
def test_gradients(part):
    layout = MapLayout((0, 45), 2)
    task = MapTask(torch.nn.Identity(), layout, (0,) * 3, (1,) * 3, LossWeights(), torch.tensor([0.5, 1, 2]))
    task, targets = task.double(), random_targets(layout)
    draw = torch.Generator().manual_seed(1)
    raw = torch.randn(2, layout.channels, 5, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: task.losses(r, targets)[part], [raw])


def test_gradients_of_the_parts_of_losses():
    draw = torch.Generator().manual_seed(0)
    maps = torch.rand(1, 2, 4, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 2, maps.shape, generator=draw).double()
    valid = torch.randint(0, 2, (1, 1, 4, 4), generator=draw).double()
    assert torch.autograd.gradcheck(lambda p: losses.soft_dice(p, target, valid), [maps])
    assert torch.autograd.gradcheck(lambda p: losses.focal_tversky(p, target, valid), [maps])
    assert torch.autograd.gradcheck(lambda p: losses.directional_derivative(p, (45, 135)), [maps])


def test_known_values():
    """Undecided about one nucleus pixel in four: every loss by hand."""
    zero, half = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)
    target = torch.tensor([[[1, 0], [0, 0]]])
    wanted = target[:, None].float()
    log2 = torch.log(torch.tensor(2.0)).item()
    dice = 1 - (2 * 0.5 + 1) / (0.5 * 4 + 1 + 1)
    assert losses.soft_dice(half, wanted).item() == pytest.approx(dice)
    assert losses.foreground_loss(zero, target).item() == pytest.approx(log2 + dice)
    assert losses.centre_loss(zero, target).item() == pytest.approx((11 * 0.25 + 3 * 0.25) / 4)
    index = (0.5 + 1) / (0.5 + 0.7 * 0.5 + 0.3 * 1.5 + 1)
    ones = torch.ones(1, 1, 2, 2)
    assert losses.focal_tversky(half, wanted, ones).item() == pytest.approx((1 - index) ** 0.75)
    # off by 1 in the right column: derivatives of 1/2 there and beside it, borders replicated
    off = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    everywhere = torch.ones(1, 2, 2)
    assert losses.distance_loss(off, 0 * off, everywhere, (0,)).item() == pytest.approx(0.5 + 0.25)
    assert losses.distance_loss(off, 0 * off, everywhere, (90,)).item() == pytest.approx(0.5)
    thirds = torch.zeros(1, 3, 2, 2)
    boundary_dice = sum(1 - (2 * n / 3 + 1) / (4 / 3 + n + 1) for n in (3, 1, 0)) / 3
    value = losses.boundary_loss(thirds, target, torch.tensor([0.7, 1.0, 2.0])).item()
    assert value == pytest.approx(torch.log(torch.tensor(3.0)).item() + boundary_dice)
    tversky = sum(
        (1 - (n / 3 + 1) / (n / 3 + 0.7 * 2 * n / 3 + 0.3 * (4 - n) / 3 + 1)) ** 0.75 for n in (3, 1)
    )
    value = losses.type_loss(thirds, target, torch.ones(3)).item()
    assert value == pytest.approx(torch.log(torch.tensor(3.0)).item() + tversky / 2)
