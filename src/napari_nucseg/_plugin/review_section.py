"""Ties the review's part of the panel to the review of the results that the panel shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from napari_nucseg._plugin.parts import connect_all, disconnect_all
from napari_nucseg._plugin.review_panel import ReviewPanel
from napari_nucseg._plugin.shortcuts_help import HelpKey

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_nucseg._plugin.review import Review

COUNT_MS = 60
"""Edits within this time are counted together."""


class ReviewSection:
    """Shows one review at a time, and begins one with the first click.

    Parameters
    ----------
    viewer : napari.Viewer
    parent : QWidget
        The panel; '?' works in its window while a layer of the review is active.
    begin : callable () -> Review or None
        Begins a review without a run; None if that cannot be, which is said.
    counted : callable ()
        Called after edits: the numbers of nuclei may be others.
    refresh : callable ()
        Called when the review can be edited again, or cannot any more.
    """

    def __init__(
        self,
        viewer: Any,
        parent: QWidget,
        begin: Callable[[], Review | None],
        counted: Callable[[], None],
        refresh: Callable[[], None],
    ) -> None:
        self._viewer, self._begin, self._refresh = viewer, begin, refresh
        self._review: Review | None = None
        self.panel = ReviewPanel(viewer)
        self.panel.click_toggled.connect(self._on_click)
        self._help = HelpKey(parent, self._on_help)
        self._help.set_enabled(False)
        self._count = QTimer(self.panel)
        self._count.setSingleShot(True)
        self._count.setInterval(COUNT_MS)
        self._count.timeout.connect(counted)
        self._active = [viewer.layers.selection.events.active]
        connect_all(self._active, self._on_active)

    def follow(self, review: Review | None, why_no_click: str | None, busy: str | None) -> None:
        """Show a review.

        Parameters
        ----------
        review : Review or None
        why_no_click : str or None
            Why one cannot click to segment.
        busy : str or None
            Why nothing can be edited for now.
        """
        if review is not self._review:
            self._leave()
            self._review = review
            if review is not None:
                review.session.changed.connect(self._on_changed)
                review.selected_changed.connect(self.panel.set_selected)
                review.clicking_changed.connect(self.panel.set_clicking)
                review.busy_changed.connect(self._on_busy)
                self.panel.set_review(review.session, review.queue, review.actions)
            else:
                self.panel.set_review(None)
            self._on_active()
        self.panel.set_click_reason(why_no_click)
        self.panel.set_busy(busy)
        self.panel.set_clicking(review is not None and review.clicking)
        self.panel.set_selected([] if review is None else review.actions.selected())

    @property
    def busy(self) -> str | None:
        """Why the review that is shown cannot be edited, whoever works on it."""
        return None if self._review is None else self._review.busy

    def release(self) -> None:
        """Let go of viewer and review."""
        disconnect_all(self._active, self._on_active)
        self._leave()
        self._help.release()
        self._count.stop()
        self.panel.release()

    def _leave(self) -> None:
        if self._review is not None:
            self._review.session.changed.disconnect(self._on_changed)
            self._review.selected_changed.disconnect(self.panel.set_selected)
            self._review.clicking_changed.disconnect(self.panel.set_clicking)
            self._review.busy_changed.disconnect(self._on_busy)
            self._review = None

    def _on_changed(self, _change: Any) -> None:
        if not self._count.isActive():
            self._count.start()

    def _on_active(self, _event: Any = None) -> None:
        review, active = self._review, self._viewer.layers.selection.active
        ours = review is not None and active is not None and active in (review.labels, review.points)
        self._help.set_enabled(ours)
        if review is not None:
            self.panel.set_selected(review.actions.selected())
            self.panel.set_clicking(review.clicking)

    def _on_busy(self, _why: str | None) -> None:
        self._refresh()

    def _on_click(self, on: bool) -> None:
        review = self._review or (self._begin() if on else None)
        if review is not None:
            review.set_clicking(on)
        self.panel.set_clicking(review is not None and review.clicking)

    def _on_help(self) -> None:
        if self._review is not None:
            self._review.actions.help()
