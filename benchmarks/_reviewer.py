"""A reviewer who knows the truth: finds the errors of a session and mends them by its centres, the worst first."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._agreement import Agreement
from napari_nucseg.core.nuclei import Change
from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from napari_nucseg.session import Session

STILL = 2.0
"""A centre nearer than this to where a person would put it is not moved, in pixels."""


@dataclass(frozen=True)
class Fix:
    """One edit that a reviewer may do.

    Attributes
    ----------
    verb : {"add", "split", "reject", "merge", "move", "retype"}
    true : int
        The true nucleus it is done for, 0 for a rejection.
    preds : tuple of int
        The predicted nuclei it is done to.
    pixels : int
        How bad the error is: pixels that belong to the wrong nucleus, or to none.
    """

    verb: str
    true: int
    preds: tuple[int, ...]
    pixels: int

    @property
    def key(self) -> tuple[str, int, tuple[int, ...]]:
        """What makes it the same as another attempt."""
        return self.verb, self.true, self.preds

    @property
    def rank(self) -> tuple[bool, int, int, tuple[int, ...]]:
        """Worst first: errors of outlines by their pixels, then errors of classes by theirs."""
        return self.verb == "retype", -self.pixels, self.true, self.preds


@dataclass(frozen=True)
class Edit:
    """An edit that was done.

    Attributes
    ----------
    verb : str
    seconds : float
        Of the session's call alone.
    undone : bool
        It made things worse and was taken back.
    refused : bool
        The session said no.
    iou : float
        Of the nucleus that was added with the true one it stands for; NaN for other edits.
    """

    verb: str
    seconds: float
    undone: bool
    refused: bool
    iou: float = float("nan")


def fixes_for_true(table: Agreement, t: int, kinds: dict[int, int]) -> list[Fix]:
    """Return what a person would do for one true nucleus, one after the other; nothing where it is well."""
    shared, area = table.preds_of(t), int(table.true_area[t])
    match = table.match(t)
    if match:
        return _retyped(table, t, match, kinds)
    parts = sorted((p for p, s in shared.items() if 2 * s > table.area[p]), key=lambda p: (-shared[p], p))
    out = []
    if len(parts) > 1:
        several = tuple(sorted(parts))
        if table.iou(t, several) > max(0.5, *(table.iou(t, (p,)) for p in parts)):
            out.append(Fix("merge", t, several, area - shared[parts[0]]))
    host = parts[0] if parts else next((p for p, s in shared.items() if 2 * s > area), 0)
    if not host:
        return [*out, Fix("add", t, (), area)]
    if any(o != t and _claims(table, o, host) for o in table.trues_of(host)):
        return [*out, Fix("split", t, (host,), area)]
    moved = Fix("move", t, (host,), area + table.area[host] - 2 * shared[host])
    return [*out, moved, *_retyped(table, t, host, kinds)]


def _retyped(table: Agreement, t: int, p: int, kinds: dict[int, int]) -> list[Fix]:
    wrong = table.true_type[t] and kinds.get(p) != table.true_type[t] - 1
    return [Fix("retype", t, (p,), table.preds_of(t)[p])] if wrong else []


def _claims(table: Agreement, t: int, p: int) -> bool:
    """Whether a predicted nucleus stands for this true one: it holds most of it, or most of it is its."""
    shared = table.trues_of(p)[t]
    return 2 * shared > int(table.true_area[t]) or 2 * shared > table.area[p]


def fixes_for_pred(table: Agreement, p: int) -> list[Fix]:
    """Return what a person would do to a predicted nucleus that stands for no true one of its own."""
    if table.match_of(p):
        return []
    for t in table.trues_of(p):
        if not _claims(table, t, p):
            continue
        match = table.match(t)
        if not match:
            if all(table.preds_of(t)[p] >= s for s in table.preds_of(t).values()):
                return []  # the best there is for that one
            continue
        both = tuple(sorted((p, match)))
        if table.iou(t, both) > table.iou(t, (match,)):
            return [Fix("merge", t, both, table.trues_of(p)[t]), Fix("reject", 0, (p,), table.area[p])]
    return [Fix("reject", 0, (p,), table.area[p])]


@dataclass
class Reviewer:
    """Mends one image through its session.

    Parameters
    ----------
    session : Session
    table : Agreement
        Of the session's labels with the truth.

    Attributes
    ----------
    tried : set
        Keys of the fixes that were done: none is done twice.
    """

    session: Session
    table: Agreement
    tried: set[tuple[str, int, tuple[int, ...]]] = field(default_factory=set)
    _changes: list[Change] = field(default_factory=list)
    _fixes: dict[tuple[str, int], Fix] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.session.changed.connect(self._changes.append)
        records = self.session.records
        self._kinds = dict(zip(records["id"].tolist(), records["kind"].tolist(), strict=True))
        self._look(set(range(1, self.table.n + 1)), set(self.table.area))

    def edits(self, most: int) -> Iterator[Edit]:
        """Do the worst edit again and again, until nothing is left to mend or `most` are done."""
        for _ in range(most):
            if not self._fixes:
                return
            yield self._do(min(self._fixes.values(), key=lambda f: f.rank))

    def left(self) -> Counter[str]:
        """Count what is wrong still, by kind; nothing of it can be mended by an edit not tried before."""
        table, out = self.table, Counter[str]()
        for t in range(1, table.n + 1):
            match = table.match(t)
            if match:
                out["wrong class"] += int(
                    table.true_type[t] > 0 and self._kinds.get(match) != table.true_type[t] - 1
                )
            else:
                held = any(_claims(table, t, p) for p in table.preds_of(t))
                out["poor shape" if held else "missed"] += 1
        for p in table.area:
            if not table.match_of(p) and not any(_claims(table, t, p) for t in table.trues_of(p)):
                out["invented"] += 1
        return +out

    def _do(self, fix: Fix) -> Edit:
        self.tried.add(fix.key)
        before = self.table.bpq + self.table.f1_d
        began = time.perf_counter()
        try:
            made = self._call(fix)
        except NucSegError:
            self._look({fix.true} - {0}, set(fix.preds))
            return Edit(fix.verb, time.perf_counter() - began, False, True)
        seconds = time.perf_counter() - began
        trues, preds = self._take_over()
        iou = self.table.iou(fix.true, (made,)) if made in self.table.area else float("nan")
        worse = fix.verb != "retype" and self.table.bpq + self.table.f1_d < before
        if worse:
            self.session.undo()
            again = self._take_over()
            trues, preds = trues | again[0], preds | again[1]
        self._look(trues | ({fix.true} - {0}), preds | set(fix.preds))
        return Edit(fix.verb, seconds, worse, False, iou)

    def _call(self, fix: Fix) -> int:
        """Do one edit; return the id of the nucleus that it made, or 0."""
        y, x = (float(v) for v in self.table.anchor[fix.true])
        match fix.verb:
            case "add" | "split":
                return int(self.session.add(y, x))
            case "move":
                self.session.move(fix.preds[0], y, x)
            case "reject":
                self.session.reject(list(fix.preds))
            case "merge":
                self.session.merge(list(fix.preds))
            case _:
                self.session.retype(list(fix.preds), int(self.table.true_type[fix.true]) - 1)
        return 0

    def _take_over(self) -> tuple[set[int], set[int]]:
        """Bring table and classes up to what the session has said since; return the nuclei concerned."""
        trues, preds = set[int](), set[int]()
        for change in self._changes:
            more = self.table.update(change.pixels, change.values)
            trues, preds = trues | more[0], preds | more[1]
            self._kinds |= zip(change.records["id"].tolist(), change.records["kind"].tolist(), strict=True)
        self._changes.clear()
        return trues, preds

    def _look(self, trues: set[int], preds: set[int]) -> None:
        """Find out anew what is wrong with some nuclei."""
        preds = preds.union(*(self.table.preds_of(t) for t in trues))
        trues = trues.union(*(self.table.trues_of(p) for p in preds))
        for t in trues:
            self._set(("true", t), fixes_for_true(self.table, t, self._kinds))
        for p in preds:
            asked = any(self._asks(t, p) for t in self.table.trues_of(p))
            alive = p in self.table.area and not asked
            self._set(("pred", p), fixes_for_pred(self.table, p) if alive else [])

    def _asks(self, t: int, p: int) -> bool:
        """Whether a nucleus is to get another shape for the sake of a true one."""
        fix = self._fixes.get(("true", t))
        return fix is not None and fix.verb != "retype" and p in fix.preds

    def _set(self, key: tuple[str, int], fixes: list[Fix]) -> None:
        """Choose the first edit that was not tried and is none already."""
        for fix in fixes:
            if fix.key not in self.tried and not (fix.verb in ("move", "split") and self._is_there(fix)):
                self._fixes[key] = fix
                return
        self._fixes.pop(key, None)

    def _is_there(self, fix: Fix) -> bool:
        """Whether the centre lies already where a person would put one."""
        record = self.session.record(fix.preds[0])
        away = np.array([record["y"], record["x"]]) - self.table.anchor[fix.true]
        return bool(np.hypot(*away) < STILL)
