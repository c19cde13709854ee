"""Reviews are saved after every edit, found again, and come back; nuclei come in from QuPath."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_nucseg._plugin.compute import Basis
from napari_nucseg._plugin.questions import Choice
from napari_nucseg._plugin.results import REVIEW
from napari_nucseg._plugin.review_keeper import Keeper, close_all, keeper_of, kept_folders
from napari_nucseg._plugin.review_saved import on_one_scale
from napari_nucseg._plugin.review_update import why_no_update
from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.core.field_cache import FieldCache
from napari_nucseg.core.nuclei import State, centre_pixels
from napari_nucseg.core.scale import Scale
from napari_nucseg.io.geojson import write_geojson
from napari_nucseg.io.session_read import read_session
from napari_nucseg.io.session_store import SessionStore
from napari_nucseg.models.registry import Model
from tests.fakes import fake_card
from tests.plugin.desk import Desk
from tests.plugin.steps import start


def review_of(panel):
    return panel.widget.results.review


def reopen(make_panel, synthetic, world):
    """Return another window with the same image, as after a restart."""
    again = make_panel()
    again.viewer.add_image(synthetic.image, name="tissue", rgb=True, scale=(0.25, 0.25), units=("um", "um"))
    return again


def saved_line(panel):
    return panel.widget.review.panel.saved.text


@pytest.fixture
def run_panel(panel):
    panel.run()
    return panel


def test_nothing_is_written_before_the_first_edit_and_all_of_it_after(run_panel, world):
    review = review_of(run_panel)
    assert not world.base.exists()
    assert "Nothing edited yet" in saved_line(run_panel)
    id_ = int(review.session.records["id"][0])
    review.session.accept(id_)
    run_panel.until(lambda: saved_line(run_panel).startswith("Saved"))
    assert f"{datetime.now():%H}:" in saved_line(run_panel)
    keeper = keeper_of(review)
    assert keeper.folder == world.base / "tissue.nucseg"
    review.session.add(3.0, 3.0)
    assert keeper.flush()
    shot = read_session(keeper.folder)
    np.testing.assert_array_equal(shot.labels, review.session.labels)
    assert shot.records.tobytes() == review.session.records.tobytes()
    assert shot.about["model"]["name"] == world.model.card.name
    assert shot.about["image"]["name"] == "tissue"


def test_a_review_comes_back_in_another_window_and_goes_on_there(
    run_panel, world, make_panel, synthetic, qtbot
):
    session = review_of(run_panel).session
    ids = session.records["id"][session.live]
    session.accept(int(ids[0]))
    session.reject(int(ids[1]))
    session.retype(int(ids[2]), 1)
    clicked = session.add(2.0, 2.0)
    before = session.labels.copy(), session.records.tobytes()
    keeper_of(review_of(run_panel)).close_and_wait()
    again = reopen(make_panel, synthetic, world)
    assert again.widget.files.offer.isVisibleTo(again.widget)
    again.widget.mpp.state(0.5)
    again.widget.files.offer.button.click()
    again.until(lambda: again.widget.results is not None)
    back = review_of(again).session
    np.testing.assert_array_equal(back.labels, before[0])
    assert back.records.tobytes() == before[1]
    assert "Resumed" in again.status
    assert "The resolution is 0.25 µm/px again" in again.status
    assert again.widget.mpp.mpp.value == 0.25
    shown = review_of(again).labels._slice.image.view  # drawn in the colours of the classes, as it was before
    np.testing.assert_array_equal(shown, review_of(run_panel).labels._slice.image.view)
    assert not again.widget.files.offer.isVisibleTo(again.widget)
    assert len(again.layer("tissue centres").data) == back.live.sum()
    # an edit that needs maps, which are computed again, and goes into the same folder
    review_of(again).edits.do(lambda: back.move(clicked, 6.0, 6.0))
    again.until(lambda: back.record(clicked)["y"] == 6.0)
    assert keeper_of(review_of(again)).flush()
    assert read_session(world.base / "tissue.nucseg").records.tobytes() == back.records.tobytes()
    assert len(list(world.base.glob("*.nucseg"))) == 1


def test_a_review_that_is_open_is_not_offered(run_panel, world):
    session = review_of(run_panel).session
    session.accept(int(session.records["id"][0]))
    keeper = keeper_of(review_of(run_panel))
    run_panel.until(lambda: keeper.saved_at is not None)
    assert keeper.folder in kept_folders()
    assert not run_panel.widget.files.archive.find(run_panel.layer("tissue"))
    run_panel.viewer.layers.remove(run_panel.layer("tissue nuclei"))
    run_panel.until(lambda: bool(run_panel.widget.files.archive.find(run_panel.layer("tissue"))))


def test_a_damaged_review_is_rescued_or_left_alone(run_panel, world, make_panel, synthetic, notes):
    session = review_of(run_panel).session
    accepted = int(session.records["id"][0])
    session.accept(accepted)
    close_all()
    folder = world.base / "tissue.nucseg"
    chunk = max(
        (p for p in (folder / "labels.zarr").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    chunk.write_bytes(chunk.read_bytes()[:-9])
    world.salvage = False
    again = reopen(make_panel, synthetic, world)
    again.widget.files.resume()
    again.until(lambda: "tissue.nucseg" in again.status and "Opening" not in again.status)
    assert again.widget.results is None
    world.salvage = True
    again.widget.files.resume()
    again.until(lambda: again.widget.results is not None)
    assert "Not rescued" in again.status
    again.until(lambda: (world.base / "tissue-2.nucseg").exists())
    assert folder.exists()


def test_a_folder_that_cannot_be_written_is_told_and_tried_again(run_panel, world):
    world.base.parent.mkdir(exist_ok=True)
    world.base.write_text("in the way")
    session = review_of(run_panel).session
    session.accept(int(session.records["id"][0]))
    keeper = keeper_of(review_of(run_panel))
    run_panel.until(lambda: keeper.problem is not None)
    assert saved_line(run_panel) == keeper.problem
    session.add(3.0, 3.0)  # the work goes on
    world.base.unlink()
    run_panel.until(lambda: keeper.problem is None and saved_line(run_panel).startswith("Saved"))
    assert read_session(keeper.folder).records.tobytes() == session.records.tobytes()


def test_whatever_goes_wrong_in_saving_no_edit_fails(run_panel, monkeypatch):
    review, failures = review_of(run_panel), [OSError("no such device"), RuntimeError("boom")]
    session, keeper = review.session, keeper_of(review)
    folder = keeper._folder

    def fail():
        if failures:
            raise failures.pop(0)
        return folder()

    monkeypatch.setattr(keeper, "_folder", fail)
    first, second, third = session.records["id"][:3].tolist()
    session.accept(first)
    assert saved_line(run_panel) == "Saving fails at present: no such device"
    review.edits.do(lambda: session.accept([second]))
    assert review.refusals == 0
    assert saved_line(run_panel) == "Saving fails at present: boom"
    session.accept(third)
    run_panel.until(lambda: saved_line(run_panel).startswith("Saved"))
    assert keeper.flush()
    assert read_session(keeper.folder).records.tobytes() == session.records.tobytes()


def test_a_review_of_an_image_without_a_file_says_where_it_is_saved(run_panel, world):
    world.base = None
    session = review_of(run_panel).session
    session.accept(int(session.records["id"][0]))
    run_panel.until(lambda: saved_line(run_panel).endswith(" in your data folder, as 'tissue.nucseg'."))


def test_the_user_chooses_another_folder(run_panel, world, tmp_path):
    session = review_of(run_panel).session
    session.accept(int(session.records["id"][0]))
    run_panel.until(lambda: keeper_of(review_of(run_panel)).saved_at is not None)
    world.folder = tmp_path / "mine"
    run_panel.widget.review.panel.saved.folder.click()
    keeper = keeper_of(review_of(run_panel))
    run_panel.until(lambda: keeper.folder == tmp_path / "mine" / "tissue.nucseg")
    run_panel.until(lambda: not (tmp_path / "reviews" / "tissue.nucseg").exists())
    assert world.base == world.folder


def test_nuclei_go_to_qupath_and_come_back(run_panel, world, tmp_path):
    session = review_of(run_panel).session
    table = session.table()
    path = tmp_path / "tissue_nuclei.geojson"
    write_geojson(path, session.labels, table, {c.name: c.colour for c in session.classes}, "tissue")
    content = json.loads(path.read_text())
    first, second = content["features"][0], content["features"][1]
    deleted = content["features"].pop()
    first["properties"]["classification"] = {"name": "Mitosis", "color": [1, 2, 3]}
    x, y = 500, 20
    square = [[x, y], [x + 9, y], [x + 9, y + 9], [x, y + 9], [x, y]]
    content["features"].append(
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [square]}, "properties": {}}
    )
    path.write_text(json.dumps(content))
    world.geojson = path
    before = session.labels.copy()
    run_panel.widget.review.panel.import_button.click()
    run_panel.until(lambda: run_panel.status.startswith("Imported"))
    assert f"1 added, 1 changed, {len(table) - 2} as they were" in run_panel.status
    assert run_panel.status.endswith(" 1 nuclei of this review are not in the file and were kept.")
    assert session.at(*session.record(int(deleted["properties"]["measurements"]["NucSeg id"]))[["y", "x"]])
    changed = session.record(int(first["properties"]["measurements"]["NucSeg id"]))
    assert session.classes[changed["kind"]].name == "Mitosis"
    assert session.classes[changed["kind"]].colour == (1, 2, 3)
    assert session.record(int(second["properties"]["measurements"]["NucSeg id"]))["state"] == State.PREDICTED
    assert (session.labels[20:29, 500:509] == session.records["id"][-1]).all()
    assert "Mitosis" in run_panel.widget.results.counts()
    session.undo()
    np.testing.assert_array_equal(session.labels, before)


def test_nuclei_of_a_run_that_nobody_has_reviewed_come_in_as_predictions(panel, world, tmp_path):
    panel.run()
    results = panel.widget.results
    labels, table = results.labels.data.copy(), results.nuclei.sort_values("id")
    reviewed = table.assign(state=["accepted", *["predicted"] * (len(table) - 1)])
    panel.viewer.layers.remove(results.labels)
    panel.until(lambda: panel.widget.results is None)
    world.geojson = tmp_path / "tissue_nuclei.geojson"
    write_geojson(world.geojson, labels, reviewed, results.about["colours"], "tissue")
    content = json.loads(world.geojson.read_text())
    mine = {f["properties"]["measurements"]["NucSeg id"]: f for f in content["features"]}
    second, third, fourth = table["id"].iloc[1:4]
    mine[second]["properties"]["classification"] = {"name": "Mitosis"}
    mine[third]["id"] = "8f9b7c1e-4a55-4f0e-9d0b-0d7d7c1a8f11"  # as QuPath does where it changes an object
    mine[fourth]["properties"]["objectType"] = "annotation"
    world.geojson.write_text(json.dumps(content))
    panel.widget.review.panel.import_button.click()
    panel.until(lambda: panel.status.startswith("Imported"))
    review = review_of(panel)
    session = review.session
    np.testing.assert_array_equal(session.labels > 0, labels > 0)
    records = session.records[session.live]
    states = dict(zip(labels[tuple(centre_pixels(records).T)].tolist(), records["state"], strict=True))
    drawn = {id_ for id_, state in states.items() if state == State.DRAWN}
    assert drawn == set(table["id"].iloc[:4])
    predicted = records[records["state"] == State.PREDICTED]
    assert len(predicted) == len(table) - 4 > 50
    assert not predicted["locked"].any()
    known = table.set_index("id").loc[labels[tuple(centre_pixels(predicted).T)]]
    np.testing.assert_allclose(predicted["score"], known["score"], rtol=1e-5)
    columns = [f"prob_{c.name}" for c in session.classes][: predicted["prob"].shape[1]]
    np.testing.assert_allclose(predicted["prob"], known[columns], rtol=1e-5)
    assert [session.classes[k].name for k in predicted["kind"]] == known["class"].tolist()
    assert session.check() is None
    assert review.queue.next() is not None


def test_a_prediction_from_a_file_replaces_nothing_that_was_reviewed(run_panel, world, tmp_path):
    session = review_of(run_panel).session
    world.geojson = tmp_path / "tissue_nuclei.geojson"
    write_geojson(world.geojson, session.labels, run_panel.widget.results.nuclei, {}, "tissue")
    id_ = int(session.records["id"][0])
    pixels = np.flatnonzero(session.labels == id_)
    session.paint(pixels[: len(pixels) // 3], 0)
    before = session.labels.copy()
    run_panel.widget.review.panel.import_button.click()
    run_panel.until(lambda: run_panel.status.startswith("Imported"))
    assert "1 left out" in run_panel.status
    np.testing.assert_array_equal(session.labels, before)


def test_points_come_in_without_a_run(panel, world, tmp_path, synthetic):
    path = tmp_path / "points.geojson"
    path.write_text(
        json.dumps(
            {
                "type": "Feature",
                "geometry": {"type": "MultiPoint", "coordinates": [[100.5, 60.5], [200.5, 80.5]]},
                "properties": {"classification": {"name": "Tumor", "color": [200, 0, 0]}},
            }
        )
    )
    world.geojson = path
    panel.widget.review.panel.import_button.click()
    panel.until(lambda: panel.status.startswith("Imported"))
    session = review_of(panel).session
    assert session.live.sum() == 2
    assert session.records[["y", "x"]].tolist() == [(60.0, 100.0), (80.0, 200.0)]
    assert session.classes[session.records["kind"][0]].name == "Tumor"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cut short"),
        ('{"type": "Feature", "geometry": null}', "1 without a shape"),
        ("no json", "GeoJSON"),
    ],
)
def test_a_bad_file_is_told_in_one_sentence_and_changes_nothing(
    run_panel, world, tmp_path, text, message, notes
):
    session = review_of(run_panel).session
    before = session.records.tobytes()
    world.geojson = tmp_path / "bad.geojson"
    world.geojson.write_text(text)
    run_panel.widget.review.panel.import_button.click()
    run_panel.until(lambda: not run_panel.widget.files.importer.busy)
    assert message in run_panel.status
    assert session.records.tobytes() == before


def test_every_review_has_one_keeper(run_panel):
    listeners = review_of(run_panel).listeners
    assert sum(isinstance(listener, Keeper) for listener in listeners) == 1


@pytest.mark.parametrize("gone", ["image", "panel"])
def test_what_a_run_has_found_is_saved_though_its_image_or_the_panel_is_gone(tall, gated, world, gone):
    start(tall, gated)
    if gone == "image":
        tall.viewer.layers.remove(tall.layer("tissue"))
    else:
        tall.viewer.window.remove_dock_widget(tall.widget)
        tall.widget.deleteLater()
    gated.let(1000)
    tall.idle()
    tall.qtbot.wait(20)
    review = tall.layer("tissue nuclei").metadata[REVIEW]
    review.session.accept(int(review.session.records["id"][0]))
    keeper = keeper_of(review)
    tall.until(lambda: keeper.saved_at is not None)
    assert keeper.folder == world.base / "tissue.nucseg"
    assert keeper.folder in kept_folders()
    assert read_session(keeper.folder).records.tobytes() == review.session.records.tobytes()


def coarse(make_panel, synthetic):
    """Return a window with an image at twice the model's pixel size."""
    panel = make_panel()
    panel.viewer.add_image(synthetic.image, name="tissue", rgb=True, scale=(0.5, 0.5), units=("um", "um"))
    return panel


