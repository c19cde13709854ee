"""What a frozen teacher says of an image: live, averaged over several or over orientations, or kept on disk.

All of them are called alike and none is a module, so that a task can hold one without owning its weights: they
are neither trained, nor averaged, nor saved with the student.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from train.orient import ALL, orientations
from train.task import MapTask

_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class TeacherOutput:
    """What a teacher says of a batch, float32 and without gradients.

    Attributes
    ----------
    raw : Tensor, (N, layout.channels, H, W)
    features : dict of level to (N, C, h, w) Tensor
        Of the levels asked for.
    """

    raw: Tensor
    features: dict[int, Tensor] = field(default_factory=dict)


class TeacherSource(Protocol):
    """Anything that can be asked for a teacher's output."""

    layout: MapLayout
    feature_widths: tuple[int, ...]
    feature_strides: tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        """Text that changes whenever the outputs would."""

    def __call__(
        self, image: Tensor, levels: tuple[int, ...] = (), orientation: Tensor | None = None
    ) -> TeacherOutput:
        """Return the output for an image.

        Parameters
        ----------
        image : Tensor, (N, 3, H, W) uint8
        levels : tuple of int
            Levels of `feature_strides` whose features are wanted.
        orientation : Tensor, (N,) int, optional
            Number in `train.orient.ALL` of the orientation that a known image was brought into to make this one.
        """


class LiveTeacher:
    """A trained task, frozen, computing on the device of the image it is given.

    Parameters
    ----------
    task : MapTask
        Its network gives features, see `MapTask.predict_with_features`. Put into evaluation mode.
    dtype : torch.dtype, optional
        Of the autocast it runs in, whatever that of the student's training; None computes in float32.
    """

    def __init__(self, task: MapTask, dtype: torch.dtype | None = None) -> None:
        self._task = task.eval().requires_grad_(False)
        self._dtype = dtype
        self.layout = task.layout
        self.feature_widths: tuple[int, ...] = task.network.feature_widths
        self.feature_strides: tuple[int, ...] = task.network.feature_strides
        self._fingerprint = ""

    def __deepcopy__(self, memo: dict[int, Any]) -> LiveTeacher:
        """Return itself: the averaged copy of a task asks the same teacher."""
        return self

    @property
    def fingerprint(self) -> str:
        """Hash of the network's config, weights, normalisation and precision."""
        if not self._fingerprint:
            digest = hashlib.sha256(f"{self._task.network.config} {self._dtype}".encode())
            for name, value in sorted(self._task.state_dict().items()):
                digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
                digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
            self._fingerprint = digest.hexdigest()[:20]
        return self._fingerprint

    def __call__(
        self, image: Tensor, levels: tuple[int, ...] = (), orientation: Tensor | None = None
    ) -> TeacherOutput:
        """See `TeacherSource`; the orientation makes no difference."""
        if self._task.mean.device != image.device:
            self._task.to(image.device, memory_format=torch.channels_last)
        enabled, dtype = self._dtype is not None, self._dtype or torch.bfloat16
        with torch.no_grad(), torch.autocast(image.device.type, dtype, enabled=enabled):
            raw, features = self._task.predict_with_features(image)
        return TeacherOutput(raw, {k: features[k].float() for k in levels})


class MeanTeacher:
    """An ensemble: the mean raw maps of several teachers of the same maps. Features are those of the first.

    Parameters
    ----------
    sources : tuple of TeacherSource
        At least one; all of one layout.

    Raises
    ------
    NucSegError
        Their maps differ.
    """

    def __init__(self, sources: tuple[TeacherSource, ...]) -> None:
        self._sources, first = sources, sources[0]
        self.layout = first.layout
        if other := next((s.layout for s in sources if s.layout != self.layout), None):
            raise NucSegError(
                f"Teachers of an ensemble must make the same maps; one has {self.layout}, another {other}."
            )
        self.feature_widths, self.feature_strides = first.feature_widths, first.feature_strides

    @property
    def fingerprint(self) -> str:
        """See `TeacherSource`."""
        all_of_them = " ".join(s.fingerprint for s in self._sources)
        return f"mean-{hashlib.sha256(all_of_them.encode()).hexdigest()[:20]}"

    def __call__(
        self, image: Tensor, levels: tuple[int, ...] = (), orientation: Tensor | None = None
    ) -> TeacherOutput:
        """See `TeacherSource`; the orientation makes no difference."""
        first, *others = self._sources
        plain = first(image, levels)
        raw = plain.raw
        for source in others:
            raw = raw + source(image).raw
        return TeacherOutput(raw / len(self._sources), plain.features)


