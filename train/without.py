"""Doing without a map: what stands in for one that a network does not learn, so that the same decoder can be used.

For ablations. `boundary` becomes "no band anywhere", which costs a path nothing, so that the energy is that of the
distance maps alone. `centre` becomes what the distance maps say of it: they are 0 at a nucleus' centroid and 1 at its
rim, so that the bump that the map would have learnt follows from them, times the foreground.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_nucseg.core.maps import BACKGROUND, BAND, INSIDE, MapLayout
from napari_nucseg.core.targets import SIGMA_PER_DIAMETER
from napari_nucseg.errors import NucSegError

OPTIONAL = ("centre", "boundary")
FALL = 1 / (8 * SIGMA_PER_DIAMETER**2)
"""The learnt bump is exp(-FALL * r^2) at r radii from the centre."""
_LOW, _NEVER = 1e-4, -30.0


def check_without(without: tuple[str, ...], layout: MapLayout) -> None:
    """Raise if the decoder can't do without these maps.

    Raises
    ------
    NucSegError
        It needs one of them, or there are too few distance maps to find centres in.
    """
    if bad := [name for name in without if name not in OPTIONAL]:
        raise NucSegError(
            f"model.without names '{bad[0]}'; the decoder can do without {' and '.join(OPTIONAL)} only."
        )
    if "centre" in without and len(layout.angles) < 2:
        raise NucSegError(
            f"Without the centre map, centres come from distances along two or more angles, not {layout.angles}."
        )


def stand_ins(raw: Tensor, layout: MapLayout, without: tuple[str, ...]) -> Tensor:
    """Return raw maps in which those that are not learnt are replaced, see the module.

    Parameters
    ----------
    raw : Tensor, (N, layout.channels, H, W)
    layout : MapLayout
    without : tuple of str
        Of `OPTIONAL`.

    Returns
    -------
    Tensor of the same shape; `raw` itself if nothing is replaced.
    """
    if not without:
        return raw
    raw = raw.clone()
    if "boundary" in without:
        band = raw[:, layout.boundary]
        band[:, BACKGROUND], band[:, INSIDE], band[:, BAND] = -raw[:, 0], raw[:, 0], _NEVER
    if "centre" in without:
        distance = raw[:, layout.distance].clamp(-1, 1)
        squared = 2 * distance.square().mean(1, keepdim=True)  # of the distance from the centre, in radii
        bump = raw[:, layout.foreground].sigmoid() * torch.exp(-FALL * squared)
        raw[:, layout.centre] = torch.logit(bump.clamp(_LOW, 1 - _LOW))
    return raw
