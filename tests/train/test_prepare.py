import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data import SetConfig, load_split
from train.prepare import main

SHIPPED = Path(__file__).parents[2] / "train/configs/classes.toml"


@pytest.fixture
def toy(dataset, tmp_path):
    """The toy set with its first training image's labels lost, and the second's cut short."""
    shutil.copytree(dataset / "toy", tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture
def spoilt(toy):
    (toy / "train/instances/im_0.png").unlink()
    path = toy / "train/images/im_1.png"
    path.write_bytes(path.read_bytes()[:1000])
    return toy


def rows_of(folder):
    with (folder / "index.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_what_is_prepared_can_be_trained_on_and_is_what_it_was(toy, tmp_path, capsys):
    out = tmp_path / "sets" / "mine"
    assert main(["--in", str(toy), "--out", str(out), "--val-fraction", "0.25"]) == 0
    assert (out / "splits.csv").read_text().splitlines()[:2] == ["name,split,patient", "im_0,test,im_0"]
    assert "8 images" in capsys.readouterr().out
    assert {(r["split"], r["name"]) for r in rows_of(out) if r["split"] == "test"} == {
        ("test", f"im_{i}") for i in range(4)
    }
    assert sum(r["split"] == "val" for r in rows_of(out)) == 1
    assert not any(r["published"] for r in rows_of(out))  # the folders tell
    classes = ("neoplastic", "inflammatory", "connective", "epithelial", "other")
    before = load_split(toy.parent, {"toy": SetConfig()}, classes, held_out=False)
    after = load_split(out.parent, {"mine": SetConfig()}, classes, held_out=False)
    validation = load_split(out.parent, {"mine": SetConfig()}, classes, held_out=True)
    originals = {im.image.tobytes(): im for im in before}
    assert len(after) == 3
    left = originals.keys() - {im.image.tobytes() for im in after}
    assert [im.image.tobytes() for im in validation] == list(left)
    for image in after:
        twin = originals[image.image.tobytes()]
        assert image.mpp == 0.25
        assert (image.types == np.where(twin.labels > 0, twin.types, 0)).all()
        pairs = np.unique(np.stack([image.labels.ravel(), twin.labels.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(image.labels)) == len(np.unique(twin.labels))
    assert json.loads((out / "dataset.json").read_text())["merge_two"]


def test_prepared_data_are_prepared_to_the_same(toy, tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert main(["--in", str(toy), "--out", str(once), "--sheet", "0"]) == 0
    assert main(["--in", str(once), "--out", str(twice), "--sheet", "0"]) == 0
    files = sorted(p.relative_to(once) for p in once.rglob("*.png"))
    assert files == sorted(p.relative_to(twice) for p in twice.rglob("*.png"))
    assert len(files) == 24
    assert all((once / f).read_bytes() == (twice / f).read_bytes() for f in files)


def test_bad_files_are_named_and_the_rest_goes_on(spoilt, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["--in", str(spoilt), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "6 images" in said.out
    assert "2 left out" in said.out
    report = json.loads((out / "report.json").read_text())
    assert len(report["failures"]) == 2
    for name, line in zip(("im_0.png", "im_1.png"), report["failures"], strict=True):
        assert name in line
        assert line in said.err
        assert f"- {line}" in (out / "report.md").read_text()
    assert len(rows_of(out)) == 6


def test_the_report_counts_what_is_there(toy, tmp_path):
    out = tmp_path / "out"
    assert main(["--in", str(toy), "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    test = report["splits"]["test"]
    pixels = [
        (np.asarray(Image.open(p)), np.asarray(Image.open(toy / "test/types" / p.name)))
        for p in sorted((toy / "test/instances").iterdir())
    ]
    assert test["nuclei"] == sum(len(np.unique(labels)) - 1 for labels, _ in pixels)
    tumour = sum(len(np.unique(labels[types == 1])) for labels, types in pixels)
    assert test["classes"]["neoplastic"] == tumour > 0
    assert f"| test | 4 | 4 | {test['nuclei']} | {tumour} |" in (out / "report.md").read_text()
    with Image.open(out / "sheet.png") as sheet:
        assert min(sheet.size) > 600


def test_classes_that_validation_lacks_are_told(toy, tmp_path, capsys):
    for k in (1, 2, 3):
        path = toy / "train" / "types" / f"im_{k}.png"
        types = np.asarray(Image.open(path))
        Image.fromarray(np.where(types == 1, 255, types).astype(np.uint8)).save(path)
    for seed in range(8):
        out = tmp_path / f"out{seed}"
        arguments = ["--in", str(toy), "--out", str(out), "--sheet", "0", "--val-fraction", "0.25"]
        assert main([*arguments, "--seed", str(seed)]) == 0
        told = "No validation image has a nucleus of the class 'neoplastic'" in capsys.readouterr().err
        assert told == any(r["split"] == "train" and r["name"] == "im_0-2" for r in rows_of(out))
        assert told == ("class 'neoplastic'" in (out / "report.md").read_text())


def test_a_class_map_merges_classes(toy, tmp_path, capsys):
    path = tmp_path / "map.toml"
    path.write_text('ignore = ["other"]\n[classes]\nround = ["inflammatory"]\nlong = ["connective"]\n')
    arguments = ["--in", str(toy), "--out", str(tmp_path / "out"), "--classes", str(path), "--sheet", "0"]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "The class map lacks 'neoplastic', 'epithelial': add" in said
    assert not (tmp_path / "out").exists()
    path.write_text(path.read_text() + 'rest = ["neoplastic", "epithelial"]\n')
    assert main(arguments) == 0
    meta = json.loads((tmp_path / "out/dataset.json").read_text())
    assert meta["classes"] == ["background", "round", "long", "rest"]
    assert "merge_two" not in meta
    table = np.array([0, 3, 1, 2, 3, 255])
    for image in sorted((tmp_path / "out/test/types").iterdir()):
        labels = np.asarray(Image.open(toy / "test/instances" / image.name))
        types = np.where(labels > 0, np.asarray(Image.open(toy / "test/types" / image.name)), 0)
        assert (np.asarray(Image.open(image)) == table[types]).all()


def test_classes_that_only_the_images_tell_stop_all_before_anything_is_written(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, kind in (("a", "Tumor"), ("b", "Lymphocyte"), ("c", "Tumor"), ("d", None)):
        Image.fromarray(rng.integers(0, 255, (80, 80, 3), np.uint8)).save(tmp_path / f"{name}.png")
        ring = [[10, 10], [40, 10], [40, 40], [10, 40], [10, 10]]
        feature = {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "detection", "classification": {"name": kind}},
        }
        text = json.dumps({"type": "FeatureCollection", "features": [feature]})
        (tmp_path / f"{name}.geojson").write_text(text if kind else "{broken")
    (tmp_path / "map.toml").write_text('[classes]\ntumour = ["Tumour"]\nstroma = []\n')
    arguments = ["--in", str(tmp_path), "--out", str(tmp_path / "out"), "--mpp", "0.25"]
    assert main([*arguments, "--classes", str(tmp_path / "map.toml")]) == 2
    said = capsys.readouterr().err
    assert f"'Lymphocyte' (in '{tmp_path}/b.geojson')" in said
    assert f"'Tumor' (in '{tmp_path}/a.geojson'; did you write it 'tumour'?)" in said
    assert said.count("Tumor'") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["", "images", "train/images"])
def test_images_that_nobody_annotated(toy, tmp_path, capsys, place):
    plain = tmp_path / "plain"
    shutil.copytree(toy / "train" / "images", plain / place)
    out = tmp_path / "sets" / "bare"
    arguments = ["--in", str(plain), "--out", str(out)]
    assert main(arguments) == 2
    assert "say --unlabelled" in capsys.readouterr().err
    assert main([*arguments, "--unlabelled"]) == 2
    assert "Resolution of" in capsys.readouterr().err
    assert not out.exists()
    assert main([*arguments, "--unlabelled", "--mpp", "0.25"]) == 0
    said = capsys.readouterr()
    assert (said.err, said.out.splitlines()[0]) == ("", "4 images without nuclei; none left out.")
    assert sorted(p.name for p in (out / "train").iterdir()) == ["images"]
    assert (out / "sheet.png").exists()
    sets = {"bare": SetConfig(labelled=False)}
    images = load_split(out.parent, sets, ("a",), held_out=False)
    assert [(im.name, im.mpp, im.labelled) for im in images] == [(f"im_{k}", 0.25, False) for k in range(4)]


def test_labels_that_are_not_to_be_used_and_splits_of_unlabelled_images(toy, tmp_path):
    out = tmp_path / "out"
    assert main(["--in", str(toy), "--out", str(out), "--unlabelled"]) == 0
    assert sorted(p.relative_to(out).as_posix() for p in out.glob("*/*")) == ["test/images", "train/images"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "OUT"], "--in is missing"),
        (["--in", "TOY"], "--out is missing"),
        (["--in", "TOY", "--out", "TOY"], "is not an empty folder"),
        (["--in", "TOY", "--out", "OUT", "--mpp", "25"], "no usable mpp"),
        (["--in", "TOY", "--out", "OUT", "splt.seed=1"], "did you mean 'split'"),
        (["--in", "TOY", "--out", "OUT", "--limit", "-1"], "limit=-1"),
        (["--in", "TOY/nowhere", "--out", "OUT"], "does not exist"),
        (["--in", "TOY", "--outt", "OUT"], "'--outt' is no option; did you mean --out?"),
        (["--in", "TOY", "--out", "OUT", "--class_map", "a.toml"], "did you mean --classes?"),
        (["--in", "TOY", "--out", "OUT", "--val_fraction=0.2"], "did you mean --val-fraction?"),
        (["--in", "TOY", "--out", "OUT", "--format", "conic"], "no data set of the format conic"),
    ],
)
def test_bad_usage_is_told_and_leaves_nothing(toy, tmp_path, capsys, arguments, said):
    places = {"TOY": str(toy), "OUT": str(tmp_path / "out")}
    filled = [places.get(a, a.replace("TOY", str(toy))) for a in arguments]
    assert main(filled) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_resolution_is_asked_for(toy, tmp_path, capsys):
    meta = json.loads((toy / "dataset.json").read_text())
    (toy / "dataset.json").write_text(json.dumps({**meta, "mpp": None}))
    arguments = ["--in", str(toy), "--out", str(tmp_path / "out"), "--sheet", "0", "--limit", "2"]
    assert main(arguments) == 2
    assert "state it with --mpp" in capsys.readouterr().err
    assert main([*arguments, "--mpp", "0.25"]) == 0
    assert {r["mpp"] for r in rows_of(tmp_path / "out")} == {"0.25"}


def test_a_config_file_and_options_agree(toy, tmp_path):
    (tmp_path / "p.toml").write_text(
        f"source = '{toy}'\nsheet = 0\nlimit = 4\n[split]\nseed = 5\npublished = {{test = 'train'}}\n"
    )
    out = tmp_path / "out"
    assert main(["--config", str(tmp_path / "p.toml"), "--out", str(out), "split.val_fraction=0.5"]) == 0
    assert sorted(r["split"] for r in rows_of(out)) == ["train", "train", "val", "val"]
    assert not (out / "sheet.png").exists()


def test_a_file_that_serves_several_commands_is_read_by_its_table(toy, tmp_path):
    (tmp_path / "all.toml").write_text(
        f"device = 'cpu'\n[prepare]\nsource = '{toy}'\nsheet = 0\nlimit = 2\n[teach.loop]\nsteps = 3\n"
    )
    assert main(["--config", str(tmp_path / "all.toml"), "--out", str(tmp_path / "out")]) == 0
    assert len(rows_of(tmp_path / "out")) == 2


def test_folds_are_splits_and_stay_known(tmp_path):
    for fold in (1, 2, 3):
        folder = tmp_path / "pannuke" / f"fold{fold}"
        folder.mkdir(parents=True)
        masks = np.zeros((2, 256, 256, 6))
        masks[:, 30:60, 30:60, 3] = 1
        masks[1, 100:130, 100:130, 0] = fold
        np.save(
            folder / "images.npy",
            np.random.default_rng(fold).integers(0, 255, (2, 256, 256, 3)).astype(float),
        )
        np.save(folder / "masks.npy", masks)
        np.save(folder / "types.npy", np.array(["Colon", "Bile-duct"]))
    arguments = ["--in", str(tmp_path / "pannuke"), "--classes", str(SHIPPED), "--sheet", "0"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    found = {(r["split"], r["published"], r["organ"], r["nuclei"]) for r in rows_of(tmp_path / "a")}
    folds = {"train": "fold1", "val": "fold2", "test": "fold3"}
    assert found == {(s, f, o, n) for s, f in folds.items() for o, n in (("Colon", "1"), ("Bile-duct", "2"))}
    types = np.asarray(Image.open(tmp_path / "a/val/types/fold2_00001.png"))
    assert (types[40, 40], types[110, 110]) == (5, 1)  # dead nuclei count as other
    swapped = ["split.published.fold1=test", "split.published.fold3=train"]
    assert main([*arguments, "--out", str(tmp_path / "b"), *swapped]) == 0
    assert {(r["split"], r["published"]) for r in rows_of(tmp_path / "b")} == {
        ("train", "fold3"), ("val", "fold2"), ("test", "fold1"),
    }  # fmt: skip
    again = [
        "--in",
        str(tmp_path / "b"),
        "--sheet",
        "0",
    ]  # the folders tell the split, and the fold stays known
    for name, options in (("c", []), ("d", ["split.published.fold1=train", "split.published.fold3=test"])):
        assert main([*again, "--out", str(tmp_path / name), *options]) == 0
    before, same, back = (
        {(r["split"], r["name"], r["published"]) for r in rows_of(tmp_path / name)} for name in "bcd"
    )
    assert same == before
    assert {(split, fold) for split, _, fold in back} == set(folds.items())
