"""Structured pruning of a student: whole channels go, and what is left is an ordinary, smaller student.

A channel is kept for what it adds to the network: the size that batch norm gives it, sqrt(gamma^2 + beta^2) (gamma
alone in Liu et al. 2017, network slimming), times the mean absolute weight with which it is read (L1, Li et al. 2017).
Channels that are added to one another by shortcuts and skips are one group: they go together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from napari_nucseg.errors import NucSegError
from napari_nucseg.models.student import ConvBN, Residual, Student, StudentConfig

RGB, MAPS = "rgb", "maps"
"""Groups of channels that are never pruned: the image and the output."""


@dataclass(frozen=True)
class _Link:
    """A convolution from the channels of one group to those of another."""

    name: str
    module: nn.Module
    source: str
    target: str

    @property
    def conv(self) -> nn.Conv2d:
        conv = self.module.conv if isinstance(self.module, ConvBN) else self.module
        assert isinstance(conv, nn.Conv2d)
        return conv


def _residuals(blocks: nn.Module, name: str, group: str) -> Iterator[_Link]:
    for k, block in enumerate(blocks.children()):
        assert isinstance(block, Residual)
        inner = f"{name}.{k}.inner"
        yield _Link(f"{name}.{k}.first", block.first, group, inner)
        yield _Link(f"{name}.{k}.second", block.second, inner, group)


def _links(student: Student) -> list[_Link]:
    """Return all convolutions with their groups: ``enc0`` ... of the encoder, ``dec0`` ... of the decoder, insides."""
    top = len(student.config.widths) - 1
    found = [_Link("stem", student.stem, RGB, "enc0")]
    for level, stage in enumerate(student.stages):
        if level:
            found.append(_Link(f"down.{level}", student.down[level], f"enc{level - 1}", f"enc{level}"))
        found += _residuals(stage, f"stages.{level}", f"enc{level}")
    for k, up in enumerate(student.up):
        level = top - 1 - k
        deep = f"enc{top}" if k == 0 else f"dec{level + 1}"
        found.append(_Link(f"up.{k}.reduce", up.reduce, deep, f"dec{level}"))
        found.append(_Link(f"up.{k}.lateral", up.lateral, f"enc{level}", f"dec{level}"))
        found += _residuals(up.refine, f"up.{k}.refine", f"dec{level}")
    found.append(_Link("head.0", student.head[0], "dec0", "head"))
    found.append(_Link("head.1", student.head[1], "head", MAPS))
    return found


def importance(student: Student) -> dict[str, Tensor]:
    """Return how much each channel of each group matters, see the module; (channels,) each, larger matters more."""
    written: dict[str, Tensor] = {}
    read: dict[str, Tensor] = {}
    for link in _links(student):
        if isinstance(link.module, ConvBN):
            norm = link.module.bn
            if not isinstance(norm, nn.BatchNorm2d):
                raise NucSegError("The student's norms are folded in already; prune it as it was trained.")
            size = (norm.weight.detach() ** 2 + norm.bias.detach() ** 2).sqrt()
            written[link.target] = written.get(link.target, torch.zeros_like(size)) + size
        weight = link.conv.weight.detach().abs().mean((0, 2, 3))
        read[link.source] = read.get(link.source, torch.zeros_like(weight)) + weight
    return {group: size * read[group] for group, size in written.items()}


def _keep(scores: Tensor, count: int) -> Tensor:
    """Return the positions of the `count` largest scores in ascending order; of equal ones the first."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return order[:count].sort().values


def smaller_widths(widths: Sequence[int], keep: float, multiple: int = 8) -> tuple[int, ...]:
    """Return widths of about `keep` of the given ones, whole multiples of what the CPU computes at once.

    Raises
    ------
    NucSegError
        `keep` is not between 0 and 1, or nothing would go.
    """
    if not 0 < keep < 1:
        raise NucSegError(
            f"keep={keep} must lie between 0 and 1: the share of channels that stay, such as 0.75."
        )
    found = tuple(min(w, max(multiple, round(w * keep / multiple) * multiple)) for w in widths)
    if found == tuple(widths):
        raise NucSegError(f"keep={keep} leaves the widths {list(widths)} as they are; choose less.")
    return found


def prune(student: Student, widths: Sequence[int]) -> Student:
    """Return a smaller student made of the channels that matter most.

    Parameters
    ----------
    student
        With batch norms, as trained.
    widths
        Channels to keep at each level; the insides of residual blocks and the head shrink with them.

    Returns
    -------
    Student
        In evaluation mode; it should be trained on for a while.

    Raises
    ------
    NucSegError
        The widths are not as many as the student's, or larger.
    """
    old = student.config
    if len(widths) != len(old.widths) or any(not 0 < n <= w for n, w in zip(widths, old.widths, strict=True)):
        raise NucSegError(
            f"widths={list(widths)} do not fit a student of {list(old.widths)}; give as many, none larger."
        )
    config: StudentConfig = replace(old, widths=tuple(widths))
    small = Student(config)
    state, kept = student.state_dict(), {}
    sizes = {link.target: link.conv.out_channels for link in _links(small)}
    for group, scores in importance(student).items():
        kept[group] = _keep(scores, sizes[group])
    kept[RGB], kept[MAPS] = torch.arange(3), torch.arange(sizes[MAPS])
    new: dict[str, Tensor] = {}
    for link in _links(student):
        rows, columns = kept[link.target], kept[link.source]
        inside = f"{link.name}.conv." if isinstance(link.module, ConvBN) else f"{link.name}."
        new[f"{inside}weight"] = state[f"{inside}weight"][rows][:, columns]
        others = [k for k in state if k.startswith(f"{link.name}.") and k != f"{inside}weight"]
        for key in others:
            new[key] = state[key][rows] if state[key].ndim else state[key]
    small.load_state_dict(new)
    return small.eval()


def parameters(student: Student) -> int:
    """Return the number of trained values."""
    return sum(p.numel() for p in student.parameters())
