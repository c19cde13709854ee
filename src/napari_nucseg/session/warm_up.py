"""Compiling of what edits need, ahead of the first one."""

from __future__ import annotations

import numpy as np

from napari_nucseg.core.decode import DecodeConfig, Fields
from napari_nucseg.core.field_cache import FieldCache
from napari_nucseg.core.nuclei import NucleusClass, record_dtype
from napari_nucseg.core.scale import Scale
from napari_nucseg.core.tiling import Box


def warm_up() -> None:
    """Do every kind of edit on a tiny session, so that numba's loops are compiled or loaded; not in the GUI thread."""
    from napari_nucseg.session.session import Session

    for model in ((32, 32), (64, 64)):
        fields = Fields.empty(model, 1)
        fields.foreground[:] = 255
        cache = FieldCache(model, 1)
        cache.put(Box(0, model[0], 0, model[1]), fields)
        scale, kinds = Scale((32, 32), model), [NucleusClass("any", (0, 0, 0))]
        labels, records = np.zeros((32, 32), np.uint32), np.zeros(0, record_dtype(1))
        session = Session(labels, records, kinds, scale, DecodeConfig(), cache)
        first, second = session.add(8, 8), session.add(20, 20)
        session.move(first, 9, 9)
        session.paint(np.arange(40), second)
        session.merge([first, second])
        session.unlock(session.records["id"][session.live])
        session.reject(session.records["id"][session.live])
        session.undo()
