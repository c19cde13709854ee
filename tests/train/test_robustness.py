"""What disturbances do to an image, and what they cost a segmenter whose figures are known."""

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage

from napari_nucseg.core.stain import rgb_to_hed
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import as_source, read_image
from tests.fakes import FakeRuntime, fake_card
from train import loaded, report, robustness
from train.disturbances import (
    DISTURBANCES,
    EOSIN,
    HAEMATOXYLIN,
    UNDISTURBED,
    add_noise,
    blur,
    bring_back,
    choose,
    resample,
)
from train.loaded import Loaded
from train.robustness import score_disturbed
from train.robustness_table import means
from train.truth import Truth

BY_KEY = {d.key: d for d in (UNDISTURBED, *DISTURBANCES)}
MPP = 0.25


@pytest.fixture(scope="module")
def discs():
    """Dark discs of 20 to 30 px on pale pink, and their labels, numbered with gaps."""
    labels = np.zeros((260, 300), np.int32)
    y, x = np.indices(labels.shape)
    spots = [(30 + 50 * i, 30 + 60 * j, 10 + (i + j) % 6) for i in range(5) for j in range(5)]
    for k, (row, col, radius) in enumerate(spots):
        labels[(y - row) ** 2 + (x - col) ** 2 <= radius**2] = 7 * k + 3
    image = np.where(labels[..., None] > 0, (90, 60, 140), (240, 220, 235)).astype(np.uint8)
    image.setflags(write=False)
    return Truth("toy", "discs", image, labels, None, MPP)


def by_colour(image, mpp):
    """Segment what is dark in the red light, at the image's own pixels."""
    height, width, _ = image.shape
    labels, n = ndimage.label(as_source(image, mpp).read(0, height, 0, width)[..., 0] < 165)
    return labels.astype(np.uint32), pd.DataFrame({"id": range(1, n + 1), "class": "other"})


# disturbances


@pytest.mark.parametrize("one", [UNDISTURBED, *DISTURBANCES], ids=lambda d: d.key)
@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_every_disturbance_is_a_pure_function_that_gives_an_image(synthetic, one, mpp):
    image = synthetic.image[:96, :128]  # read-only
    (first, said), (second, again) = one.apply(image, mpp), one.apply(image, mpp)
    np.testing.assert_array_equal(first, second)
    assert said == again
    assert first.dtype == (np.uint16 if one.key == "16-bit" else np.uint8)
    assert first.ndim == 3
    assert first.shape[2] == 3
    if "mpp" not in one.key:
        assert (first.shape, said) == (image.shape, mpp)
        assert one is UNDISTURBED or (first != image).any()


def test_keys_and_words_are_all_different():
    assert len(BY_KEY) == len({d.words for d in BY_KEY.values()}) == 1 + len(DISTURBANCES)


@pytest.mark.parametrize("to", [0.20, 0.30, 0.40, 0.50, 0.60])
def test_another_resolution_is_stated_and_keeps_the_picture(synthetic, to):
    image, said = BY_KEY[f"mpp-{to:.2f}"].apply(synthetic.image, MPP)
    assert said == to
    assert image.shape[:2] == (round(512 * MPP / to),) * 2
    np.testing.assert_allclose(image.mean((0, 1)), synthetic.image.mean((0, 1)), atol=0.5)
    plain, _ = resample(np.full((40, 50, 3), 77, np.uint8), MPP, to=to)
    assert (plain == 77).all()


def test_an_image_at_the_wanted_resolution_is_left_as_it_is(synthetic):
    image, said = BY_KEY["mpp-0.50"].apply(synthetic.image, 0.5)
    assert image is synthetic.image
    assert said == 0.5


def test_a_wrong_resolution_is_that_of_an_image_of_twice_the_pixel(synthetic):
    right, _ = BY_KEY["mpp-0.50"].apply(synthetic.image, MPP)
    wrong, said = BY_KEY["wrong-mpp"].apply(synthetic.image, MPP)
    np.testing.assert_array_equal(wrong, right)
    assert said == 0.25


