"""The transformer: windows, relative positions, position embeddings, what it refuses."""

import pytest
import torch

from napari_nucseg.errors import NucSegError
from train.teacher.attention import Attention, between, from_windows, resize_offsets, to_windows
from train.teacher.vit import VITS, Vit, VitConfig, resize_positions

TINY = VitConfig(width=16, depth=4, heads=2, mlp=2, image_size=64)
SAM = VitConfig(
    width=16, depth=4, heads=2, mlp=2, image_size=64, class_token=False, window=3, global_blocks=(1, 3), relative=True
)  # fmt: skip


def image(*size, seed=0):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", [TINY, SAM])
@pytest.mark.parametrize("size", [(64, 64), (48, 112)])
def test_four_maps_at_a_sixteenth(config, size):
    vit = Vit(config)
    maps = vit(image(*size))
    assert [tuple(m.shape) for m in maps] == [(2, 16, size[0] // 16, size[1] // 16)] * 4
    assert vit.widths == (16,) * 4


def test_the_neck_changes_the_last_map_alone():
    vit = Vit(VitConfig(**{**vars(SAM), "neck": 6}))
    assert [m.shape[1] for m in vit(image(64, 64))] == list(vit.widths) == [16, 16, 16, 6]


@pytest.mark.parametrize("relative", [False, True])
def test_one_window_over_all_is_global_attention(relative):
    common = {
        "width": 16,
        "depth": 4,
        "heads": 2,
        "class_token": False,
        "image_size": 64,
        "relative": relative,
    }
    windowed, whole = Vit(VitConfig(window=4, **common)), Vit(VitConfig(window=0, **common))
    whole.load_state_dict(windowed.state_dict())
    x = image(64, 64)
    for a, b in zip(windowed(x), whole(x), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    # and with more than one window it is not
    assert not torch.allclose(windowed(image(96, 96))[0], whole(image(96, 96))[0], atol=1e-3)


def test_windows_keep_to_themselves():
    vit = Vit(VitConfig(width=16, depth=4, heads=2, class_token=False, window=2, image_size=64))
    x = image(64, 64)
    changed = x.clone()
    changed[:, :, :32, :32] += 1
    different = (vit(changed)[-1] - vit(x)[-1]).abs().amax((0, 1)) > 1e-5
    assert different.tolist() == [[True] * 2 + [False] * 2] * 2 + [[False] * 4] * 2


@pytest.mark.parametrize(("grid", "side"), [((4, 4), 2), ((5, 7), 3), ((2, 3), 8)])
def test_windows_go_and_come_back(grid, side):
    tokens = torch.randn(2, grid[0] * grid[1], 3)
    parts, across = to_windows(tokens, grid, side)
    assert parts.shape == (2 * across[0] * across[1], side * side, 3)
    assert torch.equal(from_windows(parts, grid, side, across), tokens)
    assert torch.isclose(parts.sum(), tokens.sum(), atol=1e-4)  # what pads is zero


def test_relative_positions_are_those_of_the_offset():
    table = torch.arange(7.0)[:, None]  # offsets -3 .. 3 have the values 0 .. 6
    found = between(table, 4)[..., 0]
    assert found.tolist() == [[float(i - k + 3) for k in range(4)] for i in range(4)]
    assert resize_offsets(table, 4) is table
    wider = resize_offsets(table, 8)
    assert wider.shape == (15, 1)
    assert wider[7, 0] == pytest.approx(3.0)  # the offset 0 stays where it was
    assert torch.all(wider.diff(dim=0) >= 0)


def test_relative_positions_act_on_a_grid_that_is_not_square():
    torch.manual_seed(0)
    attention = Attention(8, 2, span=3)
    torch.nn.init.normal_(attention.rel_pos_w)
    tokens = torch.randn(1, 15, 8)
    q, k, v = attention.qkv(tokens).view(15, 3, 2, 4).permute(1, 2, 0, 3)
    rows = between(attention.rel_pos_h, 3)
    cols = between(attention.rel_pos_w, 5)
    wanted = torch.zeros(15, 8)
    for head in range(2):
        scores = torch.zeros(15, 15)
        for i in range(15):
            for j in range(15):
                place = rows[i // 5, j // 5] + cols[i % 5, j % 5]
                scores[i, j] = q[head, i] @ k[head, j] / 2 + q[head, i] @ place
        wanted[:, 4 * head : 4 * head + 4] = scores.softmax(-1) @ v[head]
    assert torch.allclose(attention(tokens, (3, 5))[0], attention.proj(wanted), atol=1e-5)


def test_position_embeddings_of_the_own_grid_are_untouched():
    cells = torch.randn(1, 5, 4, 3)
    assert resize_positions(cells, (5, 4)) is cells
    flat = torch.full((1, 5, 4, 3), 2.5)
    assert torch.allclose(resize_positions(flat, (9, 2)), torch.full((1, 9, 2, 3), 2.5))
    ramp = torch.arange(6.0).view(1, 6, 1, 1).expand(1, 6, 6, 1)
    wide = resize_positions(ramp, (12, 12))[0, :, 0, 0]
    # half-pixel centres: away from the borders, a ramp stays nearly a ramp of half the slope
    assert torch.allclose(wide[4:8], torch.arange(4, 8) / 2 - 0.25, atol=0.05)
    assert Vit(TINY).positions((4, 4)).shape == (1, 17, 16)


def test_checkpointing_changes_no_gradient():
    plain, saving = Vit(SAM), Vit(SAM, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    for vit in (plain, saving):
        vit.train()
        sum(m.square().mean() for m in vit(image(64, 64))).backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6), name


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"width": 10, "heads": 4}, "width=10"),
        ({"image_size": 100}, "image_size=100"),
        ({"window": 14}, "class_token=true"),
        ({"skips": (1, 2, 12)}, r"skips=\[1, 2, 12\]"),
        ({"skips": (1, 3, 2, 12)}, "rising"),
        ({"skips": (1, 2, 3, 4)}, "depth=12"),
        ({"depth": 3}, "depth=3"),
        ({"neck": -1}, "neck=-1"),
        ({"global_blocks": (3, 12)}, "global_blocks has 12"),
    ],
)
def test_what_cannot_be_is_told(changes, told):
    with pytest.raises(NucSegError, match=told):
        VitConfig(**changes)


def test_named_encoders_have_the_sizes_of_the_public_ones():
    with torch.device("meta"):
        sizes = {name: sum(p.numel() for p in Vit(c).parameters()) for name, c in VITS.items()}
        sam = Vit(VitConfig(**{**vars(VITS["sam_vit_b"]), "neck": 256}))
    # ViT-S/16 and ViT-B/16 at 224 px without a classifier; the image encoder of SAM ViT-B
    assert sizes["vit_small"] == 21_665_664
    assert sizes["vit_base"] == 85_798_656
    assert sum(p.numel() for p in sam.parameters()) == 89_670_912
