"""Micrometres per pixel are believed only where a file states them credibly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp, from_aperio, from_ome_xml
from napari_nucseg.io.slide import read_image
from tests.io.make_slides import picture, write_svs

if TYPE_CHECKING:
    from pathlib import Path

RGB = picture(40, 50)


def _tiff(path: Path, **options: object) -> Mpp:
    tifffile.imwrite(path, RGB, photometric="rgb", **{"metadata": None, **options})
    with read_image(path) as slide:
        return slide.mpp


def _ome(**attributes: str) -> Mpp | None:
    text = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    return from_ome_xml(f'<OME xmlns="http://www.openmicroscopy.org/x"><Image><Pixels {text}/></Image></OME>')


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PhysicalSizeX": "0.25", "PhysicalSizeY": "0.25"}, 0.25),
        ({"PhysicalSizeX": "250", "PhysicalSizeXUnit": "nm"}, 0.25),
        ({"PhysicalSizeX": "0.25", "PhysicalSizeXUnit": "µm"}, 0.25),
        ({"PhysicalSizeX": "0.25", "PhysicalSizeXUnit": "\u03bcm"}, 0.25),
        ({"PhysicalSizeX": "0.00025", "PhysicalSizeXUnit": "mm"}, 0.25),
        ({"PhysicalSizeX": "0.25", "PhysicalSizeY": "0.26"}, pytest.approx((0.25 * 0.26) ** 0.5)),
    ],
)
def test_ome_units(attributes: dict[str, str], expected: float) -> None:
    assert _ome(**attributes) == Mpp(expected, "OME-XML")


def test_ome_without_a_size() -> None:
    assert _ome(SizeX="3") is None
    assert _ome(PhysicalSizeX="0.25", PhysicalSizeXUnit="pixel") is None
    assert _ome(PhysicalSizeX="nonsense") is None
    assert from_ome_xml("<OME") is None
    assert from_ome_xml("<OME/>") is None


@pytest.mark.parametrize(
    "size", [("0.25", "0.5"), ("352", "352"), ("0", "0"), ("nan", "nan"), ("1e-9", "1e-9")]
)
def test_unbelievable_figures_are_reported_as_unknown(size: tuple[str, str]) -> None:
    mpp = _ome(PhysicalSizeX=size[0], PhysicalSizeY=size[1])
    assert mpp is None or (mpp.value is None and mpp.source.startswith("unknown (OME-XML says"))


def test_ome_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.263, "PhysicalSizeY": 0.263, "PhysicalSizeXUnit": "µm"}
    tifffile.imwrite(path, RGB, photometric="rgb", metadata=metadata, resolution=(1e4, 1e4), resolutionunit=3)
    with read_image(path) as slide:
        assert slide.mpp == Mpp(0.263, "OME-XML")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("|MPP = 0.2520|", 0.252),
        ("|MPP=0.5", 0.5),
        ("|MPP = 2.5e-1|", 0.25),
        ("|MPP = |", None),
        ("|AppMPP = 3", None),
    ],
)
def test_aperio_header(text: str, value: float | None) -> None:
    assert from_aperio(f"Aperio Image Library v1\r\n1x1{text}") == (
        None if value is None else Mpp(value, "Aperio header")
    )
    assert from_aperio(f"Some other scanner{text}") is None


def test_an_aperio_header_without_mpp_is_unknown(tmp_path: Path) -> None:
    with read_image(write_svs(tmp_path / "s.svs", [picture()], mpp="")) as slide:
        assert slide.mpp == Mpp(None, "unknown")


@pytest.mark.parametrize(
    ("per_unit", "unit", "value"),
    [
        ((40000, 40000), 3, 0.25),
        ((20000.0, 20000.0), "CENTIMETER", 0.5),
        ((101600, 101600), 2, 0.25),
        ((72, 72), 2, None),
        ((300, 300), 2, None),
        ((28.35, 28.35), 3, None),
        ((4, 4), 1, None),
        ((40000, 20000), 3, None),
    ],
)
def test_resolution_tags(
    tmp_path: Path, per_unit: tuple[float, float], unit: int, value: float | None
) -> None:
    mpp = _tiff(tmp_path / "a.tif", resolution=per_unit, resolutionunit=unit)
    assert mpp.value == (None if value is None else pytest.approx(value))
    assert mpp.source.startswith("TIFF resolution tag" if value else "unknown")


def test_no_resolution(tmp_path: Path) -> None:
    assert _tiff(tmp_path / "a.tif") == Mpp(None, "unknown")
    assert str(Mpp()) == "unknown"
    assert str(Mpp(0.25, "OME-XML")) == "0.25 µm/px (OME-XML)"


def test_imagej_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, imagej=True, resolution=(4, 4), metadata={"unit": "micron", "axes": "YXS"})
    with read_image(path) as slide:
        assert slide.mpp == Mpp(0.25, "ImageJ metadata")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
@pytest.mark.parametrize(("dpi", "value"), [(50800, 0.5), (300, None), (72, None)])
def test_pictures(tmp_path: Path, suffix: str, dpi: int, value: float | None) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RGB).save(path, dpi=(dpi, dpi))
    with read_image(path) as slide:
        assert slide.mpp.value == (None if value is None else pytest.approx(value, rel=1e-3))
        assert slide.mpp.source.endswith("resolution" if value else "unknown")


@pytest.mark.parametrize("value", [0, -1, 250, np.nan, np.inf, "x", None])
def test_a_stated_mpp_must_be_plausible(value: object) -> None:
    with pytest.raises(NucSegError, match="mpp"):
        Mpp.stated(value)  # type: ignore[arg-type]


def test_a_stated_mpp() -> None:
    assert Mpp.stated(0.25) == Mpp(0.25, "stated by the user")
