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
