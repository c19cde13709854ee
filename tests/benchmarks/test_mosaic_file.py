"""The large mosaic on disk: real tissue in every place, and a pyramid that any reader takes."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import mosaic
from benchmarks._canvas import ORIENTATIONS, Canvas, make_canvas, oriented
from benchmarks._pyramid import TILE, level_shapes, write_pyramid
from napari_nucseg.io.slide import read_image


def picture(seed, side=40):
    return np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)


@pytest.fixture
def data(tmp_path):
    """One set of four images with 9, 4, 1 and 30 nuclei, the last of another resolution."""
    folder = tmp_path / "data" / "monuseg"
    for kind in ("images", "instances"):
        (folder / "train" / kind).mkdir(parents=True)
    for k, nuclei in enumerate((9, 4, 1, 30)):
        Image.fromarray(picture(k)).save(folder / "train" / "images" / f"{k}.png")
        ids = np.zeros((40, 40), np.uint16)
        ids[0, :nuclei] = np.arange(1, nuclei + 1)
        Image.fromarray(ids).save(folder / "train" / "instances" / f"{k}.png")
    (folder / "dataset.json").write_text(json.dumps({"mpp": 0.25}))
    (folder / "index.csv").write_text("split,name,mpp\ntrain,0,0.25\ntrain,1,0.2527\ntrain,3,0.5\n")
    return tmp_path / "data"


def test_the_densest_images_of_the_right_scale_are_taken(data):
    per_mp = 1e6 / 1600
    assert len(make_canvas(data, (80, 80), density=6 * per_mp).pictures) == 2
    first = make_canvas(data, (80, 80), density=9 * per_mp)
    assert [p.tolist() for p in first.pictures] == [picture(0).tolist()]
    assert len(make_canvas(data, (80, 80), density=100 * per_mp).pictures) == 3


def test_every_orientation_differs():
    turned = {oriented(picture(0), n).tobytes() for n in range(ORIENTATIONS)}
    assert len(turned) == ORIENTATIONS


def test_bands_join_to_the_whole_and_every_cell_is_a_turned_picture():
    canvas = Canvas((picture(0), picture(1)), (130, 170), "")
    whole = canvas.rows(0, 130)
    bands = [canvas.rows(y, min(y + 33, 130)) for y in range(0, 130, 33)]
    assert (np.concatenate(bands) == whole).all()
    known = {oriented(p, n).tobytes() for p in canvas.pictures for n in range(ORIENTATIONS)}
    cells = {whole[y : y + 40, x : x + 40].tobytes() for y in (0, 40, 80) for x in (0, 40, 80, 120)}
    assert cells <= known
    assert len(cells) > 8  # repeats are turned


def test_the_levels_halve_down_to_a_small_one():
    shapes = level_shapes((5000, 3001))
    assert shapes == [(5000, 3001), (2500, 1500), (1250, 750), (625, 375)]
    assert level_shapes((700, 500)) == [(700, 500)]


def test_the_pyramid_holds_the_pixels_and_the_resolution(tmp_path):
    height, width = 2 * TILE + 300, TILE + 77
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([y * 255 // height, x * 255 // width, (y + x) * 255 // (height + width)], -1)
    image = smooth.astype(np.uint8)
    path = tmp_path / "slide.tif"
    write_pyramid(path, (height, width), lambda a, b: image[a:b], 0.25)
    with read_image(path) as slide:
        assert slide.level_shapes == ((height, width), (height // 2, width // 2))
        assert slide.mpp.value == pytest.approx(0.25)
        whole, half = slide.read(0, height, 0, width), slide.read(0, height // 2, 0, width // 2, 1)
    assert np.abs(whole.astype(int) - image).mean() < 1
    means = image[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    assert np.abs(half - means).mean() < 1
    assert [p.name for p in tmp_path.iterdir()] == ["slide.tif"]


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "slide.tif"
    path.write_bytes(b"before")

    def broken(y0, y1):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_pyramid(path, (600, 600), broken, 0.25)
    assert [p.name for p in tmp_path.iterdir()] == ["slide.tif"]
    assert path.read_bytes() == b"before"


def test_the_command_writes_and_tells(data, tmp_path, capsys):
    out = tmp_path / "m.tif"
    assert mosaic.main(["--data", str(data), "--size", "100", "--out", str(out)]) == 0
    assert "turned or mirrored" in capsys.readouterr().out
    with read_image(out) as slide:
        assert slide.shape == (100, 100)
    assert mosaic.main(["--data", str(data), "--size", "0", "--out", str(out)]) == 2
    assert mosaic.main(["--data", str(data), "--size", "9", "--out", str(tmp_path / "no" / "m.tif")]) == 2
    assert "no" in capsys.readouterr().err
