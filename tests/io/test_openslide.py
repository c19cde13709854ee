import numpy as np
import pytest

from napari_nucseg.errors import NucSegError
from napari_nucseg.io import slide
from napari_nucseg.io.openslide import OpenSlidePyramid
from napari_nucseg.io.slide import read_image


def test_openslide_and_tifffile_read_the_same_pixels(shared):
    pytest.importorskip("openslide")
    path = shared / "wsi" / "CMU-1-Small-Region.svs"
    pyramid = OpenSlidePyramid(path)
    with read_image(path) as ours:
        assert pyramid.level_shapes == ours.level_shapes
        assert pyramid.mpp.value == pytest.approx(ours.mpp.value)
        a, b = (p.read(1000, 1300, 700, 900).astype(int) for p in (pyramid, ours))
    assert np.abs(a - b).max() <= 3  # two JPEG decoders
    pyramid.close()
    with pytest.raises(NucSegError, match="open it again"):
        pyramid.read(0, 10, 0, 10)


def test_broken_slides_are_told_in_one_sentence(tmp_path):
    pytest.importorskip("openslide")
    path = tmp_path / "slide.mrxs"
    path.write_text("no slide")
    with pytest.raises(NucSegError, match=r"slide\.mrxs cannot be read as a slide"):
        read_image(path)


def test_a_missing_openslide_is_told_with_the_way_out(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openslide", None)
    path = tmp_path / "slide.mrxs"
    path.write_text("no slide")
    with pytest.raises(NucSegError, match="pip install openslide-python"):
        read_image(path)
    assert ".mrxs" in slide.EXTENSIONS
