"""How doubtful a nucleus is: what a person should look at first.

Three things are asked of a nucleus the network has found: does the centre map stand high at its centre, how much of
its outline is a border with a neighbour (where one nucleus may have been cut in two, or two not well parted), and
how far is its class ahead of the second one. A logistic function of the three gives a figure in 0..1 that reads as
the probability of an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core._doubt_kernels import count_edges, mark_present
from napari_nucseg.core.calibration import calibrated, tempered
from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.core.nuclei import UNCLASSIFIED
from napari_nucseg.core.tiling import Box

REACH = 48
"""Pixels beyond a changed box that are looked at first; more where a nucleus reaches further."""

UNKNOWN_SCORE = 0.5
"""Taken for the centre score of a nucleus that no model has found."""

CENTRE, CONTACT, MARGIN = range(3)
"""Columns of `doubt_parts`."""

REASONS = ("faint centre", "touches a neighbour", "class unsure")
"""For the user, in the order of these columns."""

TELLING = (0.4, 0.25, 0.6)
"""From which value on a part is worth telling the user."""


@dataclass(frozen=True)
class DoubtWeights:
    """Weights of the logistic function; each but `bias` is for a part in 0..1, see `doubt_parts`.

    The defaults were fitted to what the shipped model gets wrong on its validation images;
    ``python -m benchmarks.review`` says how well they do there.
    """

    bias: float = -3.1
    centre: float = 7.5
    contact: float = 0.75
    margin: float = 1.25


def contact_shares(labels: NDArray[np.uint32], ids: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return how much of the outline of each nucleus is a border with another nucleus.

    Parameters
    ----------
    labels : uint32 (H, W)
        0 is background.
    ids : (n,)
        Ascending.

    Returns
    -------
    float32 (n,)
        Share, 0..1, of the edges between 4-neighbours that part the nucleus from anything else. Edges of the image
        are not counted. 0 for an id without pixels.
    """
    window = (0, labels.shape[0], 0, labels.shape[1])
    return _shares(labels, np.ascontiguousarray(ids, dtype=np.uint32), window)


def contact_shares_near(
    labels: NDArray[np.uint32], ids: NDArray[np.uint32], box: Box
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return `contact_shares` of those nuclei whose share can have changed by a change of pixels in a box.

    Parameters
    ----------
    labels : uint32 (H, W)
        As they are now.
    ids : uint32 (n,)
        Ascending.
    box : Box
        Around the changed pixels. Nuclei that reach out of it must be of one piece.

    Returns
    -------
    places : int64 (m,)
        Places in `ids` of the nuclei with pixels in the box or beside it, ascending.
    shares : float32 (m,)
    """
    around = box.grown(1, labels.shape)
    places = _present(labels, ids, around)
    few = ids[places]
    reach = REACH
    while True:
        window = around.grown(reach, labels.shape)
        if not any(_present(labels, few, side).size for side in _open_sides(window, labels.shape)):
            return places, _shares(labels, few, (window.y0, window.y1, window.x0, window.x1))
        reach *= 2


def _shares(
    labels: NDArray[np.uint32], ids: NDArray[np.uint32], window: tuple[int, int, int, int]
) -> NDArray[np.float32]:
    edges, touching = np.zeros(ids.size, np.int64), np.zeros(ids.size, np.int64)
    count_edges(labels, ids, window, edges, touching)
    return (touching / np.maximum(edges, 1)).astype(np.float32)


def _present(labels: NDArray[np.uint32], ids: NDArray[np.uint32], box: Box) -> NDArray[np.int64]:
    """Return the places of the ids that have a pixel in a box."""
    present = np.zeros(ids.size, np.bool_)
    mark_present(labels, ids, (box.y0, box.y1, box.x0, box.x1), present)
    return np.flatnonzero(present)


def _open_sides(window: Box, shape: tuple[int, ...]) -> list[Box]:
    """Return the outermost rows and columns of a window, those on the image's own edge apart."""
    y0, y1, x0, x1 = window.y0, window.y1, window.x0, window.x1
    sides = [
        (y0 > 0, Box(y0, y0 + 1, x0, x1)),
        (y1 < shape[0], Box(y1 - 1, y1, x0, x1)),
        (x0 > 0, Box(y0, y1, x0, x0 + 1)),
        (x1 < shape[1], Box(y0, y1, x1 - 1, x1)),
    ]
    return [box for is_open, box in sides if is_open]


def doubt_parts(
    records: NDArray[Any], contact: NDArray[np.floating], config: DecodeConfig | None = None
) -> NDArray[np.float32]:
    """Return the three parts of doubt.

    Parameters
    ----------
    records : (n,) of `record_dtype`
    contact : (n,)
        `contact_shares` of these nuclei.
    config : DecodeConfig, optional
        Where it calibrates scores and probabilities, that is undone: doubt is about what the network says.

    Returns
    -------
    float32 (n, 3)
        Each in 0..1, never NaN: 1 - centre score (0.5 where no model found it); contact share; 1 - lead of the most
        probable class over the second. Where a person has set the class, or the model knows fewer than two, there is
        no doubt about it; without probabilities there is if the nucleus is unclassified.
    """
    scores, probabilities = records["score"], records["prob"]
    if config is not None:
        scores = calibrated(scores, 1 / config.score_slope, -config.score_shift / config.score_slope)
        probabilities = tempered(probabilities, 1 / config.type_temperature)
    parts = np.zeros((len(records), 3), np.float32)
    parts[:, CENTRE] = 1 - np.clip(np.nan_to_num(scores, nan=UNKNOWN_SCORE), 0, 1)
    parts[:, CONTACT] = np.clip(np.nan_to_num(contact), 0, 1)
    parts[:, MARGIN] = _class_doubt(records, probabilities)
    return parts


def _class_doubt(records: NDArray[Any], probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    if probabilities.shape[-1] < 2:
        return np.zeros(len(records), np.float32)
    best, second = np.full((2, len(records)), -np.inf, np.float32)
    for k in range(probabilities.shape[-1]):  # a few sweeps: numpy sorts many short rows slowly
        column = probabilities[:, k]
        second = np.maximum(second, np.minimum(best, column))
        best = np.maximum(best, column)
    known = ~np.isnan(best)
    lead = np.clip(np.where(known, best - second, 0), 0, 1)
    unsure = np.where(known, 1 - lead, records["kind"] == UNCLASSIFIED)
    result: NDArray[np.float32] = np.where(records["typed"], 0, unsure).astype(np.float32)
    return result


def doubt_of(parts: NDArray[np.float32], weights: DoubtWeights | None = None) -> NDArray[np.float32]:
    """Return the doubt, float32 (n,) in 0..1, of what `doubt_parts` gave."""
    chosen = weights or DoubtWeights()
    slopes = np.array([chosen.centre, chosen.contact, chosen.margin], np.float32)
    result: NDArray[np.float32] = (1 / (1 + np.exp(-(parts @ slopes + chosen.bias)))).astype(np.float32)
    return result


def doubt(
    records: NDArray[Any], contact: NDArray[np.floating], weights: DoubtWeights | None = None
) -> NDArray[np.float32]:
    """Return how doubtful nuclei are, float32 (n,) in 0..1; see `doubt_parts` and `DoubtWeights`."""
    return doubt_of(doubt_parts(records, contact), weights)


def reasons(parts: NDArray[np.floating]) -> tuple[str, ...]:
    """Return what speaks against one nucleus, (3,) of `doubt_parts`, for the user."""
    return tuple(
        reason for reason, part, telling in zip(REASONS, parts, TELLING, strict=True) if part >= telling
    )
