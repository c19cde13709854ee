"""Compiled loops of local edits; see `core.edit` for what they mean. They hold no GIL."""

import numpy as np
from numba import njit

from napari_nucseg.core._decode_kernels import fill_holes, find

UNREACHED = 65535


@njit(cache=True, nogil=True)
def region(labels, y, x):
    """Return the flat indices of the 4-connected region of equal label around a pixel, in order of discovery."""
    height, width = labels.shape
    value = labels[y, x]
    found = np.empty(256, np.int64)
    found[0] = y * width + x
    seen = {found[0]}
    n, at = 1, 0
    while at < n:
        py, px = found[at] // width, found[at] % width
        at += 1
        for k in range(4):
            ny, nx = py + (k == 0) - (k == 1), px + (k == 2) - (k == 3)
            if ny < 0 or nx < 0 or ny >= height or nx >= width or labels[ny, nx] != value:
                continue
            flat = ny * width + nx
            if flat in seen:
                continue
            seen.add(flat)
            if n == found.size:
                found = np.append(found, np.empty(n, np.int64))
            found[n] = flat
            n += 1
    return found[:n]


@njit(cache=True, nogil=True)
def _push(queue, head, used, pixel, cost):
    """Put a pixel into the bucket of its cost; `queue` holds (pixel, next) and is returned, grown if need be."""
    if used == queue.shape[0]:
        queue = np.concatenate((queue, np.empty_like(queue)))
    queue[used, 0], queue[used, 1] = pixel, head[cost]
    head[cost] = used
    return queue


@njit(cache=True, nogil=True)
def _step(border, y, x, base, band, edge):
    return base + (band * np.int64(border[0, y, x]) + edge * np.int64(border[1, y, x])) // 255


@njit(cache=True, nogil=True)
def _recall(foreground, border, labels, cost, y, x, floor, base, band, edge, max_cost):
    """Write the path costs of one nucleus from its centre, as the decoder had them: paths stay inside the nucleus."""
    height, width = labels.shape
    value = labels[y, x]
    head = np.full(max_cost + 1, -1, np.int64)
    queue = np.empty((1024, 2), np.int64)
    queue = _push(queue, head, 0, y * width + x, 0)
    used = 1
    cost[y, x] = 0
    for now in range(max_cost + 1):
        entry = head[now]
        while entry >= 0:
            py, px = queue[entry, 0] // width, queue[entry, 0] % width
            entry = queue[entry, 1]
            if cost[py, px] != now:
                continue
            for k in range(4):
                ny, nx = py + (k == 0) - (k == 1), px + (k == 2) - (k == 3)
                if ny < 0 or nx < 0 or ny >= height or nx >= width:
                    continue
                if labels[ny, nx] != value or foreground[ny, nx] < floor:
                    continue
                total = now + _step(border, ny, nx, base, band, edge)
                if total <= max_cost and total < cost[ny, nx]:
                    cost[ny, nx] = total
                    queue = _push(queue, head, used, ny * width + nx, total)
                    used += 1


