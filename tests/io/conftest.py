"""Files of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.io.make_slides import VARIANTS

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


@pytest.fixture(scope="session", params=list(VARIANTS))
def variant(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[np.ndarray]]:
    """A TIFF file, and the RGB pixels of each of its levels."""
    return VARIANTS[request.param](tmp_path_factory.mktemp("variant"))
