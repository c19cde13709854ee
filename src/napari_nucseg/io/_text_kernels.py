"""Compiled loops that write rows of a table as text, for CSV and GeoJSON alike.

Numbers with a fraction have eight significant digits, rounded as C's ``%.8g`` rounds them, for magnitudes from 1e-280
to 1e280. (A figure is scaled to eight digits before the point in twice the precision of a double, which leaves
nothing to chance: a half is one exactly only where the scaling is exact.)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

inner = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For loops that only compiled ones call: what Python would need to call them takes most of the time to compile."""

FLOAT, INT, TEXT = 0, 1, 2
NUMBER_BYTES = 24
"""No number takes more."""

_POWERS = np.array([float(10**k) for k in range(300)])
_REST = np.array([float(10**k - int(float(10**k))) for k in range(300)])  # what the doubles above lack
_LOG10_2 = math.log10(2)
ZERO: Any = np.int64(0)
"""Where to begin: a plain 0 has a type of its own, for which everything that it is handed to is compiled once more."""

_TEN = np.uint64(10)
_SPLIT = 134217729.0  # 2**27 + 1


class Fields(NamedTuple):
    """The columns of a table, ready to be written.

    A row is the concatenation of its fields, each its lead and then its value.

    Attributes
    ----------
    kinds : int64 (k,)
        `FLOAT`, `INT` or `TEXT`.
    which : int64 (k,)
        Row of `floats`, `ints` or `codes` that holds the column.
    floats : float64 (a, n)
    ints : int64 (b, n)
    codes : int64 (c, n)
        Pieces, -1 for a missing value.
    leads : int64 (k,)
        Pieces.
    pieces : uint8
        Texts one after the other.
    ends : int64 (p + 1,)
        Piece i is ``pieces[ends[i]:ends[i + 1]]``.
    """

    kinds: NDArray[np.int64]
    which: NDArray[np.int64]
    floats: NDArray[np.float64]
    ints: NDArray[np.int64]
    codes: NDArray[np.int64]
    leads: NDArray[np.int64]
    pieces: NDArray[np.uint8]
    ends: NDArray[np.int64]


@njit(cache=True, nogil=True)
def put_rows(
    out: NDArray[np.uint8], fields: Fields, first: int, last: int
) -> int:  # pragma: no cover - compiled
    """Write rows, each with a line feed behind it; return how many bytes."""
    at = ZERO
    for row in range(first, last):
        at = put_fields(out, at, fields, row, True)
        out[at] = 10
        at += 1
    return at


@inner
def put_fields(
    out: NDArray[np.uint8], at: int, fields: Fields, row: int, every: bool
) -> int:  # pragma: no cover - compiled
    """Write a row; fields without a (finite) value stay empty if `every` is to be there, else go with their lead."""
    for k in range(len(fields.kinds)):
        kind, which = fields.kinds[k], fields.which[k]
        if kind == FLOAT:
            value = fields.floats[which, row]
            if every or math.isfinite(value):
                at = put_piece(out, at, fields, fields.leads[k])
                at = put_float(out, at, value)
        elif kind == INT:
            at = put_piece(out, at, fields, fields.leads[k])
            at = put_int(out, at, fields.ints[which, row])
        else:
            code = fields.codes[which, row]
            if every or code >= 0:
                at = put_piece(out, at, fields, fields.leads[k])
            if code >= 0:
                at = put_piece(out, at, fields, code)
    return at


@inner
def put_piece(
    out: NDArray[np.uint8], at: int, fields: Fields, piece: int
) -> int:  # pragma: no cover - compiled
    """Write a piece."""
    return put_bytes(out, at, fields.pieces, fields.ends[piece], fields.ends[piece + 1])


@inner
def put_bytes(
    out: NDArray[np.uint8], at: int, source: NDArray[np.uint8], first: int, last: int
) -> int:  # pragma: no cover - compiled
    """Write source[first:last]."""
    for k in range(first, last):
        out[at] = source[k]
        at += 1
    return at


@inner
def put_int(out: NDArray[np.uint8], at: int, value: int) -> int:  # pragma: no cover - compiled
    """Write an integer."""
    if value < 0:
        out[at] = 45
        at += 1
        if value == -(2**63):
            return put_digits(out, put_digits(out, at, np.int64(922337203685477580)), np.int64(8))
        value = -value
    return put_digits(out, at, value)


