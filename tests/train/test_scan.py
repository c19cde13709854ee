import os

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError
from train import scan as scanning
from train.annotated import Known, LazyImage
from train.data import median_diameter, nucleus_classes
from train.scan import ImageFiles, list_files, look, scan


def write(folder, name, labels, types=None, image=None):
    for kind in ("images", "instances", "types"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    image = np.zeros((*labels.shape, 3), np.uint8) if image is None else image
    Image.fromarray(image).save(folder / "images" / f"{name}.png")
    if labels.dtype == np.uint16:
        Image.fromarray(labels).save(folder / "instances" / f"{name}.png")
    else:
        tifffile.imwrite(folder / "instances" / f"{name}.tif", labels)
    if types is not None:
        Image.fromarray(types).save(folder / "types" / f"{name}.png")


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 60_000, 2_000_000]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_nuclei_are_those_of_the_pixels_through_any_merge(tmp_path_factory, seed, largest, sparse):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("scan")
    labels = rng.integers(0, largest, 12)[rng.integers(0, 12, (11, 14))].astype(np.int32)
    labels[rng.random(labels.shape) < (0.9 if sparse else 0.2)] = 0
    types = np.where(labels > 0, rng.choice([0, 1, 2, 3, IGNORE], labels.shape), 0).astype(np.uint8)
    write(folder, "a", labels, types)
    found = look(list_files(folder)[0])
    lookup = np.full(256, IGNORE, np.uint8)
    lookup[:4] = [0, 2, 1, 2]
    for table, painted in ((lookup, lookup[types]), (None, None)):
        points, classes = nucleus_classes(labels, painted)
        assert np.array_equal(found.nuclei(table), np.column_stack([np.rint(points), classes]).astype(int))
    assert found.shape.tolist() == [11, 14]
    assert found.diameter[0] == pytest.approx(median_diameter(labels), nan_ok=True)


def test_what_is_kept_of_a_large_set_is_found_again_until_a_file_changes(tmp_path, monkeypatch):
    for k in range(3):
        labels = np.zeros((9, 9 + k), np.uint16)
        labels[2:5, 1 : k + 1] = 1
        write(tmp_path, f"im_{k}", labels, (labels > 0).astype(np.uint8) if k != 1 else None)
    files, keep = list_files(tmp_path), tmp_path / ".scan.npz"
    first = scan(files, keep)
    assert not keep.exists()  # too small to be worth a file
    monkeypatch.setattr(scanning, "KEPT_FROM", 1)
    scan(files, keep)
    looked = []
    monkeypatch.setattr(scanning, "look", lambda f: looked.append(f) or look(f))
    again = scan(files, keep)
    assert looked == []
    for a, b in zip(first, again, strict=True):
        for name in ("shape", "diameter", "points", "votes"):
            assert np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name == "diameter")
    labels = np.zeros((9, 9), np.uint16)
    labels[1, 1] = 4
    write(tmp_path, "im_0", labels, (labels > 0).astype(np.uint8))
    os.utime(tmp_path / "instances" / "im_0.png", ns=(1, 1))
    assert scan(list_files(tmp_path), keep)[0].points.tolist() == [[1, 1]]
    assert len(looked) == 3
    keep.write_bytes(keep.read_bytes()[:100])
    assert len(scan(list_files(tmp_path), keep)) == 3
    assert len(looked) == 6


def test_damage_is_told_in_one_sentence(tmp_path):
    labels = np.ones((5, 6), np.uint16)
    write(tmp_path, "a", labels, np.ones((5, 7), np.uint8))
    with pytest.raises(NucSegError, match=r"types/a\.png' is of 7 x 5"):
        scan(list_files(tmp_path))
    (tmp_path / "instances" / "a.png").write_bytes(b"nothing")
    with pytest.raises(NucSegError, match=r"instances/a\.png"):
        scan(list_files(tmp_path))
    (tmp_path / "instances" / "a.png").unlink()
    with pytest.raises(NucSegError, match="no labels"):
        list_files(tmp_path)
    assert [f.labels for f in list_files(tmp_path, labelled=False)] == [None]
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(tmp_path / "images" / "a.jpg")
    with pytest.raises(NucSegError, match="one image per name"):
        list_files(tmp_path, labelled=False)
    (tmp_path / "images" / "._b.png").write_bytes(b"of a file manager")
    (tmp_path / "images" / "a.jpg").unlink()
    assert len(list_files(tmp_path, labelled=False)) == 1


def test_a_lazy_image_reads_no_pixels_for_what_is_known(tmp_path):
    write(tmp_path, "a", np.ones((5, 6), np.uint16))
    files = list_files(tmp_path)[0]
    known = Known("toy", files, 0.25, True, look(files), None)
    image = LazyImage(known, None, 0)  # a store that cannot be asked
    assert (image.shape, image.types, image.mpp, image.name) == ((5, 6), None, 0.25, "a")
    assert image.nuclei.tolist() == [[2, 2, 0]]
    assert repr(image) == "LazyImage(toy/a, 5 x 6)"
    assert ImageFiles(files.image).types is None
