"""The ground on which centres are edited: labels of the image, maps of the network, and the way between their grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.decode import DecodeConfig, Fields, quantise, vote
from napari_nucseg.core.edit import ANY, Nuclei, anchor, areas, bounds, refit, region_at
from napari_nucseg.core.field_cache import FieldCache
from napari_nucseg.core.nuclei import centre_pixels
from napari_nucseg.core.scale import Scale
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.session.store import Store

TYPICAL_AREA = 400.0
"""Pixels of a nucleus at 0.25 micrometres per pixel, where there are too few to take the median."""

FLOORS = (0.35, 0.25, 0.17, 0.11, 0.07, 0.04)
"""Foreground probabilities that a click falls back on, one after the other."""

ENOUGH, PLAUSIBLE, SPLIT = 0.85, 0.3, 0.1
"""Shares of the typical area. What the decoder's own threshold makes is taken from `PLAUSIBLE` on, and from `SPLIT` on
inside another nucleus; falling back stops at `ENOUGH`; what is below `PLAUSIBLE` then becomes a disc. Chosen by the
agreement with validation images of nuclei added by a simulated reviewer (`python -m benchmarks.review`)."""

REACH = 1.5
"""Limit of a nucleus with a floor of its own, in radii of a typical one."""


class MapsMissing(NucSegError):
    """The network has not yet seen the neighbourhood of an edit.

    Attributes
    ----------
    box : Box
        Whose maps must be put into the cache, at the model's resolution.
    """

    def __init__(self, box: Box) -> None:
        super().__init__(
            "The network has not seen this part of the image yet; compute its maps and try again."
        )
        self.box = box


@dataclass
class Window:
    """A part of the image at the model's resolution: a copy of the labels there, and the maps."""

    box: Box
    labels: NDArray[np.uint32]
    fields: Fields
    nuclei: Nuclei


