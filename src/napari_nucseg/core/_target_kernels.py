"""Compiled loops of the training targets; see `core.targets` for what they mean. They hold no GIL."""

import math

import numpy as np
from numba import njit

from napari_nucseg.core.maps import BAND, INSIDE


@njit(cache=True, nogil=True)
def split(labels, parts):
    """Number the 4-connected parts of every id into `parts`; return how many there are."""
    height, width = labels.shape
    stack = np.empty(height * width, np.int64)
    count = 0
    for start in range(height * width):
        sy, sx = start // width, start % width
        if labels[sy, sx] == 0 or parts[sy, sx] != 0:
            continue
        count += 1
        parts[sy, sx] = count
        stack[0] = start
        top = 1
        while top > 0:
            top -= 1
            y, x = stack[top] // width, stack[top] % width
            for k in range(4):
                ny, nx = y + (k == 0) - (k == 1), x + (k == 2) - (k == 3)
                if 0 <= ny < height and 0 <= nx < width:
                    if labels[ny, nx] == labels[sy, sx] and parts[ny, nx] == 0:
                        parts[ny, nx] = count
                        stack[top] = ny * width + nx
                        top += 1
    return count


@njit(cache=True, nogil=True)
def moments(parts, n):
    """Area, row sum and column sum of each part, row 0 unused."""
    out = np.zeros((n + 1, 3), np.float64)
    for y in range(parts.shape[0]):
        for x in range(parts.shape[1]):
            p = parts[y, x]
            if p:
                out[p, 0] += 1
                out[p, 1] += y
                out[p, 2] += x
    return out


@njit(cache=True, nogil=True)
def distance(parts, origin, keep, cosine, sine, out):
    """Signed distance along one direction, each side of each part scaled by its own extreme."""
    n = origin.shape[0]
    low, high = np.zeros(n), np.zeros(n)
    for scale in range(2):
        for y in range(parts.shape[0]):
            for x in range(parts.shape[1]):
                p = parts[y, x]
                if p == 0 or not keep[p]:
                    continue
                d = (x - origin[p, 1]) * cosine + (y - origin[p, 0]) * sine
                if scale == 0:
                    low[p] = min(low[p], d)
                    high[p] = max(high[p], d)
                elif d < 0:
                    out[y, x] = -d / low[p]
                elif d > 0:
                    out[y, x] = d / high[p]


@njit(cache=True, nogil=True)
def anchor(parts, moments):
    """Pixel of each part nearest to its centroid (the first in raster order on a tie)."""
    n = moments.shape[0]
    best = np.full(n, np.inf)
    anchor = np.zeros((n, 2), np.int64)
    for y in range(parts.shape[0]):
        for x in range(parts.shape[1]):
            p = parts[y, x]
            if p:
                d = (y - moments[p, 1] / moments[p, 0]) ** 2 + (x - moments[p, 2] / moments[p, 0]) ** 2
                if d < best[p]:
                    best[p] = d
                    anchor[p, 0], anchor[p, 1] = y, x
    return anchor


@njit(cache=True, nogil=True)
def bumps(anchor, sigma, out):
    height, width = out.shape
    for p in range(1, anchor.shape[0]):
        reach = int(math.ceil(3 * sigma[p]))
        cy, cx = anchor[p, 0], anchor[p, 1]
        for y in range(max(0, cy - reach), min(height, cy + reach + 1)):
            for x in range(max(0, cx - reach), min(width, cx + reach + 1)):
                value = math.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * sigma[p] ** 2))
                if value > out[y, x]:
                    out[y, x] = value


@njit(cache=True, nogil=True)
def boundary(labels, radius, out):
    """Band = pixels within `radius` (Euclidean) of a pixel of another label, one of the two in a nucleus."""
    height, width = labels.shape
    for y in range(height):
        row = out[y]
        row[:] = 0
        for dy in range(-radius, radius + 1):
            if not 0 <= y + dy < height:
                continue
            other = labels[y + dy]
            for dx in range(-radius, radius + 1):
                if dy * dy + dx * dx <= radius * radius and (dy != 0 or dx != 0):
                    # slices of equal length without branches: the compiler compares many pixels at once
                    first, last = max(0, -dx), max(0, min(width, width - dx))
                    here, there, found = labels[y, first:last], other[first + dx : last + dx], row[first:last]
                    for x in range(last - first):
                        found[x] |= np.uint8(here[x] != there[x])
        for x in range(width):
            row[x] = BAND if row[x] else (INSIDE if labels[y, x] else 0)
