"""Pruning of channels: exact where they were idle, and the network stays an ordinary student."""

import pytest
import torch

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.student import ConvBN, Student, StudentConfig
from train.prune import _links, importance, parameters, prune, smaller_widths


def random_student(widths=(6, 8, 10), blocks=(1, 2, 1), decoder_blocks=(1, 2), seed=0):
    """Every weight and statistic at random, so that nothing is right by chance."""
    torch.manual_seed(seed)
    student = Student(StudentConfig(widths, blocks, decoder_blocks, MapLayout(n_classes=2))).eval()
    with torch.no_grad():
        for name, value in student.state_dict().items():
            if value.is_floating_point():
                value.normal_(0, 0.3)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    return student


def test_every_convolution_has_its_groups():
    student = random_student()
    found = {id(link.conv) for link in _links(student)}
    assert found == {id(m) for m in student.modules() if isinstance(m, torch.nn.Conv2d)}


def test_taking_idle_channels_away_changes_nothing():
    """Channels that norms set to 0 wherever they're written are the ones to go, and nobody misses them."""
    student, widths = random_student(), (4, 5, 7)
    image = torch.randn(2, 3, 32, 48)
    sizes = {link.target: link.conv.out_channels for link in _links(prune(student, widths))}
    generator = torch.Generator().manual_seed(1)
    idle = {}
    for link in _links(student):
        if isinstance(link.module, ConvBN):
            n = link.conv.out_channels
            if link.target not in idle:
                idle[link.target] = torch.randperm(n, generator=generator)[: n - sizes[link.target]]
            with torch.no_grad():
                link.module.bn.weight[idle[link.target]] = 0
                link.module.bn.bias[idle[link.target]] = 0
    with torch.no_grad():
        wanted = student(image)
        small = prune(student, widths)
        assert small.config.widths == widths
        assert torch.allclose(small(image), wanted, atol=1e-5)
        assert wanted.std() > 0.05
    assert parameters(small) < parameters(student)


def test_pruning_nothing_gives_the_same_student():
    student = random_student()
    same = prune(student, student.config.widths)
    for name, value in student.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name


def test_importance_grows_with_the_norm_and_with_what_reads_a_channel():
    student = random_student()
    before = importance(student)["head"]
    with torch.no_grad():
        student.head[0].bn.weight[2] *= 10
        student.head[0].bn.bias[2] *= 10
        student.head[1].weight[:, 3] *= 0
    after = importance(student)["head"]
    assert after[2] == pytest.approx(10 * before[2].item(), rel=1e-4)
    assert after[3] == 0
    others = [k for k in range(len(before)) if k not in (2, 3)]
    assert torch.equal(after[others], before[others])


@pytest.mark.parametrize(
    ("keep", "wanted"), [(0.75, (24, 48, 96, 168)), (0.5, (16, 32, 64, 112)), (0.01, (8, 8, 8, 8))]
)
def test_widths_are_multiples_of_eight(keep, wanted):
    assert smaller_widths((32, 64, 128, 224), keep) == wanted


def test_bad_requests_are_one_sentence():
    student = random_student()
    for widths in ((4, 5), (4, 5, 11), (0, 5, 7)):
        with pytest.raises(NucSegError, match="do not fit a student of"):
            prune(student, widths)
    with pytest.raises(NucSegError, match="between 0 and 1"):
        smaller_widths((32, 64), 1.5)
    with pytest.raises(NucSegError, match="leaves the widths"):
        smaller_widths((8, 8), 0.9)
    with pytest.raises(NucSegError, match="folded in already"):
        prune(student.fuse(), (4, 5, 7))
