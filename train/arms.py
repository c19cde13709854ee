"""The configurations that an ablation compares, each as settings of one training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from napari_nucseg.errors import NucSegError
from train import distill, fit
from train.distill import DistillRunConfig
from train.fit import FitConfig


@dataclass(frozen=True)
class Arm:
    """One configuration.

    Attributes
    ----------
    name : str
        In the table.
    key : str
        In the name of the run folder.
    config : FitConfig
    train : callable
        Runs the training of that config.
    """

    name: str
    key: str
    config: FitConfig
    train: Callable[..., None]


def distillation(base: DistillRunConfig) -> list[Arm]:
    """Return the student alone, and with what a teacher adds, one thing after the other.

    The weights of the comparisons are those of `base`. Each arm contains the one before, save that HCL takes the place
    of the plain MSE of features.

    Raises
    ------
    NucSegError
        `base` gives a comparison no weight, so that two arms would be the same.
    """
    told = base.distil
    for name in ("output", "feature"):
        if not getattr(told, name) > 0:
            raise NucSegError(
                f"distil.{name}={getattr(told, name)} leaves nothing to ablate; set it above 0."
            )
    alone = replace(told, output=0.0, feature=0.0, feature_loss="none", class_balanced=False)
    output = replace(alone, output=told.output)
    mse = replace(output, feature=told.feature, feature_loss="mse")
    hcl = replace(mse, feature_loss="hcl")
    steps = {
        "student": alone,
        "+ output": output,
        "+ output + features (MSE)": mse,
        "+ output + features (HCL)": hcl,
        "+ output + features (HCL) + class balance": replace(hcl, class_balanced=True),
    }
    keys = ("student", "output", "mse", "hcl", "balance")
    return [
        Arm(name, key, replace(base, distil=config), distill.distill)
        for key, (name, config) in zip(keys, steps.items(), strict=True)
    ]


def decoder(base: FitConfig) -> list[Arm]:
    """Return the student from labels alone with one map of the decoder after the other.

    The first learns foreground, horizontal and vertical distance and type; its centres are found in the distance maps
    (`train.without`). Then the centre map is learnt, then the boundary map, then distances along four angles. The
    decoder has the same settings throughout.

    Raises
    ------
    NucSegError
        `base` begins with a trained model, whose maps and angles would be those of every arm.
    """
    if base.begin:
        raise NucSegError(
            f"begin='{base.begin}' settles the maps and angles that this study compares; begin with chance "
            "(--settings begin=)."
        )
    model = replace(base.model, angles=(0, 90))
    steps = {
        "base": replace(model, without=("centre", "boundary")),
        "+ centre": replace(model, without=("boundary",)),
        "+ centre + boundary": replace(model, without=()),
        "+ centre + boundary + multi-angle": replace(model, without=(), angles=(0, 45, 90, 135)),
    }
    keys = ("base", "centre", "boundary", "angles")
    return [
        Arm(name, key, replace(base, model=config), fit.fit)
        for key, (name, config) in zip(keys, steps.items(), strict=True)
    ]


STUDIES: dict[str, tuple[type[FitConfig], str, Callable[[Any], list[Arm]]]] = {
    "distillation": (DistillRunConfig, "distill", distillation),
    "decoder": (FitConfig, "fit", decoder),
}
"""Config class, command whose table of a config file is read, and arms of each study."""
