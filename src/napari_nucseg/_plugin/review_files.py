"""Reviews and files: what the panel offers to resume, where a review is saved, what comes from QuPath."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QPushButton, QWidget

from napari_nucseg._plugin.compute import Request
from napari_nucseg._plugin.flow import report_error
from napari_nucseg._plugin.images import REVIEW_MPP, axes_of, mpp_of, pixels_of
from napari_nucseg._plugin.parts import column, hint, say
from napari_nucseg._plugin.place import from_list
from napari_nucseg._plugin.questions import Choice
from napari_nucseg._plugin.results import KEY
from napari_nucseg._plugin.review_import import Importer
from napari_nucseg._plugin.review_keeper import Keeper, keeper_of
from napari_nucseg._plugin.review_saved import Archive, Opened, request_for, restore
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_nucseg._plugin.flow import SegmentFlow
    from napari_nucseg._plugin.review import Review
    from napari_nucseg._plugin.review_panel import ReviewPanel
    from napari_nucseg._plugin.services import Services
    from napari_nucseg.models.registry import Model


class Offer(QWidget):
    """Offers to go on with a review that was saved before; not shown where there is none."""

    resumed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._line = hint()
        self._choice = QComboBox()
        self._choice.setToolTip("The saved reviews of this image.")
        self.button = QPushButton("Resume the saved review")
        self.button.setToolTip("Bring back the nuclei as you left them, with all edits.")
        self.button.clicked.connect(lambda: self.resumed.emit())
        layout = column(self)
        layout.addWidget(self._line)
        layout.addWidget(self._choice)
        layout.addWidget(self.button)
        self._folders: list[Path] = []
        self.hide()

    @property
    def folder(self) -> Path | None:
        """The review that is chosen; None where none is offered."""
        return self._folders[max(0, self._choice.currentIndex())] if self._folders else None

    def show_folders(self, folders: list[Path]) -> None:
        """Offer the reviews in these folders, the likeliest first."""
        self.setVisible(bool(folders))
        if folders != self._folders:
            self._folders = folders
            self._choice.clear()
            self._choice.addItems([folder.name for folder in folders])
            for k, folder in enumerate(folders):
                self._choice.setItemData(k, str(folder), Qt.ItemDataRole.ToolTipRole)
        self._choice.setVisible(len(folders) > 1)
        if folders:
            one = f"A review of this image was saved in {folders[0].name}."
            say(self._line, one if len(folders) == 1 else f"{len(folders)} reviews of this image were saved.")
            self._line.setToolTip(str(folders[0]))


class ReviewFiles:
    """Keeps reviews on the disk and fetches them from there, on behalf of a panel.

    Parameters
    ----------
    viewer : napari.Viewer
    panel : ReviewPanel
        Whose buttons and line on saving are served.
    flow : SegmentFlow
        Its reviews are kept from now on.
    request : callable () -> Request or None
        What the fields of the panel say; None if they can't be used, which is said.
    say : callable (text, alarm)
    refresh : callable ()
    state_mpp : callable (float)
        States the resolution of the image.
    """

    def __init__(
        self,
        viewer: Any,
        panel: ReviewPanel,
        flow: SegmentFlow,
        services: Services,
        request: Callable[[], Request | None],
        say: Callable[[str, bool], None],
        refresh: Callable[[], None],
        state_mpp: Callable[[float], None],
    ) -> None:
        self._viewer, self._panel, self._flow, self._services = viewer, panel, flow, services
        self._request, self._say, self._refresh, self._state_mpp = request, say, refresh, state_mpp
        self.offer, self.archive = Offer(), Archive(services, say)
        self.importer = Importer(say, refresh)
        self._image: Image | None = None
        self._found: list[Path] = []
        self._review: Review | None = None
        self._keeper: Keeper | None = None
        self._model: Model | None = None
        self._device = "auto"
        flow.desk.listeners.append(self)
        panel.folder_clicked.connect(self._on_folder)
        panel.import_clicked.connect(self._on_import)
        self.offer.resumed.connect(self.resume)

    def set_image(self, image: Image | None) -> None:
        """Look for a saved review of an image."""
        self._image, self._found = image, self.archive.find(image)
        if image is not None and self._found:  # for an image that does not say its resolution
            image.metadata[REVIEW_MPP] = self.archive.mpp(self._found[0])

    def set_model(self, model: Model | None, device: str) -> None:
        """Let a review that lacks this model go on with it, see `ReviewDesk.equip`."""
        self._model, self._device = model, device
        self._equip()

    def follow(self, review: Review | None) -> None:
        """Say where this review is saved, or offer one."""
        other, self._review = review is not self._review, review
        if other:
            self._equip()
        self.offer.show_folders(self._found if review is None else [])
        keeper = keeper_of(review)
        if keeper is not self._keeper:
            self._leave()
            self._keeper = keeper
            if keeper is not None:
                keeper.changed.connect(self._show_saved)
        self._show_saved()

    def release(self) -> None:
        """Let go of panel and reviews, which are kept further on."""
        self.importer.cancel()
        self._leave()

    def resume(self) -> None:
        """Open the review that is offered."""
        request, folder = self._request(), self.offer.folder
        if folder is not None and self._image is not None and request is not None:
            image = self._image
            self.archive.open(
                folder, image, lambda opened: self._on_opened(image, request, opened), self._panel
            )

    def may_begin(self) -> bool:
        """Return whether the user wants another review, though one was saved; goes on with that one if not."""
        folder = self.offer.folder
        if folder is None:
            return True
        choice = self._services.ask_resume(self._panel, folder)
        if choice is Choice.RESUME:
            self.resume()
        return choice is Choice.ANEW

    def session_began(self, review: Review) -> None:
        """Keep a review that begins; see `SessionListener`."""
        if keeper_of(review) is not None:
            return
        keeper = self.archive.keep(review)
        viewer = getattr(self._viewer, "__wrapped__", self._viewer)  # napari hands panels proxies
        with suppress(RuntimeError):  # the window is gone, and the review goes with it
            keeper.end_with(viewer.window._qt_window)  # not that of the panel, which may be closed before

    def session_ended(self, review: Review) -> None:
        """Offer what was saved, once its folder is given back; see `SessionListener`."""
        keeper = keeper_of(review)
        if keeper is not None:
            keeper.closed.connect(self._look_again)

    def _look_again(self) -> None:
        if not self._flow.closed:
            self.set_image(self._image)
            self._refresh()

    def _equip(self) -> None:
        review, image, model = self._review, self._image, self._model
        if review is None or review.request is not None or image is None or model is None:
            return
        about = review.labels.metadata[KEY]
        request = Request(
            image=pixels_of(image),
            axes=axes_of(image),
            mpp=Mpp.stated(about["mpp"], "saved review"),
            model=model,
            device=self._device,
            settings=dict(about["settings"]),
            place=from_list(about.get("place")),
        )
        self._flow.desk.equip(review, request)

    def _on_opened(self, image: Image, request: Request, opened: Opened) -> None:
        if self._flow.closed:  # there is nobody left who wants it
            if opened.store is not None:
                opened.store.close()
            return
        usable = request_for(opened, request, self._services.models())
        try:
            if image not in self._viewer.layers:
                raise NucSegError(f"The image '{image.name}' was removed meanwhile; open it again.")
            results, session = restore(opened, image, request, usable)
        except NucSegError as error:
            if opened.store is not None:
                opened.store.close()
            self._say(report_error(error), True)
            return
        self.archive.expect(session, opened)
        self._flow.adopt(results, session, usable)
        live = int(session.live.sum())
        text = f"Resumed: {live:,} {'nucleus' if live == 1 else 'nuclei'} as you left {'it' if live == 1 else 'them'}."
        mpp = results.about["mpp"]
        if image is self._image and mpp is not None and mpp_of(image).value != mpp:
            self._state_mpp(mpp)
            text += f" The resolution is {mpp:.4g} µm/px again, at which they were found."
        if usable is None:
            text += (
                " Its model is not installed, so that centres can't be added or moved; add it from a folder."
            )
        if opened.notes:
            text += f" Not rescued: {'; '.join(opened.notes)}."
        self._say(text, usable is None or bool(opened.notes))

    def _show_saved(self) -> None:
        from napari_nucseg.io.session_places import data_folder

        keeper, line = self._keeper, self._panel.saved
        line.setVisible(self._review is not None)
        if keeper is None:
            line.show_text("This review is not saved.", alarm=True)
        elif keeper.problem is not None:
            line.show_text(keeper.problem, str(keeper.folder or ""), alarm=True)
        elif keeper.folder is None:
            line.show_text("Nothing edited yet; every edit is saved at once.")
        elif keeper.saved_at is not None and keeper.folder.parent == data_folder().absolute():
            text = f"Saved {keeper.saved_at:%H:%M} in your data folder, as '{keeper.folder.name}'."
            line.show_text(text, f"{keeper.folder}, since it can't be beside the image.")
        elif keeper.saved_at is not None:
            line.show_saved(keeper.saved_at, keeper.folder)
        else:
            line.show_text("Saving…", str(keeper.folder))

    def _on_folder(self) -> None:
        base = self._services.ask_folder(self._panel, "Folder for reviews, this one and those to come")
        if base is None:
            return
        if self._keeper is not None and self._review is not None:
            self._keeper.move_to(self.archive.new_folder(self._review, base))
        try:
            self._services.remember_session_base(base)
        except OSError as error:
            self._say(
                f"Later reviews are not saved in '{base}', since that can't be remembered: {error}.", True
            )

    def _on_import(self) -> None:
        path = self._services.ask_geojson(self._panel)
        if path is None:
            return
        if self._review is None:
            self._panel.click_toggled.emit(True)  # begins a review of empty layers
        if self._review is not None and self._image is not None:
            self.importer.start(self._review, path, self._image.name)

    def _leave(self) -> None:
        if self._keeper is not None:
            self._keeper.changed.disconnect(self._show_saved)
            self._keeper = None
