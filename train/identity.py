"""What makes a run the one it is: going on with other settings that change the weights is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from train.annotated import AnnotatedImage
from train.config import to_mapping

HARMLESS = (
    "run",
    "device",
    "threads",
    "begin",  # the model's own sum stands for it
    "cache",
    "teacher.checkpointing",
    "data.root",
    "data.cache_gb",
    "loop.workers",
    "loop.log_every",
    "loop.checkpoint_every",
    "loop.validate_every",
    "loop.validation_crops",
    "loop.patience",
)
"""Settings that may change from one start of a run to the next: they do not change the weights."""

LATER = ("teacher.light",)
"""Settings of parts that earlier versions did not have: a run that lacks them has none of these parts."""


def identity(config: Any, train: Sequence[AnnotatedImage]) -> dict[str, Any]:
    """Return what makes a run the one it is: flat settings and the training images."""
    flat: dict[str, Any] = {"training images": [f"{im.dataset}/{im.name}" for im in train]}

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            name = f"{prefix}{key}"
            if name in HARMLESS:
                continue
            if isinstance(value, dict):
                walk(value, name + ".")
            else:
                flat[name] = value

    walk(to_mapping(config), "")
    return flat
