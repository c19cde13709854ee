"""Configuration: frozen dataclasses filled from a TOML file and ``key.sub=value`` overrides."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from napari_nucseg.errors import NucSegError

T = TypeVar("T")


def _coerce(value: Any, kind: Any, key: str) -> Any:
    """Convert a TOML value to the annotated type of a field."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return from_mapping(typing.cast(type, kind), value, key + ".")
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(kind) if a is not type(None)]
        return None if value is None else _coerce(value, inner[0], key)
    if origin is tuple and isinstance(value, list | tuple):
        item = typing.get_args(kind)[0]
        return tuple(_coerce(v, item, key) for v in value)
    if origin is dict and isinstance(value, Mapping):
        item = typing.get_args(kind)[1]
        return {k: _coerce(v, item, f"{key}.{k}") for k, v in value.items()}
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is None and isinstance(kind, type) and (type(value) is kind):
        return value
    raise NucSegError(f"{key}={value!r} is not of the kind {getattr(kind, '__name__', kind)}; see --help.")


def from_mapping(cls: type[T], data: Mapping[str, Any], prefix: str = "") -> T:
    """Build the dataclass `cls` from nested mappings; a bad key is named with the nearest right one."""
    hints = typing.get_type_hints(cls)
    for key in data:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            hint = f"did you mean '{prefix}{near[0]}'?" if near else f"known are {', '.join(hints)}."
            raise NucSegError(f"Config key '{prefix}{key}' is not known; {hint}")
    return cls(**{k: _coerce(v, hints[k], prefix + k) for k, v in data.items()})


def load_config(cls: type[T], path: Path | None, overrides: Sequence[str] = ()) -> T:
    """Read a TOML file into `cls` and apply overrides such as ``optim.lr=0.001`` (values in TOML syntax).

    Raises
    ------
    NucSegError
        The file is missing or no TOML, a key is unknown, or a value has the wrong kind.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text())
        except OSError as error:
            raise NucSegError(
                f"Config '{path}' cannot be read ({error.strerror}); check the path."
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise NucSegError(f"Config '{path}' is not valid TOML: {error}.") from error
    for item in overrides:
        key, sep, text = item.partition("=")
        if not sep:
            raise NucSegError(f"Override '{item}' lacks a '='; write key.sub=value.")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            value = text  # a bare word is a string
        node = data
        *parents, last = key.strip().split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise NucSegError(f"Override '{item}' goes below '{parent}', which is a plain value.")
        node[last] = value
    return from_mapping(cls, data)


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a JSON-ready dict of a config dataclass (paths become strings)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return typing.cast(dict[str, Any], plain(dataclasses.asdict(config)))