@njit(cache=True, nogil=True)
def refit(
    foreground,
    border,
    labels,
    ids,
    rows,
    cols,
    floor,
    limit,
    locked,
    freed,
    added,
    base,
    band,
    edge,
    max_cost,
    max_hole,
    unfill,
):
    """Take nuclei away (`freed`: at least a pixel of each) and grow others (`added`: places in `ids`), in a window.

    `labels` is changed in place. Returns the changed box (y0, y1, x0, x1), empty (y0 = y1) if nothing changed.
    """
    height, width = labels.shape
    original = labels.copy()
    cost = np.full((height, width), UNREACHED, np.uint16)
    known = np.zeros(ids.size, np.bool_)
    box = np.array([height, 0, width, 0])
    head = np.full(max_cost + 1, -1, np.int64)
    queue = np.empty((4096, 2), np.int64)
    used = 0

    empty = np.empty(0, np.int64)
    loose = [empty]
    for k in range(freed.shape[0]):
        if labels[freed[k, 0], freed[k, 1]] == 0:
            continue  # gone with an earlier pixel
        pixels = region(labels, freed[k, 0], freed[k, 1])
        for p in pixels:
            labels[p // width, p % width] = 0
            _grow(box, p // width, p % width)
        loose.append(pixels)
    for pixels in loose:
        for p in pixels:
            for k in range(4):
                y, x = p // width + (k == 0) - (k == 1), p % width + (k == 2) - (k == 3)
                if y < 0 or x < 0 or y >= height or x >= width or labels[y, x] == 0:
                    continue
                who = find(ids, labels[y, x])
                if who < 0 or locked[who]:
                    continue
                if not known[who]:
                    known[who] = True
                    _recall(foreground, border, labels, cost, rows[who], cols[who], floor[who],
                            base, band, edge, max_cost)  # fmt: skip
                if cost[y, x] <= max_cost:
                    queue = _push(queue, head, used, y * width + x, cost[y, x])
                    used += 1
    for who in added:
        y, x = rows[who], cols[who]
        other = find(ids, labels[y, x]) if labels[y, x] != 0 else -1
        if other >= 0 and not known[other] and not locked[other]:
            known[other] = True
            _recall(foreground, border, labels, cost, rows[other], cols[other], floor[other],
                    base, band, edge, max_cost)  # fmt: skip
    for who in added:
        y, x = rows[who], cols[who]
        known[who] = True
        labels[y, x], cost[y, x] = ids[who], 0
        _grow(box, y, x)
        queue = _push(queue, head, used, y * width + x, 0)
        used += 1

    for now in range(max_cost + 1):
        entry = head[now]
        while entry >= 0:
            y, x = queue[entry, 0] // width, queue[entry, 0] % width
            entry = queue[entry, 1]
            if cost[y, x] != now:
                continue  # reached more cheaply since
            mine = find(ids, labels[y, x])
            for k in range(4):
                ny, nx = y + (k == 0) - (k == 1), x + (k == 2) - (k == 3)
                if ny < 0 or nx < 0 or ny >= height or nx >= width or foreground[ny, nx] < floor[mine]:
                    continue
                if limit[mine] > 0 and (ny - rows[mine]) ** 2 + (nx - cols[mine]) ** 2 > limit[mine]:
                    continue
                total = now + _step(border, ny, nx, base, band, edge)
                if total > max_cost:
                    continue
                theirs = mine
                if labels[ny, nx] == 0:
                    theirs = -1
                elif labels[ny, nx] != ids[mine]:
                    theirs = find(ids, labels[ny, nx])
                    if theirs < 0 or locked[theirs]:
                        continue
                    if not known[theirs]:
                        known[theirs] = True
                        _recall(foreground, border, labels, cost, rows[theirs], cols[theirs], floor[theirs],
                                base, band, edge, max_cost)  # fmt: skip
                if total > cost[ny, nx]:
                    continue
                if total == cost[ny, nx]:
                    if theirs < 0 or theirs == mine:
                        continue
                    earlier = rows[mine] < rows[theirs] or (
                        rows[mine] == rows[theirs] and cols[mine] < cols[theirs]
                    )
                    if not earlier:
                        continue
                if theirs != mine:
                    labels[ny, nx] = ids[mine]
                    _grow(box, ny, nx)
                cost[ny, nx] = total
                queue = _push(queue, head, used, ny * width + nx, total)
                used += 1
    if box[1] > 0:
        _tidy(foreground, border, labels, original, cost, known, ids, rows, cols, floor, locked,
              base, band, edge, max_cost, max_hole, unfill, box)  # fmt: skip
    return box


@njit(cache=True, nogil=True)
def _grow(box, y, x):
    box[0], box[1] = min(box[0], y), max(box[1], y + 1)
    box[2], box[3] = min(box[2], x), max(box[3], x + 1)


@njit(cache=True, nogil=True)
def _tidy(
    foreground,
    border,
    labels,
    original,
    cost,
    known,
    ids,
    rows,
    cols,
    floor,
    locked,
    base,
    band,
    edge,
    max_cost,
    max_hole,
    unfill,
    box,
):
    """Settle holes and cut-off pixels of the nuclei at the changed pixels, as the decoder would; grows `box`."""
    height, width = labels.shape
    near = np.zeros(ids.size, np.bool_)
    for y in range(max(box[0] - 1, 0), min(box[1] + 1, height)):
        for x in range(max(box[2] - 1, 0), min(box[3] + 1, width)):
            if labels[y, x] == 0:
                continue
            who = find(ids, labels[y, x])
            if who < 0 or locked[who] or near[who]:
                continue
            near[who] = True
            if not known[who]:
                known[who] = True
                _recall(foreground, border, labels, cost, rows[who], cols[who], floor[who],
                        base, band, edge, max_cost)  # fmt: skip
    # A hole that the change bears on lies within max_hole of it.
    y0, y1 = max(box[0] - max_hole - 2, 0), min(box[1] + max_hole + 2, height)
    x0, x1 = max(box[2] - max_hole - 2, 0), min(box[3] + max_hole + 2, width)
    part = labels[y0:y1, x0:x1]
    before = part.copy()
    if unfill:
        _reopen_holes(part, original[y0:y1, x0:x1], cost[y0:y1, x0:x1], ids, near)
    fill_holes(part, max_hole, ids, locked)
    joined = np.zeros(part.shape, np.bool_)
    for who in range(ids.size):
        if near[who] and labels[rows[who], cols[who]] == ids[who]:
            for p in region(labels, rows[who], cols[who]):
                y, x = p // width - y0, p % width - x0
                if 0 <= y < part.shape[0] and 0 <= x < part.shape[1]:
                    joined[y, x] = True
    for y in range(part.shape[0]):
        for x in range(part.shape[1]):
            if part[y, x] != 0 and not joined[y, x]:
                who = find(ids, part[y, x])
                if who >= 0 and near[who]:
                    part[y, x] = 0
            if part[y, x] != before[y, x]:
                _grow(box, y0 + y, x0 + x)


@njit(cache=True, nogil=True)
def _reopen_holes(labels, original, cost, ids, near):
    """Clear the filled holes of nuclei: pixels that no path reached, with nothing around but the same nucleus.

    Other pixels that no path reaches come from maps that have been computed anew and differ by a trifle; they stay. So
    do holes which the rim cuts.
    """
    height, width = labels.shape
    seen = np.zeros((height, width), np.bool_)
    members = np.empty(height * width, np.int64)
    for sy in range(1, height - 1):
        for sx in range(1, width - 1):
            if seen[sy, sx] or labels[sy, sx] == 0 or cost[sy, sx] != UNREACHED:
                continue
            who = find(ids, labels[sy, sx])
            if who < 0 or not near[who]:
                continue
            members[0] = sy * width + sx
            seen[sy, sx] = True
            count, at, hole = 1, 0, True
            while at < count:
                y, x = members[at] // width, members[at] % width
                at += 1
                if y == 0 or x == 0 or y == height - 1 or x == width - 1:
                    hole = False
                    continue
                for k in range(4):
                    ny, nx = y + (k == 0) - (k == 1), x + (k == 2) - (k == 3)
                    if original[ny, nx] != ids[who]:
                        hole = False
                    elif labels[ny, nx] == ids[who] and cost[ny, nx] == UNREACHED and not seen[ny, nx]:
                        seen[ny, nx] = True
                        members[count] = ny * width + nx
                        count += 1
            if hole:
                for k in range(count):
                    labels[members[k] // width, members[k] % width] = 0


@njit(cache=True, nogil=True)
def anchor(labels, ids, rows, cols, parts):
    """Leave of every nucleus only what is connected to its centre pixel, which it is given; see `core.edit`."""
    kept = np.ones(ids.size, np.bool_)
    width = labels.shape[1]
    taken = {np.int64(-1)}
    for k in range(ids.size):
        flat = rows[k] * width + cols[k]
        kept[k] = flat not in taken
        taken.add(flat)
        if kept[k]:
            labels[rows[k], cols[k]] = ids[k]
    for k in range(ids.size):
        if kept[k]:
            for p in region(labels, rows[k], cols[k]):
                parts[p // width, p % width] = True
    return kept


@njit(cache=True, nogil=True)
def areas(labels, ids, out):
    """Count the pixels of sorted ids."""
    height, width = labels.shape
    last, at = labels.dtype.type(0), -1
    for y in range(height):
        for x in range(width):
            value = labels[y, x]
            if value == 0:
                continue
            if value != last:
                last, at = value, find(ids, value)
            if at >= 0:
                out[at] += 1


@njit(cache=True, nogil=True)
def clear_loose(labels, ids, joined):
    """Clear the pixels of `ids` that are not marked."""
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] != 0 and not joined[y, x] and find(ids, labels[y, x]) >= 0:
                labels[y, x] = 0
