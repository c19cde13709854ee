import numpy as np
import pytest

from napari_nucseg.errors import NucSegError
from train.readers import detect, open_source
from train.readers.pannuke import merge_channels

TISSUES = np.array(["Breast", "Colon", "Bile-duct"])


def write_fold(root, number, n=3, masks=None):
    """A fold as it is published: float64 arrays in Fold 1/images/fold1 and Fold 1/masks/fold1."""
    rng = np.random.default_rng(number)
    images = rng.integers(0, 256, (n, 256, 256, 3)).astype(np.float64)
    if masks is None:
        masks = np.zeros((n, 256, 256, 6))
        masks[:, 10:20, 10:20, 0] = 3
        masks[:, 40:44, 40:46, 4] = 3  # the same id in another channel
        masks[0, 18:24, 18:24, 1] = 7  # over the corner of the first
        masks[..., 5] = (masks[..., :5].max(-1) == 0).astype(float)
    for kind, arrays in (("images", {"images": images, "types": TISSUES[:n]}), ("masks", {"masks": masks})):
        folder = root / f"Fold {number}" / kind / f"fold{number}"
        folder.mkdir(parents=True)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
    return images, masks


def test_published_folds_are_read_lazily_with_their_tissues(tmp_path):
    images, _ = write_fold(tmp_path, 1)
    write_fold(tmp_path, 3, n=1)
    assert detect(tmp_path) == "pannuke"
    source = open_source(tmp_path)
    assert source.names == ["fold1_00000", "fold1_00001", "fold1_00002", "fold3_00000"]
    assert [e.organ for e in source.entries[:3]] == TISSUES.tolist()
    assert {e.split for e in source.entries} == {"fold1", "fold3"}
    raw = source.read(source.entries[0])
    assert raw.image.dtype == np.uint8
    assert (raw.image == images[0]).all()
    assert raw.mpp == 0.25
    assert np.unique(raw.labels).tolist() == [0, 1, 2, 3]
    # neoplastic first; the later channel has the pixels that both claim
    assert (raw.labels == 1).sum() == 100 - 4
    assert (raw.types[raw.labels == 2] == 2).all()
    assert (raw.labels == 2).sum() == 36
    assert raw.types[42, 42] == 5
    assert (raw.types[raw.labels == 0] == 0).all()
    assert raw.notes == {"pixels in two class channels, given to the later": 4}


def test_flat_folders_and_a_single_fold_are_read_too(tmp_path):
    folder = tmp_path / "fold2"
    folder.mkdir()
    np.save(folder / "images.npy", np.zeros((2, 256, 256, 3), np.uint8))
    np.save(folder / "masks.npy", np.zeros((2, 256, 256, 6), np.int32))
    for path in (tmp_path, folder):
        source = open_source(path)
        assert source.names == ["fold2_00000", "fold2_00001"]
        assert "fold2/types.npy' is missing, so that nobody knows the tissues" in source.remarks[0]
        assert source.read(source.entries[1]).labels.max() == 0


@pytest.mark.parametrize(
    "form",
    [
        "{kind}/fold{k}",
        "Fold {k}/{kind}",
        "fold_{k}/Fold {k}/{kind}/fold{k}",
        "fold_{k}/{Kind}",
        "fold_{k}_{kind}/{kind}",
    ],
)
def test_folders_may_be_nested_in_any_way(tmp_path, form):
    for k in (1, 2):
        for kind in ("images", "masks"):
            folder = tmp_path / form.format(k=k, kind=kind, Kind=kind.title())
            folder.mkdir(parents=True)
            channels = 3 if kind == "images" else 6
            np.save(folder / f"{kind}.npy", np.full((1, 8, 8, channels), 2 * k, np.uint8))
    source = open_source(tmp_path)
    assert source.names == ["fold1_00000", "fold2_00000"]
    for k, entry in enumerate(source.entries, 1):
        raw = source.read(entry)
        assert raw.image[0, 0, 0] == 2 * k
        assert f"fold{k}" in entry.where.lower().replace(" ", "").replace("_", "")


def test_a_damaged_or_mismatched_fold_is_named_and_the_others_are_read(tmp_path):
    write_fold(tmp_path, 1)
    write_fold(tmp_path, 2)
    write_fold(tmp_path, 3)
    cut = tmp_path / "Fold 2/masks/fold2/masks.npy"
    cut.write_bytes(cut.read_bytes()[:5000])
    np.save(tmp_path / "Fold 3/masks/fold3/masks.npy", np.zeros((2, 256, 256, 6)))
    source = open_source(tmp_path)
    assert source.names == [f"fold1_{i:05d}" for i in range(3)]
    assert len(source.problems) == 2
    assert str(cut) in source.problems[0]
    assert "fold3/masks.npy" in source.problems[1]


def test_one_bad_image_is_named_with_its_place(tmp_path):
    images, masks = write_fold(tmp_path, 1)
    images[1] /= 255
    masks[2, 0, 0, 0] = -1
    np.save(tmp_path / "Fold 1/images/fold1/images.npy", images)
    np.save(tmp_path / "Fold 1/masks/fold1/masks.npy", masks)
    source = open_source(tmp_path)
    source.read(source.entries[0])
    with pytest.raises(NucSegError, match=r"images\.npy\[1\]' is scaled to 0\.\.1"):
        source.read(source.entries[1])
    with pytest.raises(NucSegError, match=r"masks\.npy\[2\] channel 0' has values from -1"):
        source.read(source.entries[2])


def test_ids_of_channels_never_melt_and_hidden_ones_are_counted():
    masks = np.zeros((20, 20, 6))
    masks[2:6, 2:6, 0] = 1
    masks[2:6, 2:6, 3] = 1  # wholly over the first
    masks[10:12, 10:12, 3] = 9
    labels, types, notes = merge_channels(masks, "x")
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert set(types[labels > 0].tolist()) == {4}
    assert notes["nuclei wholly beneath those of later channels, left out"] == 1
