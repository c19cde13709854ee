"""What a GeoJSON feature as QuPath writes it says: its type, class, ids, rings and points.

QuPath from 0.2 to 0.6 has written classes, measurements and types in several ways; all are read.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.nuclei import State
from napari_nucseg.io.geojson_objects import ID_MEASUREMENT, NO_CLASS, STATE
from napari_nucseg.io.qupath_fill import Ring

Colour = tuple[int, int, int]

NO_NUMBERS = "with coordinates that are no numbers"
NO_SHAPE = "without a shape"
FEW_CORNERS = "with fewer than 3 corners"
LINES = "neither area nor point"
UNREADABLE = "not to be understood"

_TYPE_KEYS = ("objectType", "object_type", "type")
_OTHERS = frozenset(
    ("tile", "tmacore", "tma_core", "root", "pathtileobject", "tmacoreobject", "pathrootobject")
)
_UUID = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-([0-9a-fA-F])[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
)


class UnusableError(Exception):
    """A feature that can't be taken; its text is the reason, to be put behind a count."""


def properties_of(feature: dict[str, Any]) -> dict[str, Any]:
    """Return the feature's properties, empty where there are none."""
    properties = feature.get("properties")
    return properties if isinstance(properties, dict) else {}


def children_of(properties: dict[str, Any]) -> list[Any]:
    """Return the features below one, which QuPath writes where it exports the whole hierarchy."""
    for key in ("childObjects", "children"):
        children = properties.get(key)
        if isinstance(children, list):
            return children
    return []


def other_type(feature: dict[str, Any], properties: dict[str, Any]) -> str | None:
    """Return the type, in lower case, of an object that is no nucleus whatever its shape: tile, TMA core, root."""
    named = (*(properties.get(key) for key in _TYPE_KEYS), feature.get("id"))  # QuPath 0.2 had the type as id
    name = next((name.lower() for name in named if isinstance(name, str)), None)
    return name if name in _OTHERS else None


def geometry_of(feature: dict[str, Any], properties: dict[str, Any]) -> Any:
    """Return the geometry of the nucleus, where there is one apart from the cell's."""
    for holder in (feature, properties):
        if isinstance(holder.get("nucleusGeometry"), dict):
            return holder["nucleusGeometry"]
    return feature.get("geometry")


def class_of(properties: dict[str, Any]) -> tuple[str | None, Colour | None]:
    """Return the name of the class, derived ones as QuPath shows them ("Tumor: Positive"), and its colour."""
    found = properties.get("classification")
    if isinstance(found, str):
        return _name(found), None
    if not isinstance(found, dict):
        return None, None
    names = found.get("names")
    if isinstance(names, list):
        name = ": ".join(part for part in names if isinstance(part, str))
    else:
        name = _nested_name(found)
    colour = found.get("color", found.get("colour", found.get("colorRGB")))
    return _name(name), _colour(colour)


def _name(text: str) -> str | None:
    text = text.strip()
    return text if text and text.casefold() != NO_CLASS else None


def _nested_name(found: dict[str, Any]) -> str:
    """Join the names of a class and of its parents, as QuPath wrote derived classes until 0.3."""
    names: list[str] = []
    level: Any = found
    while isinstance(level, dict):
        if isinstance(level.get("name"), str):
            names.insert(0, level["name"])
        level = level.get("parentClass")
    return ": ".join(names)


def _colour(found: Any) -> Colour | None:
    """Read [r, g, b] or the signed 32-bit ARGB of Java."""
    try:
        if isinstance(found, list) and len(found) >= 3:
            red, green, blue = (int(part) for part in found[:3])
        elif isinstance(found, int | float) and not isinstance(found, bool):
            packed = int(found)
            red, green, blue = packed >> 16 & 255, packed >> 8 & 255, packed & 255
        else:
            return None
    except (TypeError, ValueError, OverflowError):
        return None
    return (red, green, blue) if min(red, green, blue) >= 0 and max(red, green, blue) <= 255 else None


def uuid_of(feature: dict[str, Any], properties: dict[str, Any]) -> str | None:
    """Return the object's UUID in lower case."""
    for found in (feature.get("id"), properties.get("id")):
        if isinstance(found, str) and _UUID.fullmatch(found):
            return found.lower()
    return None


def is_named(uuid: str) -> bool:
    """Tell UUIDs made from a name, as ours are, from the random ones that QuPath gives (RFC 9562, version 5)."""
    return uuid[14] == "5"