@pytest.mark.parametrize("times", [0.7, 1.4])
@pytest.mark.parametrize(("word", "stain"), [("haematoxylin", HAEMATOXYLIN), ("eosin", EOSIN)])
def test_one_stain_is_scaled_and_the_others_stay(synthetic, word, stain, times):
    before = rgb_to_hed(synthetic.image)
    after = rgb_to_hed(BY_KEY[f"{word}-{times}"].apply(synthetic.image, MPP)[0])
    wanted = before.copy()
    wanted[..., stain] *= times
    # one grey level of a dark value is much in optical density, and values end at 255
    fair = (synthetic.image > 60).all(2) & (synthetic.image < 200).all(2)
    assert fair.mean() > 0.1
    assert np.abs(after - wanted)[fair].mean() < 0.01


def test_brightness_changes_by_15_per_cent_and_ends_at_white():
    image = np.full((20, 20, 3), 100, np.uint8)
    image[0] = 250
    assert BY_KEY["darker"].apply(image, MPP)[0][5, 5].tolist() == [85] * 3
    bright, _ = BY_KEY["brighter"].apply(image, MPP)
    assert bright[5, 5].tolist() == [115] * 3
    assert bright[0, 0].tolist() == [255] * 3


def test_jpeg_keeps_the_order_of_the_channels_and_loses_detail(synthetic):
    image, _ = BY_KEY["jpeg-30"].apply(synthetic.image, MPP)
    np.testing.assert_allclose(image.mean((0, 1)), synthetic.image.mean((0, 1)), atol=2)
    assert 1 < np.abs(image.astype(int) - synthetic.image).mean() < 12


@pytest.mark.parametrize(("pixels", "mpp", "sigma"), [(1, 0.25, 1.0), (2, 0.25, 2.0), (2, 0.5, 1.0)])
def test_a_blur_has_the_same_width_in_micrometres_at_any_resolution(pixels, mpp, sigma):
    edge = np.zeros((31, 61, 3), np.uint8)
    edge[:, 30:] = 255
    profile = np.diff(blur(edge, mpp, pixels=pixels)[0][15, :, 0].astype(float))
    x = np.arange(len(profile))
    middle = (profile * x).sum() / profile.sum()
    assert np.sqrt((profile * (x - middle) ** 2).sum() / profile.sum()) == pytest.approx(sigma, rel=0.1)


def test_noise_has_its_deviation_and_no_bias():
    noise = add_noise(np.full((200, 200, 3), 128, np.uint8), MPP, deviation=10)[0].astype(float) - 128
    assert noise.std() == pytest.approx(10, rel=0.02)
    assert abs(noise.mean()) < 0.1
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


def test_16_bits_come_back_as_they_were_from_an_array_and_from_a_file(synthetic, tmp_path):
    wide, _ = BY_KEY["16-bit"].apply(synthetic.image, MPP)
    assert wide.max() > 2**15
    tifffile.imwrite(tmp_path / "wide.tif", wide, photometric="rgb")
    with read_image(tmp_path / "wide.tif") as file:
        for source in (as_source(wide, MPP), file):
            np.testing.assert_array_equal(source.read(0, 512, 0, 512), synthetic.image)


# scoring


def test_labels_brought_back_keep_their_ids_and_places(discs):
    fine = discs.labels.astype(np.uint32)
    assert bring_back(fine, fine.shape) is fine
    twice = np.repeat(np.repeat(fine, 2, 0), 2, 1)
    np.testing.assert_array_equal(bring_back(twice, fine.shape), fine)
    coarse = bring_back(fine, (130, 150))
    back = bring_back(coarse, fine.shape)
    assert set(np.unique(back)) == set(np.unique(fine))
    np.testing.assert_array_equal(back[::2, ::2], coarse)


