"""QuPath: an image and its objects as GeoJSON of the same name (.geojson, also .gz or .zip)."""

from __future__ import annotations

from pathlib import Path

from napari_nucseg.io.qupath import read_geojson
from napari_nucseg.io.slide import EXTENSIONS
from train.readers.canvas import Canvas
from train.readers.files import read_rgb
from train.readers.pairs import files_below, open_pairs
from train.readers.record import About, Raw, ReadOptions, Source

_ENDINGS = (".geojson", ".geojson.gz", ".geojson.zip")


def matches(path: Path) -> bool:
    """Whether there is a GeoJSON file at or below a path."""
    return bool(files_below(path, *_ENDINGS))


def open_source(path: Path, options: ReadOptions) -> Source:
    """Pair every GeoJSON file with its image; nothing is read."""
    del options
    return open_pairs("qupath", path, files_below(path, *_ENDINGS), read_pair, About("QuPath objects"), _stem)


def read_pair(file: Path, image_path: Path) -> Raw:
    """Read an image with its objects.

    Detections, cells' nuclei and annotations of a nucleus' size become nuclei; a pixel stays with the first that
    claims it. Points have no shape and are left out.

    Raises
    ------
    NucSegError
        A file is damaged, or the objects are of another image; see `napari_nucseg.io.qupath.read_geojson`.
    """
    image, mpp = read_rgb(image_path)
    shape = (image.shape[0], image.shape[1])
    imported = read_geojson(file, shape, mpp=mpp.value)
    canvas = Canvas(shape)
    for outline in imported.outlines:
        canvas.add(outline.box.y0, outline.box.x0, outline.mask, outline.kind)
    canvas.notes.update({f"objects {text}": n for text, n in imported.skipped.items()})
    canvas.notes["points, which have no shape, left out"] += len(imported.points)
    types, classes = canvas.types()
    return Raw(image, canvas.labels, types, classes, mpp.value, mpp.source, canvas.counted())


def _stem(path: Path) -> str:
    """Return the name of the image: QuPath calls the export of ``a.tif`` either ``a`` or ``a.tif``."""
    name = path.name
    ending = next(e for e in _ENDINGS if name.lower().endswith(e))
    stem = name[: -len(ending)]
    return Path(stem).stem if Path(stem).suffix.lower() in EXTENSIONS else stem
