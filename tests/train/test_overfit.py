"""A tiny student and tiny teachers learn one batch by heart: network, targets, losses and decoder fit together."""

import numpy as np
import pytest
import torch

from napari_nucseg.core.decode import DecodeConfig, compress, decode
from napari_nucseg.core.maps import MapLayout
from napari_nucseg.core.metrics import panoptic_quality
from napari_nucseg.models.student import Student, StudentConfig, activate
from train.crops import to_batch_item
from train.task import LossWeights, MapTask, TeacherTask
from train.teacher import Teacher, TeacherConfig
from train.teacher.conv import ConvConfig
from train.teacher.decoder import DecoderConfig
from train.teacher.vit import VitConfig

LAYOUT, ALL_ANGLES = MapLayout((0, 90), 5), MapLayout((0, 45, 90, 135), 5)
DECODER = DecoderConfig((12, 16, 24, 32, 32), (1, 1, 1, 1), 12)
VIT = VitConfig(width=32, depth=4, heads=2, mlp=2, image_size=96)
WINDOWED = VitConfig(
    width=32, depth=4, heads=2, mlp=2, image_size=96, class_token=False, window=3, global_blocks=(1, 3), relative=True
)  # fmt: skip
NETWORKS = {
    "student": lambda: Student(StudentConfig((16, 24, 32, 32), (1, 1, 1, 1), (1, 1, 1), LAYOUT)),
    "vit": lambda: Teacher(TeacherConfig("vit_small", ALL_ANGLES, DECODER, vit=VIT, deep_supervision=True)),
    "windowed": lambda: Teacher(TeacherConfig("sam_vit_b", LAYOUT, DECODER, vit=WINDOWED)),
    "conv": lambda: Teacher(
        TeacherConfig("conv", LAYOUT, DECODER, conv=ConvConfig((16, 24, 32, 32), (1, 1, 1, 1)))
    ),
}
STEPS, SIZE = 400, 96


@pytest.fixture(scope="module")
def pairs(synthetic):
    """Two crops of the synthetic tile, labels and classes per pixel."""
    classes = np.concatenate([[0], synthetic.type_indices + 1]).astype(np.uint8)
    windows = [np.s_[64 : 64 + SIZE, 80 : 80 + SIZE], np.s_[300 : 300 + SIZE, 330 : 330 + SIZE]]
    return [(synthetic.image[w], synthetic.labels[w], classes[synthetic.labels[w]]) for w in windows]


@pytest.fixture(autouse=True)
def one_thread():
    """Maps so small gain nothing by threads, and on a busy machine threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def quality(task, batch, pairs):
    """Return the mean bPQ over the crops, and the share of nuclei found of which the class is right."""
    task.eval()
    with torch.no_grad():
        maps = activate(task.predict(batch["image"]), task.layout).numpy()
    task.train()
    scores, right = [], []
    for part, (_, labels, types) in zip(maps, pairs, strict=True):
        found = decode(compress(part, task.layout), DecodeConfig())
        scores.append(panoptic_quality(labels, found.owner).pq)
        for k, probabilities in enumerate(found.probabilities, 1):
            right.append(types[found.owner == k].max(initial=0) == probabilities.argmax() + 1)
    return float(np.mean(scores)), float(np.mean(right or [0]))


@pytest.mark.parametrize("kind", NETWORKS)
def test_one_batch_is_learnt_by_heart(kind, pairs):
    torch.manual_seed(0)
    network = NETWORKS[kind]()
    layout = network.config.layout
    items = [to_batch_item(image, labels, types, layout) for image, labels, types in pairs]
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    kind_of_task = TeacherTask if kind == "vit" else MapTask
    task = kind_of_task(
        network, layout, (190.0, 140.0, 180.0), (50.0, 50.0, 40.0), LossWeights(type=5.0), torch.ones(6)
    )
    assert quality(task, batch, pairs)[0] < 0.3
    optimiser = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for step in range(1, STEPS + 1):
        optimiser.zero_grad()
        task(batch)["total"].backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 2.0)
        optimiser.step()
        if step % 20 == 0:
            bpq, right = quality(task, batch, pairs)
            if bpq > 0.9 and right > 0.8:
                return
    pytest.fail(f"bPQ {bpq:.3f}, classes {right:.2f} after {STEPS} steps")
