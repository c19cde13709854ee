import shutil

import numpy as np
import pytest
from PIL import Image

from napari_nucseg.core.nuclei import NucleusClass, Origin, State, record_dtype
from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.session_format import Snapshot
from napari_nucseg.io.session_read import read_session
from napari_nucseg.io.session_store import SessionStore
from train import prepare
from train.readers import ReadOptions, detect, open_source
from train.readers.sessions import REJECTED, UNREVIEWED, UNREVIEWED_KEPT


@pytest.fixture
def review(tmp_path):
    """A session of an image with an accepted, a predicted, a drawn and a rejected nucleus."""
    labels = np.zeros((64, 80), np.uint32)
    records = np.zeros(4, record_dtype(2))
    states = (State.ACCEPTED, State.PREDICTED, State.DRAWN, State.REJECTED)
    for row, (state, kind) in enumerate(zip(states, (1, 0, -1, 0), strict=True)):
        y, id_ = 4 + 12 * row, 3 * row + 2
        if state != State.REJECTED:
            labels[y : y + 6, 10:20] = id_
        records[row] = (id_, y + 2.0, 14.0, kind, 0.9, state, Origin.MODEL, False, False, 0, 60, (0.5, 0.5))
    records["area"][3] = 0
    Image.fromarray(np.full((64, 80, 3), 200, np.uint8)).save(tmp_path / "case.png")
    about = {
        "mpp": 0.4,
        "mpp_source": "stated by the user",
        "image": {"name": "case", "path": "/gone/case.png"},
    }
    classes = (NucleusClass("tumour", (200, 0, 0)), NucleusClass("lymphocyte", (0, 0, 200)))
    SessionStore.create(tmp_path / "case.nucseg", Snapshot(labels, records, classes, 20, about)).close()
    return tmp_path


@pytest.mark.parametrize("inner", ["", "case.nucseg"])
def test_all_nuclei_of_a_review(review, inner):
    assert detect(review / inner) == "sessions"
    source = open_source(review / inner)
    raw = source.read(source.entries[0])
    assert source.names == ["case"]
    assert np.bincount(raw.labels.ravel())[1:].tolist() == [60, 60, 60]
    names = {1: "lymphocyte", 2: "tumour"}
    assert {n: raw.classes[raw.types[raw.labels == n][0] - 1] for n in names} == names
    assert (raw.types[raw.labels == 3] == IGNORE).all()
    assert raw.mpp == 0.4
    assert raw.notes == {UNREVIEWED_KEPT: 1, REJECTED: 1}


def test_only_what_a_person_has_reviewed(review):
    source = open_source(review, options=ReadOptions(nuclei="reviewed"))
    raw = source.read(source.entries[0])
    assert raw.labels.max() == 2
    assert (raw.labels[16:22] == 0).all()
    assert raw.notes[UNREVIEWED] == 1
    with pytest.raises(NucSegError, match="'all' or 'reviewed'"):
        open_source(review, options=ReadOptions(nuclei="some"))


def test_an_image_that_is_mostly_unreviewed_is_not_taken_with_the_rest_as_background(
    review, tmp_path, capsys
):
    arguments = ["--in", str(review), "--out", str(tmp_path / "out"), "--sheet", "0", "--nuclei"]
    assert prepare.main([*arguments, "reviewed"]) == 0
    said = capsys.readouterr().err
    assert "Nobody has reviewed 1 nucleus of 1 image, which the training takes for background" in said
    assert "takes for background" in (tmp_path / "out" / "report.md").read_text()
    folder = review / "case.nucseg"
    snapshot = read_session(folder)
    snapshot.records["state"][:2] = State.PREDICTED
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "out")
    SessionStore.create(folder, snapshot).close()
    assert prepare.main([*arguments, "reviewed"]) == 2
    said = capsys.readouterr().err
    assert "has 2 nuclei of 3 that nobody has reviewed and that would be taught as background" in said
    assert not (tmp_path / "out").exists()
    assert prepare.main([*arguments, "all"]) == 0
    assert "3 nuclei" in capsys.readouterr().out


def test_image_and_session_may_get_a_new_name_together(review):
    (review / "case.png").rename(review / "new.png")
    (review / "case.nucseg").rename(review / "new.png.nucseg")
    source = open_source(review)
    assert source.read(source.entries[0]).image.shape[2] == 3


def test_a_lost_image_or_a_damaged_session_is_named(review):
    source = open_source(review)
    (review / "case.png").rename(review / "other.png")
    with pytest.raises(NucSegError, match=r"case\.nucseg' is of the image '/gone/case\.png'"):
        source.read(source.entries[0])
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(review / "case.png")
    with pytest.raises(NucSegError, match="80 x 64 pixels but its image of 40 x 30"):
        source.read(source.entries[0])
    (review / "case.nucseg/session.json").write_text("{")
    with pytest.raises(NucSegError, match=r"session\.json"):
        source.read(source.entries[0])
