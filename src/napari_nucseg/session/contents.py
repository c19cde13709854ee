"""What a session says of its nuclei, labels and maps, to be read only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.field_cache import FieldCache
from napari_nucseg.core.nuclei import NucleusClass, is_live
from napari_nucseg.core.scale import Scale
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.session.ground import Ground, cells_of
from napari_nucseg.session.store import Store
from napari_nucseg.session.tables import table_of

if TYPE_CHECKING:
    import pandas as pd


class Contents:
    """The read half of a `Session`."""

    _store: Store
    _classes: tuple[NucleusClass, ...]
    ground: Ground

    @property
    def labels(self) -> NDArray[np.uint32]:
        """uint32 (H, W): 0 background, else the id of a nucleus. To be read only."""
        return self._store.labels

    @property
    def records(self) -> NDArray[Any]:
        """Records of all nuclei ever made, ids ascending. To be read only; holds until the next edit."""
        return self._store.records

    @property
    def live(self) -> NDArray[np.bool_]:
        """Which records stand for a nucleus with pixels."""
        return is_live(self._store.records)

    @property
    def classes(self) -> tuple[NucleusClass, ...]:
        """What `records["kind"]` counts into."""
        return self._classes

    @property
    def scale(self) -> Scale:
        """Way from level 0 to the model's resolution."""
        return self.ground.scale

    @property
    def fields(self) -> FieldCache:
        """Maps of the network, as far as known."""
        return self.ground.fields

    @property
    def next_id(self) -> int:
        """The id that the next nucleus will have."""
        return self._store.next_id

    @property
    def n_model_classes(self) -> int:
        """Classes that the model knows."""
        return int(self._store.records["prob"].shape[1])

    def rows_of(self, ids: Any) -> NDArray[np.int64]:
        """Return the rows of ids in `records`; -1 for an id never given."""
        return self._store.rows_of(ids)

    def record(self, id_: int) -> Any:
        """Return the record of a nucleus.

        Raises
        ------
        NucSegError
            The id was never given.
        """
        row = int(self.rows_of(id_)[0])
        if row < 0:
            raise NucSegError(f"There is no nucleus {id_}; choose one of the image.")
        return self._store.records[row].copy()

    def at(self, y: float, x: float) -> int:
        """Return the id of the nucleus at a level-0 position, 0 if there is none or outside the image."""
        return self._store.at(y, x)

    def table(self) -> pd.DataFrame:
        """Return the live nuclei as a table, see `session.tables.table_of`."""
        records = self._store.records
        return table_of(records[is_live(records)], self._classes)

    def check(self) -> str | None:
        """Return where labels and records disagree, None where all is well."""
        return self._store.check()

    # ---- maps -------------------------------------------------------------------------------------------

    def missing_maps(self, points: Any) -> list[Box]:
        """Return the boxes of maps, at the model's resolution, that edits at (n, 2) level-0 points still need."""
        points = np.asarray(points, float).reshape(-1, 2)
        whole = Box(0, self.labels.shape[0], 0, self.labels.shape[1])
        gaps = []
        for chosen in cells_of(points):
            low = np.floor(points[chosen].min(0) + 0.5).astype(int)
            high = np.floor(points[chosen].max(0) + 0.5).astype(int) + 1
            box = Box(int(low[0]), int(high[0]), int(low[1]), int(high[1])).cut(whole)
            gap = None if box is None else self.ground.missing(box)
            if gap is not None:
                gaps.append(gap)
        return gaps

    def missing_maps_of(self, ids: Any) -> list[Box]:
        """Return the boxes of maps that taking away or moving nuclei still needs."""
        records = self._store.records[self._known(ids)]
        return self.missing_maps(np.stack([records["y"], records["x"]], 1))

    def _known(self, ids: Any) -> NDArray[np.int64]:
        rows = self.rows_of(ids)
        if (rows < 0).any():
            raise NucSegError(
                f"There is no nucleus {np.atleast_1d(ids)[rows < 0][0]}; choose one of the image."
            )
        return rows

    def _live_rows(self, ids: Any) -> NDArray[np.int64]:
        rows = self._known(ids)
        gone = ~is_live(self._store.records[rows])
        if gone.any():
            raise NucSegError(f"Nucleus {self.records['id'][rows[gone][0]]} is deleted; undo brings it back.")
        return rows
