"""Public encoder weights from a local file: DINO, HIPT ViT-256, SAM's encoder, EfficientNet-lite, or our own runs.

The tensors are found wherever they lie in the file: nested under "teacher", "student", "state_dict" or the like,
behind "module.", "backbone.", "image_encoder." or any other prefix. No object that could run code is unpickled.

The weights expect the normalisation they were trained with, of 8-bit RGB: DINO and SAM a mean of (123.675, 116.28,
103.53) and a standard deviation of (58.395, 57.12, 57.375), HIPT 127.5 for both, EfficientNet-lite 127 and 128.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from napari_nucseg.errors import NucSegError
from train.teacher.attention import resize_offsets
from train.teacher.conv import ConvEncoder
from train.teacher.efficientnet import EfficientNetLite, own_name
from train.teacher.vit import Vit, resize_positions

Encoder = Vit | ConvEncoder | EfficientNetLite
"""What a teacher may see with."""

PREFERRED = ("teacher", "average", "ema")
"""Of several sets of weights in one file the one whose prefix holds one of these is taken: averages do better."""

_RENAMED = ((".mlp.lin1.", ".mlp.fc1."), (".mlp.lin2.", ".mlp.fc2."))  # SAM's names, and ours


@dataclass(frozen=True)
class LoadReport:
    """What became of a file of weights; names are the network's, but for `unexpected`.

    Attributes
    ----------
    path : Path
    prefix : str
        What the names of the file began with.
    matched : tuple of str
        Loaded, the resized ones among them.
    resized : tuple of (str, str)
        Loaded after interpolation: the name, and the sizes before and after.
    missing : tuple of str
        Parameters that the file does not have; they keep their random beginning.
    unexpected : tuple of str
        Names of the file behind the prefix that the network has no use for, such as "head.weight".
    beside : int
        Tensors of the file behind other prefixes: a decoder, an optimiser, a second network.
    """

    path: Path
    prefix: str
    matched: tuple[str, ...]
    resized: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    beside: int

    def __str__(self) -> str:
        """Return one line that tells all."""
        sizes = ", ".join(f"{name} {change}" for name, change in self.resized)
        return (
            f"{self.path.name}: {len(self.matched)} tensors match behind '{self.prefix}'; "
            f"{len(self.resized)} resized{f' ({sizes})' if sizes else ''}; "
            f"{len(self.missing)} missing{_some(self.missing)}; "
            f"{len(self.unexpected)} unexpected{_some(self.unexpected)}; {self.beside} beside"
        )


def _some(names: tuple[str, ...], most: int = 4) -> str:
    """Return the first names in brackets."""
    return f" ({', '.join(names[:most])}{', ...' if len(names) > most else ''})" if names else ""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a file by its full name, nested dicts joined by dots.

    Parameters
    ----------
    path : Path
        A `.safetensors` file, or whatever `torch.save` wrote (of which only tensors and plain values are
        unpickled).

    Raises
    ------
    NucSegError
        The file is missing, damaged, holds no tensor, or holds objects that could run code.
    """
    if not path.is_file():
        raise NucSegError(f"Weights '{path}' are not a file; check the path.")
    if path.suffix == ".safetensors":
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise NucSegError(f"Weights '{path}' are no safetensors ({error}); get them anew.") from error
    else:
        tensors = {}
        _flatten(_unpickle(path), "", tensors)
    if not tensors:
        raise NucSegError(f"Weights '{path}' hold no tensor; give a state dict, as .safetensors or .pth.")
    return tensors


