"""Public weights: found under every naming, loaded to the same network, told in a report, refused in a sentence."""

import argparse
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from napari_nucseg.errors import NucSegError
from train.teacher import TeacherConfig, build_teacher
from train.teacher.conv import ConvConfig, ConvEncoder
from train.teacher.vit import Vit, VitConfig, resize_positions
from train.teacher.weights import find_prefix, load_encoder, read_tensors

WIDTH, HEADS, DEPTH = 8, 2, 4
DINO = VitConfig(width=WIDTH, depth=DEPTH, heads=HEADS, image_size=64)
SAM = VitConfig(
    width=WIDTH, depth=DEPTH, heads=HEADS, image_size=80, class_token=False, window=3, global_blocks=(1, 3),
    relative=True, neck=6,
)  # fmt: skip


def dino_state(side=4, seed=0):
    """A state dict with the names and shapes of DINO's and HIPT's files."""
    rng = torch.Generator().manual_seed(seed)
    shapes = {
        "cls_token": (1, 1, WIDTH), "pos_embed": (1, side * side + 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 16, 16), "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,), "norm.bias": (WIDTH,),
    }  # fmt: skip
    for k in range(DEPTH):
        shapes |= block_shapes(f"blocks.{k}.", "fc1", "fc2")
    return {n: torch.randn(s, generator=rng) * (0.02 if len(s) == 4 else 0.3) for n, s in shapes.items()}


