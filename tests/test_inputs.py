"""What folders given to the command line stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import zarr
from PIL import Image

from napari_nucseg._cli.inputs import find_images, stem_of

if TYPE_CHECKING:
    from pathlib import Path


def make(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (20, 20)).save(folder / name, "PNG")
    return [folder / name for name in names]


def test_zarr_folders_are_images_and_our_labels_are_not(tmp_path: Path):
    (picture,) = make(tmp_path, "a.png")
    slide = tmp_path / "b.ome.zarr"
    zarr.create_array(str(slide), data=np.zeros((20, 20, 3), np.uint8))
    plain = tmp_path / "c"  # known by what it holds
    zarr.create_array(str(plain), data=np.zeros((20, 20, 3), np.uint8), zarr_format=2)
    for name in ("a_labels.zarr", ".b.zarr", "empty"):
        (tmp_path / name).mkdir()
    make(tmp_path / "deeper", "d.png")
    images, complaints = find_images([str(tmp_path), str(slide), str(plain)])
    assert images == [picture, slide, plain]
    assert complaints == []
    assert stem_of(slide) == "b"


def test_a_dicom_series_is_one_slide(tmp_path: Path):
    series = make(tmp_path / "s", "1.dcm", "2.dcm", "3.dcm")
    assert find_images([str(tmp_path / "s")])[0] == series[:1]
    assert find_images([str(path) for path in series])[0] == series


def test_a_folder_without_images_is_told(tmp_path: Path):
    (tmp_path / "x").mkdir()
    images, (complaint,) = find_images([str(tmp_path)])
    assert images == []
    assert "*.zarr" in complaint
