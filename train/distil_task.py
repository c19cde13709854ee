"""Distillation as a training task: a student's losses on labels, plus what it is told by a frozen teacher."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError
from train import distillation, distributed
from train.crops import Batch
from train.task import LossWeights, MapTask
from train.teacher_outputs import TeacherOutput, TeacherSource

FEATURE_LOSSES = {"mse": distillation.feature_mse, "hcl": distillation.hcl}


@dataclass(frozen=True)
class DistillConfig:
    """What the teacher has to say beside the labels: loss = labels + output * outputs + feature * features.

    Parameters
    ----------
    output : float
        Weight of the comparison of the maps; 0 leaves it out.
    feature : float
        Weight of the comparison of decoder features; 0 leaves it out.
    feature_loss : str
        "none", "mse" or "hcl" (hierarchical context loss).
    strides : tuple of int
        Resolutions of the student's features that are compared, such as [16, 8, 4, 2]; empty for all it has.
    normalise : bool
        Divide the teacher's features of each level and image by their root mean square, so that `feature` means
        the same for any teacher and level.
    temperature : float
        Of the probabilities in the comparison of the maps; above 1 softens them.
    class_balanced : bool
        Compare the type by the class-balanced loss (rare classes count more) instead of the plain divergence.
    parts : LossWeights
        Weight of each map in the comparison of the maps.
    warmup : int
        Steps over which `output` and `feature` rise linearly from 0.
    """

    output: float = 1.0
    feature: float = 0.1
    feature_loss: str = "hcl"
    strides: tuple[int, ...] = ()
    normalise: bool = True
    temperature: float = 1.0
    class_balanced: bool = True
    parts: LossWeights = field(default_factory=LossWeights)
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.feature_loss not in ("none", *FEATURE_LOSSES):
            known = ", ".join(("none", *FEATURE_LOSSES))
            raise NucSegError(f"distil.feature_loss='{self.feature_loss}' is not one of {known}.")
        if not 0 < self.temperature < math.inf:
            raise NucSegError(f"distil.temperature={self.temperature} must be above 0; 1 leaves it out.")
        for name in ("output", "feature", "warmup"):
            if getattr(self, name) < 0:
                raise NucSegError(f"distil.{name}={getattr(self, name)} must be 0 or more.")

    @property
    def compares_features(self) -> bool:
        """Whether features are compared at all."""
        return self.feature > 0 and self.feature_loss != "none"


def shared_channels(teacher: MapLayout, student: MapLayout) -> list[int]:
    """Return the channel of a teacher for each channel of its student, who may have fewer angles.

    Raises
    ------
    NucSegError
        The classes differ in number, or the teacher lacks an angle.
    """
    if teacher.n_classes != student.n_classes:
        raise NucSegError(
            f"The teacher knows {teacher.n_classes} classes, the student {student.n_classes}; set data.classes to "
            "the teacher's."
        )
    if missing := set(student.angles) - set(teacher.angles):
        raise NucSegError(
            f"The student's angle {min(missing)} is not among the teacher's {teacher.angles}; take model.angles from "
            "these."
        )
    distance = [teacher.distance.start + teacher.angles.index(a) for a in student.angles]
    return [teacher.foreground.start, *distance, *range(teacher.centre.start, teacher.channels)]


def pair_levels(
    student: tuple[int, ...], teacher: tuple[int, ...], wanted: tuple[int, ...] = ()
) -> list[tuple[int, int]]:
    """Return pairs of levels to compare: of the student's, those wanted, each with the teacher's nearest in stride.

    Parameters
    ----------
    student, teacher : strides of their features
    wanted : strides of the student's, empty for all

    Raises
    ------
    NucSegError
        The student has no features of a wanted stride.
    """
    if missing := set(wanted) - set(student):
        raise NucSegError(
            f"distil.strides has {min(missing)}, but the student's features have the strides {list(student)}; "
            "choose among these."
        )
    chosen = [k for k, stride in enumerate(student) if not wanted or stride in wanted]
    return [
        (k, min(range(len(teacher)), key=lambda j: abs(math.log2(teacher[j] / student[k])))) for k in chosen
    ]


def resize(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring (N, C, H, W) features to another size: interpolated where larger, averaged where smaller."""
    if features.shape[2:] == size:
        return features
    if features.shape[2] > size[0]:
        return F.adaptive_avg_pool2d(features, size)
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


