"""Tiles become results beside the network: they are saved, numbered in the order of the schedule and written out."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_nucseg.core.tiling import Index
    from napari_nucseg.inference import Tile
    from napari_nucseg.slides.outputs import Outputs
    from napari_nucseg.slides.store import TileStore

_WAITING = 2  # tiles in memory that are to be saved; more of them would only hide that the disk is too slow


class Assembler:
    """Saves tiles as they come, and writes the results in the order of the schedule, in a thread of its own.

    Ids count up in that order, whatever the order in which tiles come or whether they were computed by an earlier run,
    so the results of an interrupted run are those of an uninterrupted one.

    Parameters
    ----------
    order : sequence of Index
        All tiles, in the order of the schedule.
    store : TileStore
    outputs : Outputs
    ready : iterable of Index
        Tiles that are in the store.
    """

    def __init__(
        self,
        order: Sequence[Index],
        store: TileStore,
        outputs: Outputs,
        ready: Iterable[Index] = (),
    ) -> None:
        self._order, self._store, self._outputs = order, store, outputs
        self._ready: set[Index] = set(ready)
        self._gone: set[Index] = set()
        self._pending: deque[tuple[Tile, dict[str, Any]]] = deque()
        self._cursor, self._next_id = 0, 1
        self._state = threading.Condition()
        self._ending: str = ""
        self._error: BaseException | None = None
        self.classes: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="nucseg-assemble", daemon=True)
        self._thread.start()

    @property
    def nuclei(self) -> int:
        """Nuclei written so far."""
        return self._next_id - 1

    @property
    def written(self) -> int:
        """Tiles written so far."""
        return self._cursor

    def submit(self, tile: Tile, notes: dict[str, Any] | None = None) -> None:
        """Hand over a tile; waits while the last ones are not saved yet, and raises what went wrong with them."""
        with self._state:
            self._state.wait_for(lambda: self._error or len(self._pending) < _WAITING)
            self._raise()
            self._pending.append((tile, notes or {}))
            self._state.notify_all()

    def arrived(self, index: Index) -> None:
        """Say that somebody else has put a tile into the store."""
        with self._state:
            self._ready.add(index)
            self._state.notify_all()

    def leave_out(self, index: Index) -> None:
        """Say that a tile does not come."""
        with self._state:
            self._gone.add(index)
            self._state.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait for some time for all tiles to be written; return whether they are. Raises what went wrong."""
        with self._state:
            self._state.wait_for(lambda: self._error or self._cursor == len(self._order), seconds)
            self._raise()
            return self._cursor == len(self._order)

    def close(self) -> None:
        """Wait until all tiles are written, and complete the outputs; raises what went wrong."""
        self._end("close")
        self._raise()
        if self._cursor < len(self._order):
            raise RuntimeError(f"tile {self._order[self._cursor]} was neither handed over nor left out")
        self._outputs.close()

    def stop(self) -> None:
        """Save the tiles handed over, write nothing more, and remove what was written of the outputs."""
        self._end("stop")
        self._outputs.abort()

    def _end(self, how: str) -> None:
        with self._state:
            self._ending = how
            self._state.notify_all()
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except BaseException as error:  # told to the thread that hands over the next tile
            with self._state:
                self._error = error
                self._state.notify_all()

    def _step(self) -> bool:
        """Save a tile, or else write one; return whether there may be more to do."""
        with self._state:
            self._state.wait_for(lambda: self._pending or self._ending or self._is_due())
            job = self._pending.popleft() if self._pending else None
            self._state.notify_all()
            due = self._order[self._cursor] if self._cursor < len(self._order) else None
            if job is None and (self._ending == "stop" or not self._is_due()):
                return False
        if job is not None:
            tile, notes = job
            self._store.put(tile, notes)
            if tile.index != due or self._pending:  # saving comes first
                self._ready.add(tile.index)
                return True
            self._write(tile)
        elif due in self._gone:
            self._outputs.leave_out(due)
            self._advance()
        else:
            found = None if due is None else self._store.get(due)
            if found is None:
                raise NucSegError(
                    f"A finished tile in '{self._store.folder}' was damaged or removed during the run; repeat the "
                    "command, which computes it again."
                )
            self._write(found[0])
        return True

    def _is_due(self) -> bool:
        if self._cursor == len(self._order):
            return False
        return self._order[self._cursor] in self._ready or self._order[self._cursor] in self._gone

    def _write(self, tile: Tile) -> None:
        labels, nuclei = tile.numbered(self._next_id)
        self._outputs.add(tile.index, tile.box, labels, nuclei)
        self.classes.update(nuclei["class"].tolist())
        self._next_id += len(nuclei)
        self._advance()

    def _advance(self) -> None:
        with self._state:
            self._cursor += 1
            self._state.notify_all()
