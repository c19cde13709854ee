"""The training set: an endless, seekable sequence of augmented crops with their targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.core.targets import make_targets
from train.aims import Aims, CropConfig
from train.augment import AugmentConfig, augment_colour, random_affine, warp
from train.data import AnnotatedImage, SetConfig
from train.interrupt import deaf
from train.orient import Orientation

__all__ = ["Batch", "CropConfig", "Crops", "Sample", "close", "loader", "to_batch_item"]

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Sample:
    """One crop.

    Attributes
    ----------
    image : uint8 (size, size, 3)
    labels : integers (size, size)
    types : uint8 (size, size), or None where the image has no classes
    labelled : bool, optional
        False where the labels are not known (and all 0); None if they are known of every image there is.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.integer]
    types: NDArray[np.uint8] | None
    labelled: bool | None

    def item(self, layout: MapLayout) -> Batch:
        """Return the image, its targets, and `labelled` where there is doubt, as tensors."""
        targets = to_batch_item(self.image, self.labels, self.types, layout)
        return targets if self.labelled is None else {**targets, "labelled": torch.tensor(self.labelled)}

    def turned(self, orientation: Orientation) -> Sample:
        """Return the crop in another orientation."""
        turn = orientation.turn_array
        types = None if self.types is None else turn(self.types)
        return Sample(turn(self.image), turn(self.labels), types, self.labelled)


class Crops(Dataset[Batch]):
    """Crop `index` of the training, a pure function of the seed and the index."""

    def __init__(
        self,
        images: list[AnnotatedImage],
        sets: dict[str, SetConfig],
        layout: MapLayout,
        crop: CropConfig,
        augment: AugmentConfig,
        seed: int,
    ) -> None:
        self.images, self.layout, self.crop, self.augment, self.seed = images, layout, crop, augment, seed
        self.mixed = not all(image.labelled for image in images)
        self.aims = Aims(images, {key: value.weight for key, value in sets.items()}, crop)

    def sample(self, index: int) -> Sample:
        """Return the augmented pixels and labels of a crop, before targets are made of them."""
        rng = np.random.default_rng([self.seed, index])
        number, aim = self.aims.draw(rng)
        source, size = self.images[number], self.crop.size
        pixels = source.pixels
        zoom = self.crop.mpp / source.mpp
        matrix = random_affine(rng, aim, zoom, size, self.augment.scale)
        image = augment_colour(warp(pixels.image, matrix, size, nearest=False), rng, self.augment)
        labels = warp(pixels.labels, matrix, size, nearest=True).astype(np.int32)
        types = None if pixels.types is None else warp(pixels.types, matrix, size, nearest=True)
        return Sample(image, labels, types, source.labelled if self.mixed else None)

    def __getitem__(self, index: int) -> Batch:
        return self.sample(index).item(self.layout)


def to_batch_item(
    image: np.ndarray, labels: np.ndarray, types: np.ndarray | None, layout: MapLayout
) -> Batch:
    """Return image (3, H, W) uint8 and its targets as tensors."""
    targets = make_targets(labels, types, layout)
    return {
        "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        "foreground": torch.from_numpy(targets.foreground),
        "distance": torch.from_numpy(targets.distance),
        "centre": torch.from_numpy(targets.centre),
        "boundary": torch.from_numpy(targets.boundary),
        "type": torch.from_numpy(targets.type),
    }


class _Share(Sampler[list[int]]):
    """Batches of consecutive indices from start up to stop, dealt in turn to the processes; this one's are given."""

    def __init__(self, start: int, stop: int, batch_size: int, rank: int, world: int) -> None:
        whole = (stop - start) // batch_size * batch_size
        self.starts = range(start + rank * batch_size, start + whole, batch_size * world)
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(first, first + self.batch_size)) for first in self.starts)

    def __len__(self) -> int:
        return len(self.starts)


def close(batches: Iterator[Batch]) -> None:
    """End the processes behind an iterator over a `loader` now, also while an error keeps hold of it."""
    shut_down = getattr(
        batches, "_shutdown_workers", None
    )  # torch has no public way; without processes there is none
    if shut_down is not None:
        shut_down()


def loader(
    crops: Dataset[Batch],
    start: int,
    stop: int,
    batch_size: int,
    workers: int,
    share: tuple[int, int] = (0, 1),
    pinned: bool = False,
) -> DataLoader[Batch]:
    """Return batches of crops start..stop - 1 in order, whatever the number of workers.

    Parameters
    ----------
    share : (rank, world)
        Of the batches of the sequence, process `rank` of `world` gets every `world`-th, beginning with its own: N
        processes with batch b see together what one with N * b sees.
    pinned : bool
        Put batches where CUDA can fetch them while it computes.
    """
    return DataLoader(
        crops,
        batch_sampler=_Share(start, stop, batch_size, *share),
        num_workers=workers,
        pin_memory=pinned,
        prefetch_factor=4 if workers else None,
        worker_init_fn=deaf,
    )
