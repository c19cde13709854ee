"""Which folder a session gets, and which session belongs to an image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_nucseg.core.nuclei import record_dtype
from napari_nucseg.io import session_places
from napari_nucseg.io.session_places import default_folder, find_sessions
from napari_nucseg.io.session_store import SessionStore, Snapshot

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (6, 8)


def find_session(*args):
    """Return the likeliest of the sessions."""
    return next(iter(find_sessions(*args)), None)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder."""
    monkeypatch.setattr(session_places, "data_folder", lambda: tmp_path / "data")
    return tmp_path / "data"


def save(image: Path | None, name: str, base: Path | None = None, shape: tuple[int, int] = SHAPE) -> Path:
    folder = default_folder(image, name, base)
    about = {"image": {"name": name, "path": None if image is None else str(image)}}
    snapshot = Snapshot(np.zeros(shape, np.uint32), np.zeros(0, record_dtype(0)), (), 1, about)
    SessionStore.create(folder, snapshot).close()
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image in a folder of its own."""
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "slide 1.ome.tif"
    path.write_bytes(b"")
    return path


def test_beside_the_image(image):
    assert find_session(image, "slide 1", SHAPE) is None
    folder = save(image, "slide 1")
    assert folder == image.parent / "slide 1.ome.nucseg"
    assert find_session(image, "slide 1", SHAPE) == folder
    assert default_folder(image, "slide 1") == image.parent / "slide 1.ome-2.nucseg"


def test_in_the_data_folder_where_nothing_can_be_written(image, data, monkeypatch):
    monkeypatch.setattr(session_places, "is_writable", lambda folder: False)
    folder = save(image, "slide 1")
    assert folder.parent == data
    assert find_session(image, "slide 1", SHAPE) == folder
    twin = image.parents[1] / "other" / image.name  # of the same name and shape, elsewhere
    assert find_session(twin, "slide 1", SHAPE) is None
    second = save(twin, "slide 1")
    assert find_session(twin, "slide 1", SHAPE) == second != folder
    assert find_session(image, "slide 1", SHAPE) == folder


def test_writable_is_tried_not_asked(tmp_path):
    assert session_places.is_writable(tmp_path)
    assert not session_places.is_writable(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert not session_places.is_writable(tmp_path / "file")


def test_in_a_folder_of_the_users_choice(image, tmp_path):
    folder = save(image, "slide 1", tmp_path / "reviews")
    assert folder.parent == tmp_path / "reviews"
    assert find_session(image, "slide 1", SHAPE) is None
    assert find_session(image, "slide 1", SHAPE, tmp_path / "reviews") == folder


def test_an_image_of_another_shape_gets_its_own(image):
    save(image, "slide 1")
    assert find_session(image, "slide 1", (7, 8)) is None
    other = save(image, "slide 1", shape=(7, 8))
    assert other.name == "slide 1.ome-2.nucseg"
    assert find_session(image, "slide 1", (7, 8)) == other


def test_images_of_one_stem_are_told_apart(image):
    png = image.with_suffix(".png")
    folder, other = save(image, "a"), save(png, "b")
    assert find_session(image, "a", SHAPE) == folder
    assert find_session(png, "b", SHAPE) == other


def test_a_moved_or_copied_image(image, tmp_path, data, monkeypatch):
    folder = save(image, "slide 1")
    moved = image.parent.rename(tmp_path / "moved") / image.name
    assert find_session(moved, "slide 1", SHAPE) == tmp_path / "moved" / folder.name
    monkeypatch.setattr(session_places, "is_writable", lambda folder: False)
    again = save(moved, "slide 1")  # now in the data folder
    (tmp_path / "moved" / folder.name / "session.json").unlink()
    last = moved.rename(tmp_path / image.name)
    assert find_session(last, "slide 1", SHAPE) == again


def test_the_one_saved_last_counts(image):
    first, second = save(image, "a"), save(image, "a")
    for folder, saved in ((first, "2031"), (second, "2030")):
        path = folder / "session.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"saved": saved}))
    assert find_session(image, "a", SHAPE) == first


def test_a_damaged_one_is_not_passed_over(image):
    folder = save(image, "a")
    (folder / "session.json").write_text("{")
    assert find_session(image, "a", SHAPE) == folder


@pytest.mark.parametrize("name", ["layer", "a/b\\c:d", "", "..", "x" * 300])
def test_an_image_without_a_file(name, data):
    folder = save(None, name)
    assert folder.parent == data
    assert find_session(None, name, SHAPE) == folder
    assert find_session(None, name + "!", SHAPE) is None
