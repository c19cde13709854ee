"""The panel's part on whole slides: runs in the background, results, review of regions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_nucseg._plugin import work
from napari_nucseg._plugin.compute import Request, Ticker
from napari_nucseg._plugin.flow import report_error
from napari_nucseg._plugin.images import level0_shape, placed
from napari_nucseg._plugin.parts import enable
from napari_nucseg._plugin.place import is_large
from napari_nucseg._plugin.questions import Choice
from napari_nucseg._plugin.reader import is_result
from napari_nucseg._plugin.slide_fields import SlideBox, TargetField
from napari_nucseg._plugin.slide_results import SlideLayers, image_of, show_result, slides_in
from napari_nucseg._plugin.slide_review import SlideReview
from napari_nucseg._plugin.slide_run import (
    Done,
    SlideRun,
    Target,
    default_folder,
    existing,
    open_source,
    path_of,
    stem_for,
)
from napari_nucseg._plugin.small_results import labels_of
from napari_nucseg.errors import NucSegError
from napari_nucseg.slides.result import SlideResult
from napari_nucseg.slides.workdir import tiles_kept

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_nucseg._plugin.flow import SegmentFlow
    from napari_nucseg._plugin.review_saved import Archive
    from napari_nucseg._plugin.services import Services
    from napari_nucseg.core.tissue import TissueMask

FOLDER = "napari_nucseg_folder"
"""Key of an image's metadata for the folder that the user has chosen for its results."""

TISSUE = "tissue"


