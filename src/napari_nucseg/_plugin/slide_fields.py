"""What the panel asks and says of whole slides: folder, tissue, results, review of a part."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_nucseg._plugin.legend import Legend
from napari_nucseg._plugin.parts import AMBER, column, enable, hint, say, side_button


class TargetField(QWidget):
    """Folder of the results of a whole slide, and whether glass is left out."""

    folder_clicked = Signal()
    tissue_clicked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.tissue = QCheckBox("Tissue only")
        self.tissue.setToolTip("Leave out glass, which is found on a small picture of the slide.")
        self.tissue.setChecked(True)
        self.show_button = side_button("Show tissue", "Show what counts as tissue; again hides it.")
        self.show_button.clicked.connect(lambda: self.tissue_clicked.emit())
        self._line = hint()
        self._change = side_button("Folder…", "Choose where the results of the whole slide go.")
        self._change.clicked.connect(lambda: self.folder_clicked.emit())
        first, second = QHBoxLayout(), QHBoxLayout()
        first.addWidget(self.tissue)
        first.addStretch()
        first.addWidget(self.show_button)
        second.addWidget(self._line, 1)
        second.addWidget(self._change)
        layout = column(self)
        layout.addLayout(first)
        layout.addLayout(second)

    def show_folder(self, folder: Path, there: bool, kept: int) -> None:
        """Say where results go, whether some are there, and how many tiles of an earlier run are kept."""
        text = f"Results go to {folder.name}" + (" (some are there already)." if there else ".")
        if kept:
            tiles = "tile of an earlier run is" if kept == 1 else "tiles of an earlier run are"
            text += f" {kept:,} {tiles} kept; with the same settings, Run goes on there."
        say(self._line, text)
        self._line.setToolTip(str(folder))


class SlideBox(QWidget):
    """The results of a whole slide that are shown, and what can be done with them."""

    review_clicked = Signal()
    put_clicked = Signal()
    resume_clicked = Signal()
    export_clicked = Signal()
    open_clicked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._heading = QLabel()
        self._heading.setWordWrap(True)
        self._heading.setStyleSheet("font-weight: bold;")
        self._view = hint()
        self.legend = Legend()
        self._outdated = hint("", AMBER)
        self.review_button = QPushButton("Review here")
        self.put_button = QPushButton("Put back")
        self.resume_button = QPushButton("Resume the saved review of a region")
        self.export_button = QPushButton("Export GeoJSON")
        self.open_button = QPushButton("Open results of a slide…")
        self.open_button.setToolTip("Show results and slide: choose its *_summary.json.")
        self.resume_button.setToolTip("A review of a region was saved, and not yet put back into the slide.")
        for button, signal in (
            (self.review_button, self.review_clicked),
            (self.put_button, self.put_clicked),
            (self.resume_button, self.resume_clicked),
            (self.export_button, self.export_clicked),
            (self.open_button, self.open_clicked),
        ):
            button.clicked.connect(lambda _=False, s=signal: s.emit())
        self._results = QWidget()
        inner = QVBoxLayout(self._results)
        inner.setContentsMargins(0, 0, 0, 0)
        for widget in (self._heading, self._view, self.legend, self._outdated):
            inner.addWidget(widget)
        row = QHBoxLayout()
        row.addWidget(self.review_button)
        row.addWidget(self.put_button)
        inner.addWidget(self.export_button)
        layout = column(self)
        layout.addWidget(self._results)
        layout.addLayout(row)
        layout.addWidget(self.resume_button)
        layout.addWidget(self.open_button)
        for widget in (self._results, self.put_button, self.review_button, self.resume_button):
            widget.hide()
        self._there = False

    def show_result(self, heading: str, view: str, outdated: str, reviewing: bool = False) -> None:
        """Show what there is; an empty heading stands for no result, and during a review that is shown instead."""
        self._there = bool(heading)
        self._results.setVisible(self._there and not reviewing)
        self._heading.setText(heading)
        say(self._view, view)
        say(self._outdated, outdated)

    def allow(self, reviewing: bool, saved: bool, why_not: str | None) -> None:
        """Enable what can be done now.

        Parameters
        ----------
        reviewing : bool
            Whether a part is under review.
        saved : bool
            Whether a review was saved and not put back.
        why_not : str or None
            Why nothing can begin.
        """
        self.put_button.setVisible(reviewing)
        self.review_button.setVisible(self._there and not saved)
        self.resume_button.setVisible(self._there and saved)
        self.open_button.setVisible(not reviewing)
        tip = "Review what is in view, or the selected shapes if these are chosen as the region."
        if reviewing:
            tip += " The review under way is put back first."
        enable(self.review_button, why_not, tip)
        enable(self.resume_button, why_not, self.resume_button.toolTip())
        enable(
            self.put_button, why_not, "Write the reviewed nuclei into the slide's results; ends the review."
        )
        enable(self.export_button, why_not, "Write all nuclei as they are now as GeoJSON for QuPath.")
        enable(self.open_button, why_not, "Show results and slide: choose its *_summary.json.")
