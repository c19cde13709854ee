"""What a network costs: parameters and multiply-accumulate operations (MACs), part by part.

``python -m train.teacher.cost`` prints them for a teacher; sizes are those of its input in pixels:

    python -m train.teacher.cost encoder=vit_small
    python -m train.teacher.cost --size 256 --size 1024 encoder=sam_vit_b 'decoder.widths=[32,64,128,256,512]'

The keys are those of `train.teacher.TeacherConfig`. Nothing is computed and no memory is taken, however large
the image: the network is built without values.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_nucseg.errors import NucSegError
from train.config import load_config
from train.teacher.attention import Attention
from train.teacher.teacher import Teacher, TeacherConfig


@dataclass(frozen=True)
class Cost:
    """Parameters and MACs of a network.

    Attributes
    ----------
    parameters : int
    macs : int
        Multiplications with an addition, for one image, in convolutions, linear layers and attention (norms,
        activations and resampling are not counted).
    attention : int
        The part of `macs` that is the product of queries, keys and values: many counters leave it out.
    parts : dict of str to (int, int)
        Parameters and MACs by the network's immediate children.
    """

    parameters: int
    macs: int
    attention: int
    parts: dict[str, tuple[int, int]]


def attention_macs(module: Attention, tokens: Tensor, grid: tuple[int, int]) -> int:
    """Return the MACs of scores, weighted sum and relative positions; the linear layers are not among them."""
    batch, count, width = tokens.shape
    relative = sum(grid) * count * width if module.span else 0
    return batch * (2 * count * count * width + relative)


def layer_macs(module: nn.Module, inputs: Sequence[Any], output: Tensor) -> int:
    """Return the MACs of one call of a convolution or linear layer, and of an `Attention` without its layers."""
    if isinstance(module, nn.ConvTranspose2d):
        return inputs[0].numel() * module.weight[0].numel()
    if isinstance(module, nn.Conv2d | nn.Linear):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, Attention):
        return attention_macs(module, inputs[0], inputs[1])
    return 0


def cost(network: nn.Module, size: int | tuple[int, int]) -> Cost:
    """Count parameters and MACs by running a network once on zeros.

    Parameters
    ----------
    network : nn.Module
        ``(1, 3, H, W)`` float to anything, on any device ("meta" costs neither time nor memory).
    size : int or (int, int)
        Side, or height and width, of the image in pixels.

    Returns
    -------
    Cost
    """
    height, width = (size, size) if isinstance(size, int) else size
    totals: dict[str, int] = defaultdict(int)
    handles = []

    def counter(part: str) -> Any:
        def count(module: nn.Module, inputs: Sequence[Any], output: Any) -> None:
            found = layer_macs(module, inputs, output)
            totals[part] += found
            totals[" attention"] += found if isinstance(module, Attention) else 0

        return count

    for name, module in network.named_modules():
        handles.append(module.register_forward_hook(counter(name.split(".")[0])))
    training, device = network.training, next(network.parameters()).device
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, height, width, device=device))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    attention = totals.pop(" attention", 0)
    parts = {
        name: (sum(p.numel() for p in child.parameters()), totals[name])
        for name, child in network.named_children()
    }
    return Cost(sum(p.numel() for p in network.parameters()), sum(totals.values()), attention, parts)


def table(network: nn.Module, sizes: Sequence[int]) -> str:
    """Return parameters and MACs of the parts of a network for some sizes of the image, as text."""
    costs = [cost(network, size) for size in sizes]
    rows = [["part", "M parameters", *(f"GMAC at {size}" for size in sizes)]]
    for name, (parameters, _) in costs[0].parts.items():
        rows.append([name, f"{parameters / 1e6:.2f}", *(f"{c.parts[name][1] / 1e9:.2f}" for c in costs)])
    rows.append(["total", f"{costs[0].parameters / 1e6:.2f}", *(f"{c.macs / 1e9:.2f}" for c in costs)])
    if any(c.attention for c in costs):
        rows.append(["of it attention", "", *(f"{c.attention / 1e9:.2f}" for c in costs)])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = (cell.rjust(w) for cell, w in zip(row, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *rest]))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``python -m train.teacher.cost``."""
    parser = argparse.ArgumentParser(
        prog="python -m train.teacher.cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="a TOML file of a teacher")
    parser.add_argument(
        "--size", type=int, action="append", help="side of the image in pixels (256 and 1024)"
    )
    parser.add_argument("overrides", nargs="*", help="key.sub=value, for example encoder=conv")
    args = parser.parse_args(argv)
    try:
        config = load_config(TeacherConfig, args.config, args.overrides)
        with torch.device("meta"):
            teacher = Teacher(config)
        print(table(teacher, args.size or (256, 1024)))
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
