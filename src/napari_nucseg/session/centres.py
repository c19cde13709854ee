"""What can be done with the centres of nuclei; whoever calls logs it as an edit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.nuclei import UNCLASSIFIED, State, centre_pixels, record_dtype
from napari_nucseg.errors import NucSegError
from napari_nucseg.session.brush import redraw
from napari_nucseg.session.ground import Ground, cells_of
from napari_nucseg.session.store import Store


class Centres:
    """Adds, moves, takes away and brings back centres, and has the nuclei around grown anew.

    Parameters
    ----------
    store : Store
    ground : Ground
    """

    def __init__(self, store: Store, ground: Ground) -> None:
        self._store, self.ground = store, ground

    def blank(self, n: int) -> NDArray[Any]:
        """Return records of n nuclei to come, without class and score."""
        records = np.zeros(n, record_dtype(self._store.records["prob"].shape[1]))
        records["id"] = np.arange(self._store.next_id, self._store.next_id + n)
        records["kind"], records["score"], records["prob"] = UNCLASSIFIED, np.nan, np.nan
        return records

    def mark_split(self, id_: int) -> None:
        """Take the nucleus in which a click is as edited too, not only the new half."""
        row = self._store.rows_of(id_)
        record = self._store.records[row].copy() if id_ else self._store.records[:0].copy()
        if len(record) and record["state"][0] == State.PREDICTED:
            record["state"] = State.EDITED
            self._store.put(row, record)

    def check_position(self, y: float, x: float, own: Any = ()) -> None:
        """Raise where there can be no centre; `own` are the ids of nuclei that move there, or away."""
        height, width = self._store.labels.shape
        if not (np.isfinite([y, x]).all() and -0.5 <= y < height - 0.5 and -0.5 <= x < width - 0.5):
            raise NucSegError(f"Position ({y:.1f}, {x:.1f}) lies outside the image; click inside it.")
        row = self._store.rows_of(self._store.at(y, x))[0] if self._store.at(y, x) else -1
        if row >= 0 and self._store.records["id"][row] not in own and self._store.records["locked"][row]:
            raise NucSegError(
                f"Nucleus {self._store.records['id'][row]} was drawn by hand and keeps its shape; unlock it (U) first."
            )
        pixel = self.ground.scale.model_pixels(np.array([[y, x]]))
        near = self._store.records[self._store.live_in((y - 4, x - 4), (y + 4, x + 4))]
        near = near[~np.isin(near["id"], own)]
        centres = np.stack([near["y"], near["x"]], 1)
        twin = (self.ground.scale.model_pixels(centres) == pixel).all(1)
        twin |= (centre_pixels(near) == np.floor(np.array([y, x]) + 0.5)).all(1)
        if twin.any():
            raise NucSegError(
                f"Nucleus {near['id'][twin][0]} has its centre here already; choose another place."
            )

    def move(self, rows: NDArray[np.int64], places: NDArray[np.float64]) -> None:
        """Put centres to (n, 2) places, all at once."""
        records = self._store.records[rows].copy()
        for record, (y, x) in zip(records, places, strict=True):
            self.check_position(y, x, own=records["id"])
            if record["locked"] and self._store.at(y, x) != record["id"]:
                raise NucSegError(
                    f"Nucleus {record['id']} was drawn by hand and keeps its shape; unlock it (U) to move it."
                )
        old = centre_pixels(records)
        moved = (records["y"] != places[:, 0]) | (records["x"] != places[:, 1])
        records["y"], records["x"] = places.T
        grown = moved & ~records["locked"]
        records["state"][grown] = State.EDITED
        self._store.put(rows, records)
        if grown.sum() == 1:
            self.ground.regrow(old[grown], records["id"][grown])
        elif grown.any():
            self._grow_again(rows[grown], old[grown])

    def _grow_again(self, rows: NDArray[np.int64], old: NDArray[np.int64]) -> None:
        """Take nuclei away from their old centres, then grow all of them from the new ones."""
        records = self._store.records[rows].copy()
        absent = records.copy()
        absent["state"], absent["area"] = State.ABSENT, 0
        self._store.put(rows, absent)
        for chosen in cells_of(old):
            self.ground.regrow(old[chosen], np.zeros(0, np.int64))
        for chosen in cells_of(centre_pixels(records)):
            self._store.put(rows[chosen], records[chosen])
            self.ground.regrow_all(records["id"][chosen])

    def take_away(self, rows: NDArray[np.int64], state: State) -> None:
        """Take nuclei away, neighbours together, which leaves their records in a state without pixels."""
        rows = np.unique(rows)
        records = self._store.records[rows].copy()
        pixels = centre_pixels(records)
        records["state"], records["area"] = state, 0
        self._store.put(rows, records)
        cells = cells_of(pixels)
        self.ground.require(pixels[chosen] for chosen in cells)
        for chosen in cells:
            self.ground.regrow(pixels[chosen], np.zeros(0, np.int64))

    def restore(self, row: int, shape: NDArray[np.int64] | None) -> None:
        """Bring a rejected nucleus back, in the shape (flat pixels) in which it was drawn, or grown."""
        back = self._store.records[row : row + 1].copy()
        self.check_position(back["y"][0], back["x"][0])
        if shape is not None:
            redraw(self._store, self.ground, int(row), shape)
            return
        back["state"], back["locked"] = State.ACCEPTED, False
        self._store.put(np.array([row]), back)
        self.ground.regrow(np.zeros((0, 2), np.int64), back["id"])

    def retype(self, rows: NDArray[np.int64], kind: int) -> None:
        """Set the class that a person says these nuclei are of."""
        records = self._store.records[rows].copy()
        records["kind"], records["typed"] = kind, True
        untouched = records["state"] != State.DRAWN
        records["state"][untouched] = State.EDITED
        self._store.put(rows, records)
