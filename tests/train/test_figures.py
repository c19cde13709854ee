"""Figures: what they count and call by name, and that every kind comes out of the command."""

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from napari_nucseg.core.metrics import panoptic_quality
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from train import figures, figures_classes, figures_curves, figures_grid, figures_umap
from train.figures_config import FiguresConfig
from train.figures_data import densest
from train.figures_embed import pool
from train.figures_errors import find_errors, matches
from train.figures_style import outlines
from train.truth import Truth


def squares(*boxes, shape=(40, 60)):
    out = np.zeros(shape, np.int32)
    for k, (row, col, rows, cols) in enumerate(boxes, start=1):
        out[row : row + rows, col : col + cols] = k
    return out


# errors


def test_each_error_is_called_by_its_name():
    true = squares((0, 0, 8, 8), (0, 20, 8, 6), (0, 26, 8, 6), (20, 0, 8, 12), (20, 30, 8, 8))
    pred = squares((0, 0, 8, 7), (0, 20, 8, 12), (20, 0, 8, 6), (20, 6, 8, 6), (30, 50, 5, 5))
    found = find_errors(true, pred)
    got = {k: v.tolist() for k, v in vars(found).items()}
    assert got == {
        "right": [1], "found": [1], "missed": [5], "invented": [5], "merged": [2], "merged_true": [2, 3],
        "split": [3, 4], "split_true": [4],
    }  # fmt: skip
    assert matches(true, pred) == {1: 1}


@pytest.mark.parametrize("seed", range(5))
def test_errors_are_the_false_positives_and_negatives_of_pq(seed):
    rng = np.random.default_rng(seed)
    true, pred = (
        squares(*[(*rng.integers(0, 34, 2), *rng.integers(2, 12, 2)) for _ in range(14)]) for _ in range(2)
    )
    found, quality = find_errors(true, pred), panoptic_quality(true, pred)
    groups = {
        "missed": "fn",
        "merged_true": "fn",
        "split_true": "fn",
        "invented": "fp",
        "merged": "fp",
        "split": "fp",
    }
    for side in ("fn", "fp"):
        ids = np.concatenate([getattr(found, name) for name, of in groups.items() if of == side])
        assert len(ids) == len(set(ids.tolist())) == getattr(quality, side)
    assert len(found.right) == len(found.found) == quality.tp


# what is shown


def test_the_densest_part_is_found_and_lies_within_the_image():
    labels = squares((2, 2, 2, 2), (30, 50, 2, 2), (33, 53, 2, 2), (36, 56, 2, 2))
    box = densest(labels, 12)
    assert box.shape == (12, 12)
    assert len(np.unique(labels[box.slices])) == 4
    assert densest(labels, 12, (0, 59)) == Box(0, 12, 48, 60)
    assert densest(labels, 500) == Box(0, 40, 0, 60)


def test_outlines_run_along_the_edges_of_pixels():
    (line,) = outlines(squares((3, 5, 4, 2)))[1]
    assert (line.min(0).tolist(), line.max(0).tolist()) == ([4.5, 2.5], [6.5, 6.5])
    assert line[0].tolist() == line[-1].tolist()


def test_features_are_averaged_by_the_pixels_of_a_nucleus():
    features = np.array([[[1.0, 5.0], [0.0, 0.0]]], np.float32)  # one channel, cells of 4 px
    labels = np.zeros((8, 8), np.int32)
    labels[0:2, 3:6] = 7  # 2 px in the first cell, 4 in the second
    ids, means = pool(features, labels, 4)
    assert ids.tolist() == [7]
    assert means[0, 0] == pytest.approx((2 * 1 + 4 * 5) / 6)


def test_silhouettes_tell_clear_groups_from_none():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    classes = np.repeat([1, 2], 30)
    apart, _ = figures_umap.silhouettes(rng.normal(0, 0.1, (60, 3)) + 10 * classes[:, None], classes)
    mixed, _ = figures_umap.silhouettes(rng.normal(0, 1, (60, 3)), classes)
    assert apart > 0.9 > 0.1 > mixed
    assert np.isnan(figures_umap.silhouettes(rng.normal(0, 1, (60, 3)), np.ones(60, int))[0])


# the pictures


def grid_row(k):
    true = squares((0, 0, 8, 8), (20, 30, 8, 8))
    image = np.full((40, 60, 3), 200, np.uint8)
    return figures_grid.Row(
        Truth("set", f"a-very-long-name-of-an-image-{k}", image, true, None, 0.5), Box(0, 40, 0, 40),
        [squares((0, 0, 8, 8)).astype(np.uint32)],
    )  # fmt: skip


@pytest.mark.parametrize(("rows", "words"), [(1, True), (5, False)])
def test_a_grid_fits_on_a_page_and_counts_what_it_shows(rows, words):
    figure = figures_grid.draw_rows([grid_row(k) for k in range(rows)], ["model"], 160)
    width, height = figure.get_size_inches() * 25.4
    assert height <= figures_grid.PAGE + 0.1
    assert width <= 160.1
    axes = figure.axes
    assert len(axes) == 2 * rows
    assert axes[0].get_xlabel() == "2 nuclei"
    said = [t.get_text() for t in axes[1].texts]
    assert said == (["1 missed", "0 invented", "0 merged", "0 split"] if words else ["1", "0", "0", "0"])


