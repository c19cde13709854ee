"""Reviews made with the plugin: folders ``<image>.nucseg`` beside their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_nucseg.core.nuclei import is_live, is_reviewed
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.session_format import Snapshot, read_manifest
from napari_nucseg.io.session_read import read_session
from napari_nucseg.io.slide import EXTENSIONS
from train.readers.canvas import types_of
from train.readers.files import check_same_size, read_rgb
from train.readers.record import About, Entry, Raw, ReadOptions, Source, distinct, safe_name, split_in

SUFFIX = ".nucseg"
UNREVIEWED = "nuclei that nobody has reviewed, taken as background"
UNREVIEWED_KEPT = "nuclei that nobody has reviewed, taken as they are"
REJECTED = "nuclei rejected in the review"


def matches(path: Path) -> bool:
    """Whether a path is a session, or holds some."""
    return bool(_folders(path))


def open_source(path: Path, options: ReadOptions) -> Source:
    """List the sessions at or below a path; nothing is read.

    Raises
    ------
    NucSegError
        `options.nuclei` is neither "all" nor "reviewed".
    """
    if options.nuclei not in ("all", "reviewed"):
        raise NucSegError(f"nuclei='{options.nuclei}' is no choice; it must be 'all' or 'reviewed'.")
    folders = _folders(path)
    entries = distinct(
        Entry(safe_name(f.stem), str(f), None, split_in(f, path if f != path else path.parent))
        for f in folders
    )
    places = {e.name: folder for e, folder in zip(entries, folders, strict=True)}
    only_reviewed = options.nuclei == "reviewed"
    return Source(
        "sessions", entries, lambda e: read_review(places[e.name], only_reviewed), About("Reviews in napari")
    )


def read_review(folder: Path, only_reviewed: bool = False) -> Raw:
    """Read a session with its image.

    Parameters
    ----------
    folder
        Of the session, which no other process has open.
    only_reviewed
        Take the nuclei that a person has dealt with; the others count as background.

    Raises
    ------
    NucSegError
        The session is damaged, its image is gone or of another size, or with `only_reviewed` most of its nuclei would
        count as background.
    """
    image_path = find_image(folder)
    snapshot = read_session(folder)
    image, stated = read_rgb(image_path)
    check_same_size(image, snapshot.labels, str(folder))
    if only_reviewed:
        _check_reviewed(snapshot, folder)
    mpp = snapshot.about.get("mpp")
    source = f"the session ({snapshot.about.get('mpp_source') or 'stated'})"
    if not isinstance(mpp, int | float):
        mpp, source = stated.value, stated.source
    labels, kinds, notes = _nuclei(snapshot, only_reviewed)
    types, classes = types_of(labels, kinds)
    return Raw(image, labels, types, classes, mpp, source, notes)


def find_image(folder: Path) -> Path:
    """Return the image of a session: beside it by the name it had, else where it was, else beside it by stem.

    Raises
    ------
    NucSegError
        It isn't there.
    """
    image = read_manifest(folder).about.get("image") or {}
    was = Path(str(image["path"])) if image.get("path") else None
    beside = [folder.parent / was.name] if was else []
    renamed = [folder.with_suffix(ending) for ending in ("", *EXTENSIONS)]
    candidates = [*beside, *([was] if was else []), *renamed]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise NucSegError(
            f"'{folder}' is of the image '{was or image.get('name')}', which is gone; put it beside."
        )
    return found


def _check_reviewed(snapshot: Snapshot, folder: Path) -> None:
    """Raise if most of the nuclei wait for their review: an image that teaches them as background spoils a set."""
    live, reviewed = is_live(snapshot.records), is_reviewed(snapshot.records)
    unreviewed = int((live & ~reviewed).sum())
    if 2 * unreviewed > live.sum():
        raise NucSegError(
            f"'{folder}' has {unreviewed:,} nuclei of {live.sum():,} that nobody has reviewed and that would be taught "
            "as background; review them first, or take all as they are by --nuclei all."
        )


def _nuclei(snapshot: Snapshot, only_reviewed: bool) -> tuple[np.ndarray, list[str | None], dict[str, int]]:
    """Return labels 1..n, the class of each, and notes."""
    live, reviewed = is_live(snapshot.records), is_reviewed(snapshot.records)
    taken = snapshot.records[live & reviewed if only_reviewed else live]
    table = np.zeros(int(max(snapshot.labels.max(initial=0), taken["id"].max(initial=0))) + 1, np.int32)
    table[taken["id"]] = np.arange(1, len(taken) + 1)
    names = [c.name for c in snapshot.classes]
    kinds = [names[k] if 0 <= k < len(names) else None for k in taken["kind"].tolist()]
    unreviewed = int((live & ~reviewed).sum())
    notes = {
        (UNREVIEWED if only_reviewed else UNREVIEWED_KEPT): unreviewed,
        REJECTED: int((~live & reviewed).sum()),
    }
    return table[snapshot.labels], kinds, {text: count for text, count in notes.items() if count}


def _folders(path: Path) -> list[Path]:
    if path.suffix == SUFFIX and path.is_dir():
        return [path]
    return sorted(p for p in path.rglob(f"*{SUFFIX}") if p.is_dir()) if path.is_dir() else []
