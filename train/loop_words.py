"""What the training loop says to its user, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAIN = ("AJI", "F1_d", "mPQ")
"""Figures of every set that a line on a validation shows; ``metrics.csv`` has all."""


def figures_in_short(values: Mapping[str, float]) -> str:
    """Return one line with the main figures of a validation: bPQ over all images, then a few of every set."""
    sets: dict[str, list[str]] = {}
    for name, value in values.items():
        key, _, figure = name.partition("/")
        short = figure.partition(" (")[0]
        if short in MAIN:
            sets.setdefault(key, []).append(f"{short} {value:.3f}")
    overall = [f"bPQ {values['bPQ']:.3f}"] if "bPQ" in values else []
    return "; ".join([*overall, *(f"{key}: {', '.join(texts)}" for key, texts in sets.items())])


def where_it_goes_on(step: int, steps: int, saved: int | None) -> str:
    """Return what becomes of a run that was stopped at a step, when its last checkpoint is of the step `saved`."""
    if saved is None:
        return f"Stopped at step {step} of {steps}, before anything was saved; the same command begins anew."
    if saved == step:
        return f"Stopped at step {step} of {steps}, which is saved; the same command goes on from there."
    return f"Stopped at step {step} of {steps}; the same command goes on from step {saved}, the last that was saved."


def difference(key: str, before: Any, now: Any) -> str:
    """Return in words how a value of a run's identity differs; of a list only something that one of the two lacks."""
    if not (isinstance(before, list) and isinstance(now, list) and max(len(before), len(now)) > 4):
        return f"{key}={before}, not {now}"
    for word, these, those in (("with", before, now), ("without", now, before)):
        if odd := [x for x in these if x not in set(those)]:
            return f"{len(before)} {key}, {word} '{odd[0]}', not these {len(now)}"
    return f"{key} in another order or number"
