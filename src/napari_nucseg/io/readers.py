"""Which reader opens which file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from napari_nucseg.errors import NucSegError
from napari_nucseg.io import openslide

if TYPE_CHECKING:
    from napari_nucseg.io.openslide import OpenSlidePyramid
    from napari_nucseg.io.tiff import TiffPyramid
    from napari_nucseg.io.zarr_image import ZarrPyramid

log = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
TIFFS = (".tif", ".tiff", ".btf", ".tf8", ".svs", ".ndpi", ".scn", ".bif")
ZARR, DICOM = ".zarr", ".dcm"
EXTENSIONS = PICTURES + TIFFS + openslide.EXTENSIONS
"""File name extensions that `read_image` opens; folders named ``*.zarr`` come on top of them."""

Reader = Literal["auto", "tifffile", "openslide"]
"""Who reads a slide; `"auto"` is tifffile where it reads all of it, else OpenSlide."""


def check_reader(reader: str) -> None:
    """Refuse a reader that there is not; `NucSegError`."""
    if reader not in get_args(Reader):
        raise NucSegError(f"There is no reader '{reader}'; choose of {', '.join(get_args(Reader))}.")


def slide_in(folder: Path) -> Path:
    """Return what is to be opened for a folder: an OME-Zarr, the slide whose data it holds, or the only one in it.

    Raises
    ------
    NucSegError
        It is none of these.
    """
    if is_zarr(folder):
        return folder
    beside = folder.with_name(folder.name + ".mrxs")
    if beside.is_file() and any(folder.glob("[Ss]lidedat.ini")):
        return beside
    files = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    miraxes = [p for p in files if p.suffix.lower() == ".mrxs"]
    if len(miraxes) == 1:
        return miraxes[0]
    dicoms = [p for p in files if p.suffix.lower() == DICOM]
    if dicoms and len(dicoms) == len([p for p in files if p.is_file()]):
        return dicoms[0]  # OpenSlide finds the other levels of the series in the same folder
    raise NucSegError(f"{folder} is a folder, not an image; name the image files in it")


def is_zarr(path: Path) -> bool:
    """Whether a path is a folder in the Zarr format, whatever it holds."""
    return path.is_dir() and (
        path.suffix.lower() == ZARR
        or any((path / name).is_file() for name in (".zgroup", ".zarray", "zarr.json"))
    )


def open_slide(path: Path, reader: Reader = "auto") -> TiffPyramid | OpenSlidePyramid | ZarrPyramid:
    """Open anything but a picture.

    Parameters
    ----------
    path
        A file, or an OME-Zarr folder.
    reader
        Who is to read it.

    Raises
    ------
    NucSegError
        It can't be read, or not by this reader.
    """
    if path.is_dir():
        if reader != "auto":
            raise NucSegError(f"{path.name} is an OME-Zarr, which {reader} does not read; use reader='auto'.")
        from napari_nucseg.io.zarr_image import ZarrPyramid

        return ZarrPyramid(path)
    foreign = path.suffix.lower() not in TIFFS
    if reader == "openslide" or (foreign and reader == "auto"):
        return openslide.OpenSlidePyramid(path)
    from napari_nucseg.io.tiff import TiffPyramid, TruncatedFile

    try:
        tiff = TiffPyramid(path)
    except TruncatedFile:
        raise  # OpenSlide would open it, and fail hours later
    except NucSegError as error:
        if reader == "tifffile":
            raise
        try:
            return openslide.OpenSlidePyramid(path)
        except NucSegError:
            raise error from None
    if reader == "auto" and not tiff.complete:
        try:
            slide = openslide.OpenSlidePyramid(path)
        except NucSegError as error:
            log.warning("%s is read without OpenSlide, perhaps not all of it in place: %s", path.name, error)
            return tiff
        tiff.close()
        return slide
    return tiff
