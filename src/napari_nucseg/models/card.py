"""The card of a model: everything a user or a program must know of the weights beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError

FORMAT = 1
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Card:
    """What a model is, what it was trained on, and what one may do with it.

    Attributes
    ----------
    classes : tuple of str
        Nucleus classes, in the order of the `type` map.
    colours : dict
        Class name to RGB, 0..255.
    mpp : float
        Resolution in micrometres per pixel that the network expects; images are resampled to it.
    mean, std : tuple of float
        Normalisation of 8-bit RGB.
    network : dict
        Shape of the network (`StudentConfig.to_dict`).
    decode : DecodeConfig
        Thresholds, chosen on validation images.
    licence : str
        Of the weights, which is not that of the program.
    caution : str
        What the model has not been shown to do; the panel shows it.
    metrics : dict
        Figures on test sets, with the command that made them.
    sha256 : str
        Of the weights file.
    """

    name: str
    version: str
    title: str
    classes: tuple[str, ...]
    colours: dict[str, Colour]
    mpp: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    network: dict[str, Any]
    licence: str
    caution: str = ""
    training_data: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    cite: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    sha256: str = ""
    format: int = FORMAT

    @property
    def layout(self) -> MapLayout:
        """Channels of the network's output."""
        return MapLayout(tuple(self.network["layout"]["angles"]), len(self.classes))

    def to_json(self) -> str:
        """Return the card as JSON text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read a card file.

        Raises
        ------
        NucSegError
            The file is missing, damaged, or of a newer format.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise NucSegError(
                f"Model card '{path}' cannot be read ({error.strerror}); a model needs its card beside the weights."
            ) from error
        except ValueError as error:
            raise NucSegError(
                f"Model card '{path}' is not valid JSON ({error}); get the model anew."
            ) from error
        return cls._from_dict(data, path)

    @classmethod
    def _from_dict(cls, data: Any, path: Path) -> Card:
        version = data.get("format") if isinstance(data, dict) else None
        if version != FORMAT:
            raise NucSegError(
                f"Model card '{path}' has format {version!r}, but this version reads {FORMAT}; update napari-nucseg."
            )
        try:
            tuples = ("classes", "mean", "std", "training_data", "cite")
            data |= {key: tuple(data[key]) for key in tuples if key in data}
            data["colours"] = {name: tuple(rgb) for name, rgb in data["colours"].items()}
            data["decode"] = DecodeConfig(**data.get("decode", {}))
            card = cls(**data)
            card._check()
        except (KeyError, TypeError, AttributeError) as error:
            raise NucSegError(
                f"Model card '{path}' is incomplete ({error!r}); get the model anew."
            ) from error
        except NucSegError as error:
            raise NucSegError(f"Model card '{path}': {error}") from error
        return card

    def _check(self) -> None:
        """Raise if a value makes no sense."""
        if missing := [c for c in self.classes if c not in self.colours]:
            raise NucSegError(f"It gives no colour for the class '{missing[0]}'; add one.")
        if not isinstance(self.mpp, int | float) or not 0.05 <= self.mpp <= 5:
            raise NucSegError(f"Its mpp {self.mpp!r} is no resolution in micrometres per pixel; correct it.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise NucSegError(
                f"Its normalisation {self.mean}, {self.std} needs three means, and three deviations above 0."
            )
        _ = self.layout