@pytest.mark.parametrize("one", [d for d in DISTURBANCES if "mpp" in d.key], ids=lambda d: d.key)
def test_a_segmenter_that_sees_colours_is_right_at_every_resolution(discs, one):
    """It heeds no resolution, so the wrong one costs nothing either."""
    score = score_disturbed(discs, one, by_colour)
    assert score.true_nuclei == score.pred_nuclei == 25
    assert score.binary.binary.dq == score.detection.f1_d == 1
    assert score.binary.bpq > 0.85
    assert score.dice > 0.92
    assert score.mpp == MPP


def test_what_is_undisturbed_is_scored_as_it_is(discs):
    for one in (UNDISTURBED, BY_KEY["16-bit"]):
        score = score_disturbed(discs, one, by_colour)
        assert score.binary.bpq == score.dice == score.aji == 1


def test_the_pipeline_is_told_the_resolution_that_is_stated(discs):
    seen = []

    def segment(image, mpp):
        seen.append(mpp.value)
        return np.zeros(image.shape[:2], np.uint32), pd.DataFrame({"id": [], "class": []})

    for key in ("none", "mpp-0.60", "wrong-mpp", "blur-1"):
        score_disturbed(discs, BY_KEY[key], segment)
    assert seen == [0.25, 0.6, 0.25, 0.25]


def test_an_image_that_cannot_be_segmented_is_named_with_its_disturbance(discs):
    def segment(image, mpp):
        raise NucSegError("too bad.")

    with pytest.raises(NucSegError, match=r"^Image 'discs', JPEG of quality 30: too bad\.$"):
        score_disturbed(discs, BY_KEY["jpeg-30"], segment)


def test_figures_are_means_over_the_chosen_images(discs):
    scores = [score_disturbed(discs, BY_KEY[key], by_colour) for key in ("none", "mpp-0.60")]
    found = {f.name: f.value for f in means(scores)([0, 0, 1])}
    assert list(found) == ["Dice", "AJI", "bPQ", "F1_d"]
    assert found["bPQ"] == pytest.approx((2 + scores[1].binary.bpq) / 3)
    assert found["F1_d"] == 1


def test_cells_have_an_interval_where_one_is_known():
    nan = float("nan")
    assert report.cell(0.5) == "0.500"
    assert report.cell(-0.02, -0.03, 0.01, sign="+") == "-0.020 (-0.030 to +0.010)"
    assert report.cell(0.02, nan, nan, sign="+") == "+0.020"
    assert report.cell(nan) == report.UNDEFINED


# the command


@pytest.fixture
def command(dataset, monkeypatch, tmp_path):
    """Run the command with a model that is the real pipeline around a network without weights."""
    model = Loaded("fake", fake_card(), FakeRuntime(), {"name": "fake"})
    monkeypatch.setattr(loaded, "load", lambda what, device: model)

    def run(*args, data=(dataset / "toy",)):
        out = tmp_path / "results"
        sets = ["--data", *map(str, data)] if data else []
        return robustness.main([*sets, "--out", str(out), "--draws", "50", *args]), out

    return run


def cells(text):
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_the_command_prints_a_row_each_and_writes_both_files(command, capsys):
    code, out = command("--split", "test", "--limit", "2")
    assert code == 0
    text = capsys.readouterr().out
    head, _, plain, *rows = cells(text)
    assert head == [
        "disturbance", "toy Dice", "toy AJI", "toy bPQ", "toy F1_d", "toy bPQ - as it is (95 %)",
    ]  # fmt: skip
    assert plain[0] == "as it is"
    assert [row[0] for row in rows] == [d.words for d in DISTURBANCES]
    assert rows[-1] == ["16 bits a channel", *plain[1:5], "+0.000 (+0.000 to +0.000)"]
    assert "2 images, 17 disturbances" in text
    assert "Intervals from fewer than 10 images are rough" in text

    stem = "fake_robustness_toy_test_first_2_of_4"
    found = json.loads((out / f"{stem}.json").read_text())
    assert found["model"] == {"name": "fake"}
    assert found["command"].startswith("python -m train.robustness --data")
    assert found["sets"][0]["images"] == 2
    by_key = {d["key"]: d["figures"]["toy"] for d in found["disturbances"]}
    assert list(by_key) == list(BY_KEY)
    wrong, right = by_key["wrong-mpp"]["bPQ"], by_key["none"]["bPQ"]
    assert wrong["difference"] == pytest.approx(wrong["value"] - right["value"])
    assert wrong["low"] <= wrong["difference"] <= wrong["high"]
    assert f"{wrong['value']:.3f}" == rows[5][3]
    assert right["value"] > 0.3

    with (out / f"{stem}_images.csv").open() as file:
        images = list(csv.DictReader(file))
    assert len(images) == 2 * len(BY_KEY)
    assert {(r["data"], r["disturbance"]) for r in images} == {("toy", key) for key in BY_KEY}
    mean = np.mean([float(r["bPQ"]) for r in images if r["disturbance"] == "wrong-mpp"])
    assert wrong["value"] == pytest.approx(mean)


