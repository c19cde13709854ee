"""The contenders of `benchmarks.peers` that run in our own environment, each in a process of its own.

``python -m benchmarks._peer NAME FOLDER ROUNDS THREADS``: the folder holds ``image.npy``; the report is written there,
and the first of ours leaves what the others start from: labels, classes and the network's fields.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.mosaic import MPP
from benchmarks.timing import Stages, in_turns, limit_threads

if TYPE_CHECKING:
    from napari_nucseg.core.decode import Fields
    from napari_nucseg.inference import Plan
    from napari_nucseg.models.registry import Model
    from napari_nucseg.models.runtime import Runtime

FIELDS = ("foreground", "border", "centre", "type")


@dataclass(frozen=True)
class Report:
    """What a contender took.

    Attributes
    ----------
    network, post : tuple of float
        Seconds of every round for the whole image; no `network` where it is ours.
    nuclei : int
        That it found.
    versions : str
    together : tuple of float
        Seconds of both, where they overlap; elsewhere they follow one another.
    note : str
    parameters : int
        Of the network.
    """

    network: tuple[float, ...]
    post: tuple[float, ...]
    nuclei: int
    versions: str
    together: tuple[float, ...] = ()
    note: str = ""
    parameters: int = 0

    def write(self, folder: Path, name: str) -> None:
        """Write it as ``NAME.json``."""
        (folder / f"{name}.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path, name: str) -> Report:
        """Read what `write`, or a contender in another environment, wrote."""
        data: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
        data |= {key: tuple(value) for key, value in data.items() if isinstance(value, list)}
        return cls(**data)


def timed(work: Callable[[], object], rounds: int) -> tuple[float, ...]:
    """Return the seconds of some rounds, after one that is left out."""
    work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return tuple(seconds)


def ours(folder: Path, rounds: int, precision: str) -> Report:
    """Time our pipeline on the CPU: "default" is what this machine gets by itself, else OpenVINO in a precision."""
    from napari_nucseg.inference import make_plan
    from napari_nucseg.models.checkpoint import load_student
    from napari_nucseg.models.registry import find_model
    from napari_nucseg.models.runtime import OpenVINORuntime, load_runtime

    model = find_model("default")
    runtime: Runtime = (
        load_runtime(model, "cpu") if precision == "default" else OpenVINORuntime(model, precision)
    )
    plan = make_plan(np.load(folder / "image.npy"), runtime, model.card, mpp=MPP)
    network, post, together, nuclei, fields = time_ours(plan, rounds)
    if precision == "default":
        leave_start(folder, model, fields)
    parameters = sum(p.numel() for p in load_student(model).parameters())
    return Report(network, post, nuclei, runtime.name, together, parameters=parameters)


Seconds = tuple[float, ...]


def time_ours(plan: Plan, rounds: int) -> tuple[Seconds, Seconds, Seconds, int, Fields]:
    """Return the seconds of network, of all the rest and of both overlapping; nuclei, and fields of the whole."""
    from benchmarks._stages import run_stages
    from benchmarks.pipeline import run_whole, warm_up

    warm_up(plan)
    nuclei: list[int] = []
    (together,) = in_turns([lambda: nuclei.append(run_whole(plan))], rounds)
    fields, clocks = run_stages(plan, Stages()), []
    for _ in range(rounds):
        clocks.append(Stages())
        run_stages(plan, clocks[-1])
    network = tuple(clock.seconds["network"] for clock in clocks)
    post = tuple(sum(clock.seconds.values()) - clock.seconds["network"] for clock in clocks)
    return network, post, together.seconds, nuclei[-1], fields


def leave_start(folder: Path, model: Model, fields: Fields) -> None:
    """Write labels and classes of our result, and the fields of the network, for the other contenders."""
    from napari_nucseg.inference import segment

    result = segment(np.load(folder / "image.npy"), mpp=MPP, device="cpu")
    kinds = np.zeros(int(result.nuclei["id"].max()) + 1 if len(result.nuclei) else 1, np.uint8)
    numbers = {name: k for k, name in enumerate(model.card.classes, 1)}
    kinds[result.nuclei["id"]] = result.nuclei["class"].map(numbers)
    np.save(folder / "labels.npy", result.labels)
    np.save(folder / "types.npy", kinds[result.labels])
    np.savez(folder / "fields.npz", **{name: getattr(fields, name) for name in FIELDS})


def scikit_image(folder: Path, rounds: int) -> Report:
    """Time peaks, watershed, vote and table of scikit-image on the fields that our network made."""
    from importlib.metadata import version

    from benchmarks import baseline
    from napari_nucseg.core.decode import Fields
    from napari_nucseg.core.stain import haematoxylin
    from napari_nucseg.models.registry import find_model

    config, image = find_model("default").card.decode, np.load(folder / "image.npy")
    with np.load(folder / "fields.npz") as stored:
        fields = Fields(**{name: stored[name] for name in FIELDS})
    nuclei: list[int] = []

    def post() -> None:
        labels = baseline.decode(fields, config)
        baseline.vote(labels, fields)
        baseline.measure(labels, haematoxylin(image))
        nuclei.append(int(labels.max()))

    return Report((), timed(post, rounds), nuclei[-1], f"scikit-image {version('scikit-image')}")


def main(name: str, folder: Path, rounds: int, threads: int) -> None:
    """Run one contender and write its report."""
    limit_threads(threads)
    import torch

    torch.set_num_threads(threads)
    kind, _, precision = name.partition("-")
    if kind == "ours":
        report = ours(folder, rounds, precision)
    elif kind == "hovernet":
        from benchmarks._peer_hovernet import hover_net

        report = hover_net(folder, rounds, precision)
    else:
        report = scikit_image(folder, rounds)
    report.write(folder, name)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
