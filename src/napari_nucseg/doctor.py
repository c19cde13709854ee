"""What is installed, what would run, and what is missing: the text of `napari-nucseg doctor`.

Everything is looked up when asked for, so that a report comes out of a broken installation too.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_nucseg.models.registry import Model
    from napari_nucseg.models.runtime import DeviceReport

QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")


@dataclass(frozen=True)
class Package:
    """A distribution this program uses: its extra ("" where always needed), and what it is there for."""

    name: str
    extra: str
    purpose: str


PACKAGES = (
    Package("torch", "", "the network"),
    Package("safetensors", "", "weights"),
    Package("numpy", "", "arrays"),
    Package("scipy", "", "metrics"),
    Package("numba", "", "the decoder"),
    Package("scikit-image", "", "regions"),
    Package("pandas", "", "tables"),
    Package("pillow", "", "PNG and JPEG"),
    Package("tifffile", "", "TIFF, SVS and NDPI"),
    Package("imagecodecs", "", "compressed TIFF"),
    Package("platformdirs", "", "folders"),
    Package("psygnal", "", "events of reviews"),
    Package("filelock", "", "reviews on the disk"),
    Package("tqdm", "", "progress"),
    Package("zarr", "", "labels of slides"),
    Package("qtpy", "", "the panel"),
    Package("napari", "desktop", "the window"),
    Package("PyQt6", "desktop", "the window"),
    Package("superqt", "desktop", "the panel"),
    Package("dask", "desktop", "lazy slides in napari"),
    Package("openvino", "desktop", "the fast CPU runtime"),
    Package("onnx", "desktop", "the fast CPU runtime"),
    Package("openslide-python", "wsi", "MRXS, VMS, ZVI and other slides"),
    Package("openslide-bin", "wsi", "MRXS, VMS, ZVI and other slides"),
    Package("pyarrow", "wsi", "Parquet tables"),
    Package("distributed", "cluster", "many slides on many machines"),
    Package("opencv-python-headless", "train", "training"),
    Package("matplotlib", "train", "figures of training"),
    Package("nncf", "train", "8-bit weights"),
    Package("scikit-learn", "train", "figures of training"),
    Package("umap-learn", "train", "figures of training"),
)


@dataclass(frozen=True)
class Report:
    """Lines to print, and whether images can be segmented here."""

    lines: tuple[str, ...]
    usable: bool


def version_of(name: str) -> str | None:
    """Return the version of an installed distribution, None where it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def examine() -> Report:
    """Look at this machine and this installation."""
    missing = [p for p in PACKAGES if version_of(p.name) is None and not (p.name == "PyQt6" and _qt())]
    runtime, runs = _runtime_lines()
    models, known = _model_lines()
    lines = [
        *_machine_lines(),
        "",
        "Packages",
        *_package_lines(),
        "",
        *runtime,
        "",
        *models,
        "",
        *_missing_lines(missing),
    ]
    return Report(tuple(lines), runs and known and all(p.extra for p in missing))


def _row(name: str, value: str) -> str:
    return f"  {name:<24}{value}"


def _machine_lines() -> list[str]:
    from napari_nucseg import __version__

    display = " ".join(f"{n}={os.environ[n]}" for n in ("DISPLAY", "WAYLAND_DISPLAY") if os.environ.get(n))
    if not display:
        display = "none (no window can open)" if sys.platform == "linux" else "of the system"
    return [
        "Program",
        _row("napari-nucseg", f"{__version__} ({Path(__file__).parent})"),
        _row("python", f"{platform.python_version()} ({sys.executable})"),
        _row("system", platform.platform()),
        _row("display", display),
    ]


def _qt() -> str | None:
    """Return the first Qt binding installed, with its version."""
    found = ((name, version_of(name)) for name in QT_BINDINGS)
    return next((f"{name} {version}" for name, version in found if version), None)


def _package_lines() -> list[str]:
    lines = []
    for package in PACKAGES:
        if package.name == "PyQt6":
            lines.append(_row("Qt binding", _qt() or "not installed (extra 'desktop': the window)"))
            continue
        extra = f"extra '{package.extra}'" if package.extra else "REQUIRED"
        lines.append(
            _row(package.name, version_of(package.name) or f"not installed ({extra}: {package.purpose})")
        )
    return lines


def _runtime_lines() -> tuple[list[str], bool]:
    """Describe the devices and what `--device auto` would take; also whether anything can run."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = _row("CPU", f"{cpu_name()}, {cores} cores")
    try:
        from napari_nucseg.models.runtime import inspect_devices

        report = inspect_devices()
    except Exception as error:  # a broken torch or openvino is what a doctor must survive
        fault = f"none: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return ["Devices", cpu, _row("runtime", fault)], False
    openvino = (
        f"{report.openvino}, computes in {report.precision} here" if report.openvino else "not installed"
    )
    lines = [
        "Devices",
        cpu,
        _row("CUDA", report.cuda or "none that torch can use"),
        _row("OpenVINO", openvino),
        _row("'auto' chooses", chosen(report)),
    ]
    return lines, True


def chosen(report: DeviceReport) -> str:
    """Say which runtime `load_runtime` takes for "auto", and why."""
    if report.cuda:
        return f"torch on CUDA in fp16, as there is a CUDA device ({report.cuda})"
    if report.openvino:
        why = "the CPU computes in bf16" if report.precision == "bf16" else "the CPU has no bf16"
        return f"OpenVINO on the CPU in {report.precision}, as there is no CUDA device and {why}"
    return "torch on the CPU, as there is neither a CUDA device nor OpenVINO (which is faster)"


def cpu_name() -> str:
    """Return the name of the processor as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _model_lines() -> tuple[list[str], bool]:
    """List the models and folders; also whether there is any model."""
    try:
        from platformdirs import user_cache_path

        from napari_nucseg.models.registry import available, user_models

        models: list[Model] = list(available().values())
        folder, cache = user_models(), user_cache_path("napari-nucseg", appauthor=False)
    except ImportError as error:
        return ["Models", _row("none", f"the packages above must be installed first ({error})")], False
    lines = ["Models", *(_row(m.name, f"{m.card.version} ({m.weights.parent})") for m in models)]
    if not models:
        lines.append(_row("none", "the weights are missing from this installation; install it again"))
    lines.append(_row("your own go to", f"{folder}{'' if folder.is_dir() else ' (not made yet)'}"))
    lines.append(_row("cache", f"{cache} ({_size(cache)})"))
    return lines, bool(models)


def _size(folder: Path) -> str:
    if not folder.is_dir():
        return "empty"
    total = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return f"{total / 1e6:.0f} MB"


def _missing_lines(missing: list[Package]) -> list[str]:
    if not missing:
        return ["Nothing is missing."]
    lines = []
    for extra in dict.fromkeys(p.extra for p in missing):
        names = ", ".join(p.name for p in missing if p.extra == extra)
        what = f"napari-nucseg[{extra}]" if extra else "--force-reinstall napari-nucseg"
        quoted = f'"{what}"' if extra else what
        lines.append(
            f"Missing {f'for the extra {extra!r}' if extra else '(required)'}: {names}. This installs it:"
        )
        lines.append(f"  {shlex.quote(sys.executable)} -m pip install {quoted}")
    return lines
