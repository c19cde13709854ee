import numpy as np

from benchmarks import same
from napari_nucseg.core.tiling import Box
from napari_nucseg.io.omezarr import LabelPyramid


def test_only_renumbered_labels_are_the_same(monkeypatch):
    monkeypatch.setattr(same, "BAND", 7)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(rng.integers(1, 40, (10, 12)), 5, 0), 5, 1).astype(np.uint32)
    names = np.concatenate([[0], rng.permutation(10_000)[:39] + 1]).astype(np.uint32)
    assert same.same_partition(labels, names[labels])
    merged, split, moved = names[labels], labels.copy(), labels.copy()
    merged[merged == merged[0, 0]] = merged[-1, -1]
    split[labels == labels[0, 0]] = np.arange((labels == labels[0, 0]).sum()) % 2 + 100  # an id of two
    moved[0, 0] = 0
    for other in (merged, split, moved, labels[:-1]):
        assert not same.same_partition(labels, other)
        assert not same.same_partition(other, labels)


def test_the_command_compares_pyramids(tmp_path, capsys):
    labels = np.kron(np.arange(9, dtype=np.uint32).reshape(3, 3), np.ones((50, 50), np.uint32))
    for name, content in (("a", labels), ("b", labels * 3), ("c", np.minimum(labels, 5))):
        with LabelPyramid(tmp_path / f"{name}.zarr", labels.shape, 0.25) as pyramid:
            pyramid.expect({0: Box(0, 150, 0, 150)})
            pyramid.paint(0, Box(0, 150, 0, 150), content)
    paths = [str(tmp_path / f"{name}.zarr") for name in "abc"]
    assert same.main(paths[:2]) == 0
    assert same.main(paths) == 1
    assert "c.zarr: OTHER nuclei" in capsys.readouterr().out
