"""Which module may import which: the layers of the package, and what its import may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"

# What a layer may import of the package besides itself and FOR_ALL. Modules which are none of these layers
# (the public API, the command line) may import all but the plugin and train.
MAY_IMPORT = {
    "core": set(),
    "models": {"core"},
    "io": {"core"},
    "inference": {"core", "models", "io"},
    "slides": {"core", "models", "io", "inference"},
    "session": {"core"},
    "review_queue": {"core", "session"},
    "train": {"core", "models", "io", "inference"},
}
FOR_ALL = {"errors", "interrupt", "root", "__version__"}
# Third parties a layer may import at all; for layers without an entry, everything but ONLY_PLUGIN.
MAY_USE = {"core": {"numpy", "scipy", "numba"}, "errors": set(), "interrupt": set()}
ONLY_PLUGIN = {"napari", "npe2", "qtpy", "magicgui", "superqt", "PyQt6", "PyQt5", "PySide6"}
MAY_START_NAPARI = {"napari_nucseg.cli", "napari_nucseg.demo"}
"""Modules whose *functions* may import the plugin and napari: commands that open or describe the window."""
HEAVY = (
    "torch",
    "openvino",
    "qtpy",
    "PyQt6",
    "PySide6",
    "napari",
    "magicgui",
    "superqt",
    "skimage",
    "pandas",
)


def layer_of(module: str) -> str:
    parts = module.split(".")
    if parts[0] == "train":
        return "train"
    return parts[1] if len(parts) > 1 else "root"


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[str, int]]:
    """Absolute names of all the imports, those for type checkers apart; `from a import b` gives `a.b`."""
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for child in ast.walk(statement)
    }
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{origin}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((str(a.value), node.lineno) for a in node.args[:1] if isinstance(a, ast.Constant))


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Describe each import of `source` that its layer forbids."""
    layer = layer_of(module)
    found = []
    for name, line in imports(ast.parse(source), module, is_package):
        top = name.split(".")[0]
        if top in ("napari_nucseg", "train"):
            target = layer_of(name)
            if target == layer or target in FOR_ALL:
                continue
            if layer in MAY_IMPORT:
                forbidden = target not in MAY_IMPORT[layer]
            else:
                free = layer == "_plugin" or module in MAY_START_NAPARI
                forbidden = target == "train" or (target == "_plugin" and not free)
        elif top in sys.stdlib_module_names:
            continue
        else:
            forbidden = top in ONLY_PLUGIN and layer != "_plugin" and module not in MAY_START_NAPARI
            forbidden |= layer in MAY_USE and top not in MAY_USE[layer]
        if forbidden:
            found.append(f"{module}:{line} imports {name}, which the layer {layer} may not")
    return found


def modules() -> list[tuple[str, Path]]:
    files = [(p, SRC) for p in sorted((SRC / "napari_nucseg").rglob("*.py"))]
    files += [(p, ROOT) for p in sorted((ROOT / "train").rglob("*.py"))]
    named = []
    for path, base in files:
        parts = list(path.relative_to(base).with_suffix("").parts)
        named.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return named


@pytest.mark.parametrize(("module", "path"), modules(), ids=[m for m, _ in modules()])
def test_imports_follow_the_layers(module: str, path: Path):
    assert violations(path.read_text(encoding="utf-8"), module, path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("napari_nucseg.core.decode", "import torch"),
        ("napari_nucseg.core.decode", "def f():\n    from skimage.segmentation import watershed"),
        ("napari_nucseg.core.decode", "from napari_nucseg.io.slide import read_image"),
        ("napari_nucseg.core.decode", "from ..models import student"),
        ("napari_nucseg.core.decode", "from napari_nucseg import models"),
        ("napari_nucseg.models.student", "from napari_nucseg import inference"),
        ("napari_nucseg.io.export", "from napari_nucseg.models.registry import load"),
        ("napari_nucseg.session", "from napari_nucseg.inference import segment"),
        ("napari_nucseg.inference", "from napari_nucseg.slides.engine import segment_slide"),
        ("napari_nucseg.slides.engine", "from napari_nucseg.session import Session"),
        ("napari_nucseg.inference", "from napari.layers import Image"),
        ("napari_nucseg.inference", "import importlib\nimportlib.import_module('qtpy')"),
        ("napari_nucseg.cli", "from train.fit import main"),
        ("napari_nucseg._plugin.widget", "import train.losses"),
        ("napari_nucseg.inference", "from napari_nucseg._plugin import widget"),
        ("napari_nucseg.core.decode", "from napari_nucseg import segment"),
        ("napari_nucseg.core.decode", "from napari_nucseg.helpers import clip"),
        ("napari_nucseg", "import napari_nucseg._plugin.widget"),
        ("napari_nucseg.errors", "import numpy"),
        ("train.fit", "from napari_nucseg._plugin.reader import get_reader"),
        ("train.fit", "from napari_nucseg.session import Session"),
    ],
)
def test_a_planted_violation_is_caught(module: str, source: str):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("napari_nucseg.core.decode", "import numpy as np\nfrom scipy import ndimage\nimport numba, math"),
        (
            "napari_nucseg.core.decode",
            "from napari_nucseg.errors import NucSegError\nfrom .maps import MapLayout",
        ),
        ("napari_nucseg.core.decode", "if TYPE_CHECKING:\n    from napari_nucseg.io.slide import Mpp"),
        ("napari_nucseg.inference", "from napari_nucseg.core import decode\nimport torch"),
        (
            "napari_nucseg._plugin.widget",
            "from qtpy.QtWidgets import QWidget\nfrom napari_nucseg import inference",
        ),
        (
            "train.fit",
            "from napari_nucseg.models.student import Student\nfrom train.losses import dice\nimport cv2",
        ),
    ],
)
def test_what_is_allowed_passes(module: str, source: str):
    assert violations(source, module) == []


def test_importing_the_package_is_light_and_quick():
    code = textwrap.dedent(
        f"""
        import sys, time
        start = time.perf_counter()
        import napari_nucseg
        took = time.perf_counter() - start
        heavy = sorted(set({HEAVY!r}) & set(sys.modules))
        print(took, *heavy)
        """
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert [run[1:] for run in runs] == [[], [], []]
    assert min(float(run[0]) for run in runs) < 0.5


def test_the_manifest_of_the_plugin_is_found_without_importing_qt():
    code = textwrap.dedent(
        """
        import sys
        from npe2 import PluginManifest
        PluginManifest.from_distribution("napari-nucseg")
        assert not {"torch", "qtpy", "PyQt6", "napari"} & set(sys.modules), sorted(sys.modules)
        """
    )
    subprocess.run([sys.executable, "-c", code], check=True)
