"""What a network costs: parameters and multiply-accumulate operations (MACs), part by part.

Nothing is computed and no memory is taken, however large the image: the network is built without values.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_nucseg.errors import NucSegError
from train.config import describe, load_config
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
    modes = {module: module.training for module in network.modules()}
    device = next(network.parameters()).device
    try:
        with _counting(network) as totals, torch.no_grad():
            network.eval()(torch.zeros(1, 3, height, width, device=device))
    finally:
        for module, mode in modes.items():
            module.training = mode
    parts = {
        name: (_parameters(child), sum(n for (part, _), n in totals.items() if part == name))
        for name, child in network.named_children()
    }
    attention = sum(n for (_, kind), n in totals.items() if kind is Attention)
    return Cost(_parameters(network), sum(totals.values()), attention, parts)


@contextlib.contextmanager
def _counting(network: nn.Module) -> Iterator[dict[tuple[str, type], int]]:
    """Add up the MACs of the calls meanwhile, by immediate child and by kind of module."""
    totals: dict[tuple[str, type], int] = defaultdict(int)

    def counter(part: str) -> Callable[[nn.Module, Any, Any], None]:
        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            totals[part, type(module)] += layer_macs(module, inputs, output)

        return count

    hooks = [m.register_forward_hook(counter(n.split(".")[0])) for n, m in network.named_modules()]
    try:
        yield totals
    finally:
        for hook in hooks:
            hook.remove()


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


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


@dataclass(frozen=True)
class CostConfig:
    """What to count.

    Parameters
    ----------
    teacher : TeacherConfig
        The network; its `weights` are not read.
    sizes : tuple of int
        Sides of the square image, in pixels, multiples of 16.
    """

    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    sizes: tuple[int, ...] = (256, 1024)

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise NucSegError(f"sizes={list(self.sizes)} must name at least one size above 0, such as [256].")


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``python -m train.teacher.cost``."""
    prog = "python -m train.teacher.cost"
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Print the parameters and multiply-accumulate operations of a teacher, part by part.",
        epilog=f"example:\n  {prog} teacher.encoder=vit_base 'sizes=[256,512]'\n\n"
        f"keys, with their defaults:\n{describe(CostConfig)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="a TOML file with the keys below")
    parser.add_argument("overrides", nargs="*", help="key.sub=value")
    args = parser.parse_args(argv)
    try:
        config = load_config(CostConfig, args.config, args.overrides)
        with torch.device("meta"):
            teacher = Teacher(config.teacher)
        print(table(teacher, config.sizes))
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
