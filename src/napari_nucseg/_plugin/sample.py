"""Sample data of File > Open Sample: a synthetic tile made on the spot, and a small public slide."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd
import platformdirs

from napari_nucseg.core.synthetic import synthetic_he
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg.core.synthetic import SyntheticTile

LayerData: TypeAlias = tuple[Any, dict[str, Any], str]

CMU1_URL = "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1-Small-Region.svs"
CMU1_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
CMU1_BYTES = 1_938_955
TIMEOUT_S = 20.0

_log = logging.getLogger(__name__)


def synthetic_sample() -> list[LayerData]:
    """Make the synthetic H&E tile and, hidden, its ground truth.

    Returns
    -------
    list of layer data tuples
        An RGB image of 512 x 512 pixels at 0.25 um per pixel, and the Labels of its nuclei, whose features
        name the class of each. Both are in um.
    """
    tile = synthetic_he()
    common = {"scale": (tile.mpp, tile.mpp), "units": ("um", "um")}
    # The same keys as the reader's, so that the panel finds the resolution in one way.
    metadata = {"napari_nucseg": {"path": None, "mpp": tile.mpp, "mpp_source": "the synthetic tile"}}
    image = {"name": "synthetic H&E", "rgb": True, "metadata": metadata, **common}
    truth = {
        "name": "synthetic H&E: truth",
        "visible": False,
        "features": _features(tile),
        "metadata": metadata,
        **common,
    }
    return [(tile.image, image, "image"), (tile.labels, truth, "labels")]


def cmu1_sample() -> list[LayerData]:
    """Open the public slide CMU-1-Small-Region (Aperio, 0.499 um per pixel), downloaded at first use.

    Returns
    -------
    list of layer data tuples
        As the plugin's reader gives them for any slide.

    Raises
    ------
    NucSegError
        If the slide is not in the cache and cannot be downloaded.
    """
    from napari_nucseg._plugin.reader import get_reader

    path = str(fetch_cmu1())
    read = get_reader(path)
    if read is None:
        raise NucSegError(
            f"{path} is not a slide the reader knows; delete the file and open the sample again."
        )
    return list(read(path))


def fetch_cmu1(folder: Path | None = None) -> Path:
    """Return the path of the slide in `folder`, by default the user's cache; download it where it is missing.

    Raises
    ------
    NucSegError
        If it is not there and cannot be downloaded, or if what came down is not the slide.
    """
    folder = folder or Path(platformdirs.user_cache_dir("napari-nucseg")) / "samples"
    path = folder / CMU1_URL.rpartition("/")[2]
    if _is_slide(path):
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        data = _download(CMU1_URL)
    except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
        reason = getattr(error, "reason", None) or error
        raise NucSegError(
            f"The sample slide could not be downloaded from {CMU1_URL} ({reason}): connect to the network "
            f"and try again, or put the file at {path}."
        ) from error
    if hashlib.sha256(data).hexdigest() != CMU1_SHA256:
        raise NucSegError(
            f"{CMU1_URL} sent something that is not the sample slide of {CMU1_BYTES} bytes (a login page "
            f"of the network?): try again, or put the file at {path}."
        )
    _write(path, data)
    _log.info("Downloaded %s to %s", CMU1_URL, path)
    return path


def _is_slide(path: Path) -> bool:
    try:
        return (
            path.stat().st_size == CMU1_BYTES and hashlib.sha256(path.read_bytes()).hexdigest() == CMU1_SHA256
        )
    except OSError:
        return False


def _download(url: str) -> bytes:
    """Read at most the size of the slide and one byte from `url`, over https all the way."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        if not answer.geturl().startswith("https://"):
            raise urllib.error.URLError(f"redirected to {answer.geturl()}, which is not https")
        return bytes(answer.read(CMU1_BYTES + 1))


def _write(path: Path, data: bytes) -> None:
    """Write so that `path` is either whole or not there."""
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError as error:
        Path(part).unlink(missing_ok=True)
        raise NucSegError(
            f"The sample slide cannot be saved to {path} ({error}): make room there."
        ) from error


def _features(tile: SyntheticTile) -> pd.DataFrame:
    ids = sorted(tile.types)
    return pd.DataFrame({"index": ids, "class": [tile.types[i] for i in ids]})