class SlideSection:
    """Runs, shows and reviews whole slides on behalf of a panel.

    Parameters
    ----------
    viewer : napari.Viewer
    services : Services
    flow : SegmentFlow
    archive : Archive
    say : callable (text, alarm)
    refresh : callable ()
        Called when something begins or ends.
    """

    def __init__(
        self,
        viewer: Any,
        services: Services,
        flow: SegmentFlow,
        archive: Archive,
        say: Callable[[str, bool], None],
        refresh: Callable[[], None],
    ) -> None:
        self._viewer, self._services, self._flow = viewer, services, flow
        self._say, self._refresh = say, refresh
        self.target, self.box = TargetField(), SlideBox()
        self.run = SlideRun(flow.controller.load)
        self.review = SlideReview(viewer, flow, archive, say)
        self.review.changed.connect(refresh)
        self._image: Image | None = None
        self._heard: list[SlideLayers] = []
        self._folders: dict[tuple[Path | None, str], Path] = {}
        self._worker: Any = None
        self._working = ""
        self.ticker = Ticker()
        self.target.folder_clicked.connect(self._on_folder)
        self.box.open_clicked.connect(self._on_open)
        self.box.export_clicked.connect(self._on_export)
        self.box.put_clicked.connect(self.put_back)
        self.box.legend.changed.connect(self._on_look)

    @property
    def busy(self) -> str | None:
        """Why nothing else can begin, None where it can."""
        if self.run.running:
            return "A slide is being segmented; cancel it first."
        return self.review.busy or (self._working or None if self._worker is not None else None)

    @property
    def following(self) -> Ticker | None:
        """Progress of what goes on."""
        if self.run.running:
            return self.run.ticker
        return self.ticker if self._worker is not None and self.ticker.total else None

    @property
    def slide(self) -> SlideLayers | None:
        """The result that is shown on the image that is chosen, the topmost."""
        found = slides_in(self._viewer.layers)
        own = [slide for slide in found if slide.belongs_to(self._image)]
        return own[0] if own else (found[0] if found and self._image is None else None)

    def set_image(self, image: Image | None) -> None:
        """Say which image is chosen."""
        self._image = image

    @property
    def is_large(self) -> bool:
        """Whether the image that is chosen is dealt with as a slide."""
        return self._image is not None and is_large(level0_shape(self._image))

    def folder(self, image: Image) -> Path:
        """Return where the results of an image go."""
        chosen = image.metadata.get(FOLDER)
        if chosen:
            return Path(chosen)
        key = (path_of(image), image.name)
        if (
            key not in self._folders
        ):  # a file is made to see whether one can be: once, since the disk may be far away
            self._folders[key] = default_folder(image)
        return self._folders[key]

    def follow(self, whole: bool, why_not: str | None) -> None:
        """Show what there is, and enable what can be done.

        Parameters
        ----------
        whole : bool
            Whether the whole image is to be segmented.
        why_not : str or None
            Why nothing can begin now.
        """
        image, slide = self._image, self.slide
        self.target.setVisible(self.is_large and whole)
        self.target.setEnabled(not self.run.running)  # which has taken what they say
        if image is not None and self.is_large and whole:  # where it can be seen: it looks at the disk
            folder, stem = self.folder(image), stem_for(image)
            kept = 0 if self.run.running else tiles_kept(folder, stem)
            self.target.show_folder(folder, existing(folder, stem), kept)
        self.box.setVisible(self.is_large or slide is not None or image is None)
        self._hear(slide)
        self._show(slide)
        self.box.allow(self.review.is_open, self.review.saved(slide) is not None, why_not)
        if image is None and why_not is None:
            for button in (self.box.review_button, self.box.resume_button):
                enable(button, "Open the slide itself, too; a review looks at its pixels.", "")

    def start(self, image: Image, request: Request, parent: Any = None) -> None:
        """Segment a whole slide, if need be after asking what to do with the results there are."""
        if self.review.is_open:
            self._say("A part of this slide is under review; put it back first.", True)
            return
        folder, stem = self.folder(image), stem_for(image)
        choice = Choice.REPLACE
        if existing(folder, stem):
            try:
                there = SlideResult.open(folder, stem)
                count, reviewed = int(there.summary.get("nuclei", 0)), len(there.reviewed)
            except NucSegError:
                count = reviewed = 0
            choice = self._services.ask_slide(parent, folder, count, reviewed)
        if choice is Choice.RESUME:
            self.open(folder, stem)
        elif choice in (Choice.REPLACE, Choice.UPDATE):
            again = choice is Choice.UPDATE
            target = Target(folder, stem, self.target.tissue.isChecked(), again)
            self.run.start(image, request, target, partial(self._on_run, image, target))
            self._say(f"Segmenting the slide; results go to {folder}. You can look around meanwhile.", False)
            self._refresh()
        else:
            self._say("Nothing was run; the results are as they were.", False)

    def cancel(self) -> None:
        """Stop a run; finished tiles are kept."""
        if self.run.running:
            self.run.cancel()
            self._say("Stopping after the tiles under way…", False)
        self.ticker.stop()

    def open(self, folder: Path, name: str | None = None) -> None:
        """Show the results in a folder."""
        self._say("Opening the results…", False)
        self._begin("Results are being opened.", partial(_open, folder, name), self._on_opened)

    def start_review(self, request: Request | None) -> None:
        """Review the region of a request; one under way is put back first."""
        slide, image = self.slide, self._image
        if slide is None or image is None or request is None:
            return
        if self.review.is_open:
            self._guard(lambda: self.review.put_back(lambda: self.start_review(request)))
        else:
            self._guard(lambda: self.review.start(slide, image, request))

    def resume(self, request: Request | None) -> None:
        """Go on with the review that was saved and not put back."""
        slide, image = self.slide, self._image
        if slide is not None and image is not None and request is not None:
            self.review.resume(slide, image, request, self._services.models())

    def put_back(self) -> None:
        """Put the review back into the slide."""
        self._guard(self.review.put_back)

    def show_tissue(self, request: Request | None) -> None:
        """Find the tissue and show it as a layer, or take that layer away."""
        image = self._image
        here = [layer for layer in self._viewer.layers if layer.metadata.get(TISSUE) is not None]
        mine = [layer for layer in here if image is not None and layer.metadata[TISSUE] is image]
        if mine:
            self._viewer.layers.remove(mine[0])
        elif image is not None and request is not None:
            self._say("Looking for tissue…", False)
            find = partial(_find_tissue, image, request)
            self._begin("The tissue is being looked for.", find, partial(self._on_tissue, image))

    def release(self) -> None:
        """Let go of the viewer; a run stops after its tiles under way."""
        self.run.cancel()
        self.review.release()
        for slide in self._heard:
            slide.changed.disconnect(self._on_slide)
        self._heard.clear()

    def _guard(self, begin: Callable[[], None]) -> None:
        try:
            begin()
        except NucSegError as error:
            self._say(report_error(error), True)

    def _begin(self, why: str, task: Callable[[], Any], done: Callable[[work.Outcome], None]) -> None:
        self._working = why

        def end(outcome: work.Outcome) -> None:
            self._worker = None
            if self._flow.closed:
                return
            if outcome.error is None:
                done(outcome)
            else:
                self._say(report_error(outcome.error), True)
            self._refresh()

        self._worker = work.start(task, end)
        self._refresh()

    def _on_run(self, image: Image, target: Target, outcome: work.Outcome) -> None:
        if self._flow.closed:
            return
        done: Done | None = outcome.value
        if outcome.error is not None:
            self._say(f"{report_error(outcome.error)} Tiles that were finished are kept.", True)
        elif done is not None and done.result is None:
            self._say(
                f"Stopped: {done.done:,} of {done.total:,} tiles are done and kept; Run goes on there.", False
            )
        elif done is not None and done.result is not None:
            self._show_new(done.result, image if image in self._viewer.layers else None)
            self._say(*_told(done, target))
        self._refresh()

    def _on_opened(self, outcome: work.Outcome) -> None:
        result: SlideResult = outcome.value
        image = image_of(self._viewer.layers, result)
        if image is None:
            image = self._open_image(result)
        self._show_new(result, image)
        self._say(f"{len(result.centres):,} nuclei of {result.name}.", False)

    def _open_image(self, result: SlideResult) -> Image | None:
        """Open the slide of a result, if it is still where it was."""
        path = Path(str(result.summary.get("image", "")))
        if not path.is_file():
            return None
        from napari.layers import Image

        from napari_nucseg._plugin.reader import read_slide

        try:
            data, options, kind = read_slide(str(path))[0]
        except NucSegError:
            return None
        if kind != "image":
            return None
        layer = Image(data, **options)
        self._viewer.add_layer(layer)
        return layer if level0_shape(layer) == result.shape else None

    def _show_new(self, result: SlideResult, image: Image | None) -> None:
        for slide in slides_in(self._viewer.layers):
            if (slide.result.folder, slide.result.name) == (result.folder, result.name):
                for layer in slide.layers:
                    if layer in self._viewer.layers:
                        self._viewer.layers.remove(layer)
        show_result(self._viewer, result, image)

    def _on_tissue(self, image: Image, outcome: work.Outcome) -> None:
        mask: TissueMask = outcome.value
        if image not in self._viewer.layers:
            return
        offset = ((mask.cell[0] - 1) / 2, (mask.cell[1] - 1) / 2)
        layer = Labels(
            mask.mask.astype(np.uint8),
            name=f"{image.name} {TISSUE}",
            opacity=0.6,
            metadata={TISSUE: image},
            **placed(image, offset, mask.cell),
        )
        layer.contour = 2
        layer.editable = False
        self._viewer.add_layer(layer)
        self._say(f"Tissue covers {100 * mask.fraction:.0f} % of the slide.", False)

    def _on_folder(self) -> None:
        image = self._image
        folder = self._services.ask_folder(self.target, "Folder for the results of the slide")
        if image is not None and folder is not None:
            image.metadata[FOLDER] = str(folder)
            self._refresh()

    def _on_open(self) -> None:
        path = self._services.ask_result(self.box)
        if path is None:
            return
        if labels_of(path).is_file() and not is_result(path):
            self._guard(lambda: self._viewer.open(str(path), plugin="napari-nucseg"))
        else:
            self.open(path)

    def _on_export(self) -> None:
        slide = self.slide
        if slide is None:
            return
        from napari_nucseg.slides.export import export_geojson

        self.ticker = Ticker("Exporting", "nuclei", "Stop the export; the file that was there stays.")
        result = slide.result
        self._say("Writing GeoJSON…", False)
        self._begin(
            "GeoJSON is being written.",
            lambda: export_geojson(result, self._count),
            lambda outcome: self._say(f"Wrote {outcome.value.name} to {result.folder}.", False),
        )

    def _count(self, done: int, total: int) -> None:
        from napari_nucseg._plugin.compute import Cancelled

        if self.ticker.stopped:
            raise Cancelled
        self.ticker.done, self.ticker.total = done, total

    def _hear(self, slide: SlideLayers | None) -> None:
        if slide is not None and slide not in self._heard:
            self._heard.append(slide)
            slide.changed.connect(self._on_slide)

    def _on_slide(self) -> None:
        if not self._flow.closed:
            with suppress(RuntimeError):  # the window is gone
                self._show(self.slide)

    def _show(self, slide: SlideLayers | None) -> None:
        if slide is None:
            self.box.show_result("", "", "")
            return
        counts = slide.counts()
        self.box.legend.set_classes(slide.colours(), tuple(counts))
        self.box.legend.set_counts(counts, slide.counts_in_view())
        old = [f"'{name}'" for name in slide.result.summary.get("outdated", [])]
        outdated = (
            f"{', '.join(old)} {'is' if len(old) == 1 else 'are'} older than the review." if old else ""
        )
        view = (
            ""
            if slide.view is None
            else f"In view / in the whole slide: {slide.view.total:,} / {sum(counts.values()):,}"
        )
        heading = f"{slide.result.name}: {sum(counts.values()):,} nuclei"
        self.box.show_result(heading, view, outdated, self.review.is_open)

    def _on_look(self) -> None:
        slide = self.slide
        if slide is not None:
            slide.show(self.box.legend.look)


def _open(folder: Path, name: str | None) -> SlideResult:
    result = SlideResult.open(folder, name)
    _ = result.centres
    return result


def _find_tissue(image: Image, request: Request) -> TissueMask:
    from napari_nucseg.io.tissue import find_tissue

    return find_tissue(open_source(image, request))


def _told(done: Done, target: Target) -> tuple[str, bool]:
    """Return what to say of a finished run, and whether it is an alarm."""
    summary = done.summary
    text = f"{summary.nuclei:,} nuclei, {summary.nuclei_per_mm2:,.0f} per mm², in {target.folder}."
    if done.carried:
        text += f" {done.carried:,} in reviewed regions were kept."
    failed, damaged = len(summary.failed), len(summary.damaged)
    if failed:
        text += f" {failed} tiles failed; run again to try them once more."
    if damaged:
        text += f" {damaged} places of the file can't be read and count as glass."
    return text, bool(failed or damaged)


__all__ = ["SlideSection", "path_of"]
