import itertools

import pytest
import torch

from napari_nucseg.errors import NucSegError
from train.optim import learning_rate, native_precision, parameter_groups, precision, update_ema
from train.teacher.vit import Vit, VitConfig


def test_the_rate_warms_up_and_comes_down():
    rates = [learning_rate(1.0, 10, 100, s) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[-1] < 0.02
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_the_average_moves_and_counters_are_copied():
    a, b = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(b.weight, 3.0)
    b.num_batches_tracked += 5
    update_ema(a, b, 0.75)
    assert a.weight.tolist() == [1.5, 1.5]
    assert a.num_batches_tracked == 5


@pytest.mark.parametrize("positions", ["class", "relative"])
def test_norms_biases_positions_and_tokens_are_not_decayed(positions):
    vit = Vit(
        VitConfig(
            width=8,
            depth=4,
            heads=1,
            image_size=64,
            class_token=positions == "class",
            relative=positions == "relative",
        )
    )
    vit.requires_grad_(True)
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    decayed, free = parameter_groups(torch.nn.ModuleList([vit, frozen]), 0.05)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    of = {id(p): name for name, p in vit.named_parameters()}
    names = {of[id(p)] for p in free["params"]}
    assert {n for n in of.values() if "pos" in n or "token" in n} <= names
    assert {n for n, p in vit.named_parameters() if p.ndim == 1} <= names
    rest = {of[id(p)] for p in decayed["params"]}
    assert rest
    assert all(n.endswith("weight") for n in rest)
    assert names | rest == set(of.values())
    assert not names & rest


def test_unknown_precisions_are_named():
    assert precision("off") is None
    assert precision("fp16") is torch.float16
    with pytest.raises(NucSegError, match="'fp8'"):
        precision("fp8")


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_old_gpus_run_in_fp16(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert native_precision(torch.device("cuda", 0)) is dtype


@pytest.mark.parametrize(
    ("has", "dtype"), [(lambda: True, torch.bfloat16), (lambda: False, None), (None, None)]
)
def test_cpus_without_bf16_run_in_full_precision(monkeypatch, has, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", has, raising=False)
    assert native_precision(torch.device("cpu")) is dtype
