"""What the commands with a config share: arguments, a ``--help`` that teaches, logging, errors as one sentence."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from napari_nucseg.errors import NucSegError
from napari_nucseg.interrupt import terminable
from train import distributed
from train.config import describe, load_config, option_of

T = TypeVar("T")


def config_parser(cls: type, prog: str, about: str, example: str) -> argparse.ArgumentParser:
    """Return a parser of ``--config FILE key.sub=value ...`` whose help lists every key of `cls`."""
    epilog = (
        f"example:\n  {example}\n\n"
        "several GPUs, or several machines (batch_size is then that of one process):\n"
        f"  torchrun --nproc-per-node 4 -m {prog.removeprefix('python -m ')} --config FILE.toml\n\n"
        f"keys of the config, with their defaults (a key given on the command line wins):\n{describe(cls)}"
    )
    parser = argparse.ArgumentParser(
        prog=prog,
        description=about,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, help="a TOML file, see train/configs")
    parser.add_argument("overrides", nargs="*", help="key.sub=value, for example loop.steps=2000")
    return parser


def parse(cls: type[T], argv: Sequence[str], prog: str, about: str, example: str) -> T:
    """Read the config of a command from its arguments.

    Raises
    ------
    NucSegError
        From `load_config`; or there is an option that is none, such as ``--steps 60``.
    """
    parser = config_parser(cls, prog, about, example)
    known = {option for action in parser._actions for option in action.option_strings}
    for k, word in enumerate(argv):
        option, _, value = word.partition("=")
        if word.startswith("--") and option not in known:
            raise NucSegError(option_of(cls, option, value or [*argv, ""][k + 1]))
    args = parser.parse_args(argv)
    return load_config(cls, args.config, args.overrides, prog.rpartition(".")[2])


def run_command(
    action: Callable[[T], None],
    cls: type[T],
    argv: Sequence[str] | None,
    *,
    prog: str,
    about: str,
    example: str,
    then: Callable[[T], str] | None = None,
) -> int:
    """Read the config of a command and run it.

    Parameters
    ----------
    action : what the command does with its config
    cls : dataclass of the config
    argv : arguments without the program's name, None for those of the process
    prog, about, example : for ``--help``; `prog` such as ``python -m train.fit``
    then : the command that comes next as a rule

    Returns
    -------
    int
        Exit status: 0, 130 if it was stopped by Ctrl+C or SIGTERM, 2 after a `NucSegError`, an `OSError` or for want
        of the GPU's memory, told in one sentence.
    """
    lead = distributed.rank() == 0
    level = logging.INFO if lead else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", stream=sys.stdout)
    try:
        with terminable():
            config = parse(cls, sys.argv[1:] if argv is None else argv, prog, about, example)
            action(config)
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"A file cannot be read or written ({error}); check the path and the space left.", file=sys.stderr
        )
        return 2
    except torch.cuda.OutOfMemoryError as error:
        what = str(error).partition(".")[0]
        way = "lower loop.batch_size and raise loop.accumulate by as much, in another run folder."
        print(f"The GPU's memory is full ({what}); {way}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        if lead:
            print(
                str(error) or "Stopped before the first step; the same command starts again.", file=sys.stderr
            )
        return 130
    if then is not None and lead:
        print(f"Next: {then(config)}")
    return 0
