"""Writing what was found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg.io.geojson import GeoJsonWriter
from napari_nucseg.io.omezarr import LabelPyramid
from napari_nucseg.io.tables import TableWriter

if TYPE_CHECKING:
    from benchmarks.suite.conftest import Seen


def bench_label_pyramid(benchmark: Any, seen: Seen, tmp_path: Path) -> None:
    """Write the labels as an OME-Zarr pyramid."""
    box = seen.tile.box

    def write() -> None:
        with LabelPyramid(tmp_path / "labels.zarr", seen.image.shape[:2], seen.card.mpp) as pyramid:
            pyramid.expect({0: box})
            pyramid.paint(0, box, seen.tile.labels)

    benchmark(write)


def bench_geojson(benchmark: Any, seen: Seen, tmp_path: Path) -> None:
    """Write the nuclei as detections for QuPath."""
    origin = (seen.tile.box.y0, seen.tile.box.x0)

    def write() -> None:
        with GeoJsonWriter(tmp_path / "x_nuclei.geojson", dict(seen.card.colours), "x") as writer:
            writer.add(seen.tile.labels, origin, seen.tile.nuclei)

    benchmark(write)


def bench_parquet(benchmark: Any, seen: Seen, tmp_path: Path) -> None:
    """Write the table as Parquet."""
    benchmark(_write_table, tmp_path, "parquet", seen.tile.nuclei)


def bench_csv(benchmark: Any, seen: Seen, tmp_path: Path) -> None:
    """Write the table as CSV."""
    benchmark(_write_table, tmp_path, "csv", seen.tile.nuclei)


def _write_table(folder: Path, kind: str, nuclei: Any) -> None:
    with TableWriter(folder, "x", (kind,)) as tables:
        tables.add(nuclei)
