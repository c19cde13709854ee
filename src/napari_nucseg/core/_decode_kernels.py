"""Compiled loops of the decoder; see `core.decode` for what they mean. They hold no GIL."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, fastmath=False)
def compress(
    maps,
    first_distance,
    steps,
    centre_at,
    band_at,
    type_at,
    edge_gain,
    out_fg,
    out_border,
    out_centre,
    out_type,
):
    """Quantise the maps and take the falling edges of the distance maps along their own angles."""
    height, width = maps.shape[1], maps.shape[2]
    for y in range(height):
        for x in range(width):
            out_fg[y, x] = np.uint8(min(max(maps[0, y, x], 0.0), 1.0) * 255 + 0.5)
            out_centre[y, x] = np.uint16(min(max(maps[centre_at, y, x], 0.0), 1.0) * 65535 + 0.5)
            out_border[0, y, x] = np.uint8(min(max(maps[band_at, y, x], 0.0), 1.0) * 255 + 0.5)
    for k in range(out_type.shape[0]):
        for y in range(height):
            for x in range(width):
                out_type[k, y, x] = np.uint8(min(max(maps[type_at + k, y, x], 0.0), 1.0) * 255 + 0.5)
    for y in range(height):
        for x in range(width):
            if out_fg[y, x] < 16:
                continue
            strongest = 0.0
            for k in range(steps.shape[0]):
                dy, dx = steps[k, 0], steps[k, 1]
                ay, ax = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
                by, bx = min(max(y - dy, 0), height - 1), min(max(x - dx, 0), width - 1)
                fall = (maps[first_distance + k, by, bx] - maps[first_distance + k, ay, ax]) / 2
                strongest = max(strongest, fall)
            out_border[1, y, x] = np.uint8(min(strongest * edge_gain, 1.0) * 255 + 0.5)


@njit(cache=True, nogil=True)
def smooth_centre(centre, lowest):
    """Sum of the 3x3 binomial neighbourhood (weights 1-2-1, total 16) where the map reaches `lowest`, else 0."""
    height, width = centre.shape
    smooth = np.zeros((height, width), np.int32)
    for y in range(height):
        ys, ye = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            if centre[y, x] < lowest:
                continue
            xs, xe = max(x - 1, 0), min(x + 1, width - 1)
            smooth[y, x] = (
                4 * np.int32(centre[y, x])
                + 2 * (np.int32(centre[ys, x]) + centre[ye, x] + centre[y, xs] + centre[y, xe])
                + (np.int32(centre[ys, xs]) + centre[ys, xe] + centre[ye, xs] + centre[ye, xe])
            )
    return smooth


@njit(cache=True, nogil=True)
def local_maxima(smooth, foreground, lowest, fg_min, spacing, support):
    """Rows, columns and heights of the peaks, in raster order; of equal heights the first one counts."""
    height, width = smooth.shape
    out = []
    for y in range(height):
        for x in range(width):
            value = smooth[y, x]
            if value < lowest or foreground[y, x] < fg_min:
                continue
            highest = True
            for ny in range(max(y - spacing, 0), min(y + spacing + 1, height)):
                for nx in range(max(x - spacing, 0), min(x + spacing + 1, width)):
                    other = smooth[ny, nx]
                    if other > value or (other == value and (ny < y or (ny == y and nx < x))):
                        highest = False
                        break
                if not highest:
                    break
            if not highest:
                continue
            count = 0
            for ny in range(max(y - 4, 0), min(y + 5, height)):
                for nx in range(max(x - 4, 0), min(x + 5, width)):
                    count += foreground[ny, nx] >= fg_min
            if count >= support:
                out.append((y, x, value))
    return out


@njit(cache=True, nogil=True)
def on_ridge(peaks, smooth, ridge, saddle):
    """Whether each peak (in raster order) is a mere bump on the ridge of a higher one within `ridge` pixels.

    That is so if on the straight way there the map never falls below `saddle` times its own height. Compared are
    all peaks, also those that fall out themselves: so the answer depends on nothing farther away.
    """
    n = peaks.shape[0]
    out = np.zeros(n, np.bool_)
    first = 0
    for p in range(n):
        while peaks[first, 0] < peaks[p, 0] - ridge:
            first += 1
        for q in range(first, n):
            if peaks[q, 0] > peaks[p, 0] + ridge:
                break
            higher = peaks[q, 2] > peaks[p, 2] or (peaks[q, 2] == peaks[p, 2] and q < p)
            dy, dx = peaks[q, 0] - peaks[p, 0], peaks[q, 1] - peaks[p, 1]
            if not higher or abs(dx) > ridge:
                continue
            steps = max(abs(dy), abs(dx))
            bump = True
            for k in range(1, steps):
                y = peaks[p, 0] + (2 * k * dy + steps) // (2 * steps)
                x = peaks[p, 1] + (2 * k * dx + steps) // (2 * steps)
                if smooth[y, x] < saddle * peaks[p, 2]:
                    bump = False
                    break
            if bump:
                out[p] = True
                break
    return out


@njit(cache=True, nogil=True)
def flood(foreground, border, fg_min, base, band, edge, max_cost, rows, cols, owner, cost):
    """Dial's bucket queue over integer costs; `owner` gets 1-based centre numbers, `cost` the path costs.

    Every step costs at least 1, so all pixels that can reach cost c have been settled when bucket c is
    opened: comparing (cost, owner) while relaxing is enough to break ties by owner.
    """
    height, width = foreground.shape
    longest = base + band + edge + 1
    head = np.full(longest + 1, -1, np.int64)
    capacity = max(1024, foreground.size // 2 + rows.size)
    nxt = np.empty(capacity, np.int64)
    pixel = np.empty(capacity, np.int64)
    used = 0
    for k in range(rows.size):
        owner[rows[k], cols[k]] = k + 1
        cost[rows[k], cols[k]] = 0
        pixel[used], nxt[used], head[0] = rows[k] * width + cols[k], head[0], used
        used += 1
    waiting = used
    now = 0
    while waiting > 0 and now <= max_cost:
        slot = now % (longest + 1)
        entry = head[slot]
        head[slot] = -1
        while entry >= 0:
            waiting -= 1
            y, x = pixel[entry] // width, pixel[entry] % width
            entry = nxt[entry]
            if cost[y, x] != now:
                continue  # reached more cheaply since
            mine = owner[y, x]
            for k in range(4):
                ny, nx = y + (k == 0) - (k == 1), x + (k == 2) - (k == 3)
                if ny < 0 or nx < 0 or ny >= height or nx >= width or foreground[ny, nx] < fg_min:
                    continue
                step = base + (band * np.int64(border[0, ny, nx]) + edge * np.int64(border[1, ny, nx])) // 255
                total = now + step
                if total > max_cost or total > cost[ny, nx]:
                    continue
                if total == cost[ny, nx]:
                    owner[ny, nx] = min(owner[ny, nx], mine)
                    continue
                cost[ny, nx] = total
                owner[ny, nx] = mine
                if used == capacity:
                    capacity *= 2
                    nxt = np.append(nxt, np.empty(capacity - used, np.int64))
                    pixel = np.append(pixel, np.empty(capacity - used, np.int64))
                target = total % (longest + 1)
                pixel[used], nxt[used], head[target] = ny * width + nx, head[target], used
                used += 1
                waiting += 1
        now += 1


@njit(cache=True, nogil=True)
def find(ids, value):
    """Return the place of a value in sorted ids, -1 if it is not there."""
    at = np.searchsorted(ids, value)
    return at if at < ids.size and ids[at] == value else -1


@njit(cache=True, nogil=True)
def fill_holes(owner, max_hole, ids, fixed):
    """Give background components of at most `max_hole` pixels to the one label that encloses them.

    Where `ids` (sorted) are given, only those of them take part that are not `fixed`.
    """
    height, width = owner.shape
    seen = np.zeros((height, width), np.bool_)
    members = np.empty(max_hole + 1, np.int64)
    for sy in range(height):
        for sx in range(1, width):
            # a hole's first pixel in raster order has a label on its left and above it
            if (
                owner[sy, sx] != 0
                or owner[sy, sx - 1] == 0
                or seen[sy, sx]
                or sy == 0
                or owner[sy - 1, sx] == 0
            ):
                continue
            around = owner[sy, sx - 1]
            members[0] = sy * width + sx
            seen[sy, sx] = True
            count, at, closed = 1, 0, True
            while at < count and closed:
                y, x = members[at] // width, members[at] % width
                at += 1
                for k in range(4):
                    ny, nx = y + (k == 0) - (k == 1), x + (k == 2) - (k == 3)
                    if ny < 0 or nx < 0 or ny >= height or nx >= width:
                        closed = False
                    elif owner[ny, nx] == 0:
                        if not seen[ny, nx]:
                            if count > max_hole:
                                closed = False
                            else:
                                seen[ny, nx] = True
                                members[count] = ny * width + nx
                                count += 1
                    elif owner[ny, nx] != around:
                        closed = False
            closed = closed and count <= max_hole
            if closed and ids.size > 0:
                who = find(ids, around)
                closed = who >= 0 and not fixed[who]
            if closed:
                for k in range(count):
                    owner[members[k] // width, members[k] % width] = around
            else:
                for k in range(count):
                    seen[members[k] // width, members[k] % width] = False


@njit(cache=True, nogil=True)
def vote(owner, types, sums):
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            if owner[y, x]:
                for k in range(sums.shape[1]):
                    sums[owner[y, x], k] += types[k + 1, y, x]
