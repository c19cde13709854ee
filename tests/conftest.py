"""Fixtures of all the tests, and the limits they run under."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

# Before numpy, numba or torch start their thread pools.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "2")
# Real windows on a virtual screen (pytest-xvfb starts it) where one can be had.
_screen = os.environ.get("DISPLAY") or shutil.which("Xvfb")
os.environ.setdefault("QT_QPA_PLATFORM", "xcb" if _screen and sys.platform == "linux" else "offscreen")

import pytest  # noqa: E402

from napari_nucseg.core.synthetic import SyntheticTile, synthetic_he  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Two threads for torch too, where it is installed."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the real data; the tests that want it are skipped where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"the real data are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def synthetic() -> SyntheticTile:
    """The sample tile: 512 x 512 pixels at 0.25 um, nuclei of all the classes. Its arrays are read-only."""
    tile = synthetic_he()
    tile.image.setflags(write=False)
    tile.labels.setflags(write=False)
    return tile
