"""Distillation losses: plain functions of what a student and its teacher say of the same pixels.

Output-level losses compare raw maps, feature-level ones lists of decoder features. All of them take the teacher as
a constant; the caller sees to it that no gradient flows there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from train import losses

POOLED_SIZES = (4, 2, 1)


def _check_pairs(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> None:
    if len(students) != len(teachers) or not students:
        raise NucSegError(
            f"{len(students)} student and {len(teachers)} teacher features cannot be compared; give one of each "
            "per level, at least one level."
        )
    for level, (student, teacher) in enumerate(zip(students, teachers, strict=True)):
        if student.shape != teacher.shape:
            raise NucSegError(
                f"Features of level {level} have the shapes {tuple(student.shape)} and {tuple(teacher.shape)}; "
                "project and resize the student's to the teacher's first."
            )


def feature_mse(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of each level, summed over the levels (Romero et al. 2015, FitNets).

    Parameters
    ----------
    students, teachers : lists of (N, C, H, W) float, equal shapes level by level

    Returns
    -------
    Tensor, scalar

    Raises
    ------
    NucSegError
        The lists are empty, or differ in length or in a shape.
    """
    _check_pairs(students, teachers)
    return torch.stack([F.mse_loss(s, t) for s, t in zip(students, teachers, strict=True)]).sum()


def _hcl_level(student: Tensor, teacher: Tensor) -> Tensor:
    terms, weights = [F.mse_loss(student, teacher)], [1.0]
    for size in POOLED_SIZES:
        if size >= student.shape[2]:  # by the height alone, as published
            continue
        pooled = (F.adaptive_avg_pool2d(x, (size, size)) for x in (student, teacher))
        terms.append(F.mse_loss(*pooled))
        weights.append(weights[-1] / 2)
    weighted = [w * term for w, term in zip(weights, terms, strict=True)]
    return torch.stack(weighted).sum() / sum(weights)


def hcl(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """Hierarchical context loss (Chen et al. 2021, Distilling Knowledge via Knowledge Review).

    Of each level, the weighted mean of the MSE at full size and of the features averaged to 4x4, 2x2 and 1x1;
    weights 1, 1/2, 1/4, 1/8. A pooled size that is not smaller than the height is skipped and uses up no weight.
    The levels are summed.

    Parameters
    ----------
    students, teachers : lists of (N, C, H, W) float, equal shapes level by level

    Returns
    -------
    Tensor, scalar

    Raises
    ------
    NucSegError
        The lists are empty, or differ in length or in a shape.
    """
    _check_pairs(students, teachers)
    return torch.stack([_hcl_level(s, t) for s, t in zip(students, teachers, strict=True)]).sum()


def binary_kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over all elements of T^2 KL(teacher || student) of two-way probabilities at temperature T.

    Hinton et al. 2015; T^2 keeps the size of the gradient as T changes. Any equal shapes of logits.
    """
    scaled, soft = student / temperature, (teacher / temperature).sigmoid()
    cross = F.binary_cross_entropy_with_logits(scaled, soft)
    entropy = F.binary_cross_entropy_with_logits(teacher / temperature, soft)
    return temperature**2 * (cross - entropy)


def softmax_kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over pixels of T^2 KL(teacher || student) over the channels of (N, C, H, W) logits (Hinton et al. 2015)."""
    log_student = (student / temperature).log_softmax(1)
    log_teacher = (teacher / temperature).log_softmax(1)
    return temperature**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(1).mean()


def class_frequency_weights(frequencies: Tensor) -> Tensor:
    """Weights proportional to 1 / frequency, mean 1.

    Parameters
    ----------
    frequencies : (C,) float
        Counts or shares of the classes in the training data, in any unit. A class that never occurs says nothing
        of how rare it is: it gets the weight of the commonest.

    Returns
    -------
    (C,) float of the same dtype

    Raises
    ------
    NucSegError
        A frequency is negative, or none is above 0.
    """
    if bool((frequencies < 0).any()) or not bool((frequencies > 0).any()):
        raise NucSegError(
            f"Class frequencies {frequencies.tolist()} must be 0 or more, one of them above 0; count the classes anew."
        )
    known = torch.where(frequencies > 0, frequencies, frequencies.max())
    inverse = known.max() / known
    return inverse / inverse.mean()


def class_balanced_kd(student: Tensor, teacher: Tensor, weights: Tensor, eps: float = 1e-6) -> Tensor:
    """Class-balanced distillation of class probabilities: ``-1/N sum_i sum_c w_c T_ic ln(S_ic + eps)``.

    Unlike a plain cross-entropy it is smallest where ``S_c`` is proportional to ``w_c T_c``, not where S equals T:
    the student is drawn beyond its teacher towards rare classes. That is what the weights are for.

    Parameters
    ----------
    student, teacher : (N, C, H, W) probabilities
    weights : (C,) of `class_frequency_weights`
    eps : keeps the logarithm finite

    Returns
    -------
    Tensor, scalar: mean over the N * H * W pixels
    """
    per_class = weights.view(1, -1, 1, 1) * teacher * (student + eps).log()
    return -per_class.sum(1).mean()


def output_loss(
    student: Tensor,
    teacher: Tensor,
    layout: MapLayout,
    temperature: float = 1.0,
    type_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compare every map of a student with its teacher's.

    Probabilities (`foreground`, `boundary`, `type`) by the KL divergence at a temperature; what is regressed
    (`distance`, `centre`) by the very loss it has on labels, with the teacher's map for the truth. Distances count
    by the teacher's foreground probability: outside nuclei neither network ever learnt any.

    Parameters
    ----------
    student, teacher : (N, layout.channels, H, W) raw maps
    layout : MapLayout
    temperature : float
        Above 1 softens the probabilities of both.
    type_weights : (C + 1,) float, optional
        Then `type` is compared by `class_balanced_kd`, of the probabilities at the temperature.

    Returns
    -------
    dict of scalars: "foreground", "distance", "centre", "boundary", "type"
    """
    lay, t = layout, temperature
    inside = teacher[:, lay.foreground].sigmoid()[:, 0]
    classes = student[:, lay.type], teacher[:, lay.type]
    if type_weights is None:
        kind = softmax_kd(*classes, t)
    else:
        soft = [(c / t).softmax(1) for c in classes]
        kind = t**2 * class_balanced_kd(soft[0], soft[1], type_weights)
    return {
        "foreground": binary_kd(student[:, lay.foreground], teacher[:, lay.foreground], t),
        "distance": losses.distance_loss(
            student[:, lay.distance], teacher[:, lay.distance], inside, lay.angles
        ),
        "centre": losses.centre_loss(student[:, lay.centre], teacher[:, lay.centre].sigmoid()[:, 0]),
        "boundary": softmax_kd(student[:, lay.boundary], teacher[:, lay.boundary], t),
        "type": kind,
    }
