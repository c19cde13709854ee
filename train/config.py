"""Configuration: frozen dataclasses filled from a TOML file and ``key.sub=value`` overrides."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import inspect
import re
import textwrap
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
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
        item, *rest = typing.get_args(kind)
        if Ellipsis not in rest and len(value) != 1 + len(rest):
            raise NucSegError(f"{key}={list(value)} has {len(value)} values; it takes {1 + len(rest)}.")
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
    raise NucSegError(f"{key}={value!r} is not of the kind {kind_name(kind)}; see --help.")


def from_mapping(cls: type[T], data: Mapping[str, Any], prefix: str = "") -> T:
    """Build the dataclass `cls` from nested mappings; a bad key is named with the nearest right one."""
    hints = typing.get_type_hints(cls)
    for key in data:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1) or [k for k in keys(cls) if k.endswith(f".{key}")]
            hint = f"did you mean '{prefix}{near[0]}'?" if near else f"known are {', '.join(hints)}."
            raise NucSegError(f"Config key '{prefix}{key}' is not known; {hint}")
    for item in dataclasses.fields(typing.cast(Any, cls)):
        if item.name not in data and _default(item) is dataclasses.MISSING:
            raise NucSegError(f"Config key '{prefix}{item.name}' is missing; see --help for what it means.")
    return cls(**{k: _coerce(v, hints[k], prefix + k) for k, v in data.items()})


def keys(cls: type, prefix: str = "") -> Iterator[str]:
    """Yield every key of a config dataclass, those of nested ones with dots; without tables of names you choose."""
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(typing.cast(Any, cls)):
        if dataclasses.is_dataclass(kind := hints[item.name]):
            yield from keys(typing.cast(type, kind), f"{prefix}{item.name}.")
        else:
            yield prefix + item.name


def option_of(cls: type, option: str, value: str) -> str:
    """Return one sentence on how an option that a command does not have, such as ``--steps``, is written as a key."""
    word = option.removeprefix("--").replace("-", "_")
    known = list(keys(cls))
    ends = {key.rpartition(".")[2]: key for key in reversed(known)}  # of several keys, the first
    near = difflib.get_close_matches(word, [*known, *ends], 1)
    if not near:
        return f"'{option}' is no option; settings are written key.sub=value, see --help for the keys."
    shown = "VALUE" if not value or value.startswith("-") or "=" in value else value
    return f"'{option}' is no option; write {ends.get(near[0], near[0])}={shown}."


TRAINING = ("fit", "teach", "distill")
COMMANDS = (
    *TRAINING,
    "prepare",
    "evaluate",
    "robustness",
    "average",
    "calibrate",
    "thresholds",
    "export",
    "compress",
    "figures",
    "ablate",
)
"""Commands that may have a table of their own in a file that serves several."""


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NucSegError(f"Config '{path}' cannot be read ({error.strerror}); check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NucSegError(f"Config '{path}' is not valid TOML: {error}.") from error


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return nested tables in which the values of `above` win."""
    out = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _over(out[key], value) if both else value
    return out


def of_command(data: dict[str, Any], command: str | None) -> dict[str, Any]:
    """Return what a file says to one command, see `load_config`."""
    if not any(key in COMMANDS for key in data):
        return data
    own = data.get(command, {}) if command else {}
    if not isinstance(own, dict):
        raise NucSegError(
            f"Config key '{command}' is {own!r}; it names a table, [{command}], with settings of that command."
        )
    if command not in (None, *TRAINING):
        return own
    return _over({key: value for key, value in data.items() if key not in COMMANDS}, own)


