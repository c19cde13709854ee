"""Fields for how to segment: the model, the device, the thresholds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_nucseg._plugin.parts import AMBER, combo, enable, hint, say, set_item, side_button
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.devices import DEVICES

if TYPE_CHECKING:
    from napari_nucseg._plugin.services import Services
    from napari_nucseg.models.card import Card
    from napari_nucseg.models.registry import Model
    from napari_nucseg.models.runtime import DeviceReport


class ModelField(QWidget):
    """Chooses a model and shows what its card says that a user must know."""

    changed = Signal()

    def __init__(self, services: Services, report: Callable[[Exception | None], None]) -> None:
        super().__init__()
        self._services, self._report = services, report
        self._models: list[Model] = list(services.models().values())
        self._box = combo("")
        self._box.currentIndexChanged.connect(self._on_chosen)
        tip = "Add a model from a folder with weights.safetensors and card.json."
        self._add = side_button("Add…", tip)
        self._add.clicked.connect(self._on_add)
        self._facts, self._caution = hint(), hint("", AMBER)
        row = QHBoxLayout()
        row.setSpacing(6)
        row.addWidget(self._box, 1)
        row.addWidget(self._add)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addLayout(row)
        layout.addWidget(self._facts)
        layout.addWidget(self._caution)
        self._box.addItems([str(model) for model in self._models])
        self._on_chosen(self._box.currentIndex())

    @property
    def model(self) -> Model | None:
        """The chosen model."""
        index = self._box.currentIndex()
        return self._models[index] if 0 <= index < len(self._models) else None

    def add(self, path: Path) -> None:
        """Choose the model at a path, added to the list unless it is there; report the error where there is none."""
        try:
            model = self._services.open_model(path)
        except NucSegError as error:
            self._report(error)
            return
        self._report(None)
        same = model.card.sha256 and model.card
        known = [k for k, other in enumerate(self._models) if other == model or other.card == same]
        if not known:
            names = [str(other) for other in self._models]
            shown = str(model) if str(model) not in names else f"{model} ({path})"
            self._models.append(model)
            self._box.addItem(shown)
        self._box.setCurrentIndex(known[0] if known else len(self._models) - 1)

    def _on_add(self) -> None:
        folder = self._services.ask_folder(self, "Folder of a model")
        if folder is not None:
            self.add(folder)

    def _on_chosen(self, _index: int) -> None:
        model = self.model
        reason = None if model else "No model is installed; add one from a folder."
        enable(self._box, reason, "" if model is None else _card_text(model.card))
        if model is None:
            say(self._facts, "")
            say(self._caution, reason or "")
        else:
            card = model.card
            say(self._facts, f"{', '.join(card.classes)}\n{card.mpp:g} µm/px · licence: {card.licence}")
            say(self._caution, card.caution)
        self.changed.emit()


def _card_text(card: Card) -> str:
    """Return what the tooltip tells of a model."""
    lines = [
        f"<b>{card.name} {card.version}</b> {card.title}",
        f"Classes: {', '.join(card.classes)}",
        f"Works at {card.mpp:g} µm/px; images are resampled to it",
        f"Licence of the weights: {card.licence}",
    ]
    if card.training_data:
        lines.append(f"Trained on: {', '.join(card.training_data)}")
    if card.weaknesses:
        lines.append(f"Known weaknesses: {' '.join(card.weaknesses)}")
    return "<br>".join(lines)


class DeviceField(QWidget):
    """Chooses what computes; what is not there is disabled, and a GPU until it has been found."""

    def __init__(self) -> None:
        super().__init__()
        self._box = combo("What runs the network. Auto takes the fastest there is.")
        self._box.addItems(["Auto", "GPU (CUDA)", "CPU", "CPU, torch"])
        set_item(self._box, 1, "GPU (CUDA)", "Looking for a GPU; wait a few seconds.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)

    @property
    def device(self) -> str:
        """The choice, as `napari_nucseg.models.runtime.load_runtime` takes it."""
        return DEVICES[self._box.currentIndex()]

    def set_device(self, device: str) -> None:
        """Choose a device."""
        self._box.setCurrentIndex(DEVICES.index(device))

    def show_report(self, report: DeviceReport) -> None:
        """Say what there is."""
        cpu = f"OpenVINO, {report.precision}" if report.openvino else "torch"
        slow = "" if report.openvino else " OpenVINO is not installed; with it the CPU is faster."
        # the longest item of the box, which is to fit a narrow panel; its tooltip tells the rest
        best = "GPU" if report.cuda else f"CPU, {report.precision if report.openvino else 'torch'}"
        no_gpu = None if report.cuda else "torch finds no CUDA device on this machine."
        set_item(self._box, 0, f"Auto ({best})", None, report.cuda or f"The CPU by way of {cpu}.{slow}")
        set_item(self._box, 1, "GPU (CUDA)", no_gpu, report.cuda or "")
        set_item(self._box, 2, f"CPU ({cpu})", None, f"The CPU by way of {cpu}.{slow}")
        set_item(self._box, 3, "CPU (torch)", None, "The CPU by way of torch, slower than OpenVINO.")
        self._leave_gpu(report.cuda is not None)

    def show_failure(self, error: Exception) -> None:
        """Say that nobody knows what there is."""
        set_item(self._box, 1, "GPU (CUDA)", f"Looking for a GPU failed ({error}); mend torch and OpenVINO.")
        self._leave_gpu(False)

    def _leave_gpu(self, found: bool) -> None:
        if not found and self.device == "cuda":
            self.set_device("auto")


class AdvancedField(QCollapsible):
    """The decoder's thresholds, folded away."""

    def __init__(self) -> None:
        super().__init__("▸ Advanced", expandedIcon=QIcon(), collapsedIcon=QIcon())
        self.toggled.connect(lambda open_: self.setText("▾ Advanced" if open_ else "▸ Advanced"))
        self.setDuration(0)
        button = self.toggleButton()
        button.setStyleSheet("text-align: left; border: none; padding: 4px; background: transparent;")
        button.setToolTip("Thresholds of the decoder.")
        self.layout().setContentsMargins(0, 0, 0, 0)
        self._card: Card | None = None
        self.foreground = self._spin("A pixel belongs to a nucleus above this probability.")
        self.centre = self._spin(
            "A nucleus is found where the centre map peaks above this: lower finds more."
        )
        self._reset = QPushButton("Reset to the model's")
        self._reset.clicked.connect(self._on_reset)
        body = QWidget()
        form = QFormLayout(body)
        form.setContentsMargins(4, 2, 0, 2)
        form.addRow("Foreground threshold", self.foreground)
        form.addRow("Centre threshold", self.centre)
        form.addRow(self._reset)
        self.addWidget(body)
        self._on_changed()

    def _spin(self, tooltip: str) -> QDoubleSpinBox:
        spin = QDoubleSpinBox()
        spin.setRange(0.01, 0.99)
        spin.setSingleStep(0.05)
        spin.setToolTip(tooltip)
        spin.valueChanged.connect(self._on_changed)
        return spin

    def set_card(self, card: Card | None) -> None:
        """Show the thresholds of a model."""
        self._card = card
        self.setEnabled(card is not None)
        self._on_reset()

    @property
    def settings(self) -> dict[str, float]:
        """What differs from the model's own thresholds."""
        return {name: value for name, (value, own) in self._values().items() if abs(value - own) > 0.004}

    def _values(self) -> dict[str, tuple[float, float]]:
        if self._card is None:
            return {}
        own = self._card.decode
        return {
            "foreground": (round(self.foreground.value(), 2), own.foreground),
            "centre": (round(self.centre.value(), 2), own.centre),
        }

    def _on_reset(self, _checked: Any = None) -> None:
        if self._card is not None:
            for spin, value in (
                (self.foreground, self._card.decode.foreground),
                (self.centre, self._card.decode.centre),
            ):
                blocker = QSignalBlocker(spin)
                spin.setValue(value)
                blocker.unblock()
        self._on_changed()

    def _on_changed(self, _value: Any = None) -> None:
        if hasattr(self, "_reset"):
            same = None if self.settings else "The thresholds are the model's own."
            enable(self._reset, same, "Back to the thresholds on the model's card.")