def test_a_review_whose_model_is_added_later_goes_on_at_its_resolution(make_panel, synthetic, world, notes):
    panel = coarse(make_panel, synthetic)
    panel.run()
    session, right = review_of(panel).session, world.model
    session.accept(int(session.records["id"][session.live][0]))
    scale, place = session.scale, Desk(panel).empty()
    keeper_of(review_of(panel)).close_and_wait()
    world.model = Model(Path("fake/other.safetensors"), fake_card(name="other"))
    again = coarse(make_panel, synthetic)
    again.widget.files.offer.button.click()
    again.until(lambda: again.widget.results is not None)
    review, back = review_of(again), review_of(again).session
    assert back.scale == scale != Scale(scale.level0, scale.level0)
    review.edits.do(lambda: back.add(*place))
    again.until(lambda: "The model 'fake' of this review is not installed" in again.status)
    assert not back.at(*place)
    why = why_no_update(review, again.widget._request(again.widget._why_no_click))
    assert "found by the model fake" in why
    services = replace(world.services(), open_model=lambda _path: right)
    again.widget.model._services = services
    again.widget.model.add(Path("fake"))
    assert "can be added and moved again" in again.status
    review.edits.do(lambda: back.add(*place))
    again.until(lambda: back.at(*place) > 0)
    world.answer = Choice.UPDATE
    again.run()
    assert len(again.names) == 3
    assert back.check() is None
    assert int(back.live.sum()) == int(session.live.sum()) + 1


