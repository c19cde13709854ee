"""The session's promises, under any sequence of edits, undos and redos."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucseg.core.calibration import calibrated, tempered
from napari_nucseg.core.decode import flood
from napari_nucseg.core.nuclei import Origin, Outline, State, centre_pixels, is_live
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.session import MapsMissing
from tests.session.boards import (
    CLASSES,
    CONFIG,
    SHAPE,
    assert_sound,
    make_session,
    random_edit,
    random_fields,
    state_of,
)

GRIDS = {"same": (SHAPE, SHAPE), "coarser": ((32, 40), SHAPE), "finer": ((100, 130), SHAPE)}


@pytest.mark.parametrize("grid", GRIDS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), edits=st.integers(1, 14))
def test_any_edits_leave_it_sound_and_undo_to_the_start_gives_the_start(grid, seed, edits):
    session = make_session(seed, *GRIDS[grid])
    assert_sound(session)
    start, rng = state_of(session), np.random.default_rng(seed)
    replica = (session.labels.copy(), session.records.copy())
    changes = []
    session.changed.connect(changes.append)
    given_ids = set(session.records["id"].tolist())
    for _ in range(edits):
        before, known = session.labels.copy(), len(changes)
        random_edit(session, rng)
        assert_sound(session)
        touched = np.zeros(before.size, bool)
        for change in changes[known:]:
            touched[change.pixels] = True
        assert not (before.ravel() != session.labels.ravel())[~touched].any()
        fresh = set(session.records["id"].tolist()) - given_ids
        assert not fresh or min(fresh) > max(given_ids, default=0)
        given_ids |= fresh
    np.testing.assert_array_equal(follow(replica, changes)[0], session.labels)
    assert follow(replica, changes)[1].tobytes() == session.records.tobytes()
    while session.redo() is not None:
        assert_sound(session)
    end = state_of(session)
    while session.undo() is not None:
        assert_sound(session)
    assert state_of(session) == start
    while session.redo() is not None:
        pass
    assert state_of(session) == end


def follow(replica, changes):
    """Apply changes as a view or a journal does."""
    labels, records = replica[0].copy(), replica[1]
    for change in changes:
        labels.ravel()[change.pixels] = change.values
        if change.box is not None:
            rows, cols = np.divmod(change.pixels, labels.shape[1])
            assert (rows.min(), rows.max() + 1) == (change.box.y0, change.box.y1)
            assert (cols.min(), cols.max() + 1) == (change.box.x0, change.box.x1)
        n = int(change.rows.max(initial=-1)) + 1
        if n > len(records):
            records = np.concatenate([records, np.zeros(n - len(records), records.dtype)])
        records = records.copy()
        records[change.rows] = change.records
    return labels, records


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), edits=st.integers(1, 10))
def test_centres_alone_give_what_the_decoder_makes_of_them(seed, edits):
    session = make_session(seed)
    rng = np.random.default_rng(seed)
    fields = random_fields(np.random.default_rng(seed))
    for _ in range(edits):
        live = session.records["id"][session.live]
        point = rng.integers((0, 0), SHAPE)
        kind = int(rng.integers(3)) if len(live) else 0
        try:
            if kind == 0:
                session.add(*point)
            elif kind == 1:
                session.reject(rng.choice(live))
            else:
                session.move(int(rng.choice(live)), *point)
        except NucSegError:
            continue
        if (session.records["floor"] > 0).any():
            session.undo()
    live = session.records[session.live]
    ids = np.concatenate([[0], live["id"]]).astype(np.uint32)
    np.testing.assert_array_equal(session.labels, ids[flood(fields, centre_pixels(live), CONFIG)])


def test_nothing_far_from_an_edit_changes():
    session = make_session(3, (200, 220), (200, 220))
    before = session.labels.copy()
    session.add(100, 100)
    rows, cols = np.nonzero(before != session.labels)
    assert len(rows)
    assert np.hypot(rows - 100, cols - 100).max() <= CONFIG.reach + CONFIG.max_hole


def test_a_click_on_nothing_makes_a_nucleus_of_a_typical_size():
    session = make_session(5, empty=True)
    session.fields.put(Box(0, 64, 0, 80), random_fields(np.random.default_rng(0)))
    bare = random_fields(np.random.default_rng(0))
    bare.foreground[:] = 0
    session.fields.put(Box(0, 64, 0, 80), bare)
    id_ = session.add(30, 40)
    area = int(session.record(id_)["area"])
    assert 0.3 * session.ground.typical_area < area < 2 * session.ground.typical_area
    assert session.record(id_)["origin"] == Origin.CLICK
    assert_sound(session)


def test_a_click_in_a_nucleus_splits_it():
    session = make_session(0)
    live = session.records[session.live]
    big = live[live["area"].argmax()]
    rows, cols = np.nonzero(session.labels == big["id"])
    far = np.hypot(rows - big["y"], cols - big["x"]).argmax()
    before = session.labels == big["id"]
    new = session.add(rows[far], cols[far])
    assert (session.labels[before] == new).any()
    assert (session.labels[before] == big["id"]).any()
    session.undo()
    np.testing.assert_array_equal(session.labels == big["id"], before)


def test_rejected_nuclei_come_back_by_accept_and_by_undo():
    session = make_session(1)
    id_ = int(session.records["id"][0])
    before = state_of(session)
    session.reject([id_])
    assert session.record(id_)["state"] == State.REJECTED
    assert id_ not in session.labels
    session.accept([id_])
    assert session.record(id_)["state"] == State.ACCEPTED
    assert id_ in session.labels
    session.undo()
    session.undo()
    assert state_of(session) == before


def test_a_drag_is_one_step_and_can_be_called_off():
    session = make_session(2)
    start = state_of(session)
    id_ = int(session.records["id"][4])
    seen = []
    session.changed.connect(seen.append)
    drag = session.drag(id_)
    for k in range(4):
        drag.to(k, -k)
    drag.end()
    assert len(seen) >= 3
    assert session.record(id_)["state"] == State.EDITED
    assert_sound(session)
    session.undo()
    assert state_of(session) == start
    drag = session.drag(id_)
    drag.to(3, 3)
    drag.cancel()
    assert state_of(session) == start
    assert session.can_redo == "Move"


def test_a_refused_position_in_a_drag_leaves_the_last_good_one():
    session = make_session(2)
    id_ = int(session.records["id"][4])
    drag = session.drag(id_)
    drag.to(1, 1)
    good = state_of(session)
    with pytest.raises(NucSegError, match="outside the image"):
        drag.to(1000, 0)
    assert state_of(session) == good
    drag.end()
    assert state_of(session) == good


@pytest.mark.parametrize("edit", ["add", "move", "reject"])
def test_without_maps_an_edit_says_which_are_missing_and_changes_nothing(edit):
    session = make_session(1, known=False)
    start, id_ = state_of(session), int(session.records["id"][0])
    n = len(session.records)
    call = {"add": lambda: session.add(30, 31), "move": lambda: session.move(id_, 30, 31)}
    with pytest.raises(MapsMissing) as caught:
        call.get(edit, lambda: session.reject(id_))()
    assert caught.value.boxes == (Box(0, 64, 0, 80),)
    assert session.missing_maps([(30, 31)]) == [Box(0, 64, 0, 80)]
    assert state_of(session) == start
    assert len(session.records) == n
    session.fields.put(Box(0, 64, 0, 80), random_fields(np.random.default_rng(1)))
    assert not session.missing_maps([(30, 31)])
    assert not session.missing_maps_of(id_)
    call.get(edit, lambda: session.reject(id_))()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.add(-5, 3), "outside the image"),
        (lambda s: s.add(np.nan, 3), "outside the image"),
        (lambda s: s.add(s.records["y"][0], s.records["x"][0]), "its centre here already"),
        (lambda s: s.move(999, 3, 3), "no nucleus 999"),
        (lambda s: s.merge([s.records["id"][0]]), "two or more"),
        (lambda s: s.retype(s.records["id"][0], 7), "no class number 8"),
    ],
)
def test_refused_edits_say_why_and_change_nothing(edit, message):
    session = make_session(1)
    start = state_of(session)
    with pytest.raises(NucSegError, match=message):
        edit(session)
    assert state_of(session) == start
    assert session.can_undo is None


def test_a_painted_shape_stands_until_it_is_unlocked():
    session = make_session(1)
    record = session.records[np.flatnonzero(session.live)[6]].copy()
    id_, y, x = int(record["id"]), *centre_pixels(record)
    stroke = np.zeros(SHAPE, bool)
    stroke[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5] = True
    session.paint(np.flatnonzero(stroke), id_)
    assert session.record(id_)["state"] == State.DRAWN
    drawn = session.labels == id_
    assert (drawn & stroke).sum() == stroke.sum()
    for other in session.records["id"][session.live]:
        if other != id_ and not session.record(other)["locked"]:
            session.reject(other)
    np.testing.assert_array_equal(session.labels == id_, drawn)
    with pytest.raises(NucSegError, match="unlock it"):
        session.add(y + 1, x + 1)
    session.unlock(id_)
    assert not session.record(id_)["locked"]
    assert_sound(session)


def test_an_eraser_stroke_through_a_nucleus_makes_two():
    session = make_session(1, empty=True)
    square = np.zeros(SHAPE, bool)
    square[10:30, 10:30] = True
    session.paint(np.flatnonzero(square), 1)
    line = np.zeros(SHAPE, bool)
    line[10:30, 18:20] = True
    session.paint(np.flatnonzero(line), 0)
    assert session.live.sum() == 2
    assert sorted(session.records["area"].tolist()) == [160, 200]
    assert_sound(session)
    session.paint(np.flatnonzero(square), 0)
    assert not session.live.any()
    session.undo()
    assert session.live.sum() == 2


def test_merged_nuclei_keep_the_largest_id_and_the_union():
    session = make_session(1, empty=True)
    for k, (x0, x1) in enumerate([(10, 16), (18, 30)]):
        part = np.zeros(SHAPE, bool)
        part[10:20, x0:x1] = True
        session.paint(np.flatnonzero(part), k + 1)
    union = session.labels > 0
    assert session.merge([1, 2]) == 2
    assert set(np.unique(session.labels)) == {0, 2}
    assert session.labels[union].all()
    assert session.record(2)["origin"] == Origin.MERGE
    assert_sound(session)


def test_nuclei_far_apart_do_not_merge():
    session = make_session(1, empty=True)
    for k, x0 in enumerate([2, 70]):
        part = np.zeros(SHAPE, bool)
        part[2:8, x0 : x0 + 6] = True
        session.paint(np.flatnonzero(part), k + 1)
    session.ground.typical_area = 20
    with pytest.raises(NucSegError, match="apart"):
        session.merge([1, 2])


def test_bulk_retype_is_one_step():
    session = make_session(1)
    kinds = session.records["kind"].copy()
    n = session.retype_class(0, 2)
    assert n == (kinds == 0).sum() > 1
    assert (session.records["kind"] != 0).all()
    session.undo()
    np.testing.assert_array_equal(session.records["kind"], kinds)


def test_import_keeps_known_ids_and_makes_room_among_predictions_only():
    session = make_session(1)
    ids = session.records["id"][session.live]
    session.accept(ids[0])
    kept = session.labels == ids[0]
    known = session.labels == ids[3]
    rows, cols = np.nonzero(known)
    box = Box(rows.min(), rows.max() + 1, cols.min(), cols.max() + 1)
    same = Outline(box, known[box.slices], "blue", int(ids[3]))
    over = Outline(Box(0, *SHAPE[:1], 0, SHAPE[1]), ~known, "stranger", None)
    placed = session.place([over, same])
    assert (placed.added, placed.changed + placed.same) == (1, 1)
    np.testing.assert_array_equal(session.labels == ids[3], known)
    np.testing.assert_array_equal(session.labels == ids[0], kept)
    assert session.classes[-1].name == "stranger"
    assert_sound(session)


def shape_of(session, id_, kind, number):
    mask = session.labels == id_
    rows, cols = np.nonzero(mask)
    box = Box(rows.min(), rows.max() + 1, cols.min(), cols.max() + 1)
    return Outline(box, mask[box.slices], kind, number)


def test_an_imported_prediction_leaves_a_class_that_a_person_has_given():
    session = make_session(1)
    mine, other = (int(id_) for id_ in session.records["id"][session.live][:2])
    session.retype(mine, 2)
    was = int(session.record(other)["kind"] == 0)  # another than it has
    before = session.labels.copy()
    said = {"score": 0.5, "prob_red": 0.25}
    found = [shape_of(session, mine, "red", mine), shape_of(session, other, CLASSES[was].name, other)]
    placed = session.place(found, predictions=[said, said])
    assert (placed.refused, placed.changed) == (1, 1)
    assert (session.record(mine)["kind"], session.record(mine)["typed"]) == (2, True)
    record = session.record(other)  # which nobody has reviewed, and a file is nobody
    assert (record["kind"], record["typed"], record["state"]) == (was, False, State.PREDICTED)
    np.testing.assert_array_equal(session.labels, before)
    assert_sound(session)


def test_an_imported_prediction_is_not_what_a_person_has_dealt_with_under_another_number():
    session = make_session(1)
    accepted, rejected = (int(id_) for id_ in session.records["id"][session.live][:2])
    one = shape_of(session, accepted, "red", None)
    wider = Box(one.box.y0, one.box.y1, one.box.x0, one.box.x1 + 1)
    found = [
        Outline(wider, np.pad(one.mask, ((0, 0), (0, 1)), mode="edge"), "red", None),
        shape_of(session, rejected, "red", None),
    ]
    session.accept(accepted)
    session.reject(rejected)
    before, live = session.labels.copy(), session.live.sum()
    placed = session.place(found, predictions=[{"score": 0.5}] * 2)
    assert (placed.refused, placed.added) == (2, 0)
    np.testing.assert_array_equal(session.labels, before)
    assert session.live.sum() == live
    assert_sound(session)


def test_a_new_run_keeps_what_a_person_has_done_and_offers_the_rest_anew():
    session, other = make_session(1), make_session(1)
    live = session.records["id"][session.live]
    accepted, rejected, typed = (int(live[k]) for k in (0, 5, 9))
    session.accept(accepted)
    session.reject(rejected)
    session.retype(typed, 2)
    clicked = session.add(2, 78)
    mine = {k: session.labels == k for k in (accepted, typed, clicked)}
    before, last = state_of(session), session.next_id
    session.rerun(other.labels.copy(), other.table())
    assert_sound(session)
    for id_, mask in mine.items():
        np.testing.assert_array_equal(session.labels == id_, mask)
    live = session.records[session.live]
    assert set(live["id"][live["id"] < last]) == set(mine)
    assert session.record(rejected)["state"] == State.REJECTED
    y, x = session.record(rejected)["y"], session.record(rejected)["x"]
    offered = live[live["id"] >= last]
    assert (offered["state"] == State.PREDICTED).all()
    assert len(live) <= len(other.records) + 1
    assert len(offered) >= len(other.records) - 6
    assert not (np.hypot(offered["y"] - y, offered["x"] - x) < 1).any()
    session.undo()
    assert state_of(session) == before


def test_a_run_in_a_region_leaves_the_rest_alone():
    session, other = make_session(1), make_session(1)
    left = session.records[is_live(session.records) & (session.records["x"] < 40)]
    outside = np.isin(session.labels, left["id"])
    session.rerun(np.zeros(SHAPE, np.uint32), other.table()[:0], holds=lambda p: p[:, 1] >= 40)
    np.testing.assert_array_equal(session.labels > 0, outside)


def test_table_has_only_live_nuclei_and_the_words_of_their_states():
    session = make_session(1)
    session.reject(session.records["id"][0])
    session.accept(session.records["id"][1])
    table = session.table()
    assert len(table) == session.live.sum()
    assert table["state"].iloc[0] == "accepted"
    assert set(table["class"]) <= {"red", "green", "blue", "unclassified"}
    assert list(table)[:5] == ["id", "centre_y", "centre_x", "class", "score"]


def test_while_an_edit_is_made_apart_others_are_refused_and_it_is_told_at_the_end():
    import threading

    session = make_session(1)
    start, told = state_of(session), []
    session.changed.connect(told.append)
    id_ = int(session.records["id"][session.live][0])
    with pytest.raises(NucSegError, match="not claimed"):
        session.apart(session.undo)
    drag = session.drag(id_)
    session.claim()
    assert not drag.is_open
    with pytest.raises(NucSegError, match="wait for its end"):
        session.claim()
    thread = threading.Thread(target=lambda: session.apart(lambda: session.retype_class(0, 1)))
    thread.start()
    thread.join()
    assert not told
    for edit in (session.undo, session.redo, lambda: session.add(1, 1), lambda: session.drag(id_)):
        with pytest.raises(NucSegError, match="wait for its end"):
            edit()
    session.rejoin()
    assert [c.name for c in told] == ["Set class green"]
    session.undo()
    assert state_of(session) == start


def rectangle(y0, y1, x0, x1):
    """Return the flat pixels of a rectangle."""
    mask = np.zeros(SHAPE, bool)
    mask[y0:y1, x0:x1] = True
    return np.flatnonzero(mask)


def test_both_halves_of_a_split_outlive_a_new_run():
    session, other = make_session(1), make_session(1)
    areas = np.where(session.live, session.records["area"], 0)
    whole = session.records[areas.argmax()].copy()
    there = session.labels == whole["id"]
    y, x = np.argwhere(there)[-1]
    new = session.add(y, x)
    halves = session.labels.copy()
    assert session.record(whole["id"])["state"] == session.record(new)["state"] == State.EDITED
    session.rerun(other.labels.copy(), other.table())
    for id_ in (int(whole["id"]), new):
        np.testing.assert_array_equal(session.labels == id_, halves == id_)


def test_what_a_rejected_nucleus_left_to_its_neighbour_goes_there_again_after_a_new_run():
    for seed in range(1, 30):
        session, other = make_session(seed), make_session(seed)
        for id_ in session.records["id"][session.live]:
            there = session.labels == id_
            session.reject(id_)
            if session.labels[there].any():
                break
            session.undo()
        else:
            continue
        before = session.labels > 0
        session.rerun(other.labels.copy(), other.table())
        assert_sound(session)
        np.testing.assert_array_equal(session.labels > 0, before)
        return
    pytest.fail("no board has such a neighbour")


def test_a_run_of_other_classes_is_refused():
    session, other = make_session(1), make_session(1)
    start = state_of(session)
    with pytest.raises(NucSegError, match="2 of the review's classes, not 3"):
        session.rerun(other.labels.copy(), other.table().drop(columns="prob_red"))
    assert state_of(session) == start


def test_a_drawn_nucleus_comes_back_as_it_was_drawn():
    session = make_session(1)
    session.paint(rectangle(20, 36, 20, 36), session.next_id)
    id_ = session.at(28, 28)
    drawn = state_of(session)
    session.reject(id_)
    session.accept(id_)
    assert session.record(id_)["state"] == State.DRAWN
    assert session.record(id_)["locked"]
    assert state_of(session)[0] == drawn[0]
    assert_sound(session)


def test_rejected_and_other_nuclei_are_accepted_together():
    for seed in range(1, 20):
        session = make_session(seed)
        live = session.records["id"][session.live]
        session.reject(live[::3])
        with_neighbours = live.copy()
        try:
            session.accept(with_neighbours)
        except NucSegError:
            continue
        assert_sound(session)
        assert not (session.records["state"][session.live] == State.PREDICTED).any()


def test_several_new_labels_in_one_stroke():
    session = make_session(1)
    dead = int(session.records["id"][0])
    session.reject(dead)
    pixels = np.concatenate([rectangle(2, 8, 2, 8), rectangle(2, 8, 12, 18)])
    n = session.live.sum()
    covered = np.unique(session.labels.ravel()[pixels])
    session.paint(pixels, np.repeat([dead, session.next_id], 36))
    assert_sound(session)
    assert session.live.sum() >= n + 2 - len(covered)
    assert session.at(4, 4) != session.at(4, 14)


def test_a_label_painted_elsewhere_is_a_nucleus_of_its_own():
    session = make_session(1, empty=True)
    first = session.add(10, 10, kind=1)
    before = session.record(first)
    session.paint(rectangle(50, 56, 60, 66), first)
    new = session.at(52, 62)
    assert new not in (0, first)
    assert session.record(first).tobytes() == before.tobytes()
    assert not session.record(new)["typed"]
    assert session.record(new)["kind"] == session.record(new)["prob"].argmax()


def test_a_drag_that_has_ended_moves_nothing_more():
    session = make_session(1)
    start = state_of(session)
    drag = session.drag(session.records["id"][3])
    drag.to(2, 2)
    session.accept(session.records["id"][8])
    after = state_of(session)
    with pytest.raises(NucSegError, match="has ended"):
        drag.to(4, 4)
    assert state_of(session) == after
    session.undo(), session.undo()
    assert state_of(session) == start


def test_a_drag_back_to_the_start_is_no_edit():
    session = make_session(1)
    start = state_of(session)
    drag = session.drag(session.records["id"][3])
    drag.to(2, 2)
    drag.to(0, 0)
    drag.end()
    assert state_of(session) == start
    assert session.can_undo is None


@pytest.mark.parametrize("dx", [-10, 10])
def test_centres_dragged_together_may_take_one_anothers_places(dx):
    session = make_session(1, empty=True)
    ids = [session.add(30, 30), session.add(30, 40)]
    session.drag(ids).to(0, dx)
    assert [session.record(k)["x"] for k in ids] == [30 + dx, 40 + dx]
    assert_sound(session)


def test_a_chain_is_merged_whatever_the_sizes():
    session = make_session(1, empty=True)
    for k, (x0, x1) in enumerate([(4, 16), (26, 30), (40, 52)]):
        session.paint(rectangle(20, 32, x0, x1), k + 1)
    session.ground.typical_area = 100
    session.retype([2], 2)
    merged = session.merge([1, 2, 3])
    assert_sound(session)
    assert session.live.sum() == 1
    assert (session.record(merged)["kind"], session.record(merged)["typed"]) == (2, True)


def test_an_imported_shape_with_the_number_of_a_nucleus_elsewhere_is_a_new_one():
    session = make_session(1)
    session.paint(rectangle(5, 20, 5, 20), session.next_id)
    mine = session.at(12, 12)
    drawn = session.labels == mine
    placed = session.place([Outline(Box(40, 50, 50, 60), np.ones((10, 10), bool), "red", mine)])
    np.testing.assert_array_equal(session.labels == mine, drawn)
    assert (placed.added, placed.changed, placed.strangers) == (1, 0, 1)
    assert "1 renumbered" in str(placed)
    session.reject(session.at(45, 55))
    again = Outline(Box(40, 50, 50, 60), np.ones((10, 10), bool), "red", int(session.records["id"][-1]))
    assert session.place([again]).refused == 1


def test_drawn_nuclei_whose_centres_share_a_pixel_of_the_model_cannot_be_grown():
    session = make_session(1, (128, 160), SHAPE, empty=True)
    flat = np.arange(128 * 160).reshape(128, 160)
    session.paint(flat[20, 40:60], session.next_id)
    session.paint(flat[21, 40:60], session.next_id)
    for id_ in session.records["id"].tolist():
        with pytest.raises(NucSegError, match="same pixel at the model's resolution"):
            session.unlock(id_)
        assert_sound(session)


def test_all_the_maps_that_an_edit_lacks_are_named_at_once():
    session = make_session(3, (1300, 1300), (1300, 1300), known=False)
    fields = random_fields(np.random.default_rng(3), (1300, 1300))
    with pytest.raises(MapsMissing) as caught:
        session.reject(session.records["id"])
    for box in caught.value.boxes:
        session.fields.put(box, fields.crop(*box.slices))
    assert len(caught.value.boxes) > 1
    session.reject(session.records["id"])
    assert not session.labels.any()


def test_an_import_given_up_leaves_no_class_behind():
    session = make_session(1)
    start = state_of(session)

    def give_up(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.place([], np.array([[2.0, 78.0]]), ["new"], give_up)
    assert len(session.classes) == 3
    assert state_of(session) == start


def test_an_unknown_class_is_refused():
    session = make_session(1)
    with pytest.raises(NucSegError, match="no class number 100"):
        session.add(2, 78, kind=99)


def test_a_long_stroke_costs_what_it_touches():
    import time

    session = make_session(1, (1600, 1600), (1600, 1600), known=False)
    line = np.eye(1600, dtype=bool) | np.eye(1600, k=1, dtype=bool)
    start = time.perf_counter()
    session.paint(np.flatnonzero(line), 0)
    assert (
        time.perf_counter() - start < 1
    )  # 1.6 s when every nucleus was looked for in all of the stroke's box
    assert_sound_labels(session)


def assert_sound_labels(session):
    """Check what is quick to check in a large session."""
    assert session.check() is None
    sizes = np.bincount(session.labels.ravel(), minlength=int(session.records["id"][-1]) + 1)
    np.testing.assert_array_equal(sizes[session.records["id"]], session.records["area"])


def test_edits_report_scores_and_probabilities_on_the_scale_of_the_run():
    plain, other = make_session(4), make_session(4)
    other.ground.config = replace(CONFIG, score_slope=2.0, score_shift=-0.5, type_temperature=1.7)
    drawn = np.arange(5 * SHAPE[1] + 40, 5 * SHAPE[1] + 52)
    for session in (plain, other):
        session.add(30.0, 40.0)
        session.paint(drawn, int(session.records["id"].max()) + 1)
    np.testing.assert_array_equal(plain.labels, other.labels)
    grown = plain.records["origin"] == Origin.CLICK
    assert grown.any()
    raw, seen = plain.records[grown], other.records[grown]
    np.testing.assert_array_equal(seen["kind"], raw["kind"])
    np.testing.assert_array_equal(seen["score"], calibrated(raw["score"], 2.0, -0.5))
    np.testing.assert_array_equal(seen["prob"], tempered(raw["prob"], 1.7))
    painted = plain.records["origin"] == Origin.BRUSH
    wanted = tempered(plain.records["prob"][painted], 1.7)
    assert np.isfinite(wanted).all()
    np.testing.assert_array_equal(other.records["prob"][painted], wanted)