@inner
def put_digits(out: NDArray[np.uint8], at: int, value: int) -> int:  # pragma: no cover - compiled
    """Write an integer that isn't negative."""
    rest = np.uint64(value)  # divided in half the time of a signed one
    count, bound = 1, _TEN
    while count < 19 and rest >= bound:
        count += 1
        bound = bound * _TEN if count < 19 else bound
    for k in range(at + count - 1, at - 1, -1):
        tens = rest // _TEN
        out[k] = np.uint8(48) + np.uint8(rest - tens * _TEN)
        rest = tens
    return at + count


@inner
def put_float(out: NDArray[np.uint8], at: int, value: float) -> int:  # pragma: no cover - compiled
    """Write a number with eight significant digits, nothing for NaN, and inf for infinity."""
    if value != value:
        return at
    if value < 0 or (value == 0 and math.copysign(1.0, value) < 0):
        out[at] = 45
        at += 1
        value = -value
    if value == math.inf:
        out[at], out[at + 1], out[at + 2] = 105, 110, 102
        return at + 3
    if value < 1e8 and value == math.floor(value):
        return put_digits(out, at, int(value))
    digits, exponent = _eight_digits(value)
    count = 8
    while digits % 10 == 0:
        digits //= 10
        count -= 1
    if exponent < -4 or exponent >= 8:
        return _put_scientific(out, at, digits, count, exponent)
    return _put_fixed(out, at, digits, count, exponent)


@inner
def _eight_digits(value: float) -> tuple[int, int]:  # pragma: no cover - compiled
    """Return the eight leading digits as an integer, rounded half to even, and the decimal exponent of the first."""
    exponent = math.floor((math.frexp(value)[1] - 1) * _LOG10_2)  # this or one more
    scaled, rest = _scaled(value, 7 - exponent)
    if scaled >= 1e8:
        exponent += 1
        scaled, rest = _scaled(value, 7 - exponent)
    digits = int(scaled)
    above = scaled - digits - 0.5
    if above > 0 or (above == 0 and (rest > 0 or (rest == 0 and digits % 2 == 1))):
        digits += 1
    if digits == 100000000:
        return 10000000, exponent + 1
    return digits, exponent


@inner
def _scaled(value: float, by: int) -> tuple[float, float]:  # pragma: no cover - compiled
    """Return value * 10**by as the sum of a double and a rest of at most half its last place."""
    if by >= 0:
        scaled, rest = _product(value, _POWERS[by])
        rest += value * _REST[by]
    else:
        scaled = value / _POWERS[-by]
        back, lost = _product(scaled, _POWERS[-by])
        rest = (value - back - lost - scaled * _REST[-by]) / _POWERS[-by]
    total = scaled + rest
    return total, rest - (total - scaled)


@inner
def _product(a: float, b: float) -> tuple[float, float]:  # pragma: no cover - compiled
    """Return a * b rounded, and exactly what the rounding took away (T. J. Dekker, 1971)."""
    product = a * b
    wide = _SPLIT * a
    a_high = wide - (wide - a)
    a_low = a - a_high
    wide = _SPLIT * b
    b_high = wide - (wide - b)
    b_low = b - b_high
    return product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


@inner
def _put_fixed(
    out: NDArray[np.uint8], at: int, digits: int, count: int, exponent: int
) -> int:  # pragma: no cover - compiled
    """Write `count` digits, the first worth 10**exponent; they reach behind the point."""
    if exponent < 0:
        out[at], out[at + 1] = 48, 46
        at += 2
        for _ in range(-exponent - 1):
            out[at] = 48
            at += 1
        return put_digits(out, at, digits)
    for _ in range(exponent + 1 - count):  # a rounding up may have left no fraction
        digits *= 10
        count += 1
    end = put_digits(out, at, digits)
    point = at + exponent + 1
    if point == end:
        return end
    for k in range(end, point, -1):
        out[k] = out[k - 1]
    out[point] = 46
    return end + 1


@inner
def _put_scientific(
    out: NDArray[np.uint8], at: int, digits: int, count: int, exponent: int
) -> int:  # pragma: no cover - compiled
    """Write `count` digits, the first worth 10**exponent, as d.dde-05."""
    end = put_digits(out, at + 1, digits)
    out[at] = out[at + 1]
    if count > 1:
        out[at + 1] = 46
    else:
        end = at + 1
    out[end], out[end + 1] = 101, 45 if exponent < 0 else 43
    end += 2
    if abs(exponent) < 10:
        out[end] = 48
        end += 1
    return put_digits(out, end, abs(exponent))
