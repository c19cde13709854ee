"""What a review holds of its nuclei: one record each, and the changes that edits make.

Everything that goes between the session, its views and its file is made of these: a `Change` states what pixels
and records *are* from now on, so it can be drawn, written to a journal, and applied twice without harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.tiling import Box

UNCLASSIFIED = -1
"""Class index of a nucleus whose class nobody knows."""


class State(IntEnum):
    """How far a person has dealt with a nucleus. Those from `ACCEPTED` on are the person's and survive a new run."""

    ABSENT = 0
    """Its making was undone."""
    PREDICTED = 1
    ACCEPTED = 2
    EDITED = 3
    """Its centre was set or moved, or its class changed."""
    DRAWN = 4
    """Its shape was drawn, merged or imported."""
    REJECTED = 5
    """No nucleus: it has no pixels, and a new run does not offer it again."""

    @property
    def word(self) -> str:
        """Name as shown and written to files, in lower case."""
        return self.name.lower()


class Origin(IntEnum):
    """Where a nucleus comes from."""

    MODEL = 1
    CLICK = 2
    BRUSH = 3
    MERGE = 4
    IMPORT = 5

    @property
    def word(self) -> str:
        """Name as shown and written to files, in lower case."""
        return self.name.lower()


def record_dtype(n_model_classes: int) -> np.dtype[Any]:
    """Return the dtype of the records of nuclei.

    Fields
    ------
    id : uint32
        Label in the label image; given once, never reused.
    y, x : float64
        Centre in pixels of level 0; the pixel it lies in, `centre_pixels`, belongs to the nucleus.
    kind : int16
        Index into the session's classes, or `UNCLASSIFIED`.
    score : float32
        Activation of the centre map, 0..1, calibrated as the decoder's settings say; NaN where no model found it.
    state, origin : uint8
        `State`, `Origin`.
    locked : bool
        Its shape is kept as it is; neighbours' edits go around it.
    typed : bool
        A person has set the class.
    floor : uint8
        Least foreground probability of its pixels times 255; 0 stands for the decoder's own threshold.
    area : uint32
        Pixels.
    prob : float32 (n_model_classes,)
        Class probabilities of the model, likewise; NaN where unknown.
    """
    return np.dtype(
        [
            ("id", np.uint32),
            ("y", np.float64),
            ("x", np.float64),
            ("kind", np.int16),
            ("score", np.float32),
            ("state", np.uint8),
            ("origin", np.uint8),
            ("locked", np.bool_),
            ("typed", np.bool_),
            ("floor", np.uint8),
            ("area", np.uint32),
            ("prob", np.float32, (n_model_classes,)),
        ]
    )


def is_live(records: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which records stand for a nucleus with pixels."""
    state = records["state"]
    live: NDArray[np.bool_] = (state != State.ABSENT) & (state != State.REJECTED)
    return live


def is_reviewed(records: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which records a person has dealt with."""
    reviewed: NDArray[np.bool_] = records["state"] >= State.ACCEPTED
    return reviewed


def centre_pixels(records: NDArray[Any]) -> NDArray[np.int64]:
    """Return row and column of the pixel that each centre lies in, (n, 2)."""
    centres = np.stack([records["y"], records["x"]], axis=-1)
    pixels: NDArray[np.int64] = np.floor(centres + 0.5).astype(np.int64)
    return pixels


CLASS_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Of classes that come without one, in turn: Okabe and Ito's palette, which the colour-blind can tell apart."""


@dataclass(frozen=True)
class NucleusClass:
    """A class of nuclei.

    Parameters
    ----------
    name : str
    colour : (int, int, int)
        RGB, 0..255.
    """

    name: str
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Change:
    """What an edit, an undo or a redo has set: values from now on, not differences.

    Attributes
    ----------
    name : str
        For the user, such as "Move".
    box : Box or None
        Around the changed pixels, level 0; None where none changed.
    pixels : int64 (p,)
        Flat indices into the label image, in raster order, none twice.
    values : uint32 (p,)
        Their labels now.
    rows : int64 (r,)
        Places of the changed records in the session's array, ascending; new records come at its end.
    records : (r,) of `record_dtype`
        Those records now.
    """

    name: str
    box: Box | None
    pixels: NDArray[np.int64]
    values: NDArray[np.uint32]
    rows: NDArray[np.int64]
    records: NDArray[Any]


@dataclass(frozen=True)
class Outline:
    """A nucleus whose shape comes from outside, such as from QuPath.

    Attributes
    ----------
    box : Box
        Where `mask` lies, level-0 pixels, inside the image.
    mask : bool (rows, columns)
    kind : str or None
        Name of its class.
    id : int or None
        The id under which it was exported, if it was.
    """

    box: Box
    mask: NDArray[np.bool_]
    kind: str | None = None
    id: int | None = None
