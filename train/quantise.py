"""Weights and activations in 8 bit, after training: what each layer sees on a few crops sets its scales.

NNCF (Kozlov et al. 2020) does it on OpenVINO's form of the network; the result runs wherever OpenVINO does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_nucseg.errors import NucSegError
from train.formats import to_openvino

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_nucseg.models.registry import Model

log = logging.getLogger(__name__)


def check_packages() -> None:
    """Raise `NucSegError` where a package is missing."""
    for package in ("openvino", "nncf"):
        if find_spec(package) is None:
            raise NucSegError(
                f"Quantisation needs the package {package}, which is not installed; pip install {package}."
            )


def quantise(model: Model, crops: Sequence[NDArray[np.uint8]], path: Path) -> Path:
    """Write a network of 8-bit weights and activations.

    Parameters
    ----------
    model
        With float weights.
    crops
        Calibration images (H, W, 3) uint8 at the model's resolution, sides multiples of its stride; of training images.
    path
        The ``.xml`` to write; a ``.bin`` comes beside it.

    Raises
    ------
    NucSegError
        A package is missing, or there are no crops.
    """
    check_packages()
    if not crops:
        raise NucSegError("Quantisation needs calibration images; set calibration to 50 or more.")
    import nncf
    import openvino

    from napari_nucseg.models.runtime import openvino_core

    logging.getLogger("nncf").setLevel(logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    log.info("choosing the scales of 8 bit on %d crops, which takes a minute or two", len(crops))
    whole = to_openvino(model, path.with_name("float.xml"))
    try:
        network = openvino_core().read_model(whole)
        data = nncf.Dataset([crop[None] for crop in crops])
        small = nncf.quantize(
            network,
            data,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(crops),
            fast_bias_correction=True,
        )
        openvino.save_model(small, path, compress_to_fp16=False)
        del network
    finally:
        for file in (whole, whole.with_suffix(".bin")):
            file.unlink(missing_ok=True)
    return path