def test_bars_of_what_is_held_out_stand_beside_the_rest_of_their_set():
    counts = {
        "a, training": np.array([0, 100, 7]), "b, training": np.array([5, 0, 0]), "a, validation": np.array([0, 10, 0]),
    }  # fmt: skip
    figure = figures_classes.draw_counts(counts, ("one", "two"), 160)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [100, 10, 7, 5]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["one", "two", "no class"]
    assert [t.get_text() for t in figure.legends[0].texts] == ["a, training", "a, validation", "b, training"]


def run_of(folder, name, rows):
    path = folder / name
    path.mkdir(parents=True)
    lines = [f"0,{step},{what},{value}" for step, what, value in rows]
    (path / "metrics.csv").write_text("\n".join(["time,step,name,value", *lines]) + "\n")
    return str(path)


ROWS = [
    (10, "train/loss_total", 3.0),
    (20, "train/loss_total", 2.0),
    (20, "val/bPQ", 0.5),
    (20, "speed/s", 1.0),
]


def test_curves_of_a_loss_and_of_a_figure(tmp_path):
    runs = {"x": figures_curves.read_metrics(tmp_path / run_of(tmp_path, "x", ROWS) / "metrics.csv")}
    figure = figures_curves.draw_curves(runs, 160, ["total", "bPQ"])
    assert [a.get_title() for a in figure.axes] == ["total", "bPQ"]
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[10, 3], [20, 2]]
    assert [a.get_xlim()[0] for a in figure.axes] == [0, 0]
    assert [t.get_text() for t in figure.legends[0].texts] == ["training", "validation"]
    figure = figures_curves.draw_curves(runs, 160, ["bPQ"])
    assert [t.get_text() for t in figure.legends[0].texts] == ["validation"]
    with pytest.raises(NucSegError, match="'AJI' is in none of the runs; they have total, bPQ, s"):
        figures_curves.draw_curves(runs, 160, ["AJI"])


def test_two_runs_of_one_name_are_both_shown(tmp_path):
    one, two = run_of(tmp_path / "a", "student", ROWS), run_of(tmp_path / "b", "student", ROWS)
    figure = figures_curves.draw(FiguresConfig("curves", models=(one, two), panels=("bPQ",)))
    assert [t.get_text() for t in figure.legends[0].texts] == ["validation", one, two]
    with pytest.raises(NucSegError, match="Two runs are called 'same'"):
        figures_curves.draw(FiguresConfig("curves", models=(one, two), labels=("same", "same")))


# the command


@pytest.mark.parametrize("kind", ["stages", "grid", "umap", "classes"])
def test_every_kind_is_drawn_of_a_run(kind, toy_run, dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures_umap, "lay_out", lambda features, seed: features[:, :2])
    if kind == "umap":
        pytest.importorskip("sklearn")
    out = tmp_path / f"{kind}.png"
    arguments = [kind, "--data", str(dataset / "toy"), "--held-out", str(toy_run), "--models", str(toy_run)]
    assert figures.main([*arguments, "--out", str(out), "dpi=40", "window=20.0", "device=cpu"]) == 0
    text = capsys.readouterr().out
    assert out.stat().st_size > 2000
    assert f"Written: {out}" in text
    if kind == "classes":
        counted = json.loads((dataset / "toy" / "dataset.json").read_text())["classes"][1:]
        assert any(name in text for name in counted)
        assert {"toy, training", "toy, validation"} <= {line.partition(":")[0] for line in text.splitlines()}


def test_the_same_figure_is_the_same_file(tmp_path):
    run = run_of(tmp_path, "x", ROWS)
    for name in ("a", "b"):
        assert figures.main(["curves", "--models", run, "--out", str(tmp_path / f"{name}.svg")]) == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pie"], "kind='pie' is not one of umap, stages"),
        (["grid"], "give their folder with --data"),
        (["curves", "--models", "nowhere"], "give the folder of a training run"),
        (["grid", "--models", "a", "b", "--labels", "one"], "1 names for 2 models"),
        (["stages", "--split", "train", "--images", "im_9"], "did you mean 'im_"),
        (["umap", "--split", "train", "stride=5"], "is not one of the strides"),
        (["classes", "width=1.0"], "width=1.0 is too small"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(arguments, said, dataset, toy_run, capsys):
    if "--split" in arguments:
        arguments = [*arguments, "--data", str(dataset / "toy"), "--models", str(toy_run)]
    assert figures.main(arguments) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert said in error


def test_curves_of_runs_of_earlier_versions_have_todays_names(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "time,step,name,value\n0,1,val/x/mPQ (shipped),0.5\n0,2,val/x/mPQ (own),0.6\n"
    )
    found = figures_curves.read_metrics(tmp_path / "metrics.csv")
    assert found == {"x/mPQ (own)": {"val": [(1.0, 0.5), (2.0, 0.6)]}}
