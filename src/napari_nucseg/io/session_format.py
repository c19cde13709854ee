"""What stands in `session.json`, and the snapshot that a session is saved from and restored to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.nuclei import NucleusClass, record_dtype
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.session_files import SessionDamaged, reason, write_durably

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT = "napari-nucseg session"
VERSION = 1
MANIFEST = "session.json"
TABLE = "nuclei.csv"
LABELS = "labels.zarr"


@dataclass(frozen=True)
class Snapshot:
    """All of a session that is kept on disk.

    Attributes
    ----------
    labels : uint32 (H, W)
        0 = background, else the id of a nucleus.
    records : structured (n,)
        Of `core.nuclei.record_dtype`; every nucleus ever made.
    classes : tuple of NucleusClass
        The model's first.
    next_id : int
        The next nucleus gets this id; above all ids ever given.
    about : dict
        Whatever else is to be known, as JSON holds it. Known keys: ``image`` (a dict of ``name``, ``path``, ``bytes``),
        ``mpp`` (micrometres per pixel or None), ``mpp_source``, ``model`` (``name``, ``version``, ``sha256``),
        ``decoder``.
    """

    labels: NDArray[np.uint32]
    records: NDArray[Any]
    classes: tuple[NucleusClass, ...]
    next_id: int
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def n_model_classes(self) -> int:
        """Classes whose probabilities the records hold."""
        return int(self.records.dtype["prob"].shape[0])


@dataclass(frozen=True)
class Manifest:
    """Content of `session.json`.

    Attributes
    ----------
    journals : tuple of (str, int)
        Files to be replayed, in order, each with the number of its first entry.
    rows : int
        Rows that the table has at least.
    checkpoint : int
        Counts the checkpoints; the current one's.
    """

    shape: tuple[int, int]
    classes: tuple[NucleusClass, ...]
    n_model_classes: int
    next_id: int
    rows: int
    journals: tuple[tuple[str, int], ...]
    about: dict[str, Any]
    created: str
    saved: str = ""
    checkpoint: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the records."""
        return record_dtype(self.n_model_classes)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Manifest:
        """Return that of a session not yet saved."""
        return cls(
            shape=(int(snapshot.labels.shape[0]), int(snapshot.labels.shape[1])),
            classes=tuple(snapshot.classes),
            n_model_classes=snapshot.n_model_classes,
            next_id=max(int(snapshot.next_id), first_free_id(snapshot.records)),
            rows=len(snapshot.records),
            journals=(),
            about=json.loads(json.dumps(snapshot.about, default=str)),
            created=now(),
        )

    def write(self, folder: Path) -> Manifest:
        """Put it in place, with the time of now; it is on the disk when this returns.

        Raises
        ------
        NucSegError
            The file can't be written.
        """
        stamped = replace(self, saved=now())
        text = json.dumps(stamped.document(), indent=1, ensure_ascii=False)
        write_durably(folder / MANIFEST, text.encode() + b"\n")
        return stamped

    def document(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "created": self.created,
            "saved": self.saved,
            "checkpoint": self.checkpoint,
            "shape": list(self.shape),
            "n_model_classes": self.n_model_classes,
            "classes": classes_document(self.classes),
            "next_id": self.next_id,
            "rows": self.rows,
            "journals": [{"file": name, "first": first} for name, first in self.journals],
            "about": self.about,
        }


def read_manifest(folder: Path) -> Manifest:
    """Read `session.json` of a folder.

    Raises
    ------
    NucSegError
        The folder holds no session, or one of a newer version (nothing is touched then).
    SessionDamaged
        The file is cut short or changed.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise NucSegError(
            f"{folder} can't be opened as a session ({reason(error)}: {MANIFEST}); choose a folder named *.nucseg"
        ) from error
    except ValueError as error:
        raise SessionDamaged(f"{path} is cut short or damaged; restore it from a backup") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise NucSegError(f"{path} belongs to another program; choose a folder that napari-nucseg has saved")
    version = content.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise NucSegError(
            f"{folder} was saved by a newer napari-nucseg (format {version}, this one reads up to {VERSION}); "
            "update napari-nucseg to open it"
        )
    try:
        return _parse(content)
    except (KeyError, TypeError, ValueError) as error:
        raise SessionDamaged(f"{path} is damaged ({error!r}); restore it from a backup") from error


def classes_document(classes: tuple[NucleusClass, ...]) -> list[dict[str, Any]]:
    """Return classes as JSON holds them."""
    return [{"name": c.name, "colour": [int(v) for v in c.colour]} for c in classes]


def parse_classes(content: list[dict[str, Any]]) -> tuple[NucleusClass, ...]:
    """Return classes from JSON."""
    return tuple(NucleusClass(str(c["name"]), _triple(c["colour"])) for c in content)


def first_free_id(records: NDArray[Any]) -> int:
    """Return the id after the highest of the records."""
    return int(records["id"].max()) + 1 if len(records) else 1


def now() -> str:
    """Return the time in UTC, as ISO 8601 writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _triple(colour: list[int]) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in colour)
    return red, green, blue


def _parse(content: dict[str, Any]) -> Manifest:
    height, width = (int(v) for v in content["shape"])
    manifest = Manifest(
        shape=(height, width),
        classes=parse_classes(content["classes"]),
        n_model_classes=int(content["n_model_classes"]),
        next_id=int(content["next_id"]),
        rows=int(content["rows"]),
        journals=tuple((str(j["file"]), int(j["first"])) for j in content["journals"]),
        about=dict(content["about"]),
        created=str(content["created"]),
        saved=str(content["saved"]),
        checkpoint=int(content["checkpoint"]),
    )
    if min(height, width) < 1 or not 0 <= manifest.n_model_classes <= len(manifest.classes):
        raise ValueError(f"shape {manifest.shape}, {manifest.n_model_classes} classes of the model")
    if any("/" in name or "\\" in name for name, _ in manifest.journals):
        raise ValueError("a journal outside the folder")
    return manifest
