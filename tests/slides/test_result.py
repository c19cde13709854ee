"""Results of a slide on disk: looked at in parts, reviewed, put back, and never half of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.export import write_csv
from napari_nucseg.io.omezarr import LabelPyramid, open_labels
from napari_nucseg.slides import transaction
from napari_nucseg.slides.centres import Centres
from napari_nucseg.slides.result import SlideResult, border_ids, locate

SHAPE, CHUNK = (700, 900), 128
CLASSES = ("neoplastic", "inflammatory")


def discs(shape=SHAPE, seed=0, n=260):
    """Labels of round nuclei that do not overlap, and their table."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    yy, xx = np.mgrid[-9:10, -9:10]
    rows = []
    for _ in range(n):
        y, x = rng.integers(10, shape[0] - 10), rng.integers(10, shape[1] - 10)
        r = rng.integers(4, 10)
        window = labels[y - 9 : y + 10, x - 9 : x + 10]
        disc = yy**2 + xx**2 < r * r
        if window[disc].any():
            continue
        window[disc] = len(rows) + 1
        rows.append((len(rows) + 1, float(y), float(x), CLASSES[len(rows) % 2], 0.5, disc.sum() * 0.0625))
    names = ("id", "centre_y", "centre_x", "class", "score", "area_um2")
    table = pd.DataFrame(rows, columns=names)
    table["prob_neoplastic"], table["prob_inflammatory"] = 0.75, 0.25
    return labels, table


def write(folder, labels, table, formats=("parquet", "csv")):
    folder.mkdir(parents=True, exist_ok=True)
    with LabelPyramid(folder / "case_labels.zarr", labels.shape, 0.25, chunk=CHUNK) as out:
        whole = Box(0, labels.shape[0], 0, labels.shape[1])
        out.expect({"all": whole})
        out.paint("all", whole, labels)
    if "parquet" in formats:
        pytest.importorskip("pyarrow")
        table.to_parquet(folder / "case_nuclei.parquet", index=False, row_group_size=50)
    if "csv" in formats:
        write_csv(folder / "case_nuclei.csv", table)
    counts = table["class"].value_counts().to_dict()
    summary = {
        "nuclei": len(table), "classes": counts, "area_mm2": 0.04, "mpp": 0.25,
        "colours": {"neoplastic": [200, 0, 0], "inflammatory": [0, 90, 200]},
    }  # fmt: skip
    (folder / "case_summary.json").write_text(json.dumps(summary))
    return SlideResult.open(folder)


@pytest.fixture(scope="module")
def made():
    return discs()


@pytest.fixture(params=[("parquet", "csv"), ("csv",), ("parquet",)], ids="-".join)
def result(tmp_path, made, request):
    return write(tmp_path / "case", *made, formats=request.param)


