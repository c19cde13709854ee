"""Embeddings of nuclei: decoder features of a network, averaged over each nucleus."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from tqdm import tqdm

from napari_nucseg.core.decode import compress, decode
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.card import Card
from napari_nucseg.models.registry import find_model
from napari_nucseg.models.student import activate
from train import loaded
from train.distill import open_teacher
from train.figures_config import FiguresConfig
from train.figures_data import Seen, choose, own_scheme
from train.figures_errors import matches
from train.task import MapTask


@dataclass(frozen=True)
class Embedded:
    """Nuclei of some images as one network sees them.

    Attributes
    ----------
    features : float32 (n, d)
        Mean decoder features of each nucleus.
    classes : int64 (n,)
        True classes from 1.
    names : tuple of str
        Of the classes.
    model : str
    stride : int
        Pixels of the model per pixel of the features.
    """

    features: NDArray[np.float32]
    classes: NDArray[np.int64]
    names: tuple[str, ...]
    model: str
    stride: int


@dataclass(frozen=True)
class Network:
    """A trained network with its card, in torch, so that its features can be had."""

    task: MapTask
    card: Card
    name: str
    device: str

    @classmethod
    def open(cls, what: str, device: str) -> Network:
        """Open a model, a run or a checkpoint.

        Raises
        ------
        NucSegError
            There is none, or it is no network of torch.
        """
        if Path(what).suffix == ".xml":
            raise NucSegError(
                f"'{what}' of OpenVINO gives no features; name the model or the run it was made of."
            )
        path = Path(what)
        if path.suffix != ".pt" and not (path / "config.json").is_file():
            path = find_model(what).weights
        card = loaded.load(what, "cpu-torch").card
        where = loaded.inference_device(device)
        return cls(open_teacher(path).task.eval().to(where), card, card.name, where)

    def level(self, stride: int) -> int:
        """Return the position of the features of a stride; of the finest for 0.

        Raises
        ------
        NucSegError
            There are none of that stride.
        """
        strides: tuple[int, ...] = self.task.network.feature_strides
        if stride and stride not in strides:
            known = ", ".join(map(str, strides))
            raise NucSegError(
                f"stride={stride} is not one of the strides {known} of '{self.name}'; choose among these."
            )
        return strides.index(stride) if stride else len(strides) - 1

    def __call__(
        self, image: NDArray[np.uint8], level: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return features (C, h, w) and activated maps (channels, H, W) of an (H, W, 3) image of any size."""
        height, width = image.shape[:2]
        padded = np.pad(image, ((0, -height % 16), (0, -width % 16), (0, 0)), mode="symmetric")
        batch = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[None].to(self.device)
        with torch.inference_mode():
            raw, features = self.task.predict_with_features(batch)
            maps = activate(raw, self.task.layout)[0, :, :height, :width]
        return features[level][0].float().cpu().numpy(), maps.cpu().numpy()


def pool(
    features: NDArray[np.float32], labels: NDArray[np.integer], stride: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Average features over each nucleus, every cell weighing as many pixels as the nucleus has in it.

    Parameters
    ----------
    features : (C, h, w) float32
    labels : (H, W) integers, 0 = background
        H <= h * stride, W <= w * stride.
    stride : int
        Pixels per cell.

    Returns
    -------
    ids : (n,) int64
        Of the nuclei, ascending.
    means : (n, C) float32
    """
    rows, cols = np.nonzero(labels)
    ids, nucleus = np.unique(labels[rows, cols], return_inverse=True)
    cells = rows // stride * features.shape[2] + cols // stride
    flat = features.reshape(len(features), -1)
    shares = coo_array((np.ones(len(cells), np.float32), (nucleus, cells)), (len(ids), flat.shape[1])).tocsr()
    area = np.bincount(nucleus, minlength=len(ids)).astype(np.float32)
    return ids.astype(np.int64), np.asarray(shares @ flat.T / np.maximum(area, 1)[:, None], np.float32)


def embed(config: FiguresConfig, what: str) -> Embedded:
    """Embed the nuclei of the chosen images that have a class.

    Raises
    ------
    NucSegError
        The images have no classes that the model knows, or there are too few nuclei.
    """
    network = Network.open(what, config.device)
    chosen, items = choose(config)
    scheme = own_scheme(chosen, network.card.classes, config.merge)
    if scheme is None:
        raise NucSegError(
            f"The images of {chosen.what} have no classes of '{network.name}' to colour nuclei by."
        )
    level = network.level(config.stride)
    features: list[NDArray[np.float32]] = []
    classes: list[int] = []
    for item in tqdm(items, network.name, unit="image", file=sys.stderr, disable=None):
        seen = Seen.of(chosen.load(item, scheme), network.card)
        ids, means, kinds = _of_image(network, seen, level, config.instances == "predicted")
        known = [k for k, i in enumerate(ids.tolist()) if kinds.get(i, 0) > 0]
        features.append(means[known])
        classes += [kinds[i] for i in ids[known].tolist()]
    if len(classes) < 3:
        raise NucSegError(f"Only {len(classes)} nuclei of {chosen.what} have a class; give more images.")
    rng = np.random.default_rng(config.seed)
    kept = np.sort(rng.permutation(len(classes))[: config.most])
    stride = network.task.network.feature_strides[level]
    return Embedded(
        np.concatenate(features)[kept], np.array(classes)[kept], network.card.classes, network.name, stride
    )


def _of_image(
    network: Network, seen: Seen, level: int, predicted: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[int, int]]:
    """Return ids and pooled features of the nuclei of one image, and the classes of those that have one."""
    values, maps = network(seen.image.read(seen.whole), level)
    labels, kinds = seen.labels(seen.whole), seen.classes()
    if predicted:
        found = decode(compress(maps, network.task.layout), network.card.decode).owner
        kinds = {pred: kinds[true] for pred, true in matches(labels, found).items()}
        labels = found
    return *pool(values, labels, network.task.network.feature_strides[level]), kinds
