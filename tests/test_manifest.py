"""What `npe2 validate` does not notice about the manifest."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import yaml
from npe2 import PluginManifest
from npe2.manifest import contributions as c
from npe2.manifest.contributions._contributions import ContributionPoints

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PACKAGED = ROOT / "src" / "napari_nucseg" / "napari.yaml"

ENTRIES = {
    "commands": (c.CommandContribution,),
    "readers": (c.ReaderContribution,),
    "writers": (c.WriterContribution,),
    "widgets": (c.WidgetContribution,),
    "sample_data": (c.SampleDataGenerator, c.SampleDataURI),
    "menus": get_args(c.MenuItem),
    "submenus": (c.SubmenuContribution,),
    "themes": (c.ThemeContribution,),
}
"""The models of the entries of each contribution; npe2 ignores the unknown keys of several of them."""


def entries(contributions: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind, items in contributions.items():
        groups = items.values() if kind == "menus" else [items]
        for group in groups:
            for item in group if isinstance(group, list) else []:
                yield kind, item


def unknown_keys(manifest: dict[str, Any]) -> list[str]:
    contributions = manifest["contributions"]
    found = [f"manifest: {key}" for key in set(manifest) - set(PluginManifest.model_fields)]
    found += [f"contributions: {key}" for key in set(contributions) - set(ContributionPoints.model_fields)]
    for kind, item in entries(contributions):
        if kind in ENTRIES:
            fits = min((set(item) - set(model.model_fields) for model in ENTRIES[kind]), key=len)
            found += [f"{kind}: {key}" for key in fits]
    return found


def unknown_commands(manifest: dict[str, Any]) -> list[str]:
    contributions = manifest["contributions"]
    known = {command["id"] for command in contributions["commands"]}
    return [
        f"{kind}: {item['command']}"
        for kind, item in entries(contributions)
        if "command" in item and item["command"] not in known
    ]


def dead_python_names(manifest: dict[str, Any]) -> list[str]:
    found = []
    for command in manifest["contributions"]["commands"]:
        module, _, name = command.get("python_name", "").partition(":")
        try:
            if not callable(getattr(importlib.import_module(module), name)):
                found.append(f"{command['id']}: {module}:{name} cannot be called")
        except (ImportError, AttributeError, ValueError) as error:
            found.append(f"{command['id']}: {error}")
    return found


def closed_menus(manifest: dict[str, Any]) -> list[str]:
    from napari._app_model.constants._menus import is_menu_contributable

    contributions = manifest["contributions"]
    own = {submenu["id"] for submenu in contributions.get("submenus", [])}
    menus = contributions.get("menus", {})
    # For menus that are not its own napari answers True: to it they are some plugin's submenu.
    return [m for m in menus if m not in own and not (m.startswith("napari/") and is_menu_contributable(m))]


def unused_commands(manifest: dict[str, Any]) -> list[str]:
    contributions = manifest["contributions"]
    used = {item.get("command") for kind, item in entries(contributions) if kind != "commands"}
    return [command["id"] for command in contributions["commands"] if command["id"] not in used]


CHECKS = (unknown_keys, unknown_commands, dead_python_names, closed_menus, unused_commands)


@pytest.fixture
def manifest() -> dict[str, Any]:
    return yaml.safe_load(PACKAGED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_manifest_is_sound(check, manifest: dict[str, Any]):
    assert check(manifest) == []


def test_npe2_accepts_the_manifest():
    assert PluginManifest.from_file(PACKAGED).name == "napari-nucseg"


def test_the_installed_plugin_has_this_manifest(manifest: dict[str, Any]):
    installed = PluginManifest.from_distribution("napari-nucseg")
    ids = [command.id for command in installed.contributions.commands or []]
    assert ids == [command["id"] for command in manifest["contributions"]["commands"]]


def test_the_manifest_at_the_top_is_the_one_in_the_package():
    top = ROOT / "napari.yaml"
    assert top.is_symlink()
    assert top.resolve() == PACKAGED.resolve()


def test_what_the_plugin_offers(manifest: dict[str, Any]):
    offered = manifest["contributions"]
    assert "napari/layers/segment" in offered["menus"]
    assert {sample["key"] for sample in offered["sample_data"]} == {"synthetic_he", "cmu1"}
    patterns = {pattern for reader in offered["readers"] for pattern in reader["filename_patterns"]}
    assert {"*.svs", "*.ndpi", "*.tif", "*.tiff"} <= patterns


def test_the_panel_is_in_the_plugins_and_the_segment_menu(make_napari_viewer, manifest: dict[str, Any]):
    from napari._app_model import get_app_model

    make_napari_viewer()
    widget = manifest["contributions"]["widgets"][0]["command"]
    for menu in ("napari/plugins", "napari/layers/segment"):
        items = get_app_model().menus.get_menu(menu)
        assert widget in [getattr(getattr(item, "command", None), "id", None) for item in items], menu


def broken(manifest: dict[str, Any], fault: str) -> dict[str, Any]:
    manifest = copy.deepcopy(manifest)
    offered = manifest["contributions"]
    match fault:
        case "misspelt contribution":
            offered["widgtes"] = offered.pop("widgets")
        case "misspelt key":
            offered["sample_data"][0]["displayname"] = "tile"
        case "key of a command in a menu":
            offered["menus"]["napari/layers/segment"][0]["titel"] = "NucSeg"
        case "widget of no command":
            offered["widgets"][0]["command"] = "napari-nucseg.opn"
        case "menu item of no command":
            offered["menus"]["napari/layers/segment"][0]["command"] = "napari-nucseg.opn"
        case "no such module":
            offered["commands"][0]["python_name"] = "napari_nucseg._plugin.wigdet:NucSegWidget"
        case "no such function":
            offered["commands"][-1]["python_name"] = "napari_nucseg._plugin.sample:cmu2_sample"
        case "misspelt menu":
            offered["menus"]["napari/layer/segment"] = offered["menus"].pop("napari/layers/segment")
        case "closed menu":
            offered["menus"]["napari/help"] = offered["menus"].pop("napari/layers/segment")
        case "command that nothing uses":
            offered["commands"].append({**offered["commands"][0], "id": "napari-nucseg.spare"})
    return manifest


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("misspelt contribution", unknown_keys),
        ("misspelt key", unknown_keys),
        ("key of a command in a menu", unknown_keys),
        ("widget of no command", unknown_commands),
        ("menu item of no command", unknown_commands),
        ("no such module", dead_python_names),
        ("no such function", dead_python_names),
        ("misspelt menu", closed_menus),
        ("closed menu", closed_menus),
        ("command that nothing uses", unused_commands),
    ],
)
def test_each_fault_is_noticed(manifest: dict[str, Any], fault: str, check):
    assert set(check(broken(manifest, fault))) - set(check(manifest))
