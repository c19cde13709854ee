"""The optimiser's parts: schedule of the learning rate, groups of parameters, averaged weights, precision."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from napari_nucseg.errors import NucSegError

UNDECAYED = ("pos_embed", "cls_token", "rel_pos_h", "rel_pos_w")
"""Parameters that say where or which, not how much; DINO and SAM were trained without decay on them too."""


def learning_rate(peak: float, warmup: int, steps: int, step: int) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine down to 1 % of the peak at `steps`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def parameter_groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Split parameters into decayed (matrices, kernels) and not (norms, biases, positions and tokens of a ViT)."""
    wanted = [(name.rpartition(".")[2], p) for name, p in module.named_parameters() if p.requires_grad]
    free = [p.ndim <= 1 or name in UNDECAYED for name, p in wanted]
    return [
        {
            "params": [p for (_, p), is_free in zip(wanted, free, strict=True) if not is_free],
            "weight_decay": decay,
        },
        {"params": [p for (_, p), is_free in zip(wanted, free, strict=True) if is_free], "weight_decay": 0.0},
    ]


@torch.no_grad()
def update_ema(average: nn.Module, current: nn.Module, decay: float) -> None:
    """Move the averaged state towards the current one; counters are copied."""
    theirs, moving, towards = current.state_dict(), [], []
    for name, mine in average.state_dict().items():
        if mine.is_floating_point():
            moving.append(mine)
            towards.append(theirs[name])
        else:
            mine.copy_(theirs[name])
    torch._foreach_lerp_(
        moving, towards, 1 - decay
    )  # all in a few kernels on a GPU, as torch.optim.swa_utils does


def precision(name: str) -> torch.dtype | None:
    """Return the type of autocast of ``loop.amp``, None for full precision.

    Raises
    ------
    NucSegError
        The name is not "bf16", "fp16" or "off".
    """
    known = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}
    if name not in known:
        raise NucSegError(f"loop.amp='{name}' is not one of {', '.join(known)}.")
    return known[name]


def native_precision(device: torch.device) -> torch.dtype | None:
    """Return what a trained network is run in on a device: bf16 where that is native, else fp16 (CUDA) or float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not public, so perhaps not there
    return torch.bfloat16 if device.type == "cpu" and known is not None and known() else None
