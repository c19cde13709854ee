"""Commands that are also told by flags: ``--held-out X`` is the same as ``held_out=X`` or a line of the config."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import types
import typing
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any, TypeVar

from napari_nucseg.errors import NucSegError
from train.config import describe, load_config, option_of

T = TypeVar("T")


def _fields(cls: type) -> dict[str, tuple[type, bool]]:
    """Return the fields that one word, or a list of words, can set: name -> (type of a word, whether a list).

    A flag of a field that is true or false may stand without a word, for true.
    """
    out: dict[str, tuple[type, bool]] = {}
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        kind = hints[item.name]
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            kind = next(a for a in typing.get_args(kind) if a is not type(None))
        if typing.get_origin(kind) is tuple:
            out[item.name] = typing.get_args(kind)[0], True
        elif kind in (str, int, float, bool, Path):
            out[item.name] = kind, False
    return out


class _Parser(argparse.ArgumentParser):
    """Tells a wrong command line like any other mistake."""

    def error(self, message: str) -> typing.NoReturn:
        raise NucSegError(f"The command line can't be read: {message}; see --help.")


def parse(cls: type[T], argv: Sequence[str] | None, *, prog: str, about: str, example: str) -> T:
    """Read a config dataclass from ``--config``, flags and ``key.sub=value``; the later of these wins.

    Parameters
    ----------
    cls
        Its plain fields become flags.
    argv
        Arguments without the program's name, None for those of the process.
    prog, about, example
        For ``--help``, which also lists every key.

    Raises
    ------
    NucSegError
        From `load_config`; or there is a flag that is none, or one without its value.
    """
    parser = _Parser(
        prog=prog,
        description=about,
        usage=f"{prog} [--config FILE.toml] [--KEY VALUE ...] [key.sub=value ...]",
        epilog=f"example:\n  {example}\n\nkeys, with their defaults (a plain KEY=VALUE may be written --KEY VALUE, "
        f"with - for _):\n{describe(cls)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="file with any of the keys below")
    parser.add_argument("overrides", nargs="*", help="key.sub=value")
    fields = _fields(cls)
    for name, (kind, several) in fields.items():
        flag, count = "--" + name.replace("_", "-"), "+" if several else "*" if kind is bool else None
        parser.add_argument(flag, dest=name, nargs=count, help=argparse.SUPPRESS)
    words = sys.argv[1:] if argv is None else list(argv)
    args, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        flag, _, own = unknown[0].partition("=")
        raise NucSegError(option_of(cls, flag, own or [*words, ""][words.index(unknown[0]) + 1]))
    given, overrides = [], list(args.overrides)
    keys = {item.name for item in dataclasses.fields(typing.cast(Any, cls))}
    for name, (kind, _) in fields.items():
        value = getattr(args, name)
        if isinstance(value, list):  # it swallows the overrides behind it
            overrides += [word for word in value if _is_override(word, keys)]
            value = [word for word in value if not _is_override(word, keys)]
        if kind is bool and value is not None:
            value = " ".join(value) or "true"
        if value is not None:
            given.append(f"{name}={_toml(value, kind)}")
    return load_config(cls, args.config, [*given, *overrides], prog.rpartition(".")[2])


def _is_override(word: str, keys: Container[str]) -> bool:
    key, sep, _ = word.partition("=")
    return bool(sep) and key.partition(".")[0] in keys


def _toml(value: Any, kind: type) -> str:
    """Write a word or a list of words so that it is read as `kind`; a word that is no number stays a string."""
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v, kind) for v in value) + "]"
    if kind is bool and value in ("true", "false"):
        return str(value)
    if kind in (int, float):
        try:
            return str(kind(value))
        except ValueError:
            pass
    return json.dumps(value, ensure_ascii=False)


def run_flags(
    action: Callable[[T], object],
    cls: type[T],
    argv: Sequence[str] | None,
    *,
    prog: str,
    about: str,
    example: str,
) -> int:
    """Read the config of a command and run it.

    Returns
    -------
    int
        Exit status: 0, 2 after a `NucSegError`, an `OSError` or for want of the GPU's memory, told in one sentence, 130
        if the user stopped it.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name in ("train", "__main__"):  # the latter is the command's own module under python -m
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        action(parse(cls, argv, prog=prog, about=about, example=example))
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"A file cannot be read or written ({error}); check the path.", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # of torch, which not every command needs
            raise
        print(
            f"The GPU's memory is full ({str(error).partition('.')[0]}); choose device=cpu.", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt as error:  # a training in it says where it goes on
        print(str(error) or "Stopped; nothing more is written.", file=sys.stderr)
        return 130
    return 0