def measured_id(properties: dict[str, Any]) -> int | None:
    """Return the id that the measurement carries; it is exact up to 2**24, since QuPath's detections hold float32."""
    value = _numbers(properties).get(ID_MEASUREMENT, 0.0)
    return int(value) if 1 <= value < 2**32 and value == int(value) else None


def _numbers(properties: dict[str, Any]) -> dict[str, float]:
    """Return the measurements that are numbers."""
    found = properties.get("measurements")
    if isinstance(found, list):
        entries = [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
        found = {entry["name"]: entry.get("value") for entry in reversed(entries)}  # the first counts
    known = found.items() if isinstance(found, dict) else ()
    return {
        name: value for name, value in known if isinstance(value, int | float) and not isinstance(value, bool)
    }


def prediction_of(
    feature: dict[str, Any], properties: dict[str, Any], kind: str | None
) -> dict[str, float] | None:
    """Return the score and the probabilities of a detection that is as a model has found it, by their columns.

    None of one that a person has reviewed here, or changed in QuPath: that gives a shape that has changed another UUID,
    and a class that was changed is not the most probable one. QuPath before 0.5 drops the state; any object may then be
    reviewed, and none is taken for a prediction.
    """
    uuid, numbers = uuid_of(feature, properties), _numbers(properties)
    if uuid is None or not is_named(uuid) or ID_MEASUREMENT not in numbers:
        return None
    metadata = properties.get("metadata")
    told = metadata.get(STATE) if isinstance(metadata, dict) else None
    if told != State.PREDICTED.word or properties.get("objectType") != "detection":
        return None
    said = {name: value for name, value in numbers.items() if name.startswith("prob_")}
    if (said or kind is not None) and (not said or said.get(f"prob_{kind}") != max(said.values())):
        return None
    return {"score": numbers.get("score", np.nan), **said}


def areas_and_points(geometry: Any) -> tuple[list[list[Ring]], list[Any]]:
    """Return polygons as lists of rings, and points as they stand in the file, see `as_array`.

    Raises
    ------
    UnusableError
        It is neither area nor point, or isn't to be understood.
    """
    polygons: list[list[Ring]] = []
    points: list[Any] = []
    kinds = set()
    pending = [geometry]
    while pending:
        part = pending.pop()
        if part is None:
            continue
        kind, coordinates = _unpacked(part)
        kinds.add(kind)
        if kind == "GeometryCollection":
            pending.extend(reversed(coordinates))
        elif kind == "Polygon":
            polygons.append(_rings(coordinates))
        elif kind == "MultiPolygon":
            polygons.extend(_rings(_listed(polygon)) for polygon in coordinates)
        elif kind == "Point" and coordinates:
            points.append(coordinates)
        elif kind == "MultiPoint" and coordinates:
            points.extend(coordinates)
    areas = [rings for rings in polygons if rings]
    if not areas and not points:
        lines = any("Line" in kind for kind in kinds)
        raise UnusableError(FEW_CORNERS if polygons else LINES if lines else NO_SHAPE)
    return areas, points


def _unpacked(part: Any) -> tuple[str, list[Any]]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise UnusableError(UNREADABLE)
    found = part.get("geometries" if kind == "GeometryCollection" else "coordinates")
    return kind, [] if found is None else _listed(found)


def _listed(found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise UnusableError(UNREADABLE)
    return found


def _rings(found: list[Any]) -> list[Ring]:
    """Return the rings of a polygon, none if its outer one has no area; a hole that has none is left out."""
    rings = [_open(as_array(_listed(ring))) for ring in found]
    if not rings or len(rings[0]) < 3:
        return []
    return [ring for ring in rings if len(ring) >= 3]


def _open(corners: Ring) -> Ring:
    """Drop the last corner where it is the first."""
    closed = len(corners) > 1 and corners[0, 0] == corners[-1, 0] and corners[0, 1] == corners[-1, 1]
    return corners[:-1] if closed else corners


def as_array(found: list[Any]) -> Ring:
    """Return x and y of coordinates, (n, 2); a third one, z, is left out, and null is NaN.

    Raises
    ------
    UnusableError
        Some are no numbers.
    """
    try:
        pairs = [(pair[0], pair[1]) for pair in found]
        array: NDArray[np.float64] = np.array(pairs, np.float64).reshape(len(pairs), 2)
    except (TypeError, ValueError, OverflowError, LookupError):
        raise UnusableError(NO_NUMBERS) from None
    return array
