"""Random edits of a session, each timed from the call to the labels being up to date."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg.session import Session

Position = tuple[float, float]

STEPS = 12
"""Steps of one drag, each about two pixels on."""


@dataclass
class Clock:
    """Milliseconds by kind of edit, and those of what comes after each.

    Parameters
    ----------
    after : callable () -> (dict of str -> float)
        Done after every edit, outside of its time, such as drawing; returns further times in milliseconds.
    before : callable (y, x)
        Done before every edit that has a place.
    """

    after: Callable[[], dict[str, float]] = dict
    before: Callable[[float, float], None] = lambda _y, _x: None
    spent: dict[str, list[float]] = field(default_factory=dict)
    computed: dict[str, list[float]] = field(default_factory=dict)
    """The processor's time: what was spent without other programs' share."""
    more: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    refused: int = 0

    def time(self, kind: str, edit: Callable[[], object], at: Position | None = None) -> bool:
        """Time one edit; one that the session refuses is not counted, and False returned."""
        if at is not None:
            self.before(*at)
        began, used = time.perf_counter(), time.thread_time()
        try:
            edit()
        except NucSegError:
            self.refused += 1
            return False
        spent, computed = time.perf_counter() - began, time.thread_time() - used
        self.spent.setdefault(kind, []).append(1e3 * spent)
        self.computed.setdefault(kind, []).append(1e3 * computed)
        self.more.setdefault(kind, []).append(self.after())
        return True


class Hand:
    """Chooses where to edit.

    Parameters
    ----------
    session : Session
    seed : int
    """

    def __init__(self, session: Session, seed: int) -> None:
        self.session, self.rng = session, np.random.default_rng(seed)

    def free(self) -> Position:
        """Return a position in no nucleus."""
        return self._where(lambda label: label == 0)

    def covered(self) -> Position:
        """Return a position in a nucleus."""
        return self._where(lambda label: label > 0)

    def nucleus(self) -> tuple[int, Position]:
        """Return a live nucleus and its centre."""
        live = np.flatnonzero(self.session.live)
        record = self.session.records[self.rng.choice(live)]
        return int(record["id"]), (float(record["y"]), float(record["x"]))

    def path(self) -> Iterator[tuple[float, float]]:
        """Yield the offsets of a drag: a straight way of `STEPS` steps."""
        angle = self.rng.uniform(0, 2 * np.pi)
        for k in range(1, STEPS + 1):
            yield 2.0 * k * float(np.sin(angle)), 2.0 * k * float(np.cos(angle))

    def _where(self, wanted: Callable[[int], bool]) -> Position:
        labels = self.session.labels
        while True:
            y, x = (int(self.rng.integers(n)) for n in labels.shape)
            if wanted(int(labels[y, x])):
                return float(y), float(x)


def edit_all(session: Session, clock: Clock, rounds: int, seed: int = 0) -> bool:
    """Do every kind of edit `rounds` times in turns, then undo all, redo all, and undo all again.

    Returns
    -------
    bool
        Whether the labels are in the end what they were.
    """
    start: NDArray[np.uint32] = session.labels.copy()
    hand = Hand(session, seed)
    for _ in range(rounds):
        one_round(session, hand, clock)
    undo_all(session, clock)
    while session.can_redo:
        clock.time("redo", session.redo)
    undo_all(session, Clock())
    return np.array_equal(session.labels, start)


def undo_all(session: Session, clock: Clock) -> None:
    """Undo every edit."""
    while session.can_undo:
        clock.time("undo", session.undo)


def one_round(session: Session, hand: Hand, clock: Clock) -> None:
    """Do each kind of edit once."""
    y, x = hand.free()
    clock.time("add", lambda: session.add(y, x), (y, x))
    v, u = hand.covered()
    clock.time("add inside (split)", lambda: session.add(v, u), (v, u))
    id_, at = hand.nucleus()
    clock.before(*at)
    drag = session.drag([id_])
    for dy, dx in hand.path():
        clock.time("move (one step of a drag)", lambda dy=dy, dx=dx: drag.to(dy, dx))  # type: ignore[misc]
    drag.end()
    gone, at = hand.nucleus()
    clock.time("delete", lambda: session.reject([gone]), at)
    typed, at = hand.nucleus()
    clock.time("retype", lambda: session.retype([typed], 0), at)