def test_several_data_sets_and_some_disturbances_go_into_one_table(command, dataset, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(dataset / "toy" / "train", other)
    (other / "index.csv").write_text("name,mpp\n" + "".join(f"im_{k},0.25\n" for k in range(4)))
    names = tmp_path / "twin" / "toy"
    shutil.copytree(dataset / "toy" / "test", names)
    more = ["--only", "jpeg-30", "mpp-0.50", "--limit", "1", "--mpp", "0.3"]
    code, out = command(*more, data=(other, names))
    assert code == 0
    head, _, *rows = cells(capsys.readouterr().out)
    assert head[1:8:6] == ["other Dice", "toy AJI"]
    assert [row[0] for row in rows] == ["as it is", "resampled to 0.50 um/px", "JPEG of quality 30"]
    (file,) = out.glob("fake_robustness_2_of_17_other_first_1_of_4_toy_first_1_of_4.json")
    assert [s["name"] for s in json.loads(file.read_text())["sets"]] == ["other", "toy"]
    with next(out.glob("*.csv")).open() as opened:
        assert {row["mpp"] for row in csv.DictReader(opened)} == {"0.3"}


def test_sets_of_the_same_name_are_told_apart_by_their_paths(dataset, tmp_path):
    twin = tmp_path / "toy"
    shutil.copytree(dataset / "toy", twin)
    config = robustness.RobustnessConfig((dataset / "toy", twin), "test")
    assert [s.name for s in robustness.select_all(config)] == [str(dataset / "toy"), str(twin)]


def test_mistakes_are_told_in_one_sentence_before_any_work(command, dataset, monkeypatch, capsys):
    def unwanted(*given):
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(loaded, "load", unwanted)
    toy = dataset / "toy"
    for args, data in [
        ((), (toy,)),
        ((), ()),
        (("--split", "test"), (toy, toy)),
        (("--split", "test", "--only", "jpg-30"), (toy,)),
        (("--split", "test", "--mpp", "25"), (toy,)),
        (("--split", "test"), (toy / "none",)),
        (("data=[]",), ()),
    ]:
        assert command(*args, data=data)[0] == 2
    said = capsys.readouterr().err.splitlines()
    wanted = [
        "choose one with --split: test, train", "'data' is missing", "is named twice", "did you mean 'jpeg-30'?",
        "no usable mpp", "is not a folder", "No data set is named",
    ]  # fmt: skip
    assert len(said) == len(wanted)
    for line, part in zip(said, wanted, strict=True):
        assert part in line


def test_an_unknown_disturbance_is_answered_with_those_there_are():
    assert [d.key for d in choose(["16-bit", "eosin-0.7"])] == ["none", "eosin-0.7", "16-bit"]
    with pytest.raises(NucSegError, match=r"'x' is not known; known are mpp-0\.20, .*16-bit\.$"):
        choose(["x"])


def test_help_lists_every_key_with_its_meaning(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "wrong-mpp" in text
    assert "held_out = not set" in text
