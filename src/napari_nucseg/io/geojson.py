"""Nuclei as GeoJSON for QuPath, written one by one."""

from __future__ import annotations

import json
import math
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.atomic import replacing
from napari_nucseg.io.polygons import bounding_boxes, outline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

ID_MEASUREMENT = "NucSeg id"
"""The measurement that carries the nucleus' id through QuPath and back."""

STATE, ORIGIN = "NucSeg state", "NucSeg origin"
"""Metadata of an object that tell of its review; QuPath shows them, and keeps them from 0.5 on."""

NO_CLASS = "unclassified"
"""Stands for no class in tables; objects in QuPath then have none."""

_METADATA = {"state": STATE, "origin": ORIGIN}
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://napari-hub.org/plugins/napari-nucseg")
_NO_COLOUR = (128, 128, 128)


def write_geojson(
    path: str | Path,
    labels: Any,
    nuclei: pd.DataFrame,
    colours: Mapping[str, Sequence[int] | str] | None = None,
    namespace: str = "",
) -> None:
    """Write nuclei as detections that QuPath (0.4 or newer) imports with their classes and measurements.

    Nothing but the nucleus being written is held in memory, and the file appears only when it is complete.

    Parameters
    ----------
    path
        File to write.
    labels
        (H, W) integers, 0 = background; anything with numpy's slicing.
    nuclei
        One row per nucleus: column ``id``, optionally ``class`` (`NO_CLASS` for none), and of a review
        ``state`` and ``origin``, which become the metadata `STATE` and `ORIGIN`; every other numeric column
        becomes a measurement of its name (figures that aren't finite are left out). Rows whose id isn't in
        `labels` are skipped.
    colours
        Class name -> (r, g, b) in 0..255, or "#rrggbb"; classes without one are grey.
    namespace
        Makes the objects' UUIDs: the same namespace and id give the same UUID, so that the objects of a
        second export of an image are known to be those of the first. The image's name is a good one.

    Notes
    -----
    Outlines run along pixel edges in pixels of level 0, x to the right and y down: the pixel at (row,
    column) is the square from (column, row) to (column + 1, row + 1).

    Raises
    ------
    NucSegError
        An id stands in two rows, a colour is no colour, or the file can't be written.
    """
    shades = {name: _rgb(colour) for name, colour in (colours or {}).items()}
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type":"FeatureCollection","features":[')
        separator = "\n"
        for feature in features(labels, nuclei, shades, namespace):
            file.write(separator + json.dumps(feature, separators=(",", ":"), ensure_ascii=False))
            separator = ",\n"
        file.write("\n]}\n")


def object_uuid(id_: int, namespace: str) -> str:
    """Return the UUID that the object of a nucleus has in QuPath; see `write_geojson`."""
    return str(uuid.uuid5(_NAMESPACE, f"{namespace}/{id_}"))


def object_uuids(ids: Iterable[int], namespace: str) -> dict[str, int]:
    """Return the id of every nucleus under the UUID of its object: what `read_geojson` knows nuclei by."""
    return {object_uuid(id_, namespace): id_ for id_ in map(int, ids)}


def features(
    labels: Any, nuclei: pd.DataFrame, colours: Mapping[str, Sequence[int]], namespace: str
) -> Iterator[dict[str, Any]]:
    """Yield one GeoJSON feature per nucleus; see `write_geojson`."""
    ids = nuclei["id"].to_numpy()
    if len(np.unique(ids)) != len(ids):
        raise NucSegError("a nucleus id stands in two rows of the table; give every nucleus an id of its own")
    boxes = bounding_boxes(labels, ids)
    classes = nuclei["class"].tolist() if "class" in nuclei else [None] * len(ids)
    measured = _measurements(nuclei)
    metadata = _metadata(nuclei)
    for id_, (y0, y1, x0, x1), class_, values, words in zip(
        ids.tolist(), boxes.tolist(), classes, measured, metadata, strict=True
    ):
        if y1 == 0:
            continue
        properties: dict[str, Any] = {"objectType": "detection"}
        if isinstance(class_, str) and class_ and class_ != NO_CLASS:
            properties["classification"] = {"name": class_, "color": list(colours.get(class_, _NO_COLOUR))}
        properties["measurements"] = {ID_MEASUREMENT: int(id_), **values}
        if words:
            properties["metadata"] = words
        yield {
            "type": "Feature",
            "id": object_uuid(int(id_), namespace),
            "geometry": _geometry(np.asarray(labels[y0:y1, x0:x1]) == id_, y0, x0),
            "properties": properties,
        }


def _measurements(nuclei: pd.DataFrame) -> Iterator[dict[str, float]]:
    """Yield the finite figures of every row by name."""
    names = [str(name) for name in nuclei.select_dtypes("number").columns if name not in ("id", *_METADATA)]
    columns = [nuclei[name].tolist() for name in names]
    for values in zip(*columns, strict=True) if columns else iter([()] * len(nuclei)):
        pairs = zip(names, values, strict=True)
        yield {name: value for name, value in pairs if math.isfinite(value)}


def _metadata(nuclei: pd.DataFrame) -> Iterator[dict[str, str]]:
    """Yield the words about every row's review."""
    names = [name for name in _METADATA if name in nuclei]
    columns = [nuclei[name].tolist() for name in names]
    for values in zip(*columns, strict=True) if columns else iter([()] * len(nuclei)):
        pairs = zip(names, values, strict=True)
        yield {_METADATA[name]: value for name, value in pairs if isinstance(value, str) and value}


def _geometry(mask: Any, row: int, column: int) -> dict[str, Any]:
    polygons = outline(mask, row, column)
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _rgb(colour: Sequence[int] | str) -> tuple[int, int, int]:
    try:
        parts = (
            bytes.fromhex(colour.removeprefix("#")) if isinstance(colour, str) else bytes(map(int, colour))
        )
        red, green, blue = parts
    except (TypeError, ValueError):
        raise NucSegError(f"{colour!r} is no colour; give (r, g, b) in 0..255 or '#rrggbb'") from None
    return red, green, blue
