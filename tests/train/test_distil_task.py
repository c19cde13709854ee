"""Distillation as a task: what it learns from, what belongs to it, and that it learns."""

import copy

import pytest
import torch
from torch import nn

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.student import Student, StudentConfig
from train.crops import to_batch_item
from train.distil_task import DistillConfig, DistillTask, pair_levels, resize, shared_channels
from train.task import LossWeights, MapTask, TeacherTask
from train.teacher_outputs import LiveTeacher, TeacherOutput

LAYOUT = MapLayout(n_classes=5)
NAMES = ("foreground", "distance", "centre", "boundary", "type")
FREQUENCIES = torch.tensor([50.0, 40, 50, 5, 20, 10])


def map_task(seed, widths=(8, 8, 8), layout=LAYOUT, kind=MapTask):
    torch.manual_seed(seed)
    levels = len(widths)
    net = Student(StudentConfig(widths, (1,) * levels, (1,) * (levels - 1), layout))
    return kind(net, layout, (178.0,) * 3, (50.0,) * 3, LossWeights(), torch.ones(layout.n_classes + 1))


def teacher_of(seed=7, widths=(8, 12, 16), layout=LAYOUT):
    return LiveTeacher(map_task(seed, widths, layout))


@pytest.fixture(scope="module")
def batch(synthetic):
    """Four 32 px crops with labels and classes."""
    types = (synthetic.labels % 5 + 1).astype("uint8") * (synthetic.labels > 0).astype("uint8")
    items = []
    for k in range(4):
        window = slice(64 * k, 64 * k + 32), slice(100, 132)
        items.append(
            to_batch_item(*(x[window].copy() for x in (synthetic.image, synthetic.labels, types)), LAYOUT)
        )
    return torch.utils.data.default_collate(items)


def distil(config=None, task=None, teacher=None, **more):
    return DistillTask(
        task or map_task(0), teacher or teacher_of(), config or DistillConfig(), FREQUENCIES, **more
    )


def test_the_teacher_is_neither_kept_nor_trained(batch):
    inside = map_task(7, (8, 12, 16))
    before = copy.deepcopy(inside.state_dict())
    task = distil(teacher=LiveTeacher(inside))
    plain = map_task(0)
    mine = {n for n in task.state_dict() if not n.startswith("task.")}
    assert {n.removeprefix("task.") for n in task.state_dict()} - mine == set(plain.state_dict())
    assert mine == {"passes", "type_weights"} | {
        f"projections.{k}.{w}" for k in range(3) for w in ("weight", "bias")
    }
    task(batch)["total"].backward()
    assert all(p.grad is not None for p in task.parameters())
    assert all(p.grad is None and not p.requires_grad for p in inside.parameters())
    task.train()
    torch.optim.SGD(task.parameters(), 0.1).step()
    task(batch)
    assert all(torch.equal(v, before[k]) for k, v in inside.state_dict().items())  # norms did not move either


def test_an_averaged_copy_asks_the_same_teacher(batch):
    task = distil()
    double = copy.deepcopy(task)
    assert double._teacher is task._teacher
    assert double.network is not task.network
    assert torch.equal(double.eval()(batch)["total"], task.eval()(batch)["total"])


