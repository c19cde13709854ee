import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, synthetic):
    """A data set in the folder layout: four 128 px cuts of the synthetic tile, with classes."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "toy"
    names = list(synthetic.class_names)
    meta = {
        "mpp": 0.25, "classes": ["background", *names],
        "merge_two": {"neoplastic": ["neoplastic", "epithelial"], "inflammatory": ["inflammatory"]},
    }  # fmt: skip
    types = np.zeros(synthetic.labels.shape, np.uint8)
    for ident, name in synthetic.types.items():
        types[synthetic.labels == ident] = names.index(name) + 1
    for split in ("train", "test"):
        for kind in ("images", "instances", "types"):
            (folder / split / kind).mkdir(parents=True)
        for k in range(4):
            window = np.s_[128 * k : 128 * k + 128, (0 if split == "train" else 256) :][:2]
            part = (window[0], slice(window[1].start, window[1].start + 128))
            Image.fromarray(synthetic.image[part]).save(folder / split / "images" / f"im_{k}.png")
            labels = synthetic.labels[part].astype(np.uint16)
            Image.fromarray(labels).save(folder / split / "instances" / f"im_{k}.png")
            Image.fromarray(types[part]).save(folder / split / "types" / f"im_{k}.png")
    (folder / "dataset.json").write_text(json.dumps(meta))
    return root


TOY = [
    "crop.size=32", "model.widths=[4,4,4,4]", "model.blocks=[1,1,1,1]", "loop.batch_size=2", "loop.steps=3",
    "loop.workers=0", "device=cpu",
]  # fmt: skip
TOY_CARD = """
version = "0.1"
title = "A toy"
licence = "none"
caution = "knows nothing"
training_data = ["toy"]
cite = []
[colours]
neoplastic = [1, 2, 3]
inflammatory = [1, 2, 3]
connective = [1, 2, 3]
epithelial = [1, 2, 3]
other = [1, 2, 3]
"""


@pytest.fixture(scope="session")
def toy_run(dataset, tmp_path_factory):
    """The folder of a run of three steps that held im_3 out; ``card.toml`` lies beside it."""
    from train import fit
    from train.runlog import RunLog

    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.toml").write_text(f'[data]\nroot = "{dataset}"\n[data.sets.toy]\nheld_out = ["im_3"]\n')
    (folder / "card.toml").write_text(TOY_CARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "curves", lambda self: None)  # drawing takes longer than all the rest
        assert fit.main(["--config", str(folder / "toy.toml"), f"run={folder / 'run'}", *TOY]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def toy_model(toy_run, tmp_path_factory):
    """The model of that run."""
    from napari_nucseg.models.registry import open_model
    from train import export

    out = tmp_path_factory.mktemp("model") / "toy"
    card = toy_run.parent / "card.toml"
    assert export.main(["--run", str(toy_run), "--card", str(card), "--out", str(out)]) == 0
    return open_model(out)
