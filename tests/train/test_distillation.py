"""Distillation losses: published values, values by hand, minima and gradients."""

import json
import math

import numpy as np
import pytest
import torch

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from train import distillation as kd

LAYOUT = MapLayout()


def raw_maps(seed, scale=1.0, dtype=torch.float64, layout=LAYOUT, size=8):
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, layout.channels, size, size, generator=draw, dtype=dtype)


# features


def cases(shared):
    expected = json.loads((shared / "vectors" / "expected.json").read_text())["hcl"]
    arrays = np.load(shared / "vectors" / "hcl.npz")
    for name, values in expected.items():
        levels = range(len(values["shapes"]))
        pairs = [
            [torch.from_numpy(arrays[f"{name}/{who}{k}"]) for k in levels] for who in ("student", "teacher")
        ]
        yield name, *pairs, values


def test_hcl_and_mse_equal_the_published_code(shared):
    seen = 0
    for name, students, teachers, expected in cases(shared):
        doubles = [[x.double() for x in side] for side in (students, teachers)]
        assert kd.hcl(*doubles).item() == pytest.approx(expected["hcl_float64"], abs=1e-9), name
        assert kd.hcl(students, teachers).item() == pytest.approx(expected["hcl_float32"], rel=1e-5), name
        for k, (s, t) in enumerate(zip(*doubles, strict=True)):
            assert kd.hcl([s], [t]).item() == pytest.approx(expected["hcl_float64_per_level"][k], abs=1e-9)
            plain = expected["plain_mse_float64_per_level"][k]
            assert kd.feature_mse([s], [t]).item() == pytest.approx(plain, abs=1e-9)
        seen += 1
    assert seen >= 4


def test_hcl_of_a_constant_difference_is_its_square():
    """Pooling keeps a constant, so the weighted mean of equal terms is the term, whatever is skipped."""
    for height, width in ((1, 1), (2, 9), (4, 4), (16, 16), (5, 3)):
        zero = torch.zeros(2, 3, height, width)
        assert kd.hcl([zero + 3], [zero]).item() == pytest.approx(9.0)
        assert kd.hcl([zero + 3, zero + 1], [zero, zero]).item() == pytest.approx(10.0)


def test_hcl_of_what_pools_to_nothing_is_the_full_size_alone():
    """A checkerboard of +-1 on 16 x 16 averages to 0 in every pooled cell: 1 / 1.875 is left."""
    board = ((-1.0) ** torch.arange(16)).outer((-1.0) ** torch.arange(16))[None, None]
    assert kd.hcl([board], [0 * board]).item() == pytest.approx(1 / 1.875)


@pytest.mark.parametrize("loss", [kd.hcl, kd.feature_mse])
def test_features_that_do_not_fit_are_refused(loss):
    a, b = torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4)
    for students, teachers in (([a], [b]), ([a], [a, a]), ([], [])):
        with pytest.raises(NucSegError):
            loss(students, teachers)


# outputs


def test_known_values():
    logit = torch.tensor([[[[math.log(3.0)]]]])  # probability 3/4
    even = torch.zeros(1, 1, 1, 1)  # 1/2
    by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kd.binary_kd(even, logit, 1.0).item() == pytest.approx(by_hand, abs=1e-6)
    two_way = torch.cat([logit, even], 1)
    assert kd.softmax_kd(torch.zeros(1, 2, 1, 1), two_way, 1.0).item() == pytest.approx(by_hand, abs=1e-6)
    assert kd.softmax_kd(torch.zeros(1, 2, 1, 1), 2 * two_way, 2.0).item() == pytest.approx(
        4 * by_hand, abs=1e-5
    )
    assert kd.binary_kd(even, 2 * logit, 2.0).item() == pytest.approx(4 * by_hand, abs=1e-5)
    student = torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1, 1).double()
    teacher = torch.tensor([0.7, 0.2, 0.1]).view(1, 3, 1, 1).double()
    weights = torch.tensor([0.5, 1.0, 1.5]).double()
    by_hand = -(0.5 * 0.7 * math.log(0.5) + 0.2 * math.log(0.25) + 1.5 * 0.1 * math.log(0.25))
    assert kd.class_balanced_kd(student, teacher, weights, 0.0).item() == pytest.approx(by_hand)
    everywhere = [x.expand(2, 3, 4, 5) for x in (student, teacher)]  # a mean over pixels
    assert kd.class_balanced_kd(*everywhere, weights, 0.0).item() == pytest.approx(by_hand)


def test_balanced_loss_stays_finite_where_the_student_says_never():
    student, teacher = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    value = kd.class_balanced_kd(student, teacher, torch.ones(2), eps=1e-6)
    assert value.item() == pytest.approx(-math.log(1e-6), rel=1e-4)