def test_a_saved_review_is_offered_once_its_layers_are_gone(run_panel, world, tmp_path):
    panel, review = run_panel, review_of(run_panel)
    review.session.accept(int(review.session.records["id"][0]))
    panel.until(lambda: keeper_of(review).saved_at is not None)
    offer = panel.widget.files.offer
    world.folder = tmp_path / "mine"
    panel.widget.review.panel.saved.folder.click()
    panel.until(lambda: not (tmp_path / "reviews" / "tissue.nucseg").exists())
    assert not offer.isVisibleTo(panel.widget)
    panel.viewer.layers.remove(review.labels)
    panel.until(lambda: offer.isVisibleTo(panel.widget))
    offer.button.click()
    panel.until(lambda: panel.widget.results is not None)
    assert review_of(panel).session.records.tobytes() == review.session.records.tobytes()
    assert keeper_of(review_of(panel)).folder == tmp_path / "mine" / "tissue.nucseg"


def test_a_folder_that_cannot_be_remembered_holds_for_this_review(run_panel, world, tmp_path):
    def refuse(_folder):
        raise PermissionError(13, "Permission denied")

    files, review = run_panel.widget.files, review_of(run_panel)
    files._services = replace(files._services, remember_session_base=refuse)
    world.folder = tmp_path / "mine"
    run_panel.widget.review.panel.saved.folder.click()
    run_panel.until(lambda: keeper_of(review).folder == tmp_path / "mine" / "tissue.nucseg")
    assert "that can't be remembered" in run_panel.status