def test_without_a_teachers_weight_it_is_the_task_on_labels(batch):
    def never(*args):
        raise AssertionError("the teacher was asked")

    plain, task = map_task(0), distil(DistillConfig(output=0, feature=0))
    task._teacher = never
    wanted, got = plain(batch), task(batch)
    assert set(got) == set(wanted)
    assert all(torch.equal(got[k], wanted[k]) for k in wanted)
    wanted["total"].backward()
    got["total"].backward()
    for a, b in zip(plain.parameters(), task.task.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    assert len(task.projections) == 0


def test_the_total_is_the_weighted_sum(batch):
    parts = LossWeights(1, 0.5, 0, 2, 3)
    config = DistillConfig(output=0.7, feature=0.3, parts=parts, temperature=2.0)
    got = distil(config)(batch)
    plain = map_task(0)(batch)
    torch.testing.assert_close(got["labels"], plain["total"])
    kd = sum(getattr(parts, n) * got[f"kd_{n}"] for n in NAMES)
    torch.testing.assert_close(got["kd"], kd)
    torch.testing.assert_close(got["total"], got["labels"] + 0.7 * got["kd"] + 0.3 * got["features"])


def test_maps_that_are_not_learnt_are_not_learnt_from_the_teacher_either(batch):
    student = map_task(0)
    bare = MapTask(
        student.network,
        LAYOUT,
        (178.0,) * 3,
        (50.0,) * 3,
        LossWeights(),
        torch.ones(6),
        ("boundary", "centre"),
    )
    got = distil(task=bare)(batch)
    kd = sum(getattr(LossWeights(), n) * got[f"kd_{n}"] for n in ("foreground", "distance", "type"))
    torch.testing.assert_close(got["kd"], kd)
    assert got["kd_boundary"] > 0


def test_a_student_that_says_what_the_teacher_says_pays_nothing(batch):
    same = map_task(3)
    task = distil(
        DistillConfig(class_balanced=False, feature=0), same, LiveTeacher(copy.deepcopy(same))
    ).eval()
    losses = task(batch)
    assert abs(losses["kd"].item()) < 1e-5
    gradient = torch.autograd.grad(losses["kd"], list(same.parameters()))
    assert max(g.abs().max() for g in gradient) < 1e-4
    assert distil(DistillConfig(class_balanced=False, feature=0), map_task(4)).eval()(batch)["kd"] > 0.01


@pytest.mark.parametrize("kind", ["mse", "hcl"])
def test_features_equal_after_projection_cost_nothing(batch, kind):
    same = map_task(3)
    config = DistillConfig(output=0, feature=1, feature_loss=kind, normalise=False)
    task = distil(config, same, LiveTeacher(copy.deepcopy(same))).eval()
    for projection in task.projections:
        nn.init.dirac_(projection.weight)
        nn.init.zeros_(projection.bias)
    assert task(batch)["features"] < 1e-10
    nn.init.constant_(task.projections[0].bias, 2.0)
    assert task(batch)["features"].item() == pytest.approx(4, rel=1e-4)


def test_normalised_features_do_not_depend_on_the_teachers_scale(batch):
    class Loud(LiveTeacher):
        def __call__(self, *args):
            told = super().__call__(*args)
            return TeacherOutput(told.raw, {k: 100 * f for k, f in told.features.items()})

    teacher = map_task(7, (8, 12, 16))
    torch.manual_seed(0)
    quiet = distil(teacher=LiveTeacher(teacher)).eval()
    loud = distil(teacher=Loud(teacher)).eval()
    loud.load_state_dict(quiet.state_dict())
    torch.testing.assert_close(quiet(batch)["features"], loud(batch)["features"])


def test_images_without_labels_learn_from_the_teacher_alone(batch):
    torch.manual_seed(0)
    task = distil().eval()
    bare = task({"image": batch["image"]})
    full = task(batch)
    assert set(bare) == set(full)
    assert bare["labels"].isnan()  # not known, and so no 0 in the log
    assert bare["foreground"].isnan()
    assert bare["kd"] == full["kd"]
    assert bare["features"] == full["features"]
    bare["total"].backward()
    assert all(p.grad is not None for p in task.parameters())
    none = task({**batch, "labelled": torch.zeros(4, dtype=torch.bool)})
    assert none["total"] == bare["total"]


def test_labels_of_unlabelled_images_are_not_looked_at(batch):
    task = distil().eval()
    known = torch.tensor([True, False, True, False])
    two = {k: v[known] for k, v in batch.items()}
    mixed = task({**batch, "labelled": known})
    torch.testing.assert_close(mixed["labels"], task(two)["labels"])
    spoilt = {
        k: torch.where(known.view(-1, *[1] * (v.ndim - 1)), v, 0 * v)
        for k, v in batch.items()
        if k != "image"
    }
    again = task({**spoilt, "image": batch["image"], "labelled": known})
    assert all(torch.equal(again[k], mixed[k]) for k in mixed)


def test_the_teachers_weight_rises(batch):
    task = distil(DistillConfig(warmup=4), batches_per_step=2)
    shares = []
    for _ in range(10):
        losses = task(batch)
        extra = losses["kd"] + 0.1 * losses["features"]
        shares.append(((losses["total"] - losses["labels"]) / extra).item())
    assert shares == pytest.approx([0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1, 1, 1], abs=1e-4)
    resumed = distil(DistillConfig(warmup=4), batches_per_step=2)
    resumed.load_state_dict({**task.state_dict(), "passes": torch.tensor(2)})
    resumed.eval()(batch)  # validation counts nothing
    assert resumed.passes == 2


def test_a_short_distillation_brings_the_student_nearer(batch):
    config = DistillConfig(feature_loss="hcl", feature=0.5, class_balanced=False)
    task = distil(config, map_task(1, (8, 12, 16)))
    optimiser = torch.optim.AdamW(task.parameters(), 5e-3)
    unlabelled = {"image": batch["image"]}
    first = None
    for _ in range(40):
        losses = task(unlabelled)
        first = first or {k: v.item() for k, v in losses.items()}
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
    assert losses["kd"].item() < 0.5 * first["kd"]
    assert losses["features"].item() < 0.7 * first["features"]


def test_a_teacher_with_more_angles(batch):
    four = MapLayout((90, 45, 0, 135))
    channels = shared_channels(four, LAYOUT)
    named = [four.names()[k] for k in channels]
    assert tuple(named) == LAYOUT.names()
    task = distil(teacher=teacher_of(layout=four)).eval()
    assert task(batch)["kd_distance"] > 0


def test_levels_are_paired_by_their_resolution():
    assert pair_levels((16, 8, 4, 2), (16, 8, 4, 2, 1)) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert pair_levels((16, 8, 4, 2), (16, 4)) == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert pair_levels((16, 8, 4, 2), (16, 8, 4, 2, 1), (4,)) == [(2, 2)]
    features = torch.arange(16.0).view(1, 1, 4, 4)
    assert resize(features, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert resize(features, (8, 8)).shape == (1, 1, 8, 8)


def test_levels_of_other_strides_are_compared_too(batch):
    deep = teacher_of(widths=(8, 8, 8, 8))  # strides 16, 8, 4, 2 against the student's 8, 4, 2
    assert distil(teacher=deep).eval()(batch)["features"] > 0
    shallow = distil(DistillConfig(strides=(8,)), teacher=teacher_of(widths=(8, 12))).eval()
    assert len(shallow.projections) == 1
    assert shallow(batch)["features"] > 0


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda: distil(teacher=teacher_of(layout=MapLayout(n_classes=3))), "data.classes"),
        (lambda: distil(teacher=teacher_of(layout=MapLayout((0,)))), "model.angles"),
        (lambda: distil(DistillConfig(strides=(3,))), "distil.strides has 3"),
        (lambda: DistillTask(map_task(0), teacher_of(), DistillConfig()), "frequencies"),
        (lambda: DistillConfig(feature_loss="l1"), "'l1'"),
        (lambda: DistillConfig(temperature=0.0), "temperature"),
        (lambda: DistillConfig(output=-1.0), "distil.output=-1"),
    ],
)
def test_what_does_not_fit_is_refused(what, says):
    with pytest.raises(NucSegError, match=says):
        what()


class Sided(Student):
    """A student with one more head, for deep supervision."""

    def side_maps(self, features):
        return [
            nn.functional.interpolate(features[-1].repeat(1, 3, 1, 1)[:, : LAYOUT.channels], scale_factor=2.0)
        ]


def test_deep_supervision_adds_its_share(batch):
    plain = map_task(0).eval()
    torch.manual_seed(0)
    task = TeacherTask(
        Sided(plain.network.config), LAYOUT, (178.0,) * 3, (50.0,) * 3, LossWeights(), torch.ones(6)
    ).eval()
    task.load_state_dict(plain.state_dict())
    got, alone = task(batch), plain(batch)
    assert all(torch.equal(got[k], alone[k]) for k in NAMES)
    torch.testing.assert_close(got["total"], alone["total"] + task.side_weight * got["side"])
