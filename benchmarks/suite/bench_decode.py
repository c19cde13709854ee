"""From the network's answer to nuclei and their table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._stages import answer_of
from benchmarks.timing import Stages
from napari_nucseg.core import decode as core
from napari_nucseg.core.measure import measure
from napari_nucseg.core.tiling import Box

if TYPE_CHECKING:
    from benchmarks.suite.conftest import Seen


def bench_unpack_bf16(benchmark: Any, seen: Seen) -> None:
    """Reduce an answer of bfloat16 to fields."""
    benchmark(core.unpack, _answer(seen, np.uint16), seen.card.layout, _whole(seen))


def bench_unpack_f32(benchmark: Any, seen: Seen) -> None:
    """Reduce an answer of float32 to fields."""
    benchmark(core.unpack, _answer(seen, np.float32), seen.card.layout, _whole(seen))


def bench_centres(benchmark: Any, seen: Seen) -> None:
    """Find the peaks of the centre map."""
    centres, _ = benchmark(core.find_centres, seen.fields, seen.card.decode)
    assert len(centres) >= len(seen.tile.nuclei) > 0


def bench_flood(benchmark: Any, seen: Seen) -> None:
    """Grow a nucleus from every centre."""
    centres, _ = core.find_centres(seen.fields, seen.card.decode)
    owner = benchmark(core.flood, seen.fields, centres, seen.card.decode)
    assert owner.max() == len(centres)


def bench_vote(benchmark: Any, seen: Seen) -> None:
    """Sum the class probabilities of every nucleus."""
    owner = seen.tile.labels.astype(np.int32)
    benchmark(core.vote, owner, _of_tile(seen), len(seen.tile.nuclei))


def bench_decode(benchmark: Any, seen: Seen) -> None:
    """Centres, flood and vote."""
    benchmark(core.decode, seen.fields, seen.card.decode)


def bench_measure(benchmark: Any, seen: Seen) -> None:
    """Measure shape and stain of every nucleus."""
    box = seen.tile.box
    benchmark(measure, seen.tile.labels, np.ascontiguousarray(seen.image[box.slices]), seen.card.mpp)


def _whole(seen: Seen) -> Box:
    return Box(0, seen.image.shape[0], 0, seen.image.shape[1])


def _of_tile(seen: Seen) -> core.Fields:
    return seen.fields.crop(*seen.tile.box.slices)


def _answer(seen: Seen, kind: type) -> Any:
    """Return what the network says of the image: float32, or the upper halves of it, which are bfloat16, as uint16."""
    with answer_of(seen.runtime, seen.image, Stages()) as answer:
        wide = answer.astype(np.uint32) << 16 if answer.dtype == np.uint16 else answer.view(np.uint32)
    return (wide >> 16).astype(np.uint16) if kind is np.uint16 else wide.view(np.float32)
