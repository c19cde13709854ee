"""What a nucleus is as an object of QuPath: its UUID, and the properties of its GeoJSON feature."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.nuclei import State
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.text import Column, Texts, column_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

ID_MEASUREMENT = "NucSeg id"
"""The measurement that carries the nucleus' id through QuPath and back."""

STATE, ORIGIN = "NucSeg state", "NucSeg origin"
"""Metadata of an object that tell of its review; QuPath shows them, and keeps them from 0.5 on."""

NO_CLASS = "unclassified"
"""Stands for no class in tables; objects in QuPath then have none."""

_METADATA = {"state": STATE, "origin": ORIGIN}
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://napari-hub.org/plugins/napari-nucseg")
_NO_COLOUR = (128, 128, 128)


def properties(nuclei: pd.DataFrame, shades: Mapping[str, Sequence[int]]) -> list[tuple[bytes, Column]]:
    """Return the class, the measurements and the metadata of nuclei, each with the text before it."""

    def classification(name: Any) -> bytes:
        if not isinstance(name, str) or not name or name == NO_CLASS:
            return b""
        shade = {"name": name, "color": list(shades.get(name, _NO_COLOUR))}
        return f',"classification":{_text(shade)}'.encode()

    columns: list[tuple[bytes, Column]] = []
    if "class" in nuclei:
        columns.append((b"", column_of(nuclei["class"].astype(object), classification)))
    columns.append((f',"measurements":{{{_text(ID_MEASUREMENT)}:'.encode(), nuclei["id"].to_numpy(np.int64)))
    names = [name for name in nuclei.select_dtypes("number") if name != "id" and name not in _METADATA]
    columns += [
        (f",{_text(str(name))}:".encode(), column_of(nuclei[name], _number, finite=True)) for name in names
    ]
    columns.append((b"}", _metadata(nuclei)))
    return columns


def rgb(colour: Sequence[int] | str) -> tuple[int, int, int]:
    """Read a colour, or say that it is none."""
    try:
        parts = (
            bytes.fromhex(colour.removeprefix("#")) if isinstance(colour, str) else bytes(map(int, colour))
        )
        red, green, blue = parts
    except (TypeError, ValueError):
        raise NucSegError(f"{colour!r} is no colour; give (r, g, b) in 0..255 or '#rrggbb'") from None
    return red, green, blue


def object_uuid(id_: int, namespace: str) -> str:
    """Return the UUID that the object of a nucleus has in QuPath; see `write_geojson`."""
    return str(uuid.uuid5(_NAMESPACE, f"{namespace}/{id_}"))


def object_uuids(ids: Iterable[int], namespace: str) -> dict[str, int]:
    """Return the id of every nucleus under the UUID of its object: what `read_geojson` knows nuclei by."""
    return {object_uuid(id_, namespace): id_ for id_ in map(int, ids)}


def uuid_digests(ids: NDArray[np.int64], namespace: str) -> NDArray[np.uint8]:
    """Return the SHA-1 (n, 20) that the UUIDs of `object_uuid` are made of."""
    common = hashlib.sha1(_NAMESPACE.bytes + f"{namespace}/".encode(), usedforsecurity=False)
    digests = bytearray()
    for id_ in ids.tolist():
        one = common.copy()
        one.update(b"%d" % id_)
        digests += one.digest()
    return np.frombuffer(digests, np.uint8).reshape(-1, 20)


def _metadata(nuclei: pd.DataFrame) -> Texts:
    """Return the words about every row's review; a table with scores and no states is a run's, as it was found.

    That is said of each, since QuPath before 0.5 drops the metadata: whatever has none may be reviewed.
    """
    import pandas as pd

    if "state" not in nuclei and "score" in nuclei:
        nuclei = nuclei.assign(state=State.PREDICTED.word)
    names = [name for name in _METADATA if name in nuclei]
    words = [nuclei[name].astype(object).to_numpy() for name in names]
    codes, pairs = pd.factorize(pd.Series(list(zip(*words, strict=True)))) if names else (None, [()])
    texts = []
    for pair in pairs:
        known = zip(names, pair, strict=True)
        said = {_METADATA[name]: word for name, word in known if isinstance(word, str) and word}
        texts.append(f',"metadata":{_text(said)}'.encode() if said else b"")
    return Texts(np.zeros(len(nuclei), np.int64) if codes is None else codes.astype(np.int64), texts)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _number(value: Any) -> bytes:
    return str(value).encode()
