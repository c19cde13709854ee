"""Draw a figure for print.

  python -m train.figures umap    --data DATA/consep --held-out train/configs/student.toml --models default
  python -m train.figures stages  --data DATA/consep --held-out train/configs/student.toml --images train_3
  python -m train.figures grid    --data DATA/monuseg --held-out runs/a --models runs/a runs/b --labels alone distilled
  python -m train.figures classes --held-out train/configs/student.toml
  python -m train.figures curves  --models runs/a runs/b --panels total bPQ

The images of a test split are for final figures only. Classes have colours that the colour-blind can tell
apart, also in print; those of a model's card are for the screen.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from train.figures_config import KINDS, FiguresConfig
from train.figures_style import save, style
from train.flags import run_flags

log = logging.getLogger(__name__)


def figures(config: FiguresConfig) -> Path:
    """Draw the figure of a config and write it; return its path."""
    module = importlib.import_module(f"train.figures_{config.kind}")
    with style():
        path = save(module.draw(config), config.path, config.dpi)
    print(f"Written: {path}")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m train.figures``."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        arguments = [f"kind={arguments[0]}", *arguments[1:]]
    return run_flags(
        figures,
        FiguresConfig,
        arguments,
        prog="python -m train.figures",
        about=f"{__doc__}\nKinds: {', '.join(KINDS)}.",
        example="python -m train.figures stages --data DATA/monuseg --split train --format png",
    )


if __name__ == "__main__":
    raise SystemExit(main())
