"""Whatever can be evaluated, ready to run: installed models, model folders, runs, checkpoints, OpenVINO files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.errors import NucSegError
from napari_nucseg.models.card import Card
from napari_nucseg.models.devices import DEVICES
from napari_nucseg.models.registry import Model, find_model
from napari_nucseg.models.runtime import openvino_core

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import nn

    from napari_nucseg.io.slide import Mpp
    from napari_nucseg.models.runtime import Runtime

CHOSEN = "chosen"
"""Key under which ``decode.json`` tells how the thresholds were chosen."""
CALIBRATED = "calibrated"
"""Key under which it tells how scores and class probabilities were calibrated."""


@dataclass(frozen=True)
class Loaded:
    """A network with its card.

    Attributes
    ----------
    name
        For tables and file names.
    card
        Classes, resolution and thresholds.
    runtime
        From an image to activated maps.
    about
        What a report says of it: name, version, sha256 or step.
    """

    name: str
    card: Card
    runtime: Runtime
    about: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name} {self.card.version}".strip()

    def segment(self, image: NDArray[np.uint8], mpp: Mpp) -> tuple[NDArray[np.uint32], pd.DataFrame]:
        """Return labels and table of nuclei of an (H, W, 3) image, through the pipeline that a user runs."""
        from napari_nucseg.inference import segment

        result = segment(image, mpp, Model(Path(self.name), self.card), runtime=self.runtime)
        return result.labels, result.nuclei


class IRRuntime:
    """A network in OpenVINO's own format, such as one of 8-bit weights: `train.export`, `train.compress`.

    Parameters
    ----------
    path
        The ``.xml`` file; its ``.bin`` lies beside it.
    precision : {"f32", "bf16"}
        Of what is not quantised.
    """

    def __init__(self, path: Path, precision: str = "f32") -> None:
        try:
            import openvino
        except ImportError as error:
            raise NucSegError(
                f"'{path}' needs OpenVINO, which is not installed; pip install openvino."
            ) from error
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        if threads := os.environ.get("NUCSEG_THREADS"):  # as for installed models, so that races are fair
            hints["INFERENCE_NUM_THREADS"] = threads
        core = openvino_core()
        try:
            self._request = core.compile_model(core.read_model(path), "CPU", hints).create_infer_request()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise NucSegError(f"OpenVINO cannot read '{path}' ({reason}); export it anew.") from error
        self._lock = threading.Lock()
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]} (CPU, {path.stem}, {precision})"

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `napari_nucseg.models.runtime.Runtime`."""
        with self._lock:
            output = self._request.infer({0: np.ascontiguousarray(rgb)[None]})
            maps: NDArray[np.float32] = output[0][0]
        return maps


def is_run(what: str) -> bool:
    """Whether what is named is the folder of a run, or a checkpoint in it."""
    path = Path(what)
    return path.suffix == ".pt" or (path / "config.json").is_file()


def load(what: str, device: str = "auto") -> Loaded:
    """Load whatever is named.

    Parameters
    ----------
    what
        The name or path of a model, the folder of a run, a checkpoint in such a folder
        (``runs/teacher/best.pt``), or a network of OpenVINO with its card beside it (``small/int8.xml``).
    device : {"auto", "cuda", "cpu", "cpu-torch"}

    Raises
    ------
    NucSegError
        There is nothing of the kind, or it cannot be loaded.
    """
    path = Path(what)
    if path.suffix == ".xml":
        if device == "cuda":
            raise NucSegError(f"'{what}' of OpenVINO runs on the CPU only; leave the device out.")
        return _load_ir(path)
    if is_run(what):
        return _load_run(path, device)
    return load_model(find_model(what), device)


def load_model(model: Model, device: str = "auto") -> Loaded:
    """Load a model onto a device, see `napari_nucseg.models.runtime.load_runtime`."""
    from napari_nucseg.models.runtime import load_runtime

    about = {"name": model.name, "version": model.card.version, "sha256": model.card.sha256}
    return Loaded(model.name, model.card, load_runtime(model, device), about)


def _load_ir(path: Path) -> Loaded:
    from napari_nucseg.models.checkpoint import sha256
    from napari_nucseg.models.runtime import inspect_devices

    if not path.is_file():
        raise NucSegError(f"'{path}' does not exist; make it with python -m train.export or train.compress.")
    card = Card.read(path.with_name("card.json"))
    runtime = IRRuntime(path, inspect_devices().precision)
    weights = path.with_suffix(".bin")
    about = {"name": f"{card.name} ({path.stem})", "version": card.version, "sha256": sha256(weights)}
    return Loaded(f"{card.name}-{path.stem}", card, runtime, about)


def _load_run(path: Path, device: str) -> Loaded:
    from train.runs import draft_card, load_run, run_folder
    from train.validate import TaskRuntime

    where, folder = inference_device(device), run_folder(path)
    config, task = load_run(path)
    name = folder.resolve().name
    if path != folder:  # so that two checkpoints of a run are told apart
        name = f"{name}-{path.stem}"
    draft, about = (
        draft_card(config, task),
        {"name": name, "run": str(path), "weights": weights_of(task.network)},
    )
    training = draft.training | tuning_of(folder)
    card = dataclasses.replace(draft, name=name, version="", decode=decode_of(folder), training=training)
    return Loaded(name, card, TaskRuntime(task.to(where)), about)


def weights_of(network: nn.Module) -> str:
    """Return the sha256 of the weights of a network, in full precision."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tuned(folder: Path) -> Path:
    """Return where the thresholds of a run are kept, if they were chosen."""
    return folder / "decode.json"


def decode_of(folder: Path) -> DecodeConfig:
    """Return the settings that `train.thresholds` and `train.calibrate` chose for a run, else the usual ones.

    Raises
    ------
    NucSegError
        They are damaged.
    """
    return _rules(folder)[0]


def tuning_of(folder: Path) -> dict[str, Any]:
    """Return what the card of a run tells of its settings: how they were chosen, and on which images.

    Returns
    -------
    dict
        ``thresholds``, empty if they were not chosen or nobody knows; ``calibration`` if there is one.
    """
    return _rules(folder)[1]


def _rules(folder: Path) -> tuple[DecodeConfig, dict[str, Any]]:
    path = tuned(folder)
    if not path.is_file():
        return DecodeConfig(), {"thresholds": {}}
    try:
        rules = json.loads(path.read_text(encoding="utf-8"))
        chosen, fitted = dict(rules.pop(CHOSEN, {})), dict(rules.pop(CALIBRATED, {}))
        how = {"thresholds": chosen} | ({"calibration": fitted} if fitted else {})
        return DecodeConfig(**rules), how
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise NucSegError(
            f"Thresholds '{path}' cannot be read ({error}); choose them anew by python -m train.thresholds."
        ) from error


def inference_device(name: str) -> str:
    """Return the device of torch for one of ours: "auto" is CUDA where there is one.

    Raises
    ------
    NucSegError
        It is not known, or not there.
    """
    import torch

    if name not in DEVICES:
        raise NucSegError(f"Device '{name}' is not one of {', '.join(DEVICES)}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise NucSegError("Device 'cuda' was asked for, but torch finds no CUDA device; use device 'cpu'.")
    return "cuda" if name in ("auto", "cuda") and torch.cuda.is_available() else "cpu"