class Ground:
    """Grows nuclei anew and brings them to level 0.

    Parameters
    ----------
    store : Store
    scale : Scale
    config : DecodeConfig
    fields : FieldCache
    """

    def __init__(self, store: Store, scale: Scale, config: DecodeConfig, fields: FieldCache) -> None:
        self._store, self.scale, self.config, self.fields = store, scale, config, fields
        self._reach = 2 * config.reach + 2
        area = store.records["area"][store.records["area"] > 0]
        zoom = float(np.prod(scale.zoom))
        self.typical_area = float(np.median(area)) * zoom if len(area) >= 20 else TYPICAL_AREA
        """Pixels of the model's resolution."""

    @property
    def typical_radius(self) -> float:
        """Of a disc of the typical area, in pixels of the model's resolution."""
        return float(np.sqrt(self.typical_area / np.pi))

    def around(self, box: Box) -> Box:
        """Return the box, at the model's resolution, whose maps an edit in a level-0 box needs."""
        return self.scale.to_model(box).grown(self._reach, self.scale.model)

    def missing(self, box: Box) -> Box | None:
        """Return the box whose maps an edit in a level-0 box still needs."""
        return self.fields.missing(self.around(box))

    def region(self, y: int, x: int) -> NDArray[np.int64]:
        """Return the flat pixels of the region of one label around a level-0 pixel."""
        return region_at(self._store.labels, y, x)

    def regrow(self, freed: NDArray[np.int64], grown: NDArray[np.integer]) -> None:
        """Take nuclei away and grow others from the centres which their records give, all not far apart.

        Parameters
        ----------
        freed : int64 (k, 2)
            Level-0 pixels, one in each nucleus to take away.
        grown : integers
            Ids of nuclei to grow, whose records are live. A single one gets a floor of its own where the decoder's
            threshold makes too little of it.

        Raises
        ------
        MapsMissing
            Nothing is changed then.
        """
        self._regrow(freed, np.sort(np.asarray(grown, np.int64)))

    def _regrow(self, freed: NDArray[np.int64], grown: NDArray[np.int64]) -> None:
        width = self._store.labels.shape[1]
        names = self._store.labels[freed[:, 0], freed[:, 1]]
        regions = [self.region(int(y), int(x)) for y, x in freed]
        centres = centre_pixels(self._store.records[self._store.rows_of(grown)])
        pixels = np.concatenate([*regions, centres[:, 0] * width + centres[:, 1]])
        window = self._open(bounds(pixels, width))
        seeds = self._seeds(window, freed, names, grown)
        before = window.labels.copy()
        if len(grown) == 1:
            changed = self._grow_at_any_cost(window, seeds, int(grown[0]))
        else:
            changed = self._refit(window, seeds, grown)
        touched = np.union1d(names, grown).astype(np.uint32)
        if changed is not None:
            touched = np.union1d(touched, self._write_back(window, before, changed, touched))
        self._sweep(regions, names, grown)
        area, _, _ = self.scale.covered(window.box)
        self.count(touched, area)
        self._describe(window, grown)

    def _refit(self, window: Window, seeds: NDArray[np.int64], grown: NDArray[np.integer]) -> Box | None:
        return refit(
            window.labels, window.fields, window.nuclei, self.config,
            freed=seeds, added=grown, radius=REACH * self.typical_radius, exact=self.scale.is_identity,
        )  # fmt: skip

    def _open(self, box: Box) -> Window:
        """Read labels, maps and nuclei of the neighbourhood of a level-0 box."""
        area = self.around(box)
        fields = self.fields.gather(area)
        if fields is None:
            raise MapsMissing(self.fields.missing(area) or area)
        if self.scale.is_identity:
            labels = self._store.labels[area.slices].copy()
        else:
            rows, cols = self.scale.sources(area)
            labels = self._store.labels[np.ix_(rows, cols)]
        low, high = self.scale.to_level0(np.array([[area.y0, area.x0], [area.y1, area.x1]]) - 0.5)
        found = self._store.records[self._store.live_in(tuple(low), tuple(high))]
        centres = self.scale.model_pixels(np.stack([found["y"], found["x"]], 1)) - (area.y0, area.x0)
        _, first = np.unique(centres[:, 0] * area.shape[1] + centres[:, 1], return_index=True)
        first.sort()
        found, centres = found[first], centres[first]
        nuclei = Nuclei(found["id"].copy(), centres, found["floor"].copy(), found["locked"].copy())
        return Window(area, labels, fields, nuclei)

    def _seeds(
        self,
        window: Window,
        freed: NDArray[np.int64],
        names: NDArray[np.uint32],
        grown: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return pixels in a window of the nuclei to take away.

        Where its grid is not that of the labels, a nucleus may lack its centre there, or be in several parts.
        """
        if self.scale.is_identity:
            return freed - (window.box.y0, window.box.x0)
        inside = window.nuclei
        present = np.isin(inside.ids, window.labels) & ~np.isin(inside.ids, grown)
        window.labels[inside.centres[present, 0], inside.centres[present, 1]] = inside.ids[present]
        return np.argwhere(np.isin(window.labels, names))

    def _grow_at_any_cost(self, window: Window, seeds: NDArray[np.int64], id_: int) -> Box | None:
        """Grow one nucleus, falling back on lower thresholds until it is of a plausible size."""
        at = int(np.searchsorted(window.nuclei.ids, id_))
        before = window.labels.copy()
        seed = int(before[tuple(window.nuclei.centres[at])])
        freed = before[seeds[:, 0], seeds[:, 1]]
        plausible = PLAUSIBLE if seed == 0 or seed in freed else SPLIT
        best: tuple[int, int, Any, Box | None] | None = None
        floors = [0, *(quantise(f) for f in FLOORS if f < self.config.foreground), ANY]
        for floor in floors:
            if best is not None and best[0] >= self.typical_area * (plausible if floor == ANY else ENOUGH):
                break
            if best is not None and best[1] == 0 and best[0] >= self.typical_area * plausible:
                break
            window.labels = before.copy()
            window.nuclei.floor[at] = floor
            box = self._refit(window, seeds, np.array([id_]))
            area = int((window.labels[box.slices] == id_).sum()) if box is not None else 0
            if best is None or area > best[0]:
                best = (area, floor, window.labels, box)
        if best is None:
            return None
        _, window.nuclei.floor[at], window.labels, box = best
        return box

    def _write_back(
        self, window: Window, before: NDArray[np.uint32], changed: Box, edited: NDArray[np.uint32]
    ) -> NDArray[np.uint32]:
        """Bring the changed pixels of a window to level 0, and those alone; return whose they were and are."""
        new, old = window.labels[changed.slices], before[changed.slices]
        where = Box(
            window.box.y0 + changed.y0,
            window.box.y0 + changed.y1,
            window.box.x0 + changed.x0,
            window.box.x0 + changed.x1,
        )
        area, rows, cols = self.scale.covered(where)
        take = np.ix_(rows - where.y0, cols - where.x0)
        values = new[take]
        different = values != old[take]
        if not self.scale.is_identity:
            locked = window.nuclei.ids[window.nuclei.locked]
            different &= ~np.isin(self._store.labels[area.slices], locked)
        y, x = np.nonzero(different)
        width = self._store.labels.shape[1]
        touched = np.union1d(values[different], self._store.labels[area.slices][different])
        self._store.write((y + area.y0) * width + x + area.x0, values[different])
        if not self.scale.is_identity:
            self._anchor(window, np.union1d(touched, edited))
        return touched

    def _anchor(self, window: Window, touched: NDArray[np.uint32]) -> None:
        """Connect what nearest pixels may have cut; see `core.edit.anchor`."""
        area, _, _ = self.scale.covered(window.box)
        inside = window.nuclei.ids[~window.nuclei.locked & np.isin(window.nuclei.ids, touched)]
        records = self._store.records[self._store.rows_of(inside)]
        centres = centre_pixels(records) - (area.y0, area.x0)
        held = ((centres >= 0) & (centres < area.shape)).all(1)
        labels = self._store.labels[area.slices].copy()
        anchor(labels, inside[held], centres[held])
        y, x = np.nonzero(labels != self._store.labels[area.slices])
        width = self._store.labels.shape[1]
        self._store.write((y + area.y0) * width + x + area.x0, labels[y, x])

    def count(self, ids: NDArray[np.integer], area: Box) -> None:
        """Count the pixels of nuclei that lie in a level-0 box."""
        named = np.unique(ids[ids > 0]).astype(np.uint32)
        rows = self._store.rows_of(named)
        named, rows = named[rows >= 0], rows[rows >= 0]
        records = self._store.records[rows].copy()
        records["area"] = areas(np.ascontiguousarray(self._store.labels[area.slices]), named)
        self._store.put(rows, records)

    def _sweep(
        self, regions: list[NDArray[np.int64]], names: NDArray[np.uint32], grown: NDArray[np.int64]
    ) -> None:
        """Clear what another grid has left of nuclei that were taken away."""
        flat = self._store.labels.reshape(-1)
        for pixels, name in zip(regions, names, strict=True):
            left = pixels[flat[pixels] == name]
            if left.size and name not in grown:
                self._store.write(left, 0)

    def _describe(self, window: Window, grown: NDArray[np.int64]) -> None:
        """Write floor, score and class of nuclei that were grown into their records."""
        rows = self._store.rows_of(grown)
        records = self._store.records[rows].copy()
        for record in records:
            at = np.searchsorted(window.nuclei.ids, record["id"])
            y, x = window.nuclei.centres[at]
            record["floor"] = window.nuclei.floor[at]
            record["score"] = window.fields.centre[y, x] / np.float32(65535)
            if window.labels[y, x] == record["id"]:
                record["prob"] = self._vote(window, int(y), int(x))
                if not record["typed"]:
                    record["kind"] = record["prob"].argmax()
        self._store.put(rows, records)

    @staticmethod
    def _vote(window: Window, y: int, x: int) -> NDArray[np.float32]:
        where = bounds(region_at(window.labels, y, x), window.labels.shape[1]).slices
        owner = (window.labels[where] == window.labels[y, x]).astype(np.int32)
        return vote(owner, window.fields.crop(*where), 1)[0]
