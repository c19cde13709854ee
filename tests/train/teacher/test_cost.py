"""Parameters and MACs, against counts by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from train.teacher import Teacher, TeacherConfig
from train.teacher.attention import Attention
from train.teacher.cost import cost, main, table
from train.teacher.decoder import DecoderConfig
from train.teacher.vit import VitConfig


class Hand(nn.Module):
    """8 x 8: a strided convolution, attention on 4 x 4, a grouped convolution, one up again, a linear layer."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, 2, 1)
        self.attention = Attention(4, 2, span=4)
        self.grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False)
        self.up = nn.ConvTranspose2d(8, 2, 2, 2)
        self.last = nn.Linear(8, 5)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        x = self.down(x)
        x = self.attention(x.flatten(2).transpose(1, 2), (4, 4)).transpose(1, 2).unflatten(2, (4, 4))
        return self.last(self.norm(self.up(self.grouped(x))))


def test_counts_by_hand():
    network = Hand()
    found = cost(network, 8)
    products = 16 * 16 * 4 * 2 + 16 * (4 + 4) * 4  # scores and sum, rows and columns of relative positions
    by_hand = {
        "down": (3 * 4 * 9 + 4, 4 * 16 * 3 * 9),
        "attention": (4 * 12 + 12 + 4 * 4 + 4 + 2 * 7 * 2, 16 * 4 * 12 + 16 * 4 * 4 + products),
        "grouped": (8 * 2 * 9, 8 * 16 * 2 * 9),
        "up": (8 * 2 * 4 + 2, 2 * 64 * 8),
        "last": (8 * 5 + 5, 2 * 8 * 5 * 8),
        "norm": (4, 0),
    }
    assert found.parts == by_hand
    assert found.parameters == sum(p for p, _ in by_hand.values())
    assert found.macs == sum(m for _, m in by_hand.values())
    assert found.attention == products
    # nothing is left behind
    assert network.training
    assert network.norm.num_batches_tracked == 0
    assert not any(m._forward_hooks for m in network.modules())


def test_layers_agree_with_the_counter_of_torch():
    vit = VitConfig(width=16, depth=4, heads=2, image_size=64)
    teacher = Teacher(TeacherConfig(vit=vit, decoder=DecoderConfig((4, 6, 8, 10, 12)))).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        teacher(torch.zeros(1, 3, 64, 32))
    flops = {str(k): n for k, n in counter.get_flop_counts()["Global"].items()}
    theirs = sum(n for name, n in flops.items() if "attention" not in name) // 2
    ours = cost(teacher, (64, 32))
    assert ours.macs - ours.attention == theirs
    assert ours.attention == 4 * 2 * 9 * 9 * 16


def test_macs_grow_with_the_area_but_attention_with_its_square():
    with torch.device("meta"):
        teacher = Teacher(TeacherConfig(vit=VitConfig(class_token=False)))
    small, large = cost(teacher, 256), cost(teacher, 512)
    assert large.macs - large.attention == 4 * (small.macs - small.attention)
    assert large.attention == 16 * small.attention
    text = table(teacher, (256, 512))
    assert f"{large.macs / 1e9:.2f}" in text
    assert text.splitlines()[0].split() == [
        "part",
        "M",
        "parameters",
        "GMAC",
        "at",
        "256",
        "GMAC",
        "at",
        "512",
    ]


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("teacher.encoder=cnn", "'cnn'"),
        ("sizes=[100]", "100 x 100"),
        ("sizes=[]", "sizes="),
        ("size=3", "sizes"),
    ],
)
def test_bad_input_exits_with_2_and_one_sentence(argument, told, capsys):
    assert main([argument]) == 2
    out = capsys.readouterr()
    assert told in out.err
    assert not out.out


def test_the_command_prints_a_table(capsys):
    assert main(["teacher.encoder=conv", "sizes=[64]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["part", "encoder", "decoder", "heads", "total"]
