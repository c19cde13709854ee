import numpy as np
from PIL import Image, ImageDraw

from napari_nucseg.models.registry import find_model
from train.colours import CLASS_COLOURS, class_colours
from train.prepared import Row
from train.sheet import UNKNOWN, _caption, choose, draw_sheet, overlay


def row(name, *warnings):
    return Row(name, "train", name, None, None, "", (9, 9), 0.25, "", 1, (), 0, 6.0, name, warnings)


def test_outlines_lie_on_the_edge_of_nuclei_in_the_colour_of_the_class():
    image = np.full((20, 20, 3), 7, np.uint8)
    labels, types = np.zeros((20, 20), np.uint16), np.zeros((20, 20), np.uint8)
    labels[2:8, 2:8], types[2:8, 2:8] = 1, 2
    labels[8:14, 2:8], types[8:14, 2:8] = 2, 255
    drawn = overlay(image, labels, types, CLASS_COLOURS)
    assert (drawn[2, 2:8] == CLASS_COLOURS[1]).all()
    assert (drawn[7, 3] == CLASS_COLOURS[1]).all()  # touching nuclei are told apart
    assert (drawn[8, 3] == UNKNOWN).all()
    assert (drawn[3:7, 3:7] == 7).all()
    assert (drawn[labels == 0] == 7).all()
    assert (image == 7).all()
    assert (overlay(image, labels, None, CLASS_COLOURS)[2, 2] == UNKNOWN).all()


def test_a_class_has_the_colour_that_the_panel_gives_it(tmp_path):
    labels = np.zeros((9, 9), np.uint16)
    labels[2:7, 2:7] = 1
    arrays = {"images": np.zeros((9, 9, 3), np.uint8), "instances": labels, "types": labels.astype(np.uint8)}
    for kind, array in arrays.items():
        (tmp_path / "train" / kind).mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / "train" / kind / "a.png")
    with Image.open(draw_sheet(tmp_path, [row("a")], ["connective"], tmp_path / "s.png")) as sheet:
        seen = {colour for _, colour in sheet.getcolors(10**6)}
    assert find_model().card.colours["connective"] in seen
    assert CLASS_COLOURS[0] not in seen


def test_more_classes_than_spare_colours():
    given = {str(k): rgb for k, rgb in enumerate(CLASS_COLOURS)}
    assert class_colours([*given, "one more"], given)["one more"] in CLASS_COLOURS


def test_images_with_warnings_come_first_but_do_not_fill_the_sheet():
    rows = [row(f"{i:03d}", *(["odd"] if i >= 80 else [])) for i in range(100)]
    chosen = choose(rows, 10)
    assert len(chosen) == 10
    assert 5 <= sum(bool(r.warnings) for r in chosen) <= 7
    assert [r.name for r in chosen] == sorted(r.name for r in chosen)
    assert choose(rows[:3], 10) == rows[:3]
    assert choose([], 10) == []


def test_warnings_are_written_in_full():
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    said = (
        "mpp 0.5 as stated, where the session (stated by the user in QuPath) says 0.2528",
        "87 of 192 nuclei smaller than 4 um2",
    )
    name, facts, *lines = (text for text, _ in _caption(pen, row("a" * 200, *said)))
    assert "".join(lines).replace("!", " ").split() == " ".join(said).split()
    assert (len(lines), facts) == (3, "1 nucleus, 0.25 um/px")
    assert name.endswith("...")
    assert all(pen.textlength(line) <= 320 for line in (name, *lines))
