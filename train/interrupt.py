"""Stopping a training on demand: by Ctrl+C, or by SIGTERM, which schedulers such as Slurm send before they kill."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO = 1.0
"""Seconds within which signals count as one: a scheduler and torchrun each hand the same wish on."""


GRACE = 10
"""Seconds for which processes that make crops outlive a SIGTERM."""


class Stopped(KeyboardInterrupt):
    """A training ended on demand; the message says where it goes on."""


class Interrupt:
    """Within it the first signal is only noted, for the loop to end between two steps; a second one ends at once.

    Parameters
    ----------
    speaks : bool
        Whether to tell the user that the wish was heard.

    Attributes
    ----------
    wanted : bool
        Whether the training is to end.
    """

    def __init__(self, speaks: bool = True) -> None:
        self.wanted, self._speaks, self._since = False, speaks, 0.0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            kept = {number: signal.getsignal(number) for number in SIGNALS}
            # what is ignored, as in a background job of a shell, stays ignored
            self._before = {k: v for k, v in kept.items() if v is not None and v is not signal.SIG_IGN}
            for number in self._before:
                signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted and time.monotonic() > self._since + ECHO:
            raise KeyboardInterrupt
        if not self.wanted:
            self.wanted, self._since = True, time.monotonic()
            if self._speaks:  # not by logging, which may be in the middle of a line
                os.write(2, b"Stopping after this step (once more: at once) ...\n")


def deaf(worker: int) -> None:
    """Let a process that makes crops leave signals to the training, which gets them too and needs it for its step.

    SIGTERM ends it after `GRACE` seconds all the same: it is also how Python ends what is left of it at its own end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # on Windows SIGTERM cannot be handled
        grace = GRACE
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(grace))
