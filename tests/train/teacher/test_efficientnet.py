"""EfficientNet-lite: sizes as published, padding as in TensorFlow, public names, blocks that are left out."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_nucseg.errors import NucSegError
from train.teacher.efficientnet import LITES, Block, ConvNorm, EfficientNetLite
from train.teacher.weights import load_encoder

PUBLISHED = {"0": 4.7, "1": 5.4, "2": 6.1, "3": 8.2, "4": 13.0}
"""Million parameters with the head of ImageNet, from the authors' table."""


@pytest.mark.parametrize("name", LITES)
def test_parameters_are_those_published(name):
    with torch.device("meta"):
        encoder = EfficientNetLite(name)
    deep = encoder.blocks[-1].project.conv.out_channels
    head = deep * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    total = head + sum(p.numel() for p in encoder.parameters())
    assert total / 1e6 == pytest.approx(PUBLISHED[name[-1]], abs=0.06)


@pytest.mark.parametrize("size", [(64, 64), (48, 112)])
def test_maps_have_the_widths_and_strides_told(size):
    encoder = EfficientNetLite("efficientnet_lite0").eval()
    maps = encoder(torch.randn(1, 3, *size))
    assert encoder.widths == (16, 24, 40, 112, 320)
    for x, width, stride in zip(maps, encoder.widths, encoder.strides, strict=True):
        assert x.shape == (1, width, -(-size[0] // stride), -(-size[1] // stride))


def test_even_sides_are_padded_behind():
    layer = ConvNorm(1, 1, 3, 2, act=False).eval()
    nn.init.constant_(layer.conv.weight, 1.0)
    image = torch.zeros(1, 1, 4, 4)
    image[..., 0, 0] = 1.0
    image[..., 3, 3] = 10.0
    expected = torch.tensor([[1.0, 0.0], [0.0, 10.0]]) / (1 + 1e-3) ** 0.5
    torch.testing.assert_close(layer(image)[0, 0], expected)


def test_odd_sides_are_padded_on_both():
    layer = ConvNorm(2, 3, 5, 2, act=False).eval()
    image = torch.randn(1, 2, 7, 9)
    plain = F.conv2d(image, layer.conv.weight, stride=2, padding=2) / (1 + 1e-3) ** 0.5
    torch.testing.assert_close(layer(image), plain)


def test_a_block_that_is_left_out_is_its_shortcut():
    torch.manual_seed(0)
    block, image = Block(8, 8, 3, 1, 6, dropped=0.5), torch.randn(400, 8, 4, 4)
    with torch.no_grad():
        block.train()(image)
        out = block(image)
        gone = (out == image).flatten(1).all(1)
        assert 0.4 < gone.float().mean() < 0.6
        inside = (out - image)[~gone]
        block.dropped = 0.0
        torch.testing.assert_close((block(image) - image)[~gone] * 2, inside)
        assert not (block.eval()(image) == image).flatten(1).all(1).any()


def public(name):
    """Return the name of a tensor in the public files."""
    if name.startswith("stem."):
        return name.replace("stem.conv", "_conv_stem").replace("stem.norm", "_bn0")
    expanded = re.sub(r"(expand|depthwise|project)\.conv", r"_\1_conv", f"_{name}")
    for part, norm in (("expand", "_bn0"), ("depthwise", "_bn1"), ("project", "_bn2")):
        expanded = expanded.replace(f"{part}.norm", norm)
    return expanded


@pytest.mark.parametrize("prefix", ["", "module.", "state_dict.module."])
def test_public_weights_are_loaded_whole(tmp_path, prefix):
    torch.manual_seed(1)
    theirs, mine = EfficientNetLite("efficientnet_lite0"), EfficientNetLite("efficientnet_lite0")
    state = {public(name): tensor for name, tensor in theirs.state_dict().items()}
    assert "_blocks.3._depthwise_conv.weight" in state
    assert "_blocks.3._bn2.running_var" in state
    state |= {"_bn1.weight": torch.ones(1280), "_fc.bias": torch.zeros(1000)}
    torch.save({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "lite0.pth")
    report = load_encoder(mine, tmp_path / "lite0.pth")
    assert report.prefix == prefix
    assert report.missing == ()
    assert set(report.unexpected) == {"_bn1.weight", "_fc.bias"}
    image = torch.randn(1, 3, 64, 64)
    for a, b in zip(theirs.eval()(image), mine.eval()(image), strict=True):
        torch.testing.assert_close(a, b)


def test_weights_of_another_size_are_refused(tmp_path):
    state = {
        public(name): tensor for name, tensor in EfficientNetLite("efficientnet_lite1").state_dict().items()
    }
    torch.save(state, tmp_path / "lite1.pth")
    with pytest.raises(NucSegError, match="choose the encoder they belong to"):
        load_encoder(EfficientNetLite("efficientnet_lite0"), tmp_path / "lite1.pth")
