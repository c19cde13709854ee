"""What `napari-nucseg segment` was given: images, formats, and the files that it would write."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.readers import DICOM, ZARR, is_zarr
from napari_nucseg.io.slide import EXTENSIONS, Mpp, read_image
from napari_nucseg.slides.existing import results_in
from napari_nucseg.slides.outputs import FORMATS, TISSUE, check_formats, parquet_is_there

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Existing = Literal["refuse", "overwrite", "skip", "resume"]
"""What to do with results that are there already."""

_OURS = (f"_{FORMATS['tif']}", f"_{FORMATS['zarr']}", f"_{TISSUE}")

AUTO = "auto"
_PICTURE = 50e6
"""Pixels up to which an image is a picture, whose labels any program opens whole."""
PICTURE_FORMATS, SLIDE_FORMATS = ("tif", "csv", "geojson"), ("zarr", "csv", "parquet", "geojson")


@dataclass(frozen=True)
class Task:
    """One image to segment: where it lies, and the formats still to be written under which stem."""

    path: Path
    stem: str
    formats: tuple[str, ...]


def parse_formats(text: str) -> tuple[str, ...] | None:
    """Return the formats of a list such as "tif,csv"; None for "auto", which depends on the image.

    Raises
    ------
    NucSegError
        A format is not known or cannot be written here, or none is named.
    """
    names = tuple(dict.fromkeys(part for part in text.lower().replace(" ", "").split(",") if part))
    if names == (AUTO,):
        return None
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise NucSegError(
            f"--format '{unknown[0] if unknown else text}' is not known; choose of {','.join(FORMATS)}, or {AUTO}."
        )
    check_formats(names)
    return names


def usual_formats(path: Path) -> tuple[str, ...]:
    """Return what is written of an image unless something else is asked for; that depends on its size."""
    try:
        with read_image(path) as image:
            height, width = image.shape
    except NucSegError:  # `check_images` complains of it
        return PICTURE_FORMATS
    if height * width <= _PICTURE:
        return PICTURE_FORMATS
    return tuple(name for name in SLIDE_FORMATS if name != "parquet" or parquet_is_there())


def find_images(arguments: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Return the images named by files and folders, each once, and a sentence for every folder without any.

    A folder stands for the images directly in it; hidden files and images written by this program are left
    out. Whether a named file can be read is not looked at here.
    """
    found: dict[Path, Path] = {}
    complaints = []
    for argument in arguments:
        path = Path(argument)
        try:
            images = _images_in(path) if path.is_dir() and not is_zarr(path) else [path]
        except OSError as error:
            complaints.append(
                f"The folder '{path}' cannot be read ({error.strerror}); check its permissions."
            )
            continue
        if not images:
            held = "holds no image" if any(path.iterdir()) else "is empty"
            complaints.append(
                f"The folder '{path}' {held}; name one with images directly in it ({', '.join(EXTENSIONS)}, or "
                f"folders named *{ZARR})."
            )
        for image in images:
            found.setdefault(image.resolve(), image)
    return list(found.values()), complaints


def _images_in(folder: Path) -> list[Path]:
    inside = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and not p.name.endswith(_OURS))
    images = [p for p in inside if (p.suffix.lower() in EXTENSIONS and p.is_file()) or is_zarr(p)]
    # the levels of a DICOM slide are files of their own; OpenSlide finds all of them from one
    return images[:1] if images and all(p.suffix.lower() == DICOM for p in images) else images


def stem_of(path: Path) -> str:
    """Return the file name without its extension; ".ome.tif" counts as one extension."""
    return path.stem[:-4] if path.stem.lower().endswith(".ome") else path.stem


def plan_tasks(
    images: Sequence[Path], folder: Path, formats: tuple[str, ...] | None, existing: Existing
) -> list[Task]:
    """Decide what is to be written for each image; without `formats`, what is usual for an image of its size.

    What a run that was killed had begun to put in place counts as missing. For "resume" nothing is looked at here:
    whether results are complete depends on what they were made with.

    Raises
    ------
    NucSegError
        Two images would write the same files, or results exist and are neither to be skipped nor replaced.
    """
    tasks = [Task(path, stem_of(path), formats or usual_formats(path)) for path in images]
    first: dict[str, Task] = {}
    for task in tasks:
        other = first.setdefault(task.stem.casefold(), task)
        if other is not task:
            raise NucSegError(
                f"'{other.path}' and '{task.path}' would both write '{folder / task.stem}_...'; rename one, or "
                "segment them into different folders."
            )
    if existing in ("overwrite", "resume"):
        return tasks
    found = [results_in(folder, task.stem, task.formats) for task in tasks]
    there = [path for results in found for path in results.values()]
    if existing == "refuse" and there:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise NucSegError(
            f"'{there[0]}'{more} exists already; give --overwrite to replace, --skip-existing to keep it, --resume to "
            "do only what is missing, or another folder."
        )
    return [
        Task(task.path, task.stem, tuple(name for name in task.formats if name not in results))
        for task, results in zip(tasks, found, strict=True)
    ]


def prepare_folder(folder: Path) -> None:
    """Make the output folder, and find out now rather than after the work whether it can be written to.

    Raises
    ------
    NucSegError
        It is a file, or cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror or str(error)
        raise NucSegError(
            f"Results cannot be written to '{folder}' ({reason}); choose another folder."
        ) from error


def check_images(tasks: Sequence[Task], mpp: Mpp | None) -> tuple[list[Task], list[str]]:
    """Open every image and see that its resolution is known, before anything is computed.

    Parameters
    ----------
    tasks
        What to do.
    mpp
        Resolution stated for all of them, if any.

    Returns
    -------
    tasks
        Those whose image can be opened and states its resolution.
    complaints
        One sentence for each of the others.
    """
    good, complaints = [], []
    for task in tasks:
        try:
            with read_image(task.path) as image:
                if mpp is None and image.mpp.value is None:
                    raise NucSegError(
                        f"The resolution of '{task.path}' is {image.mpp}; state it in micrometres per pixel, such as "
                        "--mpp 0.25 for a 40x scan or --mpp 0.5 for a 20x scan."
                    )
                good.append(task)
        except NucSegError as error:
            complaints.append(str(error))
    return good, complaints


def shown(folder: Path) -> str:
    """Return a folder as a user may type it."""
    text = os.path.relpath(folder)
    return str(folder) if text.startswith("..") else text
