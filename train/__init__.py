"""Train, evaluate and export the networks of napari-nucseg (headless)."""

import sys
from types import TracebackType


def _without_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("Stopped before anything was done.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == [
    "-m"
]:  # python -m train.X: a command that is stopped while it imports torch, which takes seconds
    sys.excepthook = _without_traceback
