"""The card of a model: everything a user or a program must know of the weights beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from napari_nucseg.core.decode import DecodeConfig
from napari_nucseg.core.maps import MapLayout
from napari_nucseg.core.tiling import HALO, up
from napari_nucseg.errors import NucSegError

FORMAT = 1
Colour = tuple[int, int, int]

_TEXTS = ("name", "version", "title", "licence", "caution", "sha256")
_LISTS = ("classes", "mean", "std", "weaknesses", "training_data", "cite")
_TABLES = ("colours", "network", "training", "metrics", "decode")
_NUMBERS = ("mean", "std")


def as_colours(given: Mapping[str, Any]) -> dict[str, Colour]:
    """Return colours by name, each given as three whole numbers of 0..255 or as '#rrggbb'.

    Raises
    ------
    NucSegError
        One is neither.
    """
    out = {}
    for name, value in given.items():
        parts = value
        if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
            parts = tuple(bytes.fromhex(value[1:]))
        if not isinstance(parts, list | tuple) or len(parts) != 3:
            parts = (None,) * 3
        if not all(type(part) is int and 0 <= part <= 255 for part in parts):
            shown = list(value) if isinstance(value, tuple) else value
            raise NucSegError(
                f"The colour {shown!r} of '{name}' is none; give three whole numbers of 0 to 255, or '#rrggbb'."
            )
        out[name] = (parts[0], parts[1], parts[2])
    return out


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
    weaknesses : tuple of str
        What it was seen to do badly, one sentence each.
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
    weaknesses: tuple[str, ...] = ()
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

    @property
    def halo(self) -> int:
        """Pixels that the network must see around what it answers for, a multiple of its stride.

        The radius of its receptive field, walked back from an output on the stride: each 3x3 convolution adds a pixel
        of its level, the way to a coarser level goes to the edge of the pixel there, and the stem adds two.
        """
        blocks, decoder = self.network.get("blocks"), self.network.get("decoder_blocks")
        if blocks is None or decoder is None:
            return HALO
        radius = 2  # the head's, at half the resolution
        for level, n in enumerate(reversed(decoder), 1):
            coarser = 2 ** (level + 1)
            radius = -(-(radius + 2 * n * 2**level) // coarser) * coarser
        radius += sum(2 * n * 2**level for level, n in enumerate(blocks, 1))
        return up(radius + 2)

    def to_json(self) -> str:
        """Return the card as JSON text.

        Raises
        ------
        NucSegError
            A value makes no sense.
        """
        self._check()
        return (
            json.dumps(asdict(self) | {"decode": self.decode.to_dict()}, indent=1, ensure_ascii=False) + "\n"
        )

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
            _check_kinds(data)
            data |= {key: tuple(data[key]) for key in _LISTS if key in data}
            data["colours"] = as_colours(data["colours"])
            data["decode"] = DecodeConfig(**data.get("decode", {}))
            card = cls(**data)
            card._check()
        except NucSegError as error:  # a ValueError too
            raise NucSegError(f"Model card '{path}': {error}") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise NucSegError(
                f"Model card '{path}' is incomplete ({error!r}); get the model anew."
            ) from error
        return card

    def _check(self) -> None:
        """Raise if a value makes no sense."""
        if missing := [c for c in self.classes if c not in self.colours]:
            raise NucSegError(f"It gives no colour for the class '{missing[0]}'; add one.")
        as_colours(self.colours)
        if not isinstance(self.mpp, int | float) or not 0.05 <= self.mpp <= 5:
            raise NucSegError(f"Its mpp {self.mpp!r} is no resolution in micrometres per pixel; correct it.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise NucSegError(
                f"Its normalisation {self.mean}, {self.std} needs three means, and three deviations above 0."
            )
        _ = self.layout


def _check_kinds(data: Mapping[str, Any]) -> None:
    """Raise if a value of a card file is of another kind than its key wants."""
    for keys, kind, words in ((_TEXTS, str, "a text"), (_LISTS, list, "a list"), (_TABLES, dict, "a table")):
        for key in keys:
            if not isinstance(data.get(key, kind()), kind):
                raise NucSegError(f"Its {key} is {data[key]!r}, which is not {words}; get the model anew.")
    for key in _LISTS:
        item: Any = (int, float) if key in _NUMBERS else str
        if bad := [value for value in data.get(key, ()) if not isinstance(value, item)]:
            raise NucSegError(f"Its {key} hold {bad[0]!r}, which is of another kind; get the model anew.")