def snapshot(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def consistent(result):
    """Check that labels, levels, table and summary say the same."""
    levels = [np.asarray(level[:]) for level in result.levels]
    for below, above in itertools.pairwise(levels):
        np.testing.assert_array_equal(above, below[::2, ::2])
    table = result.table.read(("id", "centre_y", "centre_x", "class", "state", "origin"))
    assert sorted(table["id"]) == np.unique(levels[0])[1:].tolist()
    assert table["id"].is_unique
    at = levels[0][table["centre_y"].round().astype(int), table["centre_x"].round().astype(int)]
    np.testing.assert_array_equal(at, table["id"])
    assert result.summary["nuclei"] == len(table)
    counted = table["class"].value_counts()
    assert result.summary["classes"] == {k: int(v) for k, v in counted.items() if v}
    for other in result.table.others:
        ids = other.read(("id",))["id"]
        assert sorted(ids) == sorted(table["id"])
    return table


def test_a_result_opens_by_any_of_its_files(result):
    for path in (result.folder, result.folder / "case_labels.zarr", result.folder / "case_summary.json"):
        assert locate(path) == (result.folder, "case")
        again = SlideResult.open(path)
        assert (again.name, again.shape, again.mpp) == ("case", SHAPE, 0.25)
    assert again.classes == CLASSES
    assert again.colours["neoplastic"] == (200, 0, 0)
    with pytest.raises(NucSegError, match="holds no results"):
        SlideResult.open(result.folder.parent)
    shutil.copytree(result.folder / "case_labels.zarr", result.folder / "b_labels.zarr")
    with pytest.raises(NucSegError, match="the results b, case; choose"):
        SlideResult.open(result.folder)
    assert SlideResult.open(result.folder, "b").name == "b"


def test_a_part_holds_whole_nuclei_alone(result, made):
    labels, table = made
    place = Box(64, 400, 128, 560)
    part = result.read_region(place)
    cut = labels[place.slices]
    for id_ in part.foreign:
        assert (labels == id_).sum() > (part.labels == id_).sum() == 0 or (cut == id_).any()
    for id_ in part.nuclei["id"]:
        assert (part.labels == id_).sum() == (labels == id_).sum()
    assert set(part.nuclei["id"]) | set(part.foreign) == set(np.unique(cut)) - {0}
    assert part.next_id == len(table) + 1
    columns = [c for c in table.columns if c != "class"]
    expected = table[table["id"].isin(part.nuclei["id"])]
    np.testing.assert_allclose(
        part.nuclei[columns].to_numpy(float), expected[columns].to_numpy(float), rtol=1e-6
    )
    assert part.nuclei["class"].tolist() == expected["class"].tolist()


def edited(part):
    """A review: one deleted, one with another class, one smaller, one new."""
    labels, nuclei = part.labels.copy(), part.nuclei.copy()
    gone, typed, smaller = nuclei["id"].iloc[[3, 8, 12]]
    labels[labels == gone] = 0
    nuclei.loc[nuclei["id"] == typed, "class"] = "inflammatory"
    row = nuclei[nuclei["id"] == smaller].iloc[0]
    y, x = int(row["centre_y"]) - part.place.y0, int(row["centre_x"]) - part.place.x0
    labels[labels == smaller] = 0
    labels[y - 1 : y + 2, x - 1 : x + 2] = smaller
    free = np.argwhere(labels == 0)
    y, x = next(
        p for p in free[len(free) // 2 :] if not labels[p[0] - 3 : p[0] + 4, p[1] - 3 : p[1] + 4].any()
    )
    labels[y - 2 : y + 3, x - 2 : x + 3] = part.next_id
    new = {
        "id": part.next_id,
        "centre_y": y + part.place.y0,
        "centre_x": x + part.place.x0,
        "class": "neoplastic",
    }
    nuclei = pd.concat([nuclei[nuclei["id"] != gone], pd.DataFrame([new])], ignore_index=True)
    nuclei["state"], nuclei["origin"] = "accepted", "model"
    return labels, nuclei, int(gone)


def test_put_back_changes_the_part_and_nothing_else(result, made):
    labels, _ = made
    place = Box(64, 400, 128, 560)
    part = result.read_region(place)
    new, nuclei, gone = edited(part)
    put = result.put_back(place, new, nuclei)
    assert (put.nuclei, put.before, put.lost) == (len(nuclei), len(part.nuclei), ())
    after = np.asarray(result.levels[0][:])
    expected = labels.copy()
    mine = ~np.isin(labels[place.slices], part.foreign)
    expected[place.slices][mine] = new[mine]
    np.testing.assert_array_equal(after, expected)
    found = consistent(result)
    assert gone not in set(found["id"])
    states = found.set_index("id")["state"].astype(str)
    assert states[part.next_id] == "accepted"
    outside = np.setdiff1d(found["id"], nuclei["id"])
    assert set(states[outside]) == {"predicted"}
    assert result.reviewed == [place]
    # it is on the disk, and the next review of the part goes on from there
    again = SlideResult.open(result.folder)
    consistent(again)
    following = again.read_region(place)
    np.testing.assert_array_equal(following.labels, np.where(mine, new, 0))
    assert following.next_id == part.next_id + 1
    assert set(following.nuclei["state"]) == {"accepted"}
    again.put_back(place, following.labels, following.nuclei)
    assert again.reviewed == [place]
    np.testing.assert_array_equal(np.asarray(again.levels[0][:]), expected)


def test_rows_beside_the_part_keep_every_digit(tmp_path, made):
    result = write(tmp_path / "case", *made)
    before = pd.read_parquet(result.folder / "case_nuclei.parquet").set_index("id")
    lines = {
        line.split(",")[0]: line for line in (result.folder / "case_nuclei.csv").read_text().splitlines()
    }
    part = result.read_region(Box(0, 200, 0, 900))
    result.put_back(part.place, part.labels, part.nuclei.assign(state="accepted", origin="model"))
    after = pd.read_parquet(result.folder / "case_nuclei.parquet").set_index("id")
    pd.testing.assert_frame_equal(after.loc[before.index, before.columns], before)
    others = [i for i in before.index if i not in set(part.nuclei["id"])]
    now = {line.split(",")[0]: line for line in (result.folder / "case_nuclei.csv").read_text().splitlines()}
    assert all(now[str(i)] == lines[str(i)] + ",predicted,model" for i in others)


def test_a_nucleus_drawn_over_one_that_the_border_cuts_gives_way(result):
    place = Box(64, 400, 128, 560)
    part = result.read_region(place)
    old = np.asarray(result.levels[0][place.slices])
    foreign = old == part.foreign[0]
    labels, nuclei = part.labels.copy(), part.nuclei.copy()
    labels[foreign] = part.next_id
    y, x = np.argwhere(foreign)[0] + (place.y0, place.x0)
    new = pd.DataFrame([{"id": part.next_id, "centre_y": y, "centre_x": x, "class": "neoplastic"}])
    put = result.put_back(place, labels, pd.concat([nuclei, new], ignore_index=True))
    assert put.lost == (part.next_id,)
    np.testing.assert_array_equal(np.asarray(result.levels[0][place.slices]), old)
    consistent(result)


def test_what_does_not_fit_changes_nothing(result):
    place = Box(64, 400, 128, 560)
    part = result.read_region(place)
    before = snapshot(result.folder)
    with pytest.raises(NucSegError, match="can't be put in a place of"):
        result.put_back(Box(64, 400, 128, 561), part.labels, part.nuclei)
    assert snapshot(result.folder) == before


def test_two_windows_put_back_one_after_the_other(result, made):
    """Both have opened the result before; what the first has put back, and its ids, stay."""
    labels, _ = made
    other = SlideResult.open(result.folder)
    first, second = result.read_region(Box(0, 256, 0, 400)), other.read_region(Box(320, 700, 0, 900))
    assert first.next_id == second.next_id
    new, nuclei, gone = edited(first)
    result.put_back(first.place, new, nuclei)
    mine, rows, also_gone = edited(second)
    put = other.put_back(second.place, mine, rows)
    assert (put.nuclei, put.lost) == (len(rows), ())
    assert other.reviewed == [first.place, second.place]
    table = consistent(other)
    assert not {gone, also_gone} & set(table["id"])
    after = np.asarray(other.levels[0][:])
    np.testing.assert_array_equal(
        after[first.place.slices] > 0,
        np.where(np.isin(labels[first.place.slices], first.foreign), labels[first.place.slices], new) > 0,
    )
    drawn = np.unique(after[second.place.slices][mine == second.next_id])
    assert drawn.tolist() == [first.next_id + 1]  # the other number was taken
    result.up_to_date()  # by a window that has not seen the second part
    assert SlideResult.open(result.folder).reviewed == [first.place, second.place]


def test_a_result_opens_while_it_is_put_back_elsewhere(result, monkeypatch):
    """Opening tidies up after programs that were killed, and must not take one at work for such."""
    part = result.read_region(Box(64, 400, 128, 560))
    new, nuclei, _ = edited(part)
    commit = transaction.Transaction.commit

    def look(change):
        assert SlideResult.open(result.folder).summary["nuclei"] > 0
        with pytest.raises(NucSegError, match="Another run is writing"):
            SlideResult.open(result.folder).put_back(part.place, new, nuclei)
        commit(change)

    monkeypatch.setattr(transaction.Transaction, "commit", look)
    result.put_back(part.place, new, nuclei)
    assert part.next_id in set(consistent(SlideResult.open(result.folder))["id"])


def test_a_review_of_an_earlier_result_fits_a_later_one(result, made, tmp_path):
    """The slide was segmented again meanwhile: its numbers are those of other nuclei."""
    part = result.read_region(Box(64, 400, 128, 560))
    new, nuclei, gone = edited(part)
    labels, table = made
    turned = table.assign(id=len(table) + 1 - table["id"])
    later = write(tmp_path / "again", np.where(labels, len(table) + 1 - labels, 0).astype(np.uint32), turned)
    put = later.put_back(part.place, new, nuclei)
    assert (put.nuclei, put.lost) == (len(nuclei), ())
    assert len(consistent(later)) == len(table)  # one less, one more
    after = np.asarray(later.levels[0][part.place.slices])
    foreign = np.isin(labels[part.place.slices], part.foreign)
    np.testing.assert_array_equal(after > 0, np.where(foreign, True, new > 0))
    assert after[labels[part.place.slices] == gone].max() == 0


@pytest.mark.parametrize("killed_at", range(0, 40, 3))
def test_killed_at_any_moment_it_is_the_old_or_the_new(tmp_path, made, monkeypatch, killed_at):
    result = write(tmp_path / "case", *made)
    before = np.asarray(result.levels[0][:])
    part = result.read_region(Box(64, 400, 128, 560))
    new, nuclei, _ = edited(part)
    steps = [0]
    replace, sync = transaction.os.replace, transaction._sync

    class Killed(BaseException):
        pass

    def step(function):
        def call(*args):
            if steps[0] == killed_at:
                raise Killed
            steps[0] += 1
            return function(*args)

        return call

    monkeypatch.setattr(transaction.os, "replace", step(replace))
    monkeypatch.setattr(transaction, "_sync", step(sync))
    monkeypatch.setattr(
        transaction.shutil, "rmtree", lambda *_a, **_k: None
    )  # a dead program tidies nothing up
    with contextlib.suppress(Killed):
        result.put_back(part.place, new, nuclei)
    monkeypatch.undo()
    again = SlideResult.open(result.folder)
    table = consistent(again)
    now = np.asarray(again.levels[0][:])
    is_new = part.next_id in set(table["id"])
    assert is_new == bool((now == part.next_id).any())
    if not is_new:
        np.testing.assert_array_equal(now, before)
    assert not [p for p in result.folder.iterdir() if p.name.startswith(".")]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 400), st.integers(1, 3000), st.integers(0, 300), st.integers(0, 3000), st.integers(1, 3000),
    st.integers(0, 3000), st.integers(1, 3000), st.integers(1, 80),
)  # fmt: skip
def test_centres_of_a_box(n, extent, seed, y, rows, x, cols, most):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({
        "id": np.arange(1, n + 1), "centre_y": rng.integers(0, extent, n), "centre_x": rng.integers(0, extent, n),
        "class": [*CLASSES, None][seed % 3 :][0] if n else [],
    })  # fmt: skip
    centres = Centres(table, CLASSES)
    box = Box(y, y + rows, x, x + cols)
    inside = table[table["centre_y"].between(y, y + rows - 1) & table["centre_x"].between(x, x + cols - 1)]
    view = centres.look(box, 10**6)
    assert sorted(centres.ids[view.rows].tolist()) == inside["id"].tolist()
    assert view.total == len(inside)
    assert view.counts[seed % 3] == len(inside)
    few = centres.look(box, most, leave_out=inside["id"].to_numpy()[:1])
    assert len(few.rows) <= most
    assert not np.isin(centres.ids[few.rows], inside["id"][:1]).any()
    assert few.total == len(inside)
    assert centres.counts().sum() == n


def test_nuclei_at_the_slides_own_border_are_whole():
    labels = np.zeros((20, 30), np.uint32)
    labels[0:3, 0:3], labels[5:8, 28:30], labels[18:20, 10:12] = 1, 2, 3
    assert border_ids(labels, Box(0, 20, 0, 30), (20, 30)).size == 0
    assert border_ids(labels, Box(0, 20, 0, 30), (21, 31)).tolist() == [2, 3]
    assert border_ids(labels, Box(1, 21, 1, 31), (21, 31)).tolist() == [1]


def test_open_labels_again_sees_what_was_put_back(result):
    part = result.read_region(Box(0, 256, 0, 256))
    labels, nuclei, _ = edited(part)
    handle = open_labels(result.folder / "case_labels.zarr")
    result.put_back(part.place, labels, nuclei)
    np.testing.assert_array_equal(handle[0][:], np.asarray(result.levels[0][:]))
