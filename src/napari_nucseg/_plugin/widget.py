"""The NucSeg panel: puts the fields together and hands what they say to the flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.qt.threading import create_worker
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import QFormLayout, QFrame, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_nucseg._plugin import work
from napari_nucseg._plugin.compute import Request
from napari_nucseg._plugin.fields import ImageField, MppField
from napari_nucseg._plugin.flow import SegmentFlow, report_error
from napari_nucseg._plugin.images import axes_of, level0_shape, pixels_of, why_no_image
from napari_nucseg._plugin.legend import Legend
from napari_nucseg._plugin.model_fields import AdvancedField, DeviceField, ModelField
from napari_nucseg._plugin.parts import disconnect_all, enable
from napari_nucseg._plugin.place import is_large
from napari_nucseg._plugin.region_field import RegionField
from napari_nucseg._plugin.regions import Area, view_area
from napari_nucseg._plugin.review_files import ReviewFiles
from napari_nucseg._plugin.review_section import ReviewSection
from napari_nucseg._plugin.run_bar import RunBar
from napari_nucseg._plugin.saving import Saver
from napari_nucseg._plugin.services import Services
from napari_nucseg._plugin.slide_section import SlideSection
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg._plugin.results import ResultLayers
    from napari_nucseg._plugin.review import Review
    from napari_nucseg.core.tiling import Box
    from napari_nucseg.models.registry import Model

INSPECT_AFTER_MS = 400
"""Wait before the machine is looked over, so that the panel is drawn before torch is imported beside it."""


class NucSegWidget(QWidget):
    """Segment and classify the nuclei of an H&E image.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    services : Services, optional
        What the panel asks of the world; the real thing by default.
    """

    def __init__(self, napari_viewer: Any, services: Services | None = None) -> None:
        super().__init__()
        self._viewer, self._services = napari_viewer, services or Services()
        self._closed = False
        self._not_added = ""
        self._make_fields()
        self.flow = SegmentFlow(napari_viewer, self._services, self)
        self._saver = Saver(self._services, self.set_status, self.refresh)
        self.review = ReviewSection(napari_viewer, self, self._begin_review, self._on_counted, self.refresh)
        self.files = ReviewFiles(
            napari_viewer, self.review.panel, self.flow, self._services,
            lambda: self._request(self._why_no_click), self.set_status, self.refresh, self.mpp.state,
        )  # fmt: skip
        self.slides = SlideSection(
            napari_viewer, self._services, self.flow, self.files.archive, self.set_status, self.refresh
        )
        self._lay_out()
        self._connect()
        self._follow(napari_viewer.layers.selection.active)
        self._on_image()
        self._on_model()
        QTimer.singleShot(INSPECT_AFTER_MS, self._inspect)

    def _make_fields(self) -> None:
        self.image, self.mpp = ImageField(self._viewer), MppField()
        self.region = RegionField(self._viewer)
        self.model = ModelField(self._services, self._on_added)
        self.device, self.advanced = DeviceField(), AdvancedField()
        self.run_bar, self.legend = RunBar(), Legend()
        self.save_button = QPushButton("Save results…")
        self._heading = QLabel()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        form.setHorizontalSpacing(10)
        form.setVerticalSpacing(8)
        rows = {"Image": self.image, "Resolution": self.mpp, "Region": self.region, "Model": self.model}
        for name, field in {**rows, "Device": self.device}.items():
            form.addRow(name, field)
        body = QWidget()
        column = QVBoxLayout(body)
        column.setSpacing(8)
        column.addLayout(form)
        column.addWidget(self.slides.target)
        column.addWidget(self.advanced)
        column.addWidget(self.run_bar)
        column.addWidget(self.slides.box)
        column.addWidget(self.files.offer)
        column.addWidget(self.review.panel)
        self._results_box = self._make_results_box()
        column.addWidget(self._results_box)
        column.addStretch()
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(body)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)
        self.setMinimumWidth(300)

    def _make_results_box(self) -> QWidget:
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        line = QFrame()
        line.setFrameShape(QFrame.Shape.HLine)
        self._heading.setWordWrap(True)
        self._heading.setStyleSheet("font-weight: bold;")
        for widget in (line, self._heading, self.legend, self.save_button):
            column.addWidget(widget)
        return box

    def sizeHint(self) -> QSize:
        """Return the size at which no text is clipped."""
        return QSize(340, 720)

    def _connect(self) -> None:
        self.image.changed.connect(self._on_image)
        self.mpp.changed.connect(self.refresh)
        self.region.changed.connect(self.refresh)
        self.model.changed.connect(self._on_model)
        self.run_bar.run_clicked.connect(self.run)
        self.run_bar.cancel_clicked.connect(self.cancel)
        self.legend.changed.connect(self._on_look)
        self.save_button.clicked.connect(self._on_save)
        self.slides.target.tissue_clicked.connect(
            lambda: self.slides.show_tissue(self._request(self._why_no_click))
        )
        self.slides.box.review_clicked.connect(
            lambda: self.slides.start_review(self._request(self._why_no_click, self._review_area))
        )
        self.slides.box.resume_clicked.connect(lambda: self.slides.resume(self._request(self._why_no_click)))
        self._viewer.layers.selection.events.active.connect(self._on_active)
        self._viewer.layers.events.inserted.connect(self._on_inserted)
        self.destroyed.connect(self.flow.shut_down)  # not a method of this widget: it is gone by then

    @property
    def results(self) -> ResultLayers | None:
        """The results that legend and Save refer to."""
        return self.flow.results_of(self.image.layer, self._viewer.layers.selection.active)

    def run(self) -> None:
        """Segment what the fields say."""
        layer, request = self.image.layer, self._request(self._why_not, self.region.area)
        if layer is None or request is None:
            return
        if self.slides.is_large and request.place is None:
            self.slides.start(layer, request, self)
        elif self.files.may_begin():
            self.flow.start(layer, request, self)

    def _request(self, why_not: Callable[[], str | None], area: Callable[[], Area] = Area) -> Request | None:
        """Return what the fields say, of a part of the image; None if they can't be used, which is said."""
        self.mpp.commit()  # a click on a button does not end the typing on every system
        layer, model, reason = self.image.layer, self.model.model, why_not()
        if reason is not None or layer is None or model is None:
            self.refresh()
            if reason is not None:
                self.set_status(reason, True)
            return None
        try:
            part = area()
            place = self._place(layer, part, model)
        except NucSegError as error:
            self.set_status(report_error(error), True)
            return None
        return Request(
            image=pixels_of(layer),
            axes=axes_of(layer),
            mpp=self.mpp.mpp,
            model=model,
            device=self.device.device,
            area=part,
            settings=self.advanced.settings,
            place=place,
        )

    def _click_area(self) -> Area:
        """Return where one can click: everywhere, or in what a large image shows at the moment."""
        layer = self.image.layer
        if layer is None or not is_large(level0_shape(layer)):
            return Area()
        return replace(view_area(self._viewer, layer), title="region")

    def _review_area(self) -> Area:
        """Return which part of a slide is to be reviewed: the selected shapes where these are chosen, else the view."""
        layer = self.image.layer
        if layer is None or not self.region.is_whole:
            return self.region.area()
        return view_area(self._viewer, layer)

    def _place(self, layer: Image, area: Area, model: Model) -> Box | None:
        """Return the part of a large image that results are made for; None for all of an image of moderate size."""
        if not is_large(level0_shape(layer)) or area.extent is None:
            return None
        mpp = self.mpp.mpp.value or model.card.mpp
        active = self._viewer.layers.selection.active
        return self.flow.place_for(layer, area.extent, model.card.mpp / mpp, active)

    def _begin_review(self) -> Review | None:
        """Begin a review without a run."""
        layer = self.image.layer
        request = self._request(self._why_no_click, self._click_area)
        if layer is None or request is None or not self.files.may_begin():
            return None
        results = self.flow.start_review(layer, request)
        return None if results is None else results.review

    def cancel(self) -> None:
        """Stop the run and keep what was found, or stop an import."""
        self.flow.cancel()
        self.slides.cancel()
        self.files.importer.cancel()

    def _why_not(self) -> str | None:
        """Return why there cannot be a run, None where there can."""
        return self._why_no_click() or self.region.why_not()

    @property
    def _busy(self) -> str | None:
        """Why neither a run nor an edit can begin, None where they can."""
        return self.slides.busy or self._busy_here

    @property
    def _busy_here(self) -> str | None:
        """Why the review that is shown can't be edited, None where it can."""
        return self.flow.busy or self.files.importer.why_busy or self.review.busy

    def _why_no_click(self) -> str | None:
        """Return why image and model can't be used, None where they can."""
        if self._busy is not None:
            return self._busy
        if self.image.layer is None:
            return "There is no image; open one, or File > Open Sample > NucSeg."
        no_image = why_no_image(self.image.layer)
        if no_image is not None:
            return no_image
        if self.mpp.error is not None:
            return self.mpp.error
        if self.mpp.mpp.value is None:
            return (
                "The resolution of the image is unknown; state it in micrometres per pixel: "
                "0.25 for a 40x scan, 0.5 for 20x."
            )
        if self.model.model is None:
            return "No model is installed; add one from a folder."
        return None

    @property
    def _gone(self) -> bool:
        """Whether there is nothing to show anything in; napari destroys the panel of a closed window without a word."""
        return self._closed or self.flow.closed

    def set_status(self, text: str, alarm: bool = False) -> None:
        """See `FlowView`."""
        if not self._gone:
            self.run_bar.set_status(text, alarm)

    def show_results(self, results: ResultLayers | None) -> None:
        """See `FlowView`."""
        if self._gone:
            return
        self._results_box.setVisible(results is not None)
        if results is not None:
            counts = results.counts()
            self.legend.set_classes(results.colours(), tuple(counts))
            self.legend.set_counts(counts)
            self._heading.setText(f"{results.labels.name}: {results.total():,}")
            results.look = self.legend.look
        self._follow_review(results)
        none = "There are no results to save." if results is None or not results.total() else None
        busy = "Files are being written." if self._saver.saving else self._busy
        enable(
            self.save_button, busy or none, "Save label TIFF, CSV table and GeoJSON for QuPath in a folder."
        )

    def _follow_review(self, results: ResultLayers | None) -> None:
        review = None if results is None else results.review
        # a run of a whole slide keeps nobody from reviewing
        busy = self._busy if review is None else self._busy_here
        self.files.follow(review)
        self.review.follow(review, busy or (self._why_no_click() if review is None else None), busy)

    def _on_counted(self) -> None:
        self.show_results(self.results)

    def refresh(self) -> None:
        """See `FlowView`."""
        if self._gone:
            return
        controller, importer = self.flow.controller, self.files.importer
        ticker = importer.ticker if importer.busy else self.slides.following
        self.run_bar.follow(controller.ticker if controller.running else ticker)
        self.run_bar.allow(self._why_not())
        self.slides.follow(self.region.is_whole, self._busy)
        self.show_results(self.results)

    def _on_image(self) -> None:
        self.mpp.set_layer(self.image.layer)
        self.region.set_image(self.image.layer)
        self.review.panel.set_image(self.image.layer)
        self.files.set_image(self.image.layer)
        self.slides.set_image(self.image.layer)
        self.mpp.refresh()  # which the saved review may know
        self.refresh()

    def _on_model(self) -> None:
        self.advanced.set_card(None if self.model.model is None else self.model.model.card)
        self.files.set_model(self.model.model, self.device.device)
        self.refresh()

    def _on_added(self, error: Exception | None) -> None:
        """Say why a model could not be added, until one was."""
        if error is not None:
            self._not_added = report_error(error)
            self.set_status(self._not_added, True)
        elif self.run_bar.status == self._not_added:
            self.set_status("")

    def _on_active(self, event: Any) -> None:
        self._follow(event.value)
        self.show_results(self.results)

    def _on_inserted(self, event: Any) -> None:
        self._follow(event.value)

    def _follow(self, layer: Any) -> None:
        """Choose an image that the user has opened or selected, unless a run of another is under way."""
        if isinstance(layer, Image) and layer in self._viewer.layers and self._busy is None:
            self.image.choose(layer)

    def _on_look(self) -> None:
        results = self.results
        if results is not None:
            results.show(self.legend.look)

    def _on_save(self) -> None:
        results, image = self.results, self.image.layer
        if results is not None and image is not None:
            self._saver.start(results, image, self)

    def _inspect(self) -> None:
        """Find out in a worker which devices there are."""
        if self._closed:
            return
        worker = create_worker(self._services.inspect_devices, _start_thread=False, _ignore_errors=True)
        worker.returned.connect(self._on_inspected)
        worker.errored.connect(self._on_not_inspected)
        worker.start()
        self._warming = work.start(self._services.warm_up, lambda _: None)

    def _on_inspected(self, report: Any) -> None:
        if not self._closed:
            self.device.show_report(report)

    def _on_not_inspected(self, error: Exception) -> None:
        if not self._closed:
            self.device.show_failure(error)

    def close_down(self) -> None:
        """Stop the run and let go of the viewer; called when the panel is closed."""
        if self._closed:
            return
        self._closed = True
        self.flow.shut_down()
        disconnect_all([self._viewer.layers.selection.events.active], self._on_active)
        disconnect_all([self._viewer.layers.events.inserted], self._on_inserted)
        for field in (self.image, self.mpp, self.region, self.files, self.review, self.slides):
            field.release()

    def event(self, event: QEvent) -> bool:
        """Notice when napari takes the panel out of its dock, which is how it closes one."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None and not self._closed:
            self.close_down()
        return bool(super().event(event))

    def closeEvent(self, event: Any) -> None:
        """Close down."""
        self.close_down()
        super().closeEvent(event)