def _unpickle(path: Path) -> Any:
    # the public DINO checkpoints carry their command line; it holds plain values only
    allow = getattr(torch.serialization, "safe_globals", lambda _: contextlib.nullcontext())
    try:
        with allow([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NucSegError(
            f"Weights '{path}' are no state dict, or hold objects that could run code, and are not unpickled; "
            "save their tensors alone as .safetensors."
        ) from error
    except Exception as error:  # a damaged file makes the reader stumble in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise NucSegError(f"Weights '{path}' cannot be read ({reason}); get them anew.") from error


def _flatten(node: Any, prefix: str, out: dict[str, Tensor]) -> None:
    """Collect the tensors below a node of nested dicts."""
    if isinstance(node, Tensor):
        out[prefix] = node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            _flatten(value, f"{prefix}.{key}" if prefix else str(key), out)


def find_prefix(names: list[str], anchor: str) -> str | None:
    """Return what precedes `anchor` in the names, the preferred one of several; None if it is nowhere.

    Parameters
    ----------
    names : list of str
    anchor : str
        A name every fitting state dict has.
    """
    found = [n.removesuffix(anchor) for n in names if n == anchor or n.endswith(f".{anchor}")]

    def rank(prefix: str) -> int:
        return min((k for k, word in enumerate(PREFERRED) if word in prefix), default=len(PREFERRED))

    return min(found, key=rank, default=None)


def load_encoder(encoder: Encoder, path: Path) -> LoadReport:
    """Load weights into an encoder, in place.

    A position embedding of another grid is resampled bicubically, relative positions linearly; the class token is
    dropped where the network has none, and keeps its random beginning where the file has none.

    Parameters
    ----------
    encoder : Vit, ConvEncoder or EfficientNetLite
    path : Path
        See `read_tensors`.

    Returns
    -------
    LoadReport

    Raises
    ------
    NucSegError
        The file cannot be read, holds no such encoder, or one of another width or patch.
    """
    tensors = read_tensors(path)
    if isinstance(encoder, EfficientNetLite):
        tensors = {own_name(name): tensor for name, tensor in tensors.items()}
    anchor = "patch_embed.proj.weight" if isinstance(encoder, Vit) else "stem.conv.weight"
    prefix = find_prefix(list(tensors), anchor)
    if prefix is None:
        raise NucSegError(
            f"Weights '{path}' hold no '{anchor}' (but '{next(iter(tensors))}'), so they are of another kind of "
            "encoder; choose the encoder they belong to."
        )
    given = {_rename(n.removeprefix(prefix)): t for n, t in tensors.items() if n.startswith(prefix)}
    wanted = {n: t for n, t in encoder.state_dict().items() if not n.endswith("num_batches_tracked")}
    fitted: dict[str, Tensor] = {}
    resized: list[tuple[str, str]] = []
    for name in wanted.keys() & given.keys():
        fitted[name], change = _fit(name, given[name].float(), wanted[name], encoder)
        if fitted[name].shape != wanted[name].shape:
            raise NucSegError(
                f"Weights '{path}' have '{name}' of {tuple(given[name].shape)} where the network has "
                f"{tuple(wanted[name].shape)}; choose the encoder they belong to."
            )
        resized += [(name, change)] if change else []
    encoder.load_state_dict(fitted, strict=False)
    return LoadReport(
        path,
        prefix,
        matched=tuple(n for n in wanted if n in fitted),
        resized=tuple(sorted(resized)),
        missing=tuple(n for n in wanted if n not in fitted),
        unexpected=tuple(n for n in given if n not in wanted and not n.endswith("num_batches_tracked")),
        beside=len(tensors) - len(given),
    )


def _rename(name: str) -> str:
    for theirs, ours in _RENAMED:
        name = name.replace(theirs, ours)
    return name


def _fit(name: str, given: Tensor, wanted: Tensor, encoder: Encoder) -> tuple[Tensor, str]:
    """Return a tensor resampled to the network's grid where that is what differs, and how it was changed."""
    if name == "pos_embed" and isinstance(encoder, Vit):
        return _fit_positions(given, wanted, encoder)
    if name.endswith(("rel_pos_h", "rel_pos_w")) and given.ndim == 2 and len(given) != len(wanted):
        return resize_offsets(given, (len(wanted) + 1) // 2), f"{len(given)} to {len(wanted)} offsets"
    return given, ""


def _fit_positions(given: Tensor, wanted: Tensor, encoder: Vit) -> tuple[Tensor, str]:
    """Fit (1, T, C) with or without a class token first, or (1, rows, cols, C), to (1, T', C)."""
    if given.shape[-1] != wanted.shape[-1] or given.ndim not in (3, 4) or len(given) != 1:
        return given, ""  # the caller tells
    side = encoder.config.grid
    if given.ndim == 4:
        cells, token = given, None
    else:
        count = given.shape[1]
        extra = 0 if math.isqrt(count) ** 2 == count else 1
        old = math.isqrt(count - extra)
        if old * old != count - extra or not old:
            return given, ""
        cells, token = given[:, extra:].unflatten(1, (old, old)), given[:, :extra]
    grid = resize_positions(cells, (side, side)).flatten(1, 2)
    change = (
        f"{cells.shape[1]} x {cells.shape[2]} to {side} x {side}" if cells.shape[1:3] != (side, side) else ""
    )
    if encoder.config.class_token:
        own = token if token is not None and token.shape[1] else wanted[:, :1]
        grid = torch.cat([own.to(grid.dtype), grid], 1)
    return grid, change
