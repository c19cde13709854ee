"""Tiles that fail: tried again, then one by one, then named."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_nucseg.errors import NucSegError
from napari_nucseg.inference import run_tiles
from napari_nucseg.slides import heap

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_nucseg.core.tiling import Index
    from napari_nucseg.inference import Plan, Tile

log = logging.getLogger(__name__)

_TRIES = (
    2  # of all the tiles together; the network may have been short of memory, or a share of its network drive
)


@dataclass(frozen=True)
class Failure:
    """A tile that could not be computed.

    Attributes
    ----------
    index : Index
    reason : str
        One line.
    error : Exception
    """

    index: Index
    reason: str
    error: Exception


def compute(plan: Plan, tiles: Sequence[Index]) -> Generator[Tile | Failure, None, None]:
    """Compute the tiles of a block, each exactly once, in spite of faults.

    Parameters
    ----------
    plan : Plan
    tiles : sequence of Index
        Of one block.

    Yields
    ------
    Tile or Failure
        For each of the tiles; those that failed at first come last.

    Raises
    ------
    NucSegError
        The slide as a whole cannot be read any more.
    MemoryError
        The machine is too small.
    """
    left = list(tiles)
    for _ in range(_TRIES):
        error = yield from _attempt(plan, left)
        if error is None:
            return
    for index in list(left):
        error = yield from _attempt(plan, [index])
        if error is not None:
            yield Failure(index, reason_of(error), error)


def _attempt(plan: Plan, left: list[Index]) -> Generator[Tile, None, Exception | None]:
    """Compute tiles and take them off the list; return what stopped that, if anything did."""
    work = run_tiles(plan, tuple(left))
    try:
        for tile in work:
            left.remove(tile.index)
            yield tile
            heap.trim()
    except (NucSegError, MemoryError):
        raise
    except Exception as error:  # whatever a driver, a codec or a library raises
        log.info("%d tiles are tried again: %s", len(left), reason_of(error))
        return error
    finally:
        work.close()
    return None


def reason_of(error: BaseException) -> str:
    """Return an error in one line."""
    first = str(error).strip().partition("\n")[0]
    return first if isinstance(error, NucSegError) else f"{type(error).__name__}: {first}".rstrip(": ")
