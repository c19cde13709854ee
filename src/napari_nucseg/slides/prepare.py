"""A slide made ready: where its tissue is, which tiles there are, and the name of its settings."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg import __version__
from napari_nucseg.core.scale import Scale
from napari_nucseg.core.tissue import TissueConfig
from napari_nucseg.inference import make_plan
from napari_nucseg.io.damage import Tolerant
from napari_nucseg.io.tissue import find_tissue
from napari_nucseg.slides.store import fingerprint, identity

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np
    from numpy.typing import NDArray

    from napari_nucseg.core.decode import DecodeConfig
    from napari_nucseg.core.tiling import Box, Index
    from napari_nucseg.core.tissue import TissueMask
    from napari_nucseg.inference import Plan, Region
    from napari_nucseg.io.slide import ImageSource
    from napari_nucseg.models.registry import Model
    from napari_nucseg.models.runtime import Runtime

_LAYOUT = 1  # count up when tiles of an older version may not be used any more


@dataclass(frozen=True)
class Options:
    """How a slide is segmented; the defaults are those of the model.

    Attributes
    ----------
    region : Region, optional
        Part of the image.
    config : DecodeConfig, optional
        Thresholds.
    tile : int, optional
        Side of a tile in pixels of the model's resolution. It changes the order of the ids, not the nuclei.
    tissue : TissueConfig, optional
        How tissue is found; None segments glass too.
    """

    region: Region | None = None
    config: DecodeConfig | None = None
    tile: int | None = None
    tissue: TissueConfig | None = field(default_factory=TissueConfig)


@dataclass(frozen=True)
class Prepared:
    """A slide before any tile of it is computed.

    Attributes
    ----------
    plan : Plan
    source : Tolerant
        What the plan reads from.
    tissue : TissueMask or None
    order : tuple of Index
        All tiles in the order of the schedule.
    facts : dict
        Everything that decides the result.
    """

    plan: Plan
    source: Tolerant
    tissue: TissueMask | None
    order: tuple[Index, ...]
    facts: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Name of the settings, and of what computes: tiles of different machines are not mixed."""
        return fingerprint(self.facts)

    @property
    def bounds(self) -> dict[Hashable, Box]:
        """For every tile the level-0 box beyond which none of its nuclei reaches."""
        plan = self.plan
        reach = plan.decode.reach + plan.decode.max_hole + 2
        scale = plan.image.scale
        return {
            index: scale.covered(plan.grid.owned(index).grown(reach, plan.grid.shape))[0]
            for index in self.order
        }

    def level0(self, level: int, box: Box) -> Box:
        """Return a box of another level in level-0 pixels."""
        scale = Scale(self.source.shape, self.source.level_shapes[level])
        return scale.covered(box)[0]

    def notes(self) -> dict[str, Any]:
        """Return what is kept with a tile: damage that was seen so far, so also all of this tile's."""
        return {"damaged": [[d.level, *corners(d.box), d.reason] for d in self.source.damages]}

    def owned(self, index: Index) -> Box:
        """Return the level-0 box of a tile."""
        return self.plan.image.scale.covered(self.plan.grid.owned(index))[0]


def prepare(
    source: ImageSource,
    model: Model,
    runtime: Runtime,
    options: Options,
    *,
    device: str = "",
    tissue: TissueMask | None = None,
) -> Prepared:
    """Make a slide ready.

    Parameters
    ----------
    source : ImageSource
        With a known mpp.
    model, runtime
    options : Options
    device : str
        Stands for the runtime where it is not this process that computes.
    tissue : TissueMask, optional
        Where it is known already.

    Raises
    ------
    NucSegError
        The slide cannot be read, or does not fit the options.
    """
    tolerant = Tolerant(source)
    if options.tissue is not None and tissue is None and source.mpp.value is not None:
        tissue = find_tissue(tolerant, options.tissue)
    plan = make_plan(
        tolerant,
        runtime,
        model.card,
        region=options.region,
        config=options.config,
        tile=options.tile,
        tissue=tissue,
    )
    facts = settings(source, model, plan, options, device or runtime.name)
    return Prepared(plan, tolerant, tissue, plan.tiles, facts)


def settings(source: ImageSource, model: Model, plan: Plan, options: Options, runtime: str) -> dict[str, Any]:
    """Return everything that decides the result; the plan may be one without tissue."""
    return {
        "image": _identity(source),
        "shape": source.shape,
        "mpp": source.mpp.value,
        "model": [model_sha256(model), model.card.mpp, model.card.mean, model.card.std, model.card.classes],
        "decode": plan.decode.to_dict(),
        "grid": str(plan.grid),
        "region": None if plan.region is None else _plain(plan.region),
        "tissue": None if options.tissue is None else asdict(options.tissue),
        "runtime": runtime,
        "program": [__version__, _LAYOUT],
    }


def settings_of(source: ImageSource, model: Model, runtime: str, options: Options) -> dict[str, Any]:
    """Return `settings` of a slide without looking for its tissue."""
    plan = make_plan(
        source, NO_RUNTIME, model.card, region=options.region, config=options.config, tile=options.tile
    )
    return settings(source, model, plan, options, runtime)


def asked(facts: dict[str, Any]) -> str:
    """Return the name of settings whatever computes: results that are complete are so on any machine."""
    return fingerprint({name: fact for name, fact in facts.items() if name != "runtime"})


class _NoRuntime:
    """Stands for the network where nothing is computed."""

    name = "none"

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("this plan is not for computing")


NO_RUNTIME = _NoRuntime()
"""For plans of which somebody else computes the tiles."""


def corners(box: Box) -> tuple[int, int, int, int]:
    """Return a box as plain numbers."""
    return box.y0, box.y1, box.x0, box.x1


def _plain(region: Region) -> list[Any]:
    return [asdict(region.box), [polygon.tolist() for polygon in region.polygons]]


def _identity(source: ImageSource) -> Any:
    """Return what is the same for the same image; nothing is known of an array but that it is another one."""
    path = getattr(source, "path", None)
    return uuid.uuid4().hex if path is None else identity(Path(path))


def model_sha256(model: Model) -> str:
    """Return the checksum that the weights are held to when they are loaded; their own where the card has none."""
    if model.card.sha256 or not model.weights.is_file():
        return model.card.sha256
    return hashlib.sha256(model.weights.read_bytes()).hexdigest()