def test_a_saved_review_that_is_read_after_the_panel_was_closed_stays_on_the_disk(
    run_panel, make_panel, synthetic, world
):
    session = review_of(run_panel).session
    session.accept(int(session.records["id"][0]))
    keeper_of(review_of(run_panel)).close_and_wait()
    again = reopen(make_panel, synthetic, world)
    again.widget.files.offer.button.click()
    again.viewer.window.remove_dock_widget(again.widget)
    again.idle()
    again.qtbot.wait(50)
    assert again.names == ["tissue"]
    store, _ = SessionStore.open(world.base / "tissue.nucseg", session.labels.shape)  # its lock is free
    store.close()


def test_a_review_that_nobody_keeps_is_said_to_be_unsaved(panel):
    panel.widget.flow.desk.listeners.clear()
    panel.run()
    assert saved_line(panel) == "This review is not saved."


def test_a_saved_review_is_not_passed_over_without_a_question(run_panel, world, make_panel, synthetic):
    review_of(run_panel).session.accept(int(review_of(run_panel).session.records["id"][0]))
    keeper_of(review_of(run_panel)).close_and_wait()
    again = reopen(make_panel, synthetic, world)
    world.answer = Choice.CANCEL
    again.widget.run()
    assert world.asked[-1] == (world.base / "tissue.nucseg",)
    assert again.widget.flow.busy is None
    world.answer = Choice.ANEW
    again.run()
    review = review_of(again)
    review.session.accept(int(review.session.records["id"][3]))
    keeper_of(review).close_and_wait()
    third = reopen(make_panel, synthetic, world)
    offer = third.widget.files.offer
    assert [offer._choice.itemText(k) for k in range(2)] == ["tissue-2.nucseg", "tissue.nucseg"]
    offer._choice.setCurrentIndex(1)
    world.answer = Choice.RESUME
    third.widget.review.panel.click.click()
    third.until(lambda: third.widget.results is not None)
    assert keeper_of(review_of(third)).folder == world.base / "tissue.nucseg"


def test_a_review_keeps_the_scale_of_its_scores_when_the_model_was_calibrated_since():
    shape = (8, 8)
    card = DecodeConfig(foreground=0.4, score_slope=2.0, score_shift=0.1, type_temperature=3.0)
    basis = Basis(Scale(shape, shape), card, FieldCache(shape, 1))
    for saved, slope in (({}, 1.0), ({"foreground": 0.5}, 1.0), ({"score_slope": 1.5}, 1.5)):
        old = SimpleNamespace(about={"decoder": saved}, labels=np.zeros(shape), n_model_classes=1)
        assert on_one_scale(basis, old).config == DecodeConfig(foreground=0.4, score_slope=slope)