class DistillTask(nn.Module):
    """Learn from labels and from a teacher.

    The teacher is no part of the module: it has no place in `parameters` or `state_dict`. The projections of the
    student's features to the teacher's widths have one, but are no part of the student.

    Images may lack labels: with ``batch["labelled"]`` (N,) bool those marked false, without any targets all; they
    are learnt from the teacher alone.

    Parameters
    ----------
    task : MapTask
        The student with its losses on labels.
    teacher : TeacherSource
    config : DistillConfig
    frequencies : Tensor, (C + 1,), optional
        Of background and the classes in the training data, in any unit; needed for `class_balanced`.
    batches_per_step : int
        Batches the gradients of which make one step, for `warmup`.

    Raises
    ------
    NucSegError
        Student and teacher do not fit, or the frequencies are missing.
    """

    passes: Tensor
    channels: Tensor
    type_weights: Tensor | None

    def __init__(
        self,
        task: MapTask,
        teacher: TeacherSource,
        config: DistillConfig,
        frequencies: Tensor | None = None,
        batches_per_step: int = 1,
    ) -> None:
        super().__init__()
        self.task, self.config, self._teacher = task, config, teacher
        # maps that the student does not learn from labels, it does not learn from a teacher either
        self._parts = dataclasses.replace(config.parts, **dict.fromkeys(task.without, 0.0))
        self._per_step = batches_per_step
        # training batches so far; saved, so that a resumed run warms up where it was
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))
        channels = torch.tensor(shared_channels(teacher.layout, task.layout))
        self.register_buffer("channels", channels, persistent=False)
        weights = None
        if config.class_balanced and config.output:
            if frequencies is None:
                raise NucSegError(
                    "Class-balanced distillation needs class frequencies; set distil.class_balanced=false."
                )
            weights = distillation.class_frequency_weights(frequencies.float())
        self.register_buffer("type_weights", weights)
        net = task.network
        pairs = pair_levels(net.feature_strides, teacher.feature_strides, config.strides)
        self._pairs = pairs if config.compares_features else []
        self.projections = nn.ModuleList(
            nn.Conv2d(net.feature_widths[s], teacher.feature_widths[t], 1) for s, t in self._pairs
        )

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of the teacher's features that are compared."""
        return tuple({theirs: 0 for _, theirs in self._pairs})

    @property
    def layout(self) -> MapLayout:
        """The student's."""
        return self.task.layout

    @property
    def network(self) -> nn.Module:
        """The student."""
        return self.task.network

    @property
    def mean(self) -> Tensor:
        """Normalisation of the student."""
        return self.task.mean

    @property
    def std(self) -> Tensor:
        """Normalisation of the student."""
        return self.task.std

    def predict(self, image: Tensor) -> Tensor:
        """Return the student's raw maps, see `MapTask.predict`."""
        return self.task.predict(image)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch: those of the maps on labels, their total `labels`, `kd_*`, `features`, `total`.

        In training each call counts as one batch of the warm-up.
        """
        c = self.config
        raw, features = self.task.predict_with_features(batch["image"])
        with torch.autocast(raw.device.type, enabled=False):
            parts = self._on_labels(raw, batch)
            if not c.output and not self._pairs:
                return parts
            labels, unknown = parts.pop("total"), parts["foreground"].isnan()
            parts["labels"] = torch.where(unknown, math.nan, labels)
            told = self._teacher(batch["image"].to(raw.device), self.levels, batch.get("orientation"))
            extra = torch.zeros((), device=raw.device)
            if c.output:
                kd = self._outputs(raw, told)
                extra = extra + c.output * kd["kd"]
                parts |= kd
            if self._pairs:
                parts["features"] = self._features(features, told)
                extra = extra + c.feature * parts["features"]
            return {**parts, "total": labels + self._rise() * extra}

    def _rise(self) -> Tensor | float:
        """Return the share of the teacher's weights that this step gets, and count the step."""
        if not self.config.warmup:
            return 1.0
        share = ((self.passes // self._per_step + 1) / self.config.warmup).clamp(max=1.0)
        if self.training:
            self.passes += 1
        return share

    def _on_labels(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the student's own losses on those images of a batch that have labels.

        If none has, the parts are NaN, since they are not known, and the total is 0.
        """
        if "foreground" in batch:
            known = batch.get("labelled")
            if known is None:
                return self.task.losses(raw, batch)
            if bool(known.any()):
                names = ("foreground", "distance", "centre", "boundary", "type")
                with distributed.alone():  # another process may have no labelled image in this step
                    return self.task.losses(raw[known], {name: batch[name][known] for name in names})
        unknown = torch.full((), math.nan, device=raw.device)
        return {f.name: unknown for f in dataclasses.fields(LossWeights)} | {"total": raw.sum() * 0}

    def _outputs(self, raw: Tensor, told: TeacherOutput) -> dict[str, Tensor]:
        c = self.config
        teacher = told.raw[:, self.channels]
        parts = distillation.output_loss(raw, teacher, self.layout, c.temperature, self.type_weights)
        total = torch.stack([getattr(self._parts, name) * value for name, value in parts.items()]).sum()
        return {"kd": total} | {f"kd_{name}": value for name, value in parts.items()}

    def _features(self, features: list[Tensor], told: TeacherOutput) -> Tensor:
        students, teachers = [], []
        for (mine, theirs), projection in zip(self._pairs, self.projections, strict=True):
            teacher = told.features[theirs]
            if self.config.normalise:
                teacher = teacher / teacher.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
            students.append(resize(projection(features[mine].float()), (teacher.shape[2], teacher.shape[3])))
            teachers.append(teacher)
        return FEATURE_LOSSES[self.config.feature_loss](students, teachers)