def test_frequency_weights():
    weights = kd.class_frequency_weights(torch.tensor([100.0, 10.0, 40.0]))
    assert weights.mean().item() == pytest.approx(1)
    assert (weights[1] / weights[0]).item() == pytest.approx(10)
    assert (weights[2] / weights[0]).item() == pytest.approx(2.5)
    torch.testing.assert_close(weights, kd.class_frequency_weights(torch.tensor([1.0, 0.1, 0.4])))
    never = kd.class_frequency_weights(torch.tensor([100.0, 0.0, 10.0]))
    assert never[1] == never[0] == never.min()
    for bad in ([0.0, 0.0], [1.0, -1.0]):
        with pytest.raises(NucSegError):
            kd.class_frequency_weights(torch.tensor(bad))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_nothing_is_better_than_the_teacher(temperature):
    teacher = raw_maps(0)
    same = kd.output_loss(teacher.clone().requires_grad_(), teacher, LAYOUT, temperature)
    for name, value in same.items():
        assert abs(value.item()) < 1e-12, name
    student = teacher.clone().requires_grad_()
    total = sum(kd.output_loss(student, teacher, LAYOUT, temperature).values())
    (gradient,) = torch.autograd.grad(total, student)
    assert gradient.abs().max() < 1e-12
    for seed in range(1, 6):
        other = kd.output_loss(teacher + raw_maps(seed, 0.1), teacher, LAYOUT, temperature)
        assert min(v.item() for v in other.values()) > 1e-6


def test_each_part_sees_its_own_channels():
    teacher = raw_maps(0)
    for name in ("foreground", "distance", "centre", "boundary", "type"):
        student = teacher.clone()
        student[:, getattr(LAYOUT, name)] += raw_maps(1)[:, getattr(LAYOUT, name)]
        wrong = {k for k, v in kd.output_loss(student, teacher, LAYOUT).items() if v.item() > 1e-9}
        assert wrong == {name}


def test_distances_count_where_the_teacher_sees_nuclei():
    teacher = raw_maps(0)
    teacher[:, LAYOUT.foreground, :, :4] = -50.0
    teacher[:, LAYOUT.foreground, :, 4:] = 50.0
    student = teacher.clone()
    student[:, LAYOUT.distance, :, :3] += 5.0  # the row beside the nuclei is left: slopes reach there
    assert kd.output_loss(student, teacher, LAYOUT)["distance"] < 1e-12
    student[:, LAYOUT.distance, :, 6:] += 5.0
    assert kd.output_loss(student, teacher, LAYOUT)["distance"] > 1


def test_class_balance_draws_beyond_the_teacher_to_rare_classes():
    """The minimum lies at S proportional to w T: a descent ends there."""
    teacher = torch.tensor([0.6, 0.3, 0.1]).double()
    weights = kd.class_frequency_weights(torch.tensor([1.0, 1.0, 0.2]).double())
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    shape = (1, 3, 1, 1)
    for _ in range(400):
        loss = kd.class_balanced_kd(logits.softmax(0).view(shape), teacher.view(shape), weights, 0.0)
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - gradient).detach().requires_grad_()
    wanted = weights * teacher / (weights * teacher).sum()
    torch.testing.assert_close(logits.detach().softmax(0), wanted, atol=1e-6, rtol=0)
    assert wanted[2] > 3 * teacher[2]


def test_the_type_weights_act_on_the_type_alone():
    student, teacher = raw_maps(0), raw_maps(1)
    weights = torch.ones(6).double()
    plain = kd.output_loss(student, teacher, LAYOUT, 2.0)
    even = kd.output_loss(student, teacher, LAYOUT, 2.0, weights)
    assert all(plain[k] == even[k] for k in plain if k != "type")
    soft = (teacher[:, LAYOUT.type] / 2).softmax(1)
    entropy = -(soft * soft.log()).sum(1).mean()
    assert (even["type"] - 4 * entropy).item() == pytest.approx(plain["type"].item(), abs=1e-4)


# gradients


def features(seed):
    draw = torch.Generator().manual_seed(seed)
    shapes = ((1, 2, 6, 6), (1, 3, 3, 4))
    return [torch.randn(s, generator=draw, dtype=torch.float64) for s in shapes]


@pytest.mark.parametrize("loss", [kd.hcl, kd.feature_mse])
def test_gradients_of_the_feature_losses(loss):
    students = [x.requires_grad_() for x in features(0)]
    assert torch.autograd.gradcheck(lambda *s: loss(list(s), features(1)), students)


PARTS = [(p, False) for p in ("foreground", "distance", "centre", "boundary", "type")] + [("type", True)]


@pytest.mark.parametrize(("part", "balanced"), PARTS)
def test_gradients_of_the_output_losses(part, balanced):
    layout = MapLayout((0, 45), 2)
    student, teacher = raw_maps(0, layout=layout, size=4), raw_maps(1, layout=layout, size=4)
    weights = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64) if balanced else None
    assert torch.autograd.gradcheck(
        lambda raw: kd.output_loss(raw, teacher, layout, 2.0, weights)[part], [student.requires_grad_()]
    )
