"""Readers of published data sets, one module per format; `open_source` finds out which it is."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from napari_nucseg.errors import NucSegError
from train.readers import aperio, conic, folder, mat, pannuke, qupath, sessions
from train.readers.record import About, Entry, Raw, ReadOptions, Source

__all__ = ["FORMATS", "About", "Entry", "Raw", "ReadOptions", "Source", "detect", "open_source"]


@dataclass(frozen=True)
class Format:
    """A published format: how to recognise it, and how to open it."""

    what: str
    matches: Callable[[Path], bool]
    open: Callable[[Path, ReadOptions], Source]


UNLABELLED = "unlabelled"
FORMATS: dict[str, Format] = {
    "folder": Format("<split>/{images,instances,types}/NAME.*", folder.matches, folder.open_source),
    "sessions": Format("reviews, <image>.nucseg beside images", sessions.matches, sessions.open_source),
    "pannuke": Format("images.npy, masks.npy, types.npy per fold", pannuke.matches, pannuke.open_source),
    "conic": Format("images.npy, labels.npy, counts.csv", conic.matches, conic.open_source),
    "aperio": Format("MoNuSeg, Kumar: NAME.tif + NAME.xml", aperio.matches, aperio.open_source),
    "consep": Format("CoNSeP, Lizard: NAME.png + NAME.mat", mat.matches, mat.open_source),
    "qupath": Format("NAME.tif (.png, .svs ...) + NAME.geojson", qupath.matches, qupath.open_source),
    UNLABELLED: Format(
        "images alone, NAME.png or images/NAME.png", folder.holds_images, folder.open_unlabelled
    ),
}
"""Name -> format, in the order in which they are tried; images alone are never guessed."""


def detect(path: Path) -> str:
    """Return the name of the format of a data set.

    Raises
    ------
    NucSegError
        The path doesn't exist, or holds none or several of the known formats.
    """
    if not path.exists():
        raise NucSegError(f"'{path}' does not exist; name the folder of a data set.")
    formats = {name: form for name, form in FORMATS.items() if name != UNLABELLED}
    found = [name for name, form in formats.items() if form.matches(path)]
    if len(found) == 1:
        return found[0]
    known = "; ".join(f"{name} ({form.what})" for name, form in formats.items())
    if not found and folder.holds_images(path):
        raise NucSegError(
            f"'{path}' holds images, but no annotation of a known format ({', '.join(formats)}); say --unlabelled if "
            "nobody annotated them."
        )
    if not found:
        raise NucSegError(f"'{path}' holds no data set of a known format: {known}.")
    raise NucSegError(f"'{path}' may be {' or '.join(found)}; say which with --format.")


def open_source(path: Path, name: str | None = None, options: ReadOptions | None = None) -> Source:
    """Open a data set.

    Parameters
    ----------
    path
        Its folder, or one annotation file.
    name
        Of the format; None finds out.
    options
        See `ReadOptions`.

    Raises
    ------
    NucSegError
        Not recognised, an unknown format, or nothing can be read.
    """
    path = path.resolve()
    name = name or detect(path)
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(FORMATS)}."
        raise NucSegError(f"Format '{name}' is not known; {hint}")
    if not path.exists() or not FORMATS[name].matches(path):
        raise NucSegError(f"'{path}' holds no data set of the format {name} ({FORMATS[name].what}).")
    source = FORMATS[name].open(path, options or ReadOptions())
    if not source.entries:
        why = f" {source.problems[0]}" if source.problems else ""
        raise NucSegError(f"'{path}' has no image to read as {name}.{why}")
    return source
