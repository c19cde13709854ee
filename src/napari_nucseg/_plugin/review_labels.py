"""The Labels layer as a view of a session: it shares the session's array, and is drawn where that has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_nucseg._plugin.colouring import NO_CLASS, Look
from napari_nucseg._plugin.drawing import box_of, draw, draw_around, draw_palette, quick_contours, redraw
from napari_nucseg._plugin.results import KEY, colormap_of, hover_table
from napari_nucseg.core.nuclei import Change, is_live

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_nucseg.core.tiling import Box
    from napari_nucseg.session import Session

FEW = 100
"""Nuclei that change colour, up to which each is drawn alone; so many may be marked as selected."""

HOVER_MS, MANY, HOVER_MANY_MS = 400, 20_000, 4000
"""Rest of the edits after which napari's table of what is under the cursor is renewed, which takes some 0.1 s for
100,000 nuclei; so of many nuclei it waits longer."""


class LabelsView:
    """Draws what has changed, in the colours of classes and selection.

    Parameters
    ----------
    labels : Labels
        Its data is the session's array.
    session : Session
    mpp : float
        Micrometres per pixel.

    Attributes
    ----------
    touched : set of int
        Nuclei whose pixels have changed since this view began.
    """

    def __init__(self, labels: Labels, session: Session, mpp: float) -> None:
        self.labels, self._session, self._mpp = labels, session, mpp
        self.touched: set[int] = set()
        self._hover = QTimer()
        self._hover.setSingleShot(True)
        self._hover.timeout.connect(self._renew_hover)
        quick_contours(labels)
        records = session.records
        unknown = colormap_of(labels).set_kinds(records["id"], records["kind"])
        self.set_classes(Look())
        if unknown.any():  # those of a review that comes from the disk
            redraw(labels)
        self._await_rest()

    def release(self) -> None:
        """Draw nothing any more."""
        self._hover.stop()

    def show(self, change: Change) -> None:
        """Draw the pixels that have changed, and nuclei that are of another colour now."""
        other = colormap_of(self.labels).set_kinds(change.records["id"], change.records["kind"])
        if change.box is not None:
            self.touched.update(change.records["id"].tolist(), np.unique(change.values).tolist())
            draw(self.labels, change.box)
        self._draw_nuclei(change.records[other & is_live(change.records)], change.box)
        self._await_rest()

    def mark(self, ids: Sequence[int]) -> None:
        """Show which nuclei are selected, as long as they are not too many."""
        changed = colormap_of(self.labels).set_marked(ids if len(ids) <= FEW else [])
        rows = self._session.rows_of(changed) if changed else np.zeros(0, np.int64)
        records = self._session.records[rows[rows >= 0]]
        self._draw_nuclei(records[is_live(records)])

    def set_classes(self, look: Look) -> None:
        """Show with the session's classes as they are now."""
        about, classes = self.labels.metadata[KEY], self._session.classes
        about["classes"] = tuple(c.name for c in classes)
        about["colours"] = {c.name: tuple(c.colour) for c in classes}
        if colormap_of(self.labels).set_look(look, about["colours"], about["classes"]):
            redraw(self.labels)
        draw_palette(self.labels)

    def _draw_nuclei(self, records: Any, drawn: Box | None = None) -> None:
        """Draw nuclei that are of another colour now, unless they lie in a box that is drawn already."""
        if len(records) > FEW:
            draw_around(self.labels, np.stack([records["y"], records["x"]], axis=1))
            return
        for r in records:
            box = box_of(self._session.labels, int(r["id"]), (float(r["y"]), float(r["x"])), int(r["area"]))
            if box is not None and (drawn is None or box.cut(drawn) != box):
                draw(self.labels, box)

    def _await_rest(self) -> None:
        self._hover.start(HOVER_MS if len(self._session.records) <= MANY else HOVER_MANY_MS)

    def _renew_hover(self) -> None:
        session = self._session
        records, names = session.records[session.live], [*(c.name for c in session.classes), NO_CLASS]
        shown, area = np.array(names, object)[records["kind"]], records["area"] * self._mpp**2
        self.labels.features = hover_table(records["id"], shown, records["score"], area)
