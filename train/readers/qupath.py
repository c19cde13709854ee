"""QuPath: an image and its objects as GeoJSON of the same name (.geojson, also .gz or .zip)."""

from __future__ import annotations

from pathlib import Path

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.qupath import read_geojson
from train.readers.canvas import Canvas
from train.readers.files import ImageIndex, read_rgb, unannotated
from train.readers.record import About, Entry, Raw, ReadOptions, Source, distinct, safe_name, split_in

_ENDINGS = (".geojson", ".geojson.gz", ".geojson.zip")


def matches(path: Path) -> bool:
    """Whether there is a GeoJSON file at or below a path."""
    return bool(_files(path))


def open_source(path: Path, options: ReadOptions) -> Source:
    """Pair every GeoJSON file with its image; nothing is read."""
    del options
    root = path if path.is_dir() else path.parent
    index = ImageIndex(root)
    found: list[tuple[Entry, Path, Path]] = []
    problems = []
    for file in _files(path):
        stem = _stem(file)
        try:
            image = index.find(file, stem)
        except NucSegError as error:
            problems.append(str(error))
            continue
        found.append((Entry(safe_name(stem), str(file), None, split_in(file, root)), file, image))
    entries = distinct(entry for entry, _, _ in found)
    pairs = {e.name: (file, image) for e, (_, file, image) in zip(entries, found, strict=True)}
    remarks = unannotated(index, (image for _, image in pairs.values())) if path.is_dir() else ()
    about = About("QuPath objects")
    return Source(
        "qupath", entries, lambda e: read_pair(*pairs[e.name]), about, None, tuple(problems), remarks
    )


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
    return Path(stem).stem if Path(stem).suffix.lower() in {".tif", ".tiff", ".svs", ".png", ".jpg"} else stem


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.name.lower().endswith(_ENDINGS) and p.is_file())
    return [path] if path.name.lower().endswith(_ENDINGS) else []
