"""Nuclei that come back from QuPath as GeoJSON: shapes and points in the pixels of the image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.nuclei import NucleusClass, Outline
from napari_nucseg.io import qupath_feature as features
from napari_nucseg.io.qupath_points import PointBatches
from napari_nucseg.io.qupath_scale import Tally, place
from napari_nucseg.io.qupath_stream import FeatureStream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

__all__ = ["MAX_AREA_UM2", "Imported", "read_geojson"]

MAX_AREA_UM2 = 4000.0
"""Areas from here on are regions, not nuclei, um2."""

_MAX_AREA_PIXELS = 200.0 * 200.0
_NO_COLOUR = (128, 128, 128)
_EXACT_IN_FLOAT32 = 2**24
_BETWEEN_REPORTS = 500
OTHER_OBJECTS = "no nuclei by their type (tiles, TMA cores)"


@dataclass(frozen=True)
class Imported:
    """What a GeoJSON file holds of nuclei.

    Attributes
    ----------
    outlines : list of Outline
        Shapes in the file's order, cut to the image. Masks hold all of a shape, parts and holes alike, and none is
        empty; they may overlap. No id stands in two of them.
    points : float64 (n, 2)
        Centres (row, column) in pixels of level 0, pixel centres at integers.
    point_kinds : tuple of str or None
        Their classes.
    classes : tuple of NucleusClass
        Of the outlines and then of the points, in the order of their first use; grey where the file gives no colour.
    predictions : tuple of (mapping or None)
        Of every outline, its score and probabilities by their columns in our tables, if it is as a model has found it
        and nobody has reviewed it; None where a person had a part in it.
    skipped : mapping
        Reason -> number of objects left out.
    notes : mapping
        What was done to objects that were taken -> number of objects.
    """

    outlines: list[Outline]
    points: NDArray[np.float64]
    point_kinds: tuple[str | None, ...]
    classes: tuple[NucleusClass, ...]
    predictions: tuple[Mapping[str, float] | None, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """Tell in one sentence what was read and what was left out."""
        text = f"Read {_counted(len(self.outlines), 'shape')} and {_counted(len(self.points), 'point')}"
        if self.notes:
            text += f" ({_listed(self.notes)})"
        return f"{text}; left out: {_listed(self.skipped)}." if self.skipped else f"{text}; left out none."


def read_geojson(
    path: str | Path,
    shape: tuple[int, int],
    known: Mapping[str, int] | None = None,
    *,
    mpp: float | None = None,
    max_area_um2: float = MAX_AREA_UM2,
    progress: Callable[[float], None] | None = None,
) -> Imported:
    """Read nuclei from a GeoJSON file of QuPath's, or one like it.

    Detections, cells (their nucleus where they have one) and annotations become outlines, points become centres.
    A pixel belongs to a polygon if its centre lies inside by the even-odd rule, and to a shape of several polygons
    if it belongs to one; what `write_geojson` has written comes back pixel by pixel.

    Parameters
    ----------
    path
        A FeatureCollection, a list of features, one feature or one geometry, as plain text, .gz or .zip.
    shape
        (rows, columns) of the image at level 0, whose pixels are the file's unit.
    known
        UUID in lower case -> id of the nuclei of this image, see `object_uuids`. An outline gets the id of its
        UUID, or of the measurement "NucSeg id" where QuPath has given the object a new UUID. Without it every
        such measurement counts.
    mpp
        Micrometres per pixel of level 0; None if unknown.
    max_area_um2
        Areas from here on are left out as regions; 200 x 200 pixels where `mpp` is unknown. Outlines with an id
        may be of any size.
    progress
        Called with the fraction of the file read so far, 0..1; whatever it raises ends the reading.

    Returns
    -------
    Imported
        Every object of the file is in it or counted by reason.

    Raises
    ------
    NucSegError
        The file can't be read, is no GeoJSON or cut short; or most of its objects lie outside of the image, or
        are too small for nuclei, so that it is of another image or not in pixels.
    """
    limit = _MAX_AREA_PIXELS if mpp is None else max_area_um2 / mpp**2
    reader = _Reader(shape, known, limit)
    stream = FeatureStream(path)
    for count, feature in enumerate(stream):
        if progress is not None and count % _BETWEEN_REPORTS == 0:
            progress(stream.fraction)
        reader.take(feature)
    imported = reader.result()
    reader.tally.check(Path(path), shape, mpp)
    if progress is not None:
        progress(1.0)
    return imported


class _Reader:
    """Collects what the features hold."""

    def __init__(self, shape: tuple[int, int], known: Mapping[str, int] | None, limit: float) -> None:
        self.tally = Tally()
        self._shape = shape
        self._known = known
        self._known_ids = frozenset(known.values()) if known is not None else frozenset()
        self._limit = limit
        self._outlines: list[Outline] = []
        self._predictions: list[Mapping[str, float] | None] = []
        self._points = PointBatches(shape, self.tally)
        self._colours: dict[str, features.Colour] = {}
        self._taken: set[int] = set()
        self._skipped: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()

    def take(self, feature: Any) -> None:
        """Take a feature and those below it."""
        pending = [feature]
        while pending:
            item = pending.pop()
            if not isinstance(item, dict):
                self._skipped[features.UNREADABLE] += 1
                continue
            properties = features.properties_of(item)
            pending.extend(reversed(features.children_of(properties)))
            other = features.other_type(item, properties)
            if other is None:
                try:
                    self._place(item, properties)
                except features.UnusableError as error:
                    self._skipped[str(error)] += 1
            elif "root" not in other:
                self._skipped[OTHER_OBJECTS] += 1

    def _place(self, feature: dict[str, Any], properties: dict[str, Any]) -> None:
        polygons, points = features.areas_and_points(features.geometry_of(feature, properties))
        kind, colour = features.class_of(properties)
        if kind is not None and colour is not None:
            self._colours.setdefault(kind, colour)
        self._points.add(points, kind)
        if not polygons:
            return
        id_ = self._id_of(feature, properties)
        placed = place(polygons, self._shape, self._limit, id_ is not None, self.tally)
        if id_ is None and features.measured_id(properties) is not None:
            self._notes["with an id of no nucleus here, taken as new"] += 1
        if id_ in self._taken:
            self._notes["with the id of one before, taken as new"] += 1
            id_ = None
        if id_ is not None:
            self._taken.add(id_)
            self._notes["with the id of a nucleus"] += 1
        if placed.crossing:
            self._notes["crossing themselves, filled by the even-odd rule"] += 1
        if placed.cut:
            self._notes["cut at the edge of the image"] += 1
        self._outlines.append(Outline(placed.box, placed.mask, kind, id_))
        self._predictions.append(features.prediction_of(feature, properties, kind))

    def _id_of(self, feature: dict[str, Any], properties: dict[str, Any]) -> int | None:
        """Return the nucleus that an object is of.

        The UUID decides. The measurement does where QuPath has given the object a random UUID, which it does when
        an object is changed; but it has float32 there, so that large ids aren't exact. A UUID of ours that isn't
        known is of another image.
        """
        measured = features.measured_id(properties)
        if self._known is None:
            return measured
        uuid = features.uuid_of(feature, properties)
        if uuid is not None and uuid in self._known:
            return self._known[uuid]
        if measured is None or (uuid is not None and features.is_named(uuid)):
            return None
        return measured if measured in self._known_ids and measured <= _EXACT_IN_FLOAT32 else None

    def result(self) -> Imported:
        """Return all that was taken."""
        points, kinds = self._points.result()
        names = dict.fromkeys([*(outline.kind for outline in self._outlines), *kinds])
        classes = [NucleusClass(name, self._colours.get(name, _NO_COLOUR)) for name in names if name]
        skipped = self._skipped + self._points.skipped
        predictions = tuple(self._predictions)
        return Imported(
            self._outlines, points, kinds, tuple(classes), predictions, dict(skipped), dict(self._notes)
        )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _listed(counts: Mapping[str, int]) -> str:
    return "; ".join(f"{count:,} {reason}" for reason, count in counts.items())
