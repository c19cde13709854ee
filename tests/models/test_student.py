import pytest
import torch

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.student import Student, StudentConfig, activate
from tests.fakes import fake_card

TINY = StudentConfig((4, 6, 8, 8), (1, 1, 1, 1), (1, 1, 1), MapLayout((0, 45, 90, 135), 3))


@pytest.fixture
def image():
    return torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))


def test_shape_and_size(image):
    assert Student(TINY)(image).shape == (2, TINY.layout.channels, 48, 64)
    default = Student(StudentConfig())
    assert sum(p.numel() for p in default.parameters()) <= 5_000_000


def test_fusing_the_norms_changes_nothing(image):
    torch.manual_seed(1)
    net = Student(TINY).train()
    for _ in range(3):
        net(image + 1)  # move the running statistics off their start
    net.eval()
    with torch.no_grad():
        before = net(image)
        after = net.fuse()(image)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_features_go_from_coarse_to_fine(image):
    sizes = [f.shape[2:] for f in Student(TINY).features(image)]
    assert sizes == [(3, 4), (6, 8), (12, 16), (24, 32)]


@pytest.mark.parametrize("config", [TINY, StudentConfig((4, 6), (1, 1), (1,))])
def test_what_is_said_of_the_features_is_so(config, image):
    net = Student(config).eval()
    raw, features = net.forward_with_features(image)
    assert torch.equal(raw, net(image))
    assert tuple(f.shape[1] for f in features) == net.feature_widths
    assert tuple(48 // f.shape[2] for f in features) == net.feature_strides
    for mine, alone in zip(features, net.features(image), strict=True):  # the head changed none in place
        assert torch.equal(mine, alone)


def test_activation_gives_probabilities():
    layout = TINY.layout
    maps = activate(5 * torch.randn(1, layout.channels, 8, 8), layout)
    assert (maps[:, layout.distance].abs() <= 1).all()
    for part in (layout.foreground, layout.centre, layout.boundary, layout.type):
        assert ((maps[:, part] >= 0) & (maps[:, part] <= 1)).all()
    for part in (layout.boundary, layout.type):
        torch.testing.assert_close(maps[:, part].sum(1), torch.ones(1, 8, 8))


def test_config_survives_json_and_refuses_unknown_keys():
    assert StudentConfig.from_dict(TINY.to_dict()) == TINY
    for wrong in ({"blocks": (1, 1)}, {"decoder_blocks": (1, 1, 1, 1)}, {"widths": (4,)}):
        with pytest.raises(NucSegError, match="as many blocks"):
            StudentConfig(**wrong)
    with pytest.raises(NucSegError, match="kernel_size"):
        StudentConfig.from_dict({**TINY.to_dict(), "kernel_size": 3})


@pytest.mark.parametrize(
    "config",
    [StudentConfig(), StudentConfig((8, 8, 8), (1, 1, 1), (1, 2)), StudentConfig((8, 8), (3, 1), (1,))],
)
def test_the_halo_of_a_card_covers_what_the_network_sees(config):
    """A change of one pixel reaches no further than the halo, counted from windows on the stride."""
    torch.manual_seed(0)
    net = Student(config).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)  # else the residual blocks begin as the identity
    net.double()
    halo = fake_card(network=config.to_dict()).halo
    side, at = 2 * halo + 64, halo + 32
    image = torch.rand(1, 3, side, side, dtype=torch.float64)
    changed = image.clone()
    reached = torch.zeros(side, dtype=torch.bool)
    with torch.inference_mode():
        before = net(image)
        for shift in (0, 15):  # the first and the last pixel of a stride
            changed.copy_(image)
            changed[0, :, :, at // 16 * 16 + shift] += 100
            reached |= (net(changed) != before).any(dim=(0, 1, 2))
    found = torch.nonzero(reached).ravel()
    first, last = int(found.min()) // 16 * 16, -(-int(found.max() + 1) // 16) * 16
    assert at // 16 * 16 - halo <= first
    assert last <= at // 16 * 16 + 16 + halo
    assert first <= at // 16 * 16 - halo + 48  # and it is not much larger than it must be
