"""Compiled loops of the decoder; see `core.decode` for what they mean. They hold no GIL."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def smooth_foreground(rough, out):
    """Take the comb off the foreground: its 3x3 binomial mean (weights 1-2-1); `rough` has one pixel more all around.

    A sub-pixel head makes the even and the odd pixels in different channels, which disagree where the foreground is
    uncertain: faint nuclei had teeth of one pixel. The binomial mean is zero at exactly that period.
    """
    down, across = np.empty(rough.shape[1], np.uint16), np.empty(out.shape[1], np.uint16)
    for y in range(out.shape[0]):
        for x in range(rough.shape[1]):
            down[x] = rough[y, x] + 2 * rough[y + 1, x] + rough[y + 2, x]
        for x in range(out.shape[1]):
            across[x] = down[x] + 2 * down[x + 1] + down[x + 2] + 8
        for x in range(out.shape[1]):
            out[y, x] = across[x] >> 4


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
    rough = np.empty((height + 2, width + 2), np.uint8)
    for y in range(height + 2):
        row = min(max(y - 1, 0), height - 1)
        for x in range(width + 2):
            col = min(max(x - 1, 0), width - 1)
            rough[y, x] = np.uint8(min(max(maps[0, row, col], 0.0), 1.0) * 255 + 0.5)
    smooth_foreground(rough, out_fg)
    for y in range(height):
        for x in range(width):
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
def encode(raw, finest, span):
    """Return raw values as 16-bit codes: steps of 1 / finest from -span to span."""
    out = np.empty(raw.shape, np.uint16)
    half, most = np.float32(0.5), np.float32(65535)
    for c in range(raw.shape[0]):
        for y in range(raw.shape[1]):
            for x in range(raw.shape[2]):
                out[c, y, x] = np.uint16(min(max((raw[c, y, x] + span) * finest + half, np.float32(0)), most))
    return out


@njit(cache=True, nogil=True)
def unpack_foreground(codes, y0, x0, sigmoid8, out):
    """Do as `unpack` for the foreground, smoothed; what lies beyond the window is like its edge."""
    height, width = out.shape
    last_y, last_x = 2 * codes.shape[1] - 1, 2 * codes.shape[2] - 1
    before, after = max(x0 - 1, 0), min(x0 + width, last_x)
    rough = np.empty((height + 2, width + 2), np.uint8)
    for y in range(height + 2):
        seen = min(max(y0 + y - 1, 0), last_y)
        row, i = seen >> 1, 2 * (seen & 1)
        for j in range(2):
            for x in range((j - x0) & 1, width, 2):
                rough[y, 1 + x] = sigmoid8[codes[i + j, row, (x0 + x) >> 1]]
        rough[y, 0] = sigmoid8[codes[i + (before & 1), row, before >> 1]]
        rough[y, 1 + width] = sigmoid8[codes[i + (after & 1), row, after >> 1]]
    smooth_foreground(rough, out)


@njit(cache=True, nogil=True)
def unpack(codes, y0, x0, n_angles, sigmoid16, power, out_band, out_centre, out_type):
    """Put the maps of a window into place, activated and quantised; the outputs are its part that begins at (y0, x0).

    `codes` (4 * channels, h / 2, w / 2) stand for raw values, and index the tables.
    """
    height, width = out_band.shape
    centre_at, boundary_at = 4 * (1 + n_angles), 4 * (2 + n_angles)
    type_at, n_types = boundary_at + 12, out_type.shape[0]
    half = np.float32(0.5)
    for y in range(height):
        row, i = (y0 + y) >> 1, 2 * ((y0 + y) & 1)
        for j in range(2):
            s = i + j
            for x in range((j - x0) & 1, width, 2):  # one pass a map: each reads one stretch of memory
                out_centre[y, x] = sigmoid16[codes[centre_at + s, row, (x0 + x) >> 1]]
            for x in range((j - x0) & 1, width, 2):
                col = (x0 + x) >> 1
                band = power[codes[boundary_at + 8 + s, row, col]]
                rest = power[codes[boundary_at + s, row, col]] + power[codes[boundary_at + 4 + s, row, col]]
                out_band[y, x] = np.uint8(np.float32(255) * band / (rest + band) + half)
            for x in range((j - x0) & 1, width, 2):
                col = (x0 + x) >> 1
                total = np.float32(0)
                for k in range(n_types):
                    total += power[codes[type_at + 4 * k + s, row, col]]
                scale = np.float32(255) / total
                for k in range(n_types):
                    out_type[k, y, x] = np.uint8(power[codes[type_at + 4 * k + s, row, col]] * scale + half)


@njit(cache=True, nogil=True)
def unpack_edges(codes, y0, x0, steps, value, edge_gain, fg, out):
    """Take the falling edges of the distance maps along their own angles where the foreground is not quite empty."""
    height, width = fg.shape
    last_y, last_x = 2 * codes.shape[1] - 1, 2 * codes.shape[2] - 1
    for y in range(height):
        for x in range(width):
            if fg[y, x] < 16:
                continue
            strongest = np.float32(0)
            for k in range(steps.shape[0]):
                dy, dx = steps[k, 0], steps[k, 1]
                ay, ax = min(max(y0 + y + dy, 0), last_y), min(max(x0 + x + dx, 0), last_x)
                by, bx = min(max(y0 + y - dy, 0), last_y), min(max(x0 + x - dx, 0), last_x)
                before = value[codes[4 + 4 * k + 2 * (by & 1) + (bx & 1), by >> 1, bx >> 1]]
                after = value[codes[4 + 4 * k + 2 * (ay & 1) + (ax & 1), ay >> 1, ax >> 1]]
                strongest = max(strongest, (before - after) * np.float32(0.5))
            out[y, x] = np.uint8(
                min(strongest * edge_gain, np.float32(1)) * np.float32(255) + np.float32(0.5)
            )


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
def step_costs(foreground, border, fg_min, base, band, edge, dearest):
    """Return what stepping on each pixel costs, padded by one pixel: 0 outside the foreground, `dearest` at most."""
    height, width = foreground.shape
    out = np.zeros((height + 2, width + 2), np.uint16)
    for y in range(height):
        for x in range(width):
            cost = base + (band * np.int64(border[0, y, x]) + edge * np.int64(border[1, y, x])) // 255
            out[y + 1, x + 1] = min(cost, dearest) if foreground[y, x] >= fg_min else 0
    return out


@njit(cache=True, nogil=True)
def _component(seed, beside, step, owner, done, members):
    """Collect the component of the foreground around a seed; return its pixels (with room to spare) and their number.

    Pixels that are no seeds get owner -1 ("seen"), seeds are done. A seed outside the foreground belongs to every
    component beside it, and joins them.
    """
    members[0] = seed
    done[owner[seed] - 1] = True
    count, at = 1, 0
    while at < count:
        here = members[at]
        at += 1
        if count + 4 > members.size:
            members = np.append(members, np.empty(members.size, np.int64))
        for k in range(4):
            there = here + beside[k]
            who = owner[there]
            if who < 0 or (who == 0 and step[there] == 0) or (who > 0 and done[who - 1]):
                continue
            if who == 0:
                owner[there] = -1
            else:
                done[who - 1] = True
            members[count] = there
            count += 1
    return members, count


@njit(cache=True, nogil=True)
def flood(padded_step, max_cost, dearest, seeds, wanted, padded_owner, padded_cost):
    """Grow nuclei in all components of the foreground that hold a wanted seed, one component after another.

    Paths do not leave the foreground, so components know nothing of each other, and what one of them needs stays in
    the processor's cache. Within one it is Dial's bucket queue over integer costs: every step costs at least 1, so
    all pixels that can reach cost c have been settled when bucket c is opened, and comparing (cost, owner) while
    relaxing is enough to break ties by owner.

    The images are padded by one pixel, `seeds` are flat positions in them; `padded_owner` holds k + 1 at seed k and 0
    elsewhere, `padded_cost` 65535.
    """
    stride = padded_step.shape[1]
    step, owner, cost = padded_step.ravel(), padded_owner.ravel(), padded_cost.ravel()
    beside = np.array([-stride, -1, 1, stride], np.int64)
    ring = 1
    while ring <= dearest:
        ring *= 2
    head = np.full(ring, -1, np.int64)
    nxt, pixel, members = np.empty(4096, np.int64), np.empty(4096, np.int64), np.empty(4096, np.int64)
    done = np.zeros(seeds.size, np.bool_)
    for first in range(seeds.size):
        if done[first] or not wanted[first]:
            continue
        members, count = _component(seeds[first], beside, step, owner, done, members)
        used = 0
        for m in range(count):
            if owner[members[m]] > 0:
                if used == nxt.size:
                    nxt = np.append(nxt, np.empty(used, np.int64))
                    pixel = np.append(pixel, np.empty(used, np.int64))
                cost[members[m]] = 0
                pixel[used], nxt[used], head[0] = members[m], head[0], used
                used += 1
        waiting, now = used, 0
        while waiting > 0:
            entry = head[now & (ring - 1)]
            head[now & (ring - 1)] = -1
            while entry >= 0:
                waiting -= 1
                here = pixel[entry]
                entry = nxt[entry]
                if cost[here] != now:
                    continue  # reached more cheaply since
                mine = owner[here]
                if used + 4 > nxt.size:
                    nxt = np.append(nxt, np.empty(nxt.size, np.int64))
                    pixel = np.append(pixel, np.empty(pixel.size, np.int64))
                for k in range(4):
                    there = here + beside[k]
                    total = now + np.int64(step[there])
                    if step[there] == 0 or total > max_cost or total > cost[there]:
                        continue
                    if total == cost[there]:
                        owner[there] = min(owner[there], mine)
                        continue
                    cost[there], owner[there] = total, mine
                    slot = total & (ring - 1)
                    pixel[used], nxt[used], head[slot] = there, head[slot], used
                    used += 1
                    waiting += 1
            now += 1
        for m in range(count):
            owner[members[m]] = max(owner[members[m]], 0)


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
