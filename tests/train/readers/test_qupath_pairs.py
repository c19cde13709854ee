import gzip
import json

import numpy as np
import pytest
import tifffile

from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError
from train.readers import detect, open_source
from train.readers.canvas import OVERLAPPING


def feature(x, y, side, kind=None, geometry=None):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    properties = {"objectType": "detection"}
    if kind:
        properties["classification"] = {"name": kind, "color": [200, 0, 0]}
    shape = geometry or {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": shape, "properties": properties}


@pytest.fixture
def exported(tmp_path):
    """An image with its resolution in the TIFF's tags, and QuPath's export of its objects."""
    image = np.full((300, 400, 3), 220, np.uint8)
    dots = 1e4 / 0.5  # per centimetre
    tifffile.imwrite(tmp_path / "case 1.a.tif", image, resolution=(dots, dots), resolutionunit="CENTIMETER")
    point = {"type": "Point", "coordinates": [9, 9]}
    features = [
        feature(100, 50, 20, "Tumor"),
        feature(110, 60, 20),
        feature(200, 200, 12, "Stroma"),
        feature(0, 0, 0, "Tumor", point),
    ]
    content = {"type": "FeatureCollection", "features": features}
    (tmp_path / "case 1.a.geojson").write_text(json.dumps(content))
    return tmp_path


def test_objects_become_nuclei_with_classes(exported):
    assert detect(exported) == "qupath"
    source = open_source(exported)
    assert source.names == ["case_1_a"]
    raw = source.read(source.entries[0])
    assert np.bincount(raw.labels.ravel())[1:].tolist() == [400, 300, 144]
    assert raw.labels[50, 100] == 1
    assert raw.labels[49, 100] == 0
    assert raw.classes == ("Stroma", "Tumor")
    assert [raw.types[55, 105], raw.types[79, 129], raw.types[205, 205]] == [2, IGNORE, 1]
    assert raw.mpp == pytest.approx(0.5)
    assert raw.notes[OVERLAPPING] == 1
    assert raw.notes["points, which have no shape, left out"] == 1


def test_one_file_and_compressed_files_named_by_the_image_are_read(exported):
    plain = exported / "case 1.a.geojson"
    packed = exported / "case 1.a.tif.geojson.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    source = open_source(packed)
    assert source.names == ["case_1_a"]
    assert source.read(source.entries[0]).labels.max() == 3


def test_bad_files_are_named_in_a_sentence(exported):
    path = exported / "case 1.a.geojson"
    path.write_text(path.read_text()[:200])
    source = open_source(exported)
    with pytest.raises(NucSegError, match=r"case 1\.a\.geojson"):
        source.read(source.entries[0])
    path.rename(exported / "case 2.geojson")
    with pytest.raises(NucSegError, match=r"case 2\.geojson' has no image 'case 2'"):
        open_source(exported)