def load_config(
    cls: type[T], path: Path | None, overrides: Sequence[str] = (), command: str | None = None
) -> T:
    """Read a TOML file into `cls` and apply overrides such as ``optim.lr=0.001`` (values in TOML syntax).

    One file may serve several commands: a table named after a command, such as ``[teach]`` or ``[distill.loop]``,
    is for that command alone. What stands outside of these is shared by the training commands, and theirs wins.

    Parameters
    ----------
    cls : dataclass
    path : Path, optional
    overrides : sequence of str
    command : str, optional
        Such as "teach"; None takes what is shared.

    Raises
    ------
    NucSegError
        The file is missing or no TOML, a key is unknown, or a value has the wrong kind.
    """
    data = {} if path is None else of_command(_read(path), command)
    for item in overrides:
        key, sep, text = item.partition("=")
        if not sep:
            raise NucSegError(f"Override '{item}' lacks a '='; write key.sub=value.")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
            if isinstance(value, datetime.date | datetime.time):
                value = text  # such as the name of a run
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


def kind_name(kind: Any) -> str:
    """Return a type annotation in words, such as ``list of int`` or ``float or nothing``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [kind_name(a) for a in arguments if a is not type(None)]
        return " or ".join(inner + ["nothing"] * (type(None) in arguments))
    if origin is tuple:
        count = "" if Ellipsis in arguments else f"{len(arguments)} "
        return f"list of {count}{kind_name(arguments[0])}"
    if origin is typing.Literal:
        return "one of " + ", ".join(f'"{a}"' for a in arguments)
    if origin is dict:
        return f"table of {kind_name(arguments[1])} by name"
    plain = {Path: "path", str: "text", bool: "true or false"}
    return plain.get(kind, getattr(kind, "__name__", str(kind)))


def _default(item: dataclasses.Field[Any]) -> Any:
    """Return the default of a field, made if need be; `dataclasses.MISSING` if there is none."""
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def _toml(value: Any) -> str:
    """Write a default as one would write it in the file."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return f'"{value}"' if isinstance(value, str | Path) else str(value)


_SECTION = re.compile(
    r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", re.MULTILINE | re.DOTALL
)
_ENTRY = re.compile(r"^(\w+(?: *, *\w+)*) *(?::.*)?$")


def meanings(cls: type) -> dict[str, str]:
    """Return what the numpy docstring of a dataclass says of each of its fields, by name.

    One entry may explain several fields (``lr, weight_decay : float``): all get its text.
    """
    out: dict[str, str] = {}
    documented = [base.__dict__.get("__doc__") or "" for base in reversed(cls.__mro__[:-1])]
    for section in _SECTION.findall("\n\n".join(inspect.cleandoc(text) + "\n" for text in documented)):
        names: list[str] = []
        for line in section.splitlines():
            if line and not line[0].isspace():
                entry = _ENTRY.match(line)
                names = [n.strip() for n in entry[1].split(",")] if entry else []
            for name in names if line[:1].isspace() else []:
                out[name] = f"{out.get(name, '')} {line.strip()}".strip()
    return out


def describe(cls: type, prefix: str = "") -> str:
    """Return every key of a config dataclass with its default, kind and meaning, ready for ``--help``.

    The meanings are read from the numpy docstrings of the dataclasses, so they cannot differ from the reference.
    Keys of nested dataclasses are written with dots, as in an override; NAME stands for a name you choose.
    """
    hints, said = typing.get_type_hints(cls), meanings(cls)
    parts: list[str] = []
    for item in dataclasses.fields(cls):
        kind, key = hints[item.name], prefix + item.name
        below = typing.get_args(kind)[1] if typing.get_origin(kind) is dict else None
        nested = next((k for k in (kind, below) if dataclasses.is_dataclass(k)), None)
        if nested is not None:
            parts.append(
                describe(typing.cast(type, nested), f"{key}.NAME." if nested is below else f"{key}.")
            )
            continue
        default = _default(item)
        shown = "needed" if default is dataclasses.MISSING else _toml(default)
        text = said.get(item.name, "").replace("`", "")
        text = textwrap.fill(text, 96, initial_indent="      ", subsequent_indent="      ")
        parts.append(f"  {key} = {shown}  ({kind_name(kind)})\n{text}".rstrip())
    return "\n".join(parts)