def sam_state(side=5, window=3, seed=1):
    """A state dict with the names and shapes of SAM's image encoder."""
    rng = torch.Generator().manual_seed(seed)
    shapes = {
        "pos_embed": (1, side, side, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 16, 16), "patch_embed.proj.bias": (WIDTH,),
        "neck.0.weight": (6, WIDTH, 1, 1), "neck.1.weight": (6,), "neck.1.bias": (6,),
        "neck.2.weight": (6, 6, 3, 3), "neck.3.weight": (6,), "neck.3.bias": (6,),
    }  # fmt: skip
    for k in range(DEPTH):
        shapes |= block_shapes(f"blocks.{k}.", "lin1", "lin2")
        span = 2 * (side if k in (1, 3) else window) - 1
        for axis in "hw":
            shapes[f"blocks.{k}.attn.rel_pos_{axis}"] = (span, WIDTH // HEADS)
    return {n: torch.randn(s, generator=rng) * 0.3 for n, s in shapes.items()}


def block_shapes(prefix, first, second):
    layers = {"attn.qkv": (3, 1), "attn.proj": (1, 1), f"mlp.{first}": (4, 1), f"mlp.{second}": (1, 4)}
    out = {f"{prefix}{n}.weight": (o * WIDTH, i * WIDTH) for n, (o, i) in layers.items()}
    out |= {f"{prefix}{n}.bias": (o * WIDTH,) for n, (o, _) in layers.items()}
    return out | {f"{prefix}norm{k}.{kind}": (WIDTH,) for k in (1, 2) for kind in ("weight", "bias")}


def norm(x, state, name):
    return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def plain_attention(x, state, name, bias=None):
    """Attention of tokens (T, WIDTH), head by head and written out; bias(q, head) is added to the scores."""
    size = WIDTH // HEADS
    qkv = linear(x, state, f"{name}.qkv")
    out = []
    for head in range(HEADS):
        q, k, v = (qkv[:, part * WIDTH + head * size :][:, :size] for part in range(3))
        scores = q @ k.T / math.sqrt(size)
        out.append((scores if bias is None else scores + bias(q)).softmax(1) @ v)
    return linear(torch.cat(out, 1), state, f"{name}.proj")


def patches(image, state):
    """Tokens (rows, cols, WIDTH) of an image (3, H, W)."""
    kernel = state["patch_embed.proj.weight"].reshape(WIDTH, -1)
    rows, cols = image.shape[1] // 16, image.shape[2] // 16
    cut = [
        image[:, 16 * r : 16 * r + 16, 16 * c : 16 * c + 16].reshape(-1)
        for r in range(rows)
        for c in range(cols)
    ]
    return (torch.stack(cut) @ kernel.T + state["patch_embed.proj.bias"]).view(rows, cols, WIDTH)


def plain_dino(image, state):
    """Last tokens of the plain transformer, with the position embedding's own grid."""
    x = torch.cat([state["cls_token"][0], patches(image, state).reshape(-1, WIDTH)]) + state["pos_embed"][0]
    for k in range(DEPTH):
        name = f"blocks.{k}"
        x = x + plain_attention(norm(x, state, f"{name}.norm1"), state, f"{name}.attn")
        hidden = F.gelu(linear(norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1"))
        x = x + linear(hidden, state, f"{name}.mlp.fc2")
    return norm(x, state, "norm")


def relative_bias(state, name, side):
    tables = [state[f"{name}.rel_pos_{axis}"] for axis in "hw"]

    def bias(q):
        out = torch.zeros(side * side, side * side)
        for i in range(side * side):
            for j in range(side * side):
                row, col = i // side - j // side + side - 1, i % side - j % side + side - 1
                out[i, j] = q[i] @ (tables[0][row] + tables[1][col])
        return out

    return bias


def plain_sam(image, state):
    """Last tokens (rows, cols, WIDTH) of SAM's encoder before its neck."""
    x = patches(image, state) + state["pos_embed"][0]
    side = x.shape[0]
    for k in range(DEPTH):
        name = f"blocks.{k}"
        cells = norm(x, state, f"{name}.norm1")
        window = side if k in (1, 3) else 3
        padded = torch.zeros(-(-side // window) * window, -(-side // window) * window, WIDTH)
        padded[:side, :side] = cells
        bias = relative_bias(state, f"{name}.attn", window)
        for r in range(0, len(padded), window):
            for c in range(0, len(padded), window):
                tokens = padded[r : r + window, c : c + window].reshape(-1, WIDTH)
                mixed = plain_attention(tokens, state, f"{name}.attn", bias)
                padded[r : r + window, c : c + window] = mixed.view(window, window, WIDTH)
        x = x + padded[:side, :side]
        hidden = F.gelu(linear(norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.lin1"))
        x = x + linear(hidden, state, f"{name}.mlp.lin2")
    return x


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


FILES = {
    "bare": lambda s: s,
    "wrapped": lambda s: {"state_dict": under("module.", s)},
    "hipt": lambda s: {
        "student": under("module.backbone.", dino_state(seed=9)),
        "teacher": {**under("backbone.", s), **under("head.", {"last_layer.weight": torch.zeros(3, WIDTH)})},
        "epoch": 400,
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
    },
    "prefixed": lambda s: {**under("student.", dino_state(seed=9)), **under("teacher.", s)},
    "cellvit": lambda s: {
        "arch": "x",
        "model_state_dict": {**under("encoder.", s), "decoder0.0.w": torch.ones(2)},
    },
}


@pytest.mark.parametrize("kind", FILES)
def test_dino_weights_give_dino_tokens(kind, tmp_path):
    state = dino_state()
    torch.save(FILES[kind](state), tmp_path / "encoder.pth")
    vit = Vit(DINO).eval()
    report = load_encoder(vit, tmp_path / "encoder.pth")
    assert set(report.matched) == set(state)
    assert not report.missing
    assert not report.resized
    assert not report.unexpected
    image = torch.randn(3, 64, 64)
    tokens = vit.tokens(image[None])[-1][0]
    assert torch.allclose(tokens, plain_dino(image, state), atol=1e-4)
    assert torch.equal(vit(image[None])[-1][0].flatten(1).T, tokens[1:])


def test_sam_weights_give_sam_tokens(tmp_path):
    state = sam_state()
    torch.save({**under("image_encoder.", state), "mask_decoder.x": torch.ones(1)}, tmp_path / "sam.pth")
    vit = Vit(SAM).eval()
    report = load_encoder(vit, tmp_path / "sam.pth")
    assert len(report.matched) == len(state)
    assert (report.missing, report.unexpected, report.resized) == ((), (), ())
    assert report.prefix == "image_encoder."
    assert report.beside == 1
    image = torch.randn(3, 80, 80)
    wanted = plain_sam(image, state)
    assert torch.allclose(vit.tokens(image[None])[-1][0], wanted.reshape(-1, WIDTH), atol=1e-4)
    maps = wanted.permute(2, 0, 1)[None]
    for conv, scale in (("0", "1"), ("2", "3")):
        maps = F.conv2d(maps, state[f"neck.{conv}.weight"], padding="same")
        maps = (maps - maps.mean(1, keepdim=True)) / (maps.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
        weight, bias = (state[f"neck.{scale}.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
        maps = maps * weight + bias
    assert torch.allclose(vit(image[None])[-1], maps, atol=1e-4)


def test_safetensors_and_our_own_runs(tmp_path):
    save_file(under("backbone.", dino_state()), tmp_path / "a.safetensors")
    assert not load_encoder(Vit(DINO), tmp_path / "a.safetensors").missing
    config = TeacherConfig("conv", conv=ConvConfig((4, 4, 6, 6), (1, 1, 1, 1)))
    torch.manual_seed(0)
    trained = build_teacher(config)
    states = {"task": under("network.", build_teacher(config).state_dict())}
    torch.save(
        {"step": 3, **states, "average": under("network.", trained.state_dict())}, tmp_path / "last.pt"
    )
    encoder = ConvEncoder(config.conv)
    report = load_encoder(encoder, tmp_path / "last.pt")
    assert report.prefix == "average.network.encoder."
    assert (report.missing, report.unexpected) == ((), ())
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, trained.encoder.state_dict()[name]) or name.endswith("tracked"), name


def test_a_grid_of_another_size_is_resampled_and_told(tmp_path):
    state = dino_state(side=6)
    torch.save(state, tmp_path / "a.pth")
    vit = Vit(DINO)
    report = load_encoder(vit, tmp_path / "a.pth")
    assert report.resized == (("pos_embed", "6 x 6 to 4 x 4"),)
    assert torch.equal(vit.pos_embed[:, :1], state["pos_embed"][:, :1])
    cells = resize_positions(state["pos_embed"][:, 1:].view(1, 6, 6, WIDTH), (4, 4))
    assert torch.equal(vit.pos_embed[:, 1:], cells.view(1, 16, WIDTH))

    torch.save(sam_state(side=7, window=4), tmp_path / "b.pth")
    report = load_encoder(Vit(SAM), tmp_path / "b.pth")
    changes = dict(report.resized)
    assert changes["pos_embed"] == "7 x 7 to 5 x 5"
    assert changes["blocks.0.attn.rel_pos_h"] == "7 to 5 offsets"
    assert changes["blocks.1.attn.rel_pos_w"] == "13 to 9 offsets"
    assert len(changes) == 1 + 2 * DEPTH


def test_class_tokens_are_dropped_or_stay_as_they_were(tmp_path):
    torch.save(dino_state(side=5), tmp_path / "with.pth")
    vit = Vit(SAM)
    report = load_encoder(vit, tmp_path / "with.pth")
    assert torch.equal(vit.pos_embed, dino_state(side=5)["pos_embed"][:, 1:])
    assert set(report.unexpected) == {"cls_token", "norm.weight", "norm.bias"}
    assert {n.split(".")[-1] for n in report.missing if n.startswith("blocks")} == {"rel_pos_h", "rel_pos_w"}

    torch.save(sam_state(side=4), tmp_path / "without.pth")
    vit = Vit(DINO)
    before = vit.pos_embed[:, :1].clone()
    report = load_encoder(vit, tmp_path / "without.pth")
    assert torch.equal(vit.pos_embed[:, :1], before)
    assert torch.equal(vit.pos_embed[:, 1:], sam_state(side=4)["pos_embed"].view(1, 16, WIDTH))
    assert set(report.missing) == {"cls_token", "norm.weight", "norm.bias"}


def test_the_report_tells_what_did_not_fit(tmp_path, caplog):
    state = {n: t for n, t in dino_state().items() if not n.startswith("blocks.2.")}
    torch.save(
        {**under("teacher.", {**state, "head.weight": torch.ones(2)}), "loss": torch.ones(1)},
        tmp_path / "a.pth",
    )
    build_teacher(TeacherConfig(vit=DINO, weights=tmp_path / "a.pth"))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    text = record.getMessage()
    assert text.startswith(
        f"a.pth: {len(state)} tensors match behind 'teacher.'; 0 resized; 12 missing (blocks.2."
    )
    assert text.endswith("1 unexpected (head.weight); 1 beside")


def test_a_prefix_is_found_at_dots_only():
    assert find_prefix(["a.patch.w", "b_patch.w"], "patch.w") == "a."
    assert find_prefix(["student.patch.w", "patch.w", "x.ema.patch.w"], "patch.w") == "x.ema."
    assert find_prefix(["b_patch.w"], "patch.w") is None


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "are not a file"),
        (b"not a checkpoint at all", "not unpickled|cannot be read"),
        (b"", "cannot be read|not unpickled"),
        ({"epoch": 3}, "hold no tensor"),
        ({"weight": torch.ones(2)}, "hold no 'patch_embed.proj.weight' .but 'weight'."),
        ({**dino_state(), "evil": Harmful()}, "could run code"),
        ({**dino_state(), "blocks.1.attn.proj.bias": torch.ones(6)}, r"'blocks.1.attn.proj.bias' of \(6,\)"),
        ({**dino_state(), "pos_embed": torch.ones(1, 16 + 2, WIDTH)}, r"'pos_embed' of \(1, 18, 8\)"),
        ({**dino_state(), "pos_embed": torch.ones(1, 17, WIDTH + 1)}, r"'pos_embed' of \(1, 17, 9\)"),
    ],
)
def test_bad_files_are_told_in_one_sentence(content, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(NucSegError, match=told) as caught:
        load_encoder(Vit(DINO), path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")
    assert not Path("harmed").exists()


def test_damaged_safetensors_are_told(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(NucSegError, match="are no safetensors"):
        read_tensors(tmp_path / "a.safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(NucSegError, match="hold no tensor"):
        load_encoder(Vit(DINO), tmp_path / "empty.safetensors")


def test_a_shape_that_does_not_fit_changes_nothing(tmp_path):
    torch.save({**dino_state(), "norm.bias": torch.ones(3)}, tmp_path / "a.pth")
    vit = Vit(DINO)
    before = {n: t.clone() for n, t in vit.state_dict().items()}
    with pytest.raises(NucSegError):
        load_encoder(vit, tmp_path / "a.pth")
    assert all(torch.equal(before[n], t) for n, t in vit.state_dict().items())
