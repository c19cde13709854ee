"""How sure a figure is: intervals by drawing the images anew, for one model and for the difference of two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from train.tally import Figure

Summary = Callable[[Sequence[int]], list[Figure]]
"""Makes the figures of the images at some positions, always the same ones in the same order."""

INTERVAL = 0.95


@dataclass(frozen=True)
class Difference:
    """One figure of a model and of what it is compared with on the same images, and what the model gains over that.

    Attributes
    ----------
    base
        The figure of what is compared with.
    value
        The figure of the model.
    difference
        Value minus base.
    low, high
        95 % percentile interval of the difference; NaN for fewer than two images.
    """

    name: str
    averaging: str
    base: float
    value: float
    difference: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def _draws(n: int, draws: int, seed: int, strata: Sequence[str] | None) -> Iterator[list[int]]:
    """Yield the positions of each set drawn with replacement, within every stratum where there are some."""
    rng = np.random.default_rng(seed)
    names = np.asarray(strata if strata is not None else [""] * n, dtype=object)
    groups = [np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())]
    for _ in range(draws):
        yield np.concatenate([g[rng.integers(len(g), size=len(g))] for g in groups]).tolist()


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Return the percentiles of what is known; NaN also for a figure that a single image has.

    It is the same in every draw that holds the image and NaN in the others, which tells nothing of its spread.
    """
    known = values[~np.isnan(values)]
    if not known.size or (known.size < values.size and np.ptp(known) < 1e-9):
        return float("nan"), float("nan")
    tail = 50 * (1 - INTERVAL)
    low, high = np.percentile(known, [tail, 100 - tail])
    return float(low), float(high)


def _too_few(n: int, strata: Sequence[str] | None) -> bool:
    """Whether some stratum holds a single image, which tells nothing of its spread."""
    return n < 2 or (strata is not None and min(list(strata).count(name) for name in set(strata)) < 2)


def bootstrap(
    n: int,
    summarise: Summary,
    draws: int = 1000,
    seed: int = 0,
    strata: Sequence[str] | None = None,
) -> list[Figure]:
    """Sum a set up with 95 % percentile intervals, from images drawn anew with replacement (Efron 1979).

    Parameters
    ----------
    n
        Number of images.
    summarise
        Such as `train.tally.Tally.figures`.
    draws, seed
        Number of sets drawn, and the seed of the draws.
    strata
        A group for each image, such as its organ: as many images are drawn of each as there are.

    Returns
    -------
    list of Figure
        NaN as interval for fewer than two images (in any stratum).
    """
    whole = summarise(range(n))
    if _too_few(n, strata) or draws < 1:
        return whole
    drawn = np.array([[f.value for f in summarise(chosen)] for chosen in _draws(n, draws, seed, strata)])
    return [
        Figure(figure.name, figure.averaging, figure.value, *_interval(values))
        for figure, values in zip(whole, drawn.T, strict=True)
    ]


def paired_bootstrap(
    n: int,
    base: Summary,
    model: Summary,
    draws: int = 1000,
    seed: int = 0,
    strata: Sequence[str] | None = None,
) -> list[Difference]:
    """Compare a model with another image by image: every drawn set holds the same images for both.

    What makes an image hard or easy for both then cancels, and the interval is that of the difference, which is
    narrower than two separate intervals suggest.

    Parameters
    ----------
    n
        Number of images.
    base, model
        Make the same figures of what is compared with and of the model, of the images at some positions.
    draws, seed, strata
        As in `bootstrap`.

    Returns
    -------
    list of Difference
    """

    def differences(chosen: Sequence[int]) -> list[Figure]:
        pairs = zip(base(chosen), model(chosen), strict=True)
        return [Figure(a.name, a.averaging, b.value - a.value) for a, b in pairs]

    found = bootstrap(n, differences, draws, seed, strata)
    return [
        Difference(a.name, a.averaging, a.value, b.value, d.value, d.low, d.high)
        for a, b, d in zip(base(range(n)), model(range(n)), found, strict=True)
    ]
