"""The teacher as a network: shapes, order of the maps, gradients, deep supervision."""

import dataclasses
import json

import pytest
import torch

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from train.config import from_mapping, to_mapping
from train.teacher import ENCODERS, Teacher, TeacherConfig, build_teacher
from train.teacher.conv import ConvConfig
from train.teacher.decoder import DecoderConfig, map_channels
from train.teacher.efficientnet import LITES, Block
from train.teacher.vit import VITS, VitConfig

KINDS = [e for e in ENCODERS if e not in LITES] + ["efficientnet_lite0"]
SMALL = {"width": 16, "depth": 4, "heads": 2, "mlp": 2}


def tiny(encoder="vit_small", **changes):
    if encoder in LITES:
        return TeacherConfig(encoder, light=(8, 10, 12, 14), **changes)
    if encoder == "conv":
        changes.setdefault("conv", ConvConfig((6, 8, 10, 12), (1, 1, 1, 1)))
    else:
        extra = {"window": 2, "global_blocks": (1, 3)} if encoder == "sam_vit_b" else {}
        sizes = {**SMALL, "image_size": 64, "neck": 6 if extra else 0, **extra}
        changes.setdefault("vit", dataclasses.replace(VITS[encoder], **sizes))
    return TeacherConfig(encoder, decoder=DecoderConfig((4, 6, 8, 10, 12), (1, 2, 1, 1), 5), **changes)


@pytest.mark.parametrize("encoder", KINDS)
@pytest.mark.parametrize("size", [(64, 64), (32, 80)])
def test_shapes(encoder, size):
    layout = MapLayout((0, 45, 90, 135), 3)
    teacher = Teacher(tiny(encoder, layout=layout)).eval()
    image = torch.randn(2, 3, *size)
    raw, features = teacher.forward_with_features(image)
    assert raw.shape == (2, layout.channels, *size)
    assert torch.equal(raw, teacher(image))
    assert teacher.feature_strides == ((16, 8, 4, 2) if encoder in LITES else (16, 8, 4, 2, 1))
    for x, width, stride in zip(features, teacher.feature_widths, teacher.feature_strides, strict=True):
        assert x.shape == (2, width, size[0] // stride, size[1] // stride)
    for x, y in zip(features, teacher.features(image), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("encoder", KINDS)
def test_every_parameter_gets_a_gradient(encoder):
    torch.manual_seed(0)
    teacher = Teacher(tiny(encoder, deep_supervision=True))
    with torch.no_grad():  # residual branches begin at zero, where nothing goes back through them
        for p in teacher.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    for block in [m for m in teacher.modules() if isinstance(m, Block)]:
        block.dropped = 0.0
    raw, features = teacher.forward_with_features(torch.randn(2, 3, 96, 64))
    sides = teacher.side_maps(features)
    assert [m.shape for m in sides] == [raw.shape] * 3
    sum((m * torch.randn_like(m)).sum() for m in (raw, *sides)).backward()
    idle = [n for n, p in teacher.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not idle


def test_without_deep_supervision_there_are_no_side_maps():
    teacher = Teacher(tiny())
    assert teacher.side_maps(teacher.features(torch.randn(1, 3, 32, 32))) == []


@pytest.mark.parametrize("angles", [(0, 90), (0, 45, 90, 135), (45,)])
def test_one_head_per_map_in_the_order_of_the_layout(angles):
    layout = MapLayout(angles, 4)
    assert list(map_channels(layout)) == ["foreground", "distance", "centre", "boundary", "type"]
    teacher = Teacher(tiny(layout=layout)).eval()
    for k, (name, head) in enumerate(teacher.heads.of.items()):
        torch.nn.init.zeros_(head[-1].weight)
        torch.nn.init.constant_(head[-1].bias, float(k))
        assert name.removesuffix("_map") == list(map_channels(layout))[k]
    raw = teacher(torch.randn(1, 3, 32, 32))
    for k, name in enumerate(map_channels(layout)):
        assert torch.all(raw[:, getattr(layout, name)] == k), name


def test_the_same_seed_makes_the_same_teacher():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_teacher(tiny("sam_vit_b")).state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_config_survives_json():
    config = tiny("sam_vit_b", layout=MapLayout((0, 45, 90, 135), 7))
    again = from_mapping(TeacherConfig, json.loads(json.dumps(to_mapping(config))))
    assert again == config


@pytest.mark.parametrize("size", [(40, 64), (64, 8), (64, 0)])
def test_sides_must_be_multiples_of_sixteen(size):
    with pytest.raises(NucSegError, match=f"{size[0]} x {size[1]} pixels"):
        Teacher(tiny())(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"encoder": "vit_smal"}, "'vit_smal' is not known; there are vit_small"),
        ({"encoder": "conv", "checkpointing": True}, "checkpointing=true"),
        ({"encoder": "conv", "vit": VitConfig()}, "vit has no meaning"),
        ({"encoder": "efficientnet_lite0", "vit": VitConfig()}, "vit has no meaning with encoder='eff"),
        ({"encoder": "efficientnet_lite0", "decoder": DecoderConfig(head=8)}, "decoder has no meaning"),
        ({"encoder": "conv", "light": (8, 8, 8, 8)}, "light has no meaning with encoder='conv'"),
        ({"encoder": "efficientnet_lite0", "light": (8, 8, 8)}, "four numbers"),
        ({"encoder": "efficientnet_lite0", "light": (8, 8, 0, 8)}, "each at least 1"),
    ],
)
def test_what_cannot_be_is_told(changes, told):
    with pytest.raises(NucSegError, match=told):
        TeacherConfig(**changes)


def test_sizes_of_the_parts_are_checked():
    with pytest.raises(NucSegError, match="five numbers"):
        DecoderConfig(widths=(1, 2, 3))
    with pytest.raises(NucSegError, match="at least 1"):
        DecoderConfig(head=0)
    with pytest.raises(NucSegError, match="four numbers"):
        ConvConfig(blocks=(1, 1))
    with pytest.raises(NucSegError, match=r"conv\.widths"):
        ConvConfig(widths=(0, 8, 8, 8))
