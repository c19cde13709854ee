"""A limited number of crops that come again and again, so that what a slow teacher says of them can be kept."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from train.crops import Batch, Crops
from train.orient import ALL, Orientation


class PooledCrops(Dataset[Batch]):
    """The first `size` crops of a sequence over and over, each pass in another orientation and another order.

    Another order, so that crops do not meet in the same batches again. Crop `index` stays a pure function of the seed
    and the index. Its targets are made from the turned labels. The
    entry `orientation` of an item tells its number in `train.orient.ALL`, by which `CachedTeacher` finds
    what it knows of the crop.

    Parameters
    ----------
    crops : Crops
    size : int
    orientations : tuple of Orientation
        In the order of the passes; the first pass leaves the crops, and their order, as they are.
    """

    def __init__(self, crops: Crops, size: int, orientations: tuple[Orientation, ...] = ALL) -> None:
        self.crops, self.size = crops, size
        self.numbers = [ALL.index(o) for o in orientations]
        self._pass, self._order = 0, np.arange(size)

    def order(self, turn: int) -> NDArray[np.int64]:
        """Return the crops in the order of a pass, from 0."""
        if turn != self._pass:
            rng = np.random.default_rng([self.crops.seed, turn])
            self._order = rng.permutation(self.size) if turn else np.arange(self.size)
            self._pass = turn
        return self._order

    def __getitem__(self, index: int) -> Batch:
        turn, place = divmod(index, self.size)
        number = self.numbers[turn % len(self.numbers)]
        sample = self.crops.sample(int(self.order(turn)[place])).turned(ALL[number])
        return {**sample.item(self.crops.layout), "orientation": torch.tensor(number)}
