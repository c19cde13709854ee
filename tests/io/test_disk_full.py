"""A disk that is full is told in one sentence; nothing half-written stays, and older results are as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("resource")  # not on Windows

# In a process of its own, since the limit holds for all the files of a process.
SCRIPT = """
import json, resource, sys
from pathlib import Path
import numpy as np, pandas as pd
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.export import save_results
from napari_nucseg.io.geojson import GeoJsonWriter
from napari_nucseg.io.omezarr import LabelPyramid
from napari_nucseg.io.tables import TableWriter

labels = np.kron(np.arange(1, 10001, dtype=np.uint32).reshape(100, 100), np.ones((5, 5), np.uint32))
columns = {f"x{k}": np.random.default_rng(k).random(10000) for k in range(12)}
table = pd.DataFrame({"id": np.arange(1, 10001), **columns})
tables = [table[start : start + 2000] for start in range(0, 10000, 2000)]

def write(folder, stem, what):
    if what == "zarr":
        with LabelPyramid(folder / f"{stem}_labels.zarr", labels.shape, chunk=128) as writer:
            writer.expect({0: Box(0, 500, 0, 500)})
            writer.paint(0, Box(0, 500, 0, 500), labels)
    elif what == "geojson":
        with GeoJsonWriter(folder / f"{stem}_nuclei.geojson", part_nuclei=4000) as writer:
            for part in tables:
                writer.add(labels, (0, 0), part)
    elif what in ("csv", "parquet"):
        with TableWriter(folder, stem, [what]) as writer:
            for part in tables:
                writer.add(part)
    else:
        save_results(folder, stem, labels, table, formats=[what.removeprefix("whole ")])

def contents(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
for number, (what, limit) in enumerate(json.loads(sys.argv[2])):
    folder = Path(sys.argv[1]) / str(number)
    folder.mkdir()
    write(folder, "older", what)
    before = contents(folder)
    told = []
    for stem in ("newer", "older"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
        try:
            write(folder, stem, what)
        except NucSegError as error:
            told.append(str(error))
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    names = sorted(path.name for path in folder.iterdir())
    print(json.dumps([told, names, len(before) > 0 and contents(folder) == before]))
"""

CASES = [
    ("zarr", 300),
    ("geojson", 10_000),
    ("geojson", 1),
    ("csv", 10_000),
    ("csv", 1),
    ("parquet", 10_000),
    ("parquet", 1),
    ("whole tif", 1000),
    ("whole csv", 10_000),
    ("whole geojson", 10_000),
]


def test_a_full_disk(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    run = [sys.executable, "-c", SCRIPT, str(tmp_path), json.dumps(CASES)]
    done = subprocess.run(run, check=True, capture_output=True, text=True, timeout=250)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == len(CASES)
    for case, line in zip(CASES, lines, strict=True):
        told, names, same = json.loads(line)
        assert len(told) == 2, case
        for sentence, stem in zip(told, ("newer", "older"), strict=True):
            assert f"{stem}_" in sentence, case
            assert sentence.count("can't be written (File too large)") == 1, case
            assert sentence.endswith("; choose another folder or free some space"), case
        assert len(names) == 1, case
        assert names[0].startswith("older_"), case
        assert same, case
