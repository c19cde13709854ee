"""Data sets of pairs: an image, and a file of annotations of the same name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from napari_nucseg.errors import NucSegError
from train.readers.files import ImageIndex
from train.readers.record import About, Entry, Raw, Source, distinct, safe_name, split_in


def open_pairs(
    form: str,
    path: Path,
    annotations: Sequence[Path],
    read_pair: Callable[[Path, Path], Raw],
    about: About,
    stem_of: Callable[[Path], str] = lambda file: file.stem,
) -> Source:
    """Pair files of annotations with their images; nothing is read.

    Parameters
    ----------
    form
        Name of the format.
    path
        Folder that is searched for images, or the one file of annotations, whose folder is searched then.
    annotations
        Files at or below it.
    read_pair
        From a file of annotations and its image to what they hold.
    about
        The set.
    stem_of
        From a file of annotations to the name of its image without the extension.

    Returns
    -------
    Source
        Files without an image are among its problems; images without a file are remarked on.
    """
    root = path if path.is_dir() else path.parent
    index = ImageIndex(root)
    listed, pairs, problems = [], [], []
    for file in annotations:
        stem = stem_of(file)
        try:
            pairs.append((file, index.find(file, stem)))
        except NucSegError as error:
            problems.append(str(error))
            continue
        listed.append(Entry(safe_name(stem), str(file), None, split_in(file, root)))
    entries = distinct(listed)
    by_name = {entry.name: pair for entry, pair in zip(entries, pairs, strict=True)}
    remarks = _unannotated(index, [image for _, image in pairs]) if path.is_dir() else ()
    return Source(form, entries, lambda e: read_pair(*by_name[e.name]), about, None, tuple(problems), remarks)


def files_below(path: Path, *endings: str) -> list[Path]:
    """Return the files at or below a path whose names end so, whatever the case of letters, in order."""
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [
        p for p in found if p.name.lower().endswith(endings) and p.is_file() and not p.name.startswith(".")
    ]


def _unannotated(index: ImageIndex, used: Sequence[Path]) -> tuple[str, ...]:
    """Return a remark on images that nothing annotates, if there are any."""
    left = index.without(used)
    if not left:
        return ()
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    return (f"No annotation was found for '{left[0]}'{more}; such images are left out.",)
