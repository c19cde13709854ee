"""Run, Cancel, how far the run is, and one sentence on how it went."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_nucseg._plugin.parts import AMBER, enable, hint, say, steady

if TYPE_CHECKING:
    from napari_nucseg._plugin.compute import Ticker

POLL_MS = 150


class RunBar(QWidget):
    """The lower part of the form."""

    run_clicked = Signal()
    cancel_clicked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.run_button, self.cancel_button = QPushButton("Run"), QPushButton("Cancel")
        self.run_button.clicked.connect(lambda: self.run_clicked.emit())
        self.cancel_button.clicked.connect(lambda: self.cancel_clicked.emit())
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.bar.hide()
        self._status = hint()
        steady(self._status, 2)
        self._ticker: Ticker | None = None
        self._began = 0.0
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._poll)
        buttons = QHBoxLayout()
        buttons.setSpacing(6)
        buttons.addWidget(self.run_button, 2)
        buttons.addWidget(self.cancel_button, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(buttons)
        layout.addWidget(self.bar)
        layout.addWidget(self._status)

    def follow(self, ticker: Ticker | None) -> None:
        """Show the progress of a run or an import; None: there is none."""
        if ticker is self._ticker:
            return
        self._ticker, self._began = ticker, time.monotonic()
        self.bar.setVisible(ticker is not None)
        if ticker is None:
            self._timer.stop()
        else:
            self._poll()
            self._timer.start()

    def allow(self, reason: str | None) -> None:
        """Enable the buttons; `reason` is why a run cannot be started now."""
        enable(self.run_button, reason, "Segment.")
        nothing = "There is no run to cancel." if self._ticker is None else None
        enable(self.cancel_button, nothing, "" if self._ticker is None else self._ticker.on_stop)

    def set_status(self, text: str, alarm: bool = False) -> None:
        """Show one sentence."""
        self._status.setStyleSheet("font-size: 11px;" + (f" color: {AMBER};" if alarm else ""))
        say(self._status, text)

    @property
    def status(self) -> str:
        """The sentence shown."""
        return str(self._status.text())

    def _poll(self) -> None:
        ticker = self._ticker
        if ticker is None:
            return
        seconds = int(time.monotonic() - self._began)
        if not ticker.total:
            self.bar.setRange(0, 0)  # busy
            self.bar.setFormat(ticker.doing)
            return
        done = min(ticker.done, ticker.total)
        self.bar.setRange(0, ticker.total)
        self.bar.setValue(done)
        note = ticker.note or f"{seconds} s"
        self.bar.setFormat(f"{done} of {ticker.total} {ticker.unit}, {note}")
