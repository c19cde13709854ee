"""What figures of images share: the images, the part of them that is shown, the truth in a model's classes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.resample import Resampled
from napari_nucseg.io.slide import Mpp, as_source
from napari_nucseg.models.card import Card
from train.data import nucleus_classes
from train.figures_config import FiguresConfig
from train.listing import Listed
from train.scores import OWN, Scheme
from train.selection import Wanted, schemes_for, select
from train.truth import Selection, Truth


def choose(config: FiguresConfig) -> tuple[Selection, list[Listed]]:
    """Return the selection that a config describes, and the images named in it (all if none is).

    Raises
    ------
    NucSegError
        No data is given, or an image is not in it.
    """
    if config.data is None:
        raise NucSegError(f"The figure '{config.kind}' shows images; give their folder with --data.")
    wanted = Wanted(
        config.data, config.split, config.held_out, config.limit, config.classes, config.class_map, config.mpp
    )
    chosen = select(wanted)
    by_name = {item.name: item for item in chosen.items}
    for name in config.images:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"the first is '{next(iter(by_name))}'."
            raise NucSegError(f"Image '{name}' is not in {chosen.what}; {hint}")
    return chosen, [by_name[name] for name in config.images] or list(chosen.items)


def own_scheme(chosen: Selection, classes: tuple[str, ...], merge: str | None) -> Scheme | None:
    """Return how to read the truth in the classes of a model; None where the images have none of them."""
    return next((s for s in schemes_for(chosen, classes, merge) if s.key == OWN), None)


@dataclass(frozen=True)
class Seen:
    """An annotated image as a model sees it.

    Attributes
    ----------
    truth : Truth
        At its own resolution.
    image : Resampled
        At the model's.
    """

    truth: Truth
    image: Resampled

    @classmethod
    def of(cls, truth: Truth, card: Card) -> Seen:
        """Bring an image to the resolution on the card."""
        source = as_source(truth.image, Mpp(truth.mpp, f"the data set {truth.dataset}"))
        return cls(truth, Resampled(source, card.mpp))

    @property
    def whole(self) -> Box:
        """All of it."""
        return Box(0, self.image.shape[0], 0, self.image.shape[1])

    def labels(self, box: Box) -> NDArray[np.int32]:
        """Return the true nuclei in a box of the model's grid, by the nearest pixel."""
        rows, cols = self.image.scale.sources(box)
        return self.truth.labels[np.ix_(rows, cols)]

    def classes(self) -> dict[int, int]:
        """Return the class of every true nucleus by its id; 0 where it is not known."""
        ids = np.unique(self.truth.labels[self.truth.labels > 0]).tolist()
        _, kinds = nucleus_classes(self.truth.labels, self.truth.types)
        return dict(zip(ids, kinds.tolist(), strict=True))


def densest(labels: NDArray[np.integer], side: int, at: tuple[int, int] | None = None) -> Box:
    """Return a square of an image: around `at`, or where most centres of nuclei are; moved inside where it juts out.

    Parameters
    ----------
    labels : (H, W) integers
    side : int
        In pixels; cut to the image.
    at : (row, column), optional
    """
    height, width = labels.shape
    rows, cols = min(side, height), min(side, width)
    if at is None:
        points, _ = nucleus_classes(labels, None)
        count = np.zeros((height + 1, width + 1), np.int64)
        np.add.at(
            count[1:, 1:], tuple(np.clip(np.round(points).astype(int), 0, (height - 1, width - 1)).T), 1
        )
        sums = count.cumsum(0).cumsum(1)
        inside = sums[rows:, cols:] - sums[:-rows, cols:] - sums[rows:, :-cols] + sums[:-rows, :-cols]
        top, left = (int(k) for k in np.unravel_index(inside.argmax(), inside.shape))
    else:
        top, left = at[0] - rows // 2, at[1] - cols // 2
    top, left = min(max(top, 0), height - rows), min(max(left, 0), width - cols)
    return Box(top, top + rows, left, left + cols)
