"""The teacher: a large encoder with a U-shaped decoder, trained here and never shipped."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from train.teacher.conv import ConvConfig, ConvEncoder
from train.teacher.decoder import STRIDES, Decoder, DecoderConfig, Heads, SideHeads
from train.teacher.efficientnet import LITES, EfficientNetLite
from train.teacher.light import STRIDES as LIGHT_STRIDES
from train.teacher.light import LightDecoder, SubpixelHead
from train.teacher.vit import VITS, Vit, VitConfig
from train.teacher.weights import Encoder, LoadReport, load_encoder

log = logging.getLogger(__name__)

ENCODERS = (*VITS, *LITES, "conv")
"""What `TeacherConfig.encoder` may be."""


@dataclass(frozen=True)
class TeacherConfig:
    """Shape of a teacher.

    Parameters
    ----------
    encoder : str
        "vit_small" (384 channels, 12 blocks, 6 heads), "vit_base" (768, 12, 12), "sam_vit_b" (768, 12, 12 with
        windows of 14 tokens and relative positions), "efficientnet_lite0" to "efficientnet_lite4" or "conv".
    layout : MapLayout
        Channels of the output; four angles give the multi-angle distance map.
    decoder : DecoderConfig
        Sizes of the decoder of a transformer or "conv".
    light : tuple of int
        Channels of the decoder of an EfficientNet-lite at 1/2, 1/4, 1/8 and 1/16.
    vit : VitConfig, optional
        Sizes in place of those of the named transformer, such as vit.width=192 vit.heads=3 (what is not given is
        that of "vit_small").
    conv : ConvConfig
        Sizes of the convolutional encoder.
    deep_supervision : bool
        Add heads on the decoder's features at 1/8, 1/4 and 1/2, see `Teacher.side_maps`.
    checkpointing : bool
        Save memory in training: the transformer's blocks are computed again on the way back.
    weights : Path, optional
        File of public encoder weights to begin with, see `train.teacher.weights.load_encoder`.
    """

    encoder: str = "vit_small"
    layout: MapLayout = field(default_factory=MapLayout)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    light: tuple[int, ...] = (48, 64, 96, 128)
    vit: VitConfig | None = None
    conv: ConvConfig = field(default_factory=ConvConfig)
    deep_supervision: bool = False
    checkpointing: bool = False
    weights: Path | None = None

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise NucSegError(f"encoder={self.encoder!r} is not known; there are {', '.join(ENCODERS)}.")
        if self.encoder not in VITS and (self.vit is not None or self.checkpointing):
            wrong = "checkpointing=true" if self.vit is None else "vit"
            raise NucSegError(
                f"{wrong} has no meaning with encoder='{self.encoder}'; leave it out or choose a ViT."
            )
        if self.encoder in LITES and self.decoder != DecoderConfig():
            raise NucSegError(
                f"decoder has no meaning with encoder='{self.encoder}'; set light=[...] instead."
            )
        if self.encoder not in LITES and self.light != TeacherConfig.light:
            raise NucSegError(
                f"light has no meaning with encoder='{self.encoder}'; set decoder.widths=[...] instead."
            )
        if len(self.light) != len(LIGHT_STRIDES) or min(self.light) < 1:
            raise NucSegError(
                f"light={list(self.light)} must have four numbers, each at least 1, for 1/2 to 1/16."
            )

    @property
    def stride(self) -> int:
        """Input sides must be multiples of this many pixels."""
        return STRIDES[-1]


def build_encoder(config: TeacherConfig) -> Encoder:
    """Return the encoder with fresh weights."""
    if config.encoder == "conv":
        return ConvEncoder(config.conv)
    if config.encoder in LITES:
        return EfficientNetLite(config.encoder)
    return Vit(config.vit or VITS[config.encoder], config.checkpointing)


class Teacher(nn.Module):
    """Encoder and decoder from a normalised image to the raw maps.

    Shapes: ``(N, 3, H, W)`` float in, ``(N, layout.channels, H, W)`` out; H and W are multiples of 16. The output
    is of the student's kind: logits, and plain values for `distance`.

    Parameters
    ----------
    config : TeacherConfig
        `weights` is not read here, so that a trained teacher can be loaded where that file is missing; use
        `build_teacher` to begin with it.

    Attributes
    ----------
    config : TeacherConfig
    feature_widths, feature_strides : tuple of int
        Channels and pixels per cell of what `features` returns, coarse to fine.
    """

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder = build_encoder(config)
        widths: tuple[int, ...] = config.decoder.widths
        strides: tuple[int, ...] = STRIDES
        if isinstance(encoder, EfficientNetLite):
            widths, strides = config.light, LIGHT_STRIDES
            self.decoder: nn.Module = LightDecoder(widths, encoder.widths)
            self.heads: nn.Module = SubpixelHead(widths[0], config.layout)
        else:
            self.decoder = Decoder(config.decoder, encoder.widths, encoder.strides)
            self.heads = Heads(widths[0], config.decoder.head, config.layout)
        self.feature_widths, self.feature_strides = widths[::-1], strides[::-1]
        if config.deep_supervision:
            self.sides = SideHeads(self.feature_widths[1:4], config.layout)

    def features(self, image: Tensor) -> list[Tensor]:
        """Return decoder features from coarse (1/16) to fine (1/1, or 1/2); the last feeds the heads.

        Raises
        ------
        NucSegError
            A side of the image is not a multiple of 16 pixels.
        """
        height, width = image.shape[2:]
        if height % self.config.stride or width % self.config.stride or not height or not width:
            raise NucSegError(
                f"Image of {height} x {width} pixels does not fit the teacher; pad or crop its sides to multiples "
                f"of {self.config.stride}."
            )
        features: list[Tensor] = self.decoder(image, self.encoder(image))
        return features

    def forward_with_features(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the raw maps and the features they come from."""
        features = self.features(image)
        return self.heads(features[-1]), features

    def forward(self, image: Tensor) -> Tensor:
        """Return the raw maps of a normalised image."""
        return self.forward_with_features(image)[0]

    def side_maps(self, features: list[Tensor]) -> list[Tensor]:
        """Return the raw maps for deep supervision, coarse to fine, each of the shape of `forward`'s.

        Parameters
        ----------
        features : list of Tensor
            Of `features` or `forward_with_features`.

        Returns
        -------
        list of Tensor
            Three, from 1/8, 1/4 and 1/2; none without `deep_supervision`.
        """
        if not self.config.deep_supervision:
            return []
        height, width = (n * self.feature_strides[-1] for n in features[-1].shape[2:])
        return self.sides(features[1:4], (height, width))


def build_teacher(config: TeacherConfig) -> Teacher:
    """Return a teacher whose encoder begins with `config.weights` (or with random ones), and log what fitted.

    Raises
    ------
    NucSegError
        The file of weights cannot be read or does not fit.
    """
    teacher = Teacher(config)
    if config.weights is not None:
        report: LoadReport = load_encoder(teacher.encoder, config.weights)
        log.log(logging.WARNING if report.missing else logging.INFO, "%s", report)
    return teacher
