import pytest

from napari_nucseg.errors import NucSegError
from train.readers.record import Entry
from train.splits import SplitConfig, plan


def tcga(n_patients, per_patient=3):
    return [
        Entry(f"TCGA-{p:02d}-{1000 + p}-01Z-00-DX{k}", "")
        for p in range(n_patients)
        for k in range(per_patient)
    ]


def sides(found):
    return {split: sum(s == split for s in found.splits.values()) for split in ("train", "val", "test")}


def test_patients_are_never_divided_and_shares_are_kept():
    found = plan(tcga(20), SplitConfig(val_fraction=0.2, test_fraction=0.1))
    assert sides(found) == {"train": 42, "val": 12, "test": 6}
    patients = {name: name[:12] for name in found.splits}
    assert found.groups == patients
    for patient in set(patients.values()):
        assert len({found.splits[n] for n in patients if patients[n] == patient}) == 1


def test_the_choice_depends_on_the_seed_and_hardly_on_new_images():
    def held_out(entries, seed):
        return {
            n for n, s in plan(entries, SplitConfig(val_fraction=0.3, seed=seed)).splits.items() if s == "val"
        }

    base = held_out(tcga(20), 0)
    assert base == held_out(tcga(20)[::-1], 0)
    assert base != held_out(tcga(20), 1)
    assert len(base - held_out(tcga(21), 0)) <= 3  # a patient at most goes


def test_published_splits_and_folds_are_kept():
    entries = [Entry(f"f{k}_{i}", "", None, f"fold{k}") for k in (1, 2, 3) for i in range(4)]
    assert sides(plan(entries, SplitConfig())) == {"train": 4, "val": 4, "test": 4}
    other = plan(entries, SplitConfig(published={"fold1": "test", "fold3": "train"}))
    assert other.splits["f1_0"] == "test"
    assert other.splits["f3_0"] == "train"
    # a published test stays; validation comes out of the training images only
    entries = [Entry(f"a{i}", "", None, "train" if i < 8 else "test") for i in range(10)]
    assert sides(plan(entries, SplitConfig(val_fraction=0.25))) == {"train": 6, "val": 2, "test": 2}


def test_a_pattern_finds_patients_and_slides_stay_together():
    entries = [Entry(f"case{p}_tile{i}", "") for p in (1, 2) for i in range(4)]
    found = plan(entries, SplitConfig(pattern=r"(case\d+)_", val_fraction=0.5))
    assert set(found.groups.values()) == {"case1", "case2"}
    assert sides(found) == {"train": 4, "val": 4, "test": 0}
    grouped = [Entry(f"p{i}", "", group="slide" + str(i % 2)) for i in range(6)]
    assert len({plan(grouped, SplitConfig(val_fraction=0.5)).splits[f"p{i}"] for i in (0, 2, 4)}) == 1


def test_what_the_user_should_know_is_told():
    one = plan(tcga(1), SplitConfig())
    assert sides(one)["val"] == 0
    assert "all training images are of one patient" in one.remarks[0]
    said = "No patient is known for 3 images, each of which counts as its own."
    assert plan([Entry(c, "") for c in "abc"], SplitConfig()).remarks == (said,)
    said = "No patient is known for 1 image, which counts as its own."
    assert plan([Entry("a", ""), *tcga(1)], SplitConfig()).remarks == (said,)
    leaky = [Entry("TCGA-AA-0001-1", "", None, "train"), Entry("TCGA-AA-0001-2", "", None, "test")]
    assert (
        "1 patients, such as 'TCGA-AA-0001', are in several splits" in plan(leaky, SplitConfig()).remarks[-1]
    )
    odd = [Entry("a", "", None, "gold"), Entry("b", "", None, "gold")]
    assert "'gold' is none of train, val, test" in plan(odd, SplitConfig()).remarks[0]


def test_a_single_image_to_train_on_can_hold_none_out():
    said = "No val image could be held out of a single training image; at least two images are needed."
    assert plan([Entry("a", "")], SplitConfig()).remarks == (said,)
    others = [Entry("b", "", None, "test"), Entry("c", "", None, "test")]
    assert plan([Entry("a", "", None, "train"), *others], SplitConfig()).remarks[0] == said


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (SplitConfig(val_fraction=1.0), "val_fraction=1.0 is no share"),
        (SplitConfig(val_fraction=0.5, test_fraction=0.5), "leaves nothing to train on"),
        (SplitConfig(default="training"), "Split 'training' is not known"),
        (SplitConfig(pattern="("), "no regular expression"),
        (SplitConfig(pattern="patient"), "matches none of the names such as 'TCGA-00-1000-01Z-00-DX0'"),
    ],
)
def test_impossible_wishes_are_refused(config, said):
    with pytest.raises(NucSegError, match=said):
        plan(tcga(2), config)


def test_a_patient_with_published_test_images_is_not_held_out_for_validation():
    entries = tcga(4, 2)
    entries = [Entry(e.name, "", None, "test" if e.name.endswith("1") else "train") for e in entries[:6]] + [
        Entry(e.name, "", None, "train") for e in entries[6:]
    ]
    for seed in range(5):
        found = plan(entries, SplitConfig(val_fraction=0.5, seed=seed))
        assert sides(found) == {"train": 3, "val": 2, "test": 3}
        assert {n[:7] for n, s in found.splits.items() if s == "val"} == {"TCGA-03"}


def test_a_patient_with_most_of_the_images_is_not_what_is_held_out():
    entries = [Entry(f"TCGA-AA-0001-{k}", "") for k in range(80)] + tcga(5, 4)
    for seed in range(8):
        assert 8 <= sides(plan(entries, SplitConfig(val_fraction=0.1, seed=seed)))["val"] <= 12
    # where all have more than the share, the smallest
    entries = [Entry(f"TCGA-AA-0001-{k}", "") for k in range(80)] + tcga(1, 20)
    for seed in range(4):
        assert sides(plan(entries, SplitConfig(val_fraction=0.1, seed=seed)))["val"] == 20
