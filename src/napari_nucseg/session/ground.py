"""The ground on which centres are edited: labels of the image, maps of the network, and the way between their grids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.calibration import calibrated
from napari_nucseg.core.decode import DecodeConfig, Fields, classify, quantise
from napari_nucseg.core.edit import ANY, Nuclei, anchor, bounds, refit, region_at
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

CELL = 512
"""Nuclei whose centres lie in one square of this side, in level-0 pixels, are grown or taken away in one go."""


def cells_of(points: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Return the indices of (n, 2) points that lie in the same square of side `CELL`, one array for each square."""
    _, cell = np.unique(np.asarray(points) // CELL, axis=0, return_inverse=True)
    return [np.flatnonzero(cell.ravel() == k) for k in range(int(cell.max(initial=-1)) + 1)]


class MapsMissing(NucSegError):
    """The network has not yet seen the neighbourhood of an edit.

    Attributes
    ----------
    boxes : sequence of Box
        Whose maps must be put into the cache, at the model's resolution.
    """

    def __init__(self, boxes: Sequence[Box]) -> None:
        super().__init__(
            "The network has not seen this part of the image yet; compute its maps and try again."
        )
        self.boxes = tuple(boxes)


@dataclass
class Window:
    """A part of the image at the model's resolution: a copy of the labels there, and the maps.

    `locked` are all that keep their shapes, also those that share a pixel of this resolution with another.
    """

    box: Box
    labels: NDArray[np.uint32]
    fields: Fields
    nuclei: Nuclei
    locked: NDArray[np.uint32]


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
        self.measure()

    def measure(self) -> None:
        """Take the median of all nuclei as the typical area."""
        area = self._store.records["area"][self._store.records["area"] > 0]
        zoom = float(np.prod(self.scale.zoom))
        self.typical_area = float(np.median(area)) * zoom if len(area) >= 20 else TYPICAL_AREA
        """Pixels of the model's resolution."""

    @property
    def typical_radius(self) -> float:
        """Of a disc of the typical area, in pixels of the model's resolution."""
        return float(np.sqrt(self.typical_area / np.pi))

    def around(self, box: Box) -> Box:
        """Return the box, at the model's resolution, whose maps an edit in a level-0 box needs."""
        reach = max(self.config.reach, int(np.ceil(REACH * self.typical_radius)))
        return self.scale.to_model(box).grown(2 * reach + 2, self.scale.model)

    def missing(self, box: Box) -> Box | None:
        """Return the box whose maps an edit in a level-0 box still needs."""
        return self.fields.missing(self.around(box))

    def require(self, groups: Iterable[NDArray[np.int64]]) -> None:
        """Raise `MapsMissing` for all maps at once that the regions of groups of (n, 2) level-0 pixels need."""
        self.require_at(
            np.concatenate([self._where(self.region(int(y), int(x))) for y, x in pixels]) for pixels in groups
        )

    def require_at(self, groups: Iterable[NDArray[np.int64]]) -> None:
        """Raise `MapsMissing` for all maps at once that edits at groups of (n, 2) level-0 pixels need."""
        gaps = []
        for pixels in groups:
            low, high = pixels.min(0), pixels.max(0) + 1
            gap = self.missing(Box(int(low[0]), int(high[0]), int(low[1]), int(high[1])))
            if gap is not None:
                gaps.append(gap)
        if gaps:
            raise MapsMissing(gaps)

    def _where(self, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.stack(np.divmod(pixels, self._store.labels.shape[1]), 1)

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

    def regrow_all(self, grown: NDArray[np.integer]) -> None:
        """Grow nuclei that lie near one another, then each of those once more that came out too small.

        Raises
        ------
        MapsMissing
        """
        self.regrow(np.zeros((0, 2), np.int64), grown)
        least = PLAUSIBLE * self.typical_area / float(np.prod(self.scale.zoom))
        for id_ in grown:
            record = self._store.records[self._store.rows_of(id_)]
            if record["area"][0] < least:
                self.regrow(centre_pixels(record), record["id"].copy())

    def describe(self, id_: int) -> None:
        """Write the class of a nucleus that a person drew into its record, where the maps are known."""
        row = self._store.rows_of(id_)
        record = self._store.records[row].copy()
        y, x = centre_pixels(record)[0]
        area = self.scale.to_model(bounds(self.region(int(y), int(x)), self._store.labels.shape[1]))
        fields = self.fields.gather(area)
        owner = self._read(area) == id_
        if fields is None or not owner.any():
            return
        record["prob"] = classify(owner.astype(np.int32), fields, 1, self.config)[0]
        if not record["typed"][0]:
            record["kind"] = record["prob"][0].argmax()
        self._store.put(row, record)

    def _read(self, area: Box) -> NDArray[np.uint32]:
        """Return a copy of the labels in a box at the model's resolution."""
        if self.scale.is_identity:
            return self._store.labels[area.slices].copy()
        rows, cols = self.scale.sources(area)
        return self._store.labels[np.ix_(rows, cols)]

    def _regrow(self, freed: NDArray[np.int64], grown: NDArray[np.int64]) -> None:
        width = self._store.labels.shape[1]
        names = self._store.labels[freed[:, 0], freed[:, 1]]
        regions = [self.region(int(y), int(x)) for y, x in freed]
        centres = centre_pixels(self._store.records[self._store.rows_of(grown)])
        pixels = np.concatenate([*regions, centres[:, 0] * width + centres[:, 1]])
        window = self._open(bounds(pixels, width), grown)
        seeds = self._seeds(window, freed, names, grown)
        before = window.labels.copy()
        if len(grown) == 1:
            changed = self._grow_at_any_cost(window, seeds, int(grown[0]))
        else:
            changed = self._refit(window, seeds, grown)
        touched = np.union1d(names, grown).astype(np.uint32)
        if changed is not None:
            touched = self._write_back(window, before, changed, touched)
        self._sweep(regions, names, grown)
        self._count(touched)
        self._describe(window, grown)

    def _refit(self, window: Window, seeds: NDArray[np.int64], grown: NDArray[np.integer]) -> Box | None:
        return refit(
            window.labels, window.fields, window.nuclei, self.config,
            freed=seeds, added=grown, radius=REACH * self.typical_radius, exact=self.scale.is_identity,
        )  # fmt: skip

    def _open(self, box: Box, grown: NDArray[np.int64]) -> Window:
        """Read labels, maps and nuclei of the neighbourhood of a level-0 box in which some are to be grown."""
        area = self.around(box)
        fields = self.fields.gather(area)
        if fields is None:
            raise MapsMissing([self.fields.missing(area) or area])
        labels = self._read(area)
        low, high = self.scale.to_level0(np.array([[area.y0, area.x0], [area.y1, area.x1]]) - 0.5)
        found = self._store.records[self._store.live_in(tuple(low), tuple(high))]
        centres = self.scale.model_pixels(np.stack([found["y"], found["x"]], 1)) - (area.y0, area.x0)
        locked = found["id"][found["locked"]].copy()
        single = _without_twins(found["id"], centres[:, 0] * area.shape[1] + centres[:, 1], grown)
        found, centres = found[single], centres[single]
        nuclei = Nuclei(found["id"].copy(), centres, found["floor"].copy(), found["locked"].copy())
        return Window(area, labels, fields, nuclei, locked)

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
        """Bring the changed pixels of a window to level 0, and those alone; return all nuclei that this concerns."""
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
            different &= ~np.isin(self._store.labels[area.slices], window.locked)
        y, x = np.nonzero(different)
        width = self._store.labels.shape[1]
        touched = np.union1d(values[different], self._store.labels[area.slices][different])
        touched = np.union1d(touched, edited).astype(np.uint32)
        self._store.write((y + area.y0) * width + x + area.x0, values[different])
        return touched if self.scale.is_identity else self._anchor(window, touched)

    def _anchor(self, window: Window, touched: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Connect what nearest pixels may have cut; return whom that concerns. See `core.edit.anchor`.

        A nucleus that gets its centre pixel back takes it from another, which may be cut by that in its turn.
        """
        area, _, _ = self.scale.covered(window.box)
        mine = self._store.labels[area.slices]
        while True:
            inside = window.nuclei.ids[~window.nuclei.locked & np.isin(window.nuclei.ids, touched)]
            centres = centre_pixels(self._store.records[self._store.rows_of(inside)]) - (area.y0, area.x0)
            held = ((centres >= 0) & (centres < area.shape)).all(1)
            labels = mine.copy()
            anchor(labels, inside[held], centres[held])
            y, x = np.nonzero(labels != mine)
            all_touched = np.union1d(touched, mine[y, x]).astype(np.uint32)
            self._store.write((y + area.y0) * self._store.labels.shape[1] + x + area.x0, labels[y, x])
            if len(all_touched) == len(touched):
                return all_touched
            touched = all_touched

    def _count(self, ids: NDArray[np.uint32]) -> None:
        """Count the pixels of nuclei."""
        rows = self._store.rows_of(ids[ids > 0])
        rows = rows[rows >= 0]
        records = self._store.records[rows].copy()
        for record, (y, x) in zip(records, centre_pixels(records), strict=True):
            there = self._store.labels[y, x] == record["id"]
            record["area"] = len(self.region(int(y), int(x))) if there else 0
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
            raw = window.fields.centre[y : y + 1, x] / np.float32(65535)
            record["score"] = calibrated(raw, self.config.score_slope, self.config.score_shift)[0]
            if window.labels[y, x] == record["id"]:
                record["prob"] = self._classify(window, int(y), int(x))
                if not record["typed"]:
                    record["kind"] = record["prob"].argmax()
        self._store.put(rows, records)

    def _classify(self, window: Window, y: int, x: int) -> NDArray[np.float32]:
        where = bounds(region_at(window.labels, y, x), window.labels.shape[1]).slices
        owner = (window.labels[where] == window.labels[y, x]).astype(np.int32)
        probabilities: NDArray[np.float32] = classify(owner, window.fields.crop(*where), 1, self.config)[0]
        return probabilities


def _without_twins(
    ids: NDArray[np.integer], pixels: NDArray[np.int64], grown: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the indices of nuclei with only one in a pixel: there is no room for two floods, or for what is drawn.

    Raises
    ------
    NucSegError
        One of two is to be grown.
    """
    _, first, which = np.unique(pixels, return_index=True, return_inverse=True)
    first.sort()
    if len(first) < len(ids):
        twins = np.flatnonzero(np.bincount(which.ravel())[which.ravel()] > 1)
        hindered = twins[np.isin(ids[twins], grown)]
        if hindered.size:
            other = next(k for k in twins if pixels[k] == pixels[hindered[0]] and k != hindered[0])
            raise NucSegError(
                f"Nuclei {ids[hindered[0]]} and {ids[other]} have their centres in the same pixel at the model's "
                "resolution, where only one can grow; merge them (M), or delete one."
            )
    return np.asarray(first, np.int64)
