"""Local edits of a decoded image: centres are taken away, added or moved, and only their neighbourhood is grown anew.

This is the decoder's flood run differentially (Falcao & Bergo 2004, "Interactive volume segmentation with
differential image foresting transforms", IEEE TMI 23(9)): the pixels of a nucleus that goes are offered to those
around it, and a nucleus that comes takes pixels from where its path is the cheaper one. The neighbours' path costs are
recalled from labels and maps where they are needed, so nothing but the labels is kept between edits; the result is
what `core.decode.flood` makes of the centres after the edit.

Three things go beyond the decoder: a nucleus may be *locked* (its shape stands, others go around it), it may have a
foreground threshold of its own (its *floor*), and with it a largest radius (its *limit*).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core import _edit_kernels as kernels
from napari_nucseg.core.decode import DecodeConfig, Fields, quantise
from napari_nucseg.core.tiling import Box

ANY = 255
"""Floor of a nucleus that may take any pixel; 0 stands for the decoder's own threshold."""


@dataclass(frozen=True)
class Nuclei:
    """The nuclei that an edit may touch, as the kernels want them.

    Attributes
    ----------
    ids : uint32 (n,), ascending
    centres : int64 (n, 2)
        Rows and columns of the centre pixels, inside the window.
    floor : uint8 (n,)
        Least foreground * 255; 0 the decoder's, `ANY` no threshold.
    locked : bool (n,)
    """

    ids: NDArray[np.uint32]
    centres: NDArray[np.int64]
    floor: NDArray[np.uint8]
    locked: NDArray[np.bool_]


def region_at(labels: NDArray[np.uint32], y: int, x: int) -> NDArray[np.int64]:
    """Return the flat indices, ascending, of the 4-connected region of one label around a pixel."""
    pixels: NDArray[np.int64] = kernels.region(labels, y, x)
    pixels.sort()
    return pixels


def bounds(pixels: NDArray[np.int64], width: int) -> Box:
    """Return the box around flat pixel indices of an image of this width."""
    rows, cols = pixels // width, pixels % width
    return Box(int(rows.min()), int(rows.max()) + 1, int(cols.min()), int(cols.max()) + 1)


def refit(
    labels: NDArray[np.uint32],
    fields: Fields,
    nuclei: Nuclei,
    config: DecodeConfig,
    *,
    freed: NDArray[np.int64],
    added: NDArray[np.integer],
    radius: float,
    exact: bool = True,
) -> Box | None:
    """Take nuclei away and grow others, in a window of the model's resolution.

    Parameters
    ----------
    labels : uint32 (H, W)
        Changed in place.
    fields : Fields of shape (H, W)
    nuclei : Nuclei
        After the edit: with those that are added, without those that go. Labels not among them are obstacles.
    config : DecodeConfig
    freed : int64 (k, 2)
        A pixel of each nucleus to take away.
    added : integers
        Ids of `nuclei` to grow. One that moves is freed and added.
    radius : float
        Limit in pixels of nuclei with a floor of their own, half of it for those that may take `ANY` pixel.
    exact : bool
        Whether the labels are the decoder's own, pixel by pixel, so that holes can be settled as it would. Not so for
        labels that come from another grid.

    Returns
    -------
    Box or None
        Around the changed pixels.

    Notes
    -----
    The window must reach `2 * config.reach` beyond every pixel that goes and every new centre (or to the edge of the
    image) for the result to be the decoder's.
    """
    floor = nuclei.floor.astype(np.int64)
    own = floor > 0
    thresholds = np.where(own, floor, quantise(config.foreground))
    thresholds[floor == ANY] = 0
    limit = np.where(own, int(radius * radius), 0)
    limit[floor == ANY] = int(radius * radius / 4)
    where = np.searchsorted(nuclei.ids, np.asarray(added, np.uint32))
    y0, y1, x0, x1 = kernels.refit(
        fields.foreground, fields.border, labels, nuclei.ids, nuclei.centres[:, 0].copy(),
        nuclei.centres[:, 1].copy(), thresholds, limit, nuclei.locked,
        np.asarray(freed, np.int64).reshape(-1, 2), where, config.base, config.band, config.edge, config.max_cost,
        config.max_hole, exact,
    )  # fmt: skip
    return Box(int(y0), int(y1), int(x0), int(x1)) if y1 > 0 else None


def anchor(
    labels: NDArray[np.uint32], ids: NDArray[np.uint32], centres: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Make every nucleus one 4-connected region that holds its centre pixel, in place.

    A centre pixel goes to its nucleus, and what is not connected to it becomes background. Labels that are brought
    to a coarser grid by the nearest pixel need this.

    Parameters
    ----------
    labels : uint32 (H, W)
    ids : uint32 (n,), ascending
        Other labels are left as they are.
    centres : int64 (n, 2)

    Returns
    -------
    bool (n,)
        False for a nucleus whose centre pixel is that of an earlier one: it has no pixels left.
    """
    joined = np.zeros(labels.shape, np.bool_)
    kept: NDArray[np.bool_] = kernels.anchor(labels, ids, centres[:, 0].copy(), centres[:, 1].copy(), joined)
    kernels.clear_loose(labels, ids, joined)
    return kept


def areas(labels: NDArray[np.uint32], ids: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the number of pixels of each of the ascending ids."""
    out = np.zeros(len(ids), np.int64)
    kernels.areas(labels, np.ascontiguousarray(ids), out)
    return out