class TurnedTeacher:
    """Test-time augmentation: the mean raw maps over all orientations under which the distance angles close.

    Features are those of the image as it is: their channels have no known meaning that could be turned back.
    The origin of the distance targets lies a pixel before the centroid, and behind it in a flipped image; the mean
    has it at the centroid, which changes distances by about 0.04 on average over nuclei at 0.25 um/px.
    """

    def __init__(self, source: TeacherSource) -> None:
        self._source = source
        self.layout = source.layout
        self.feature_widths, self.feature_strides = source.feature_widths, source.feature_strides

    @property
    def fingerprint(self) -> str:
        """See `TeacherSource`."""
        return f"turned-{self._source.fingerprint}"

    def __call__(
        self, image: Tensor, levels: tuple[int, ...] = (), orientation: Tensor | None = None
    ) -> TeacherOutput:
        """See `TeacherSource`; the orientation makes no difference."""
        first, *others = orientations(self.layout)
        plain = self._source(image, levels)
        raw = first.undo_maps(plain.raw, self.layout)
        for o in others:
            raw = raw + o.undo_maps(self._source(o.turn(image).contiguous()).raw, self.layout)
        return TeacherOutput(raw / (1 + len(others)), plain.features)


class CachedTeacher:
    """Keep every output on disk, by what the teacher is and which pixels it saw, so that it runs once on each image.

    Nothing can be out of date: the name of a file is a hash of the teacher and of the pixels. Only crops that
    come again hit it: in later passes over a limited number of crops (`train.pool`), and in other runs with the
    same crops, such as those of an ablation. A file holds float16; for a crop of 256 px the raw maps take
    about 1.6 MB, features at 1/16 to 1/2 of widths 512 to 64 another 4 MB.

    A crop that comes again in another orientation gets the stored output in that orientation. That is
    what the teacher would say if it were equivariant; else it is one of the views that `TurnedTeacher` averages.

    Parameters
    ----------
    source : TeacherSource
    folder : Path
        May be shared by any number of runs and processes.
    """

    def __init__(self, source: TeacherSource, folder: Path) -> None:
        self._source, self._folder = source, folder / source.fingerprint
        self.layout = source.layout
        self.feature_widths, self.feature_strides = source.feature_widths, source.feature_strides
        self.hits = self.misses = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NucSegError(
                f"Teacher outputs cannot be kept in '{folder}' ({error.strerror}); choose another folder."
            ) from error

    def __deepcopy__(self, memo: dict[int, Any]) -> CachedTeacher:
        """Return itself, as `LiveTeacher` does."""
        return self

    @property
    def fingerprint(self) -> str:
        """See `TeacherSource`."""
        return self._source.fingerprint

    def __call__(
        self, image: Tensor, levels: tuple[int, ...] = (), orientation: Tensor | None = None
    ) -> TeacherOutput:
        """See `TeacherSource`."""
        turns = [ALL[k] for k in ([0] * len(image) if orientation is None else orientation.tolist())]
        upright = [o.undo(x) for o, x in zip(turns, image, strict=True)]
        found = self._look_up(upright, levels)
        raws = [o.turn_maps(f["raw"][None].float(), self.layout) for o, f in zip(turns, found, strict=True)]
        features = {
            k: torch.stack([o.turn(f[f"feature_{k}"].float()) for o, f in zip(turns, found, strict=True)])
            for k in levels
        }
        return TeacherOutput(torch.cat(raws), features)

    def _look_up(self, images: list[Tensor], levels: tuple[int, ...]) -> list[dict[str, Tensor]]:
        """Return the stored output of each image, computing in one batch what is not there."""
        paths = [self._path(x) for x in images]
        found = {k: f for k, path in enumerate(paths) if (f := _read(path, levels, images[k].device))}
        missing = [k for k in range(len(images)) if k not in found]
        self.hits, self.misses = self.hits + len(found), self.misses + len(missing)
        if missing:
            new = self._source(torch.stack([images[k] for k in missing]), levels)
            for row, k in enumerate(missing):
                parts = {"raw": new.raw[row]} | {f"feature_{j}": f[row] for j, f in new.features.items()}
                # as stored, so that the first pass sees the very values of the later ones
                found[k] = {name: value.clamp(-_LARGEST, _LARGEST).half() for name, value in parts.items()}
                _write(paths[k], found[k])
        return [found[k] for k in range(len(images))]

    def _path(self, image: Tensor) -> Path:
        pixels = image.cpu().contiguous().numpy()
        digest = hashlib.blake2b(f"{pixels.shape}".encode() + pixels.tobytes(), digest_size=16).hexdigest()
        return self._folder / digest[:2] / f"{digest}.safetensors"


def _read(path: Path, levels: tuple[int, ...], device: torch.device) -> dict[str, Tensor] | None:
    """Return a stored output, or None if it is not there, damaged, or lacks a level."""
    try:
        stored = load_file(path, device=str(device))
    except (OSError, SafetensorError):
        return None
    return stored if all(f"feature_{k}" in stored for k in levels) else None


def _write(path: Path, parts: dict[str, Tensor]) -> None:
    """Write so that a kill, or another process writing the same, leaves a whole file or none."""
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        save_file({name: value.cpu().contiguous() for name, value in parts.items()}, part)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise NucSegError(
            f"A teacher output cannot be written to '{path.parent}' ({error}); free space, or train without the cache."
        ) from error
