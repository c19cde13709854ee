"""Where sessions are kept, and which one belongs to an image."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.session_format import MANIFEST, Manifest, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX = ".nucseg"
_NO, _PERHAPS, _SURE = range(3)


def default_folder(image_path: Path | None, name: str, base: Path | None = None) -> Path:
    """Return a free name for the session of an image; nothing is made.

    Parameters
    ----------
    image_path
        The image's file or folder, None where it has none.
    name
        Of the image; used where there is no path.
    base
        Folder of the user's choice. By default the session comes beside the image if files can be made there, else into
        the user's data folder.

    Returns
    -------
    Path
        ``<stem>.nucseg``, or ``<stem>-2.nucseg`` ... where that is taken.
    """
    return free_name(_base(image_path, base) / (_stem(image_path, name) + SUFFIX))


def free_name(folder: Path) -> Path:
    """Return the folder, or the first of ``<stem>-2``, ``<stem>-3`` ... if something of its name is there."""
    if not _exists(folder):
        return folder
    names = (folder.with_name(f"{folder.stem}-{n}{folder.suffix}") for n in itertools.count(2))
    return next(path for path in names if not _exists(path))


def find_sessions(
    image_path: Path | None, name: str, shape: tuple[int, int], base: Path | None = None
) -> list[Path]:
    """Return the folders of the sessions that belong to an image, the likeliest first, then those saved last.

    A session belongs to an image of its shape and file name which lies beside it, or which it was made for, or which
    has been moved since (the path it was made for is gone). One of its name that can't be read is returned where there
    is no other, since `SessionStore.open` says what is wrong with it.

    Parameters
    ----------
    image_path, name, base
        As of `default_folder`; all of the places are searched.
    shape
        Height and width of the image.
    """
    found = []
    for folder in _candidates(image_path, name, base):
        try:
            manifest = read_manifest(folder)
        except NucSegError:  # damaged, or of a newer version: opening it will say so
            if (folder / MANIFEST).exists() and folder.parent != data_folder().absolute():
                found.append((_NO, "", folder))
            continue
        # a review of a part of an image says how large the whole is
        whole = tuple(manifest.about.get("image_shape") or manifest.shape)
        rank = _belongs(manifest, folder, image_path, name) if whole == tuple(shape) else _NO
        if rank > _NO:
            found.append((rank, manifest.saved, folder))
    known = [folder for rank, _, folder in sorted(found, reverse=True) if rank > _NO]
    return known or [folder for _, _, folder in found]


def data_folder() -> Path:
    """Return the folder of sessions that can't be kept beside their images."""
    from platformdirs import user_data_path

    return user_data_path("napari-nucseg", appauthor=False) / "sessions"


def is_writable(folder: Path) -> bool:
    """Return whether files can be made in a folder; permissions alone do not tell."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _base(image_path: Path | None, base: Path | None) -> Path:
    if base is not None:
        return base.absolute()
    beside = None if image_path is None else image_path.absolute().parent
    return beside if beside is not None and is_writable(beside) else data_folder()


def _stem(image_path: Path | None, name: str) -> str:
    text = image_path.stem if image_path is not None else name
    kept = "".join(c if c.isprintable() and c not in '<>:"/\\|?*' else "_" for c in text).strip(" .")
    return kept[:100] or "image"


def _candidates(image_path: Path | None, name: str, base: Path | None) -> Iterator[Path]:
    stem = _stem(image_path, name)
    places = [base, image_path.absolute().parent if image_path is not None else None, data_folder()]
    for place in dict.fromkeys(p.absolute() for p in places if p is not None):
        try:
            folders = sorted(p for p in place.iterdir() if p.suffix == SUFFIX)
        except OSError:
            continue
        for folder in folders:
            front, _, count = folder.stem.rpartition("-")
            if folder.stem == stem or (front == stem and count.isdigit()):
                yield folder


def _belongs(manifest: Manifest, folder: Path, image_path: Path | None, name: str) -> int:
    """Return how sure it is that a session is that of an image."""
    image = manifest.about.get("image") or {}
    made_for = Path(image["path"]) if image.get("path") else None
    if image_path is None or made_for is None:
        return _SURE if made_for is image_path is None and image.get("name", name) == name else _NO
    image_path = image_path.absolute()
    if made_for == image_path:
        return _SURE
    if made_for.name != image_path.name:
        return _NO
    if folder.parent == image_path.parent:
        return _SURE
    return _NO if _exists(made_for) else _PERHAPS


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # no right to look: not free, and not gone
