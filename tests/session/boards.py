"""Small sessions on senseless fields: nothing that holds may depend on well-behaved maps."""

from contextlib import suppress

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.measure import label as connected

from napari_nucseg.core.decode import DecodeConfig, Fields, decode
from napari_nucseg.core.field_cache import FieldCache
from napari_nucseg.core.nuclei import (
    NucleusClass,
    Origin,
    Outline,
    State,
    centre_pixels,
    is_live,
    record_dtype,
)
from napari_nucseg.core.scale import Scale
from napari_nucseg.core.tiling import Box
from napari_nucseg.errors import NucSegError
from napari_nucseg.session import Session

CONFIG = DecodeConfig(max_cost=60, max_hole=10, support=4, centre=0.2)
CLASSES = (
    NucleusClass("red", (255, 0, 0)),
    NucleusClass("green", (0, 255, 0)),
    NucleusClass("blue", (0, 0, 255)),
)
SHAPE = (64, 80)


def random_fields(rng, shape=SHAPE):
    """Return fields with blobs of foreground, and borders and classes at random."""
    fields = Fields.empty(shape, len(CLASSES))
    fields.foreground[:] = 255 * np.clip(gaussian_filter(rng.standard_normal(shape), 3) * 5 + 0.45, 0, 1)
    fields.border[:] = rng.integers(0, 256, fields.border.shape) * (rng.random(fields.border.shape) < 0.3)
    fields.centre[:] = 65535 * np.clip(gaussian_filter(rng.standard_normal(shape), 2) * 4, 0, 1)
    fields.type[:] = rng.integers(0, 256, fields.type.shape)
    return fields


def make_session(seed=0, level0=SHAPE, model=SHAPE, known=True, empty=False):
    """Return a session as a run would leave it."""
    rng = np.random.default_rng(seed)
    fields = random_fields(rng, model)
    scale = Scale(level0, model)
    found = decode(fields, CONFIG)
    labels, records = np.zeros(level0, np.uint32), np.zeros(0, record_dtype(len(CLASSES)))
    if not empty:
        area, part = scale.labels_to_level0(Box(0, model[0], 0, model[1]), found.owner.astype(np.uint32))
        labels[area.slices] = part
        points = scale.to_level0(found.centres)
        present = np.unique(labels)
        ids = present[present > 0]
        records = np.zeros(len(ids), records.dtype)
        records["id"] = ids
        records["y"], records["x"] = points[ids - 1].T
        records["kind"] = found.probabilities[ids - 1].argmax(1)
        records["prob"] = found.probabilities[ids - 1]
        records["score"] = found.scores[ids - 1]
        records["state"], records["origin"] = State.PREDICTED, Origin.MODEL
    cache = FieldCache(model, len(CLASSES))
    if known:
        cache.put(Box(0, model[0], 0, model[1]), fields)
    if scale.is_identity:
        from napari_nucseg.core.edit import areas

        records["area"] = areas(labels, records["id"].copy())
        return Session(labels, records, CLASSES, scale, CONFIG, cache)
    from napari_nucseg.session.tables import table_of

    return Session.from_table(labels, table_of(records, CLASSES), CLASSES, scale, CONFIG, cache)


def assert_sound(session):
    """Check that every live nucleus is one connected region that holds its centre, and nothing else is there."""
    assert session.check() is None
    records, labels = session.records, session.labels
    live = records[is_live(records)]
    assert set(np.unique(labels)) - {0} == set(live["id"].tolist())
    sizes = np.bincount(labels.ravel(), minlength=int(records["id"].max(initial=0)) + 1)
    np.testing.assert_array_equal(sizes[live["id"]], live["area"])
    for record in live:
        y, x = centre_pixels(record)
        assert labels[y, x] == record["id"]
        assert connected(labels == record["id"], connectivity=1).max() == 1
    assert (records["area"][~is_live(records)] == 0).all()
    assert (np.diff(records["id"].astype(int)) > 0).all()


def state_of(session):
    """Return all that an undo must bring back."""
    live = session.records[is_live(session.records) | (session.records["state"] == State.REJECTED)]
    return session.labels.tobytes(), live.tobytes()


def random_edit(session, rng):
    """Do one edit; return its name, or None where it was refused."""
    live = session.records["id"][session.live]
    height, width = session.labels.shape
    point = rng.uniform((-3, -3), (height + 2, width + 2))
    chosen = rng.choice(live, min(len(live), int(rng.integers(1, 4))), replace=False) if len(live) else live
    edits = {
        "add": lambda: session.add(*point),
        "move": lambda: session.move(int(chosen[0]), *point),
        "reject": lambda: session.reject(chosen),
        "accept": lambda: session.accept(rng.choice(session.records["id"], int(rng.integers(1, 4)))),
        "retype": lambda: session.retype(chosen, int(rng.integers(3))),
        "merge": lambda: session.merge(chosen),
        "paint": lambda: session.paint(*random_stroke(session, rng)),
        "unlock": lambda: session.unlock(chosen),
        "place": lambda: session.place(
            random_outlines(session, rng), rng.uniform(0, min(height, width), (3, 2))
        ),
        "drag": lambda: random_drag(session, chosen, rng),
        "undo": session.undo,
        "redo": session.redo,
    }
    name = str(rng.choice(list(edits)))
    if not len(live) and name in ("move", "reject", "accept", "retype", "merge", "unlock", "drag"):
        return None
    try:
        edits[name]()
    except NucSegError:
        return None
    return name


def random_stroke(session, rng):
    """Return the pixels of a short thick line, and a label: known, new, past or 0."""
    height, width = session.labels.shape
    y, x = rng.integers(0, height), rng.integers(0, width)
    mask = np.zeros((height, width), bool)
    for _ in range(int(rng.integers(1, 12))):
        y, x = np.clip((y + rng.integers(-2, 3), x + rng.integers(-2, 3)), 0, (height - 1, width - 1))
        mask[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = True
    label = int(rng.choice([0, session.at(y, x), session.next_id, rng.integers(1, session.next_id + 3)]))
    pixels = np.flatnonzero(mask)
    if rng.random() < 0.2:  # two labels in one stroke
        label = np.where(np.arange(len(pixels)) % 7 < 3, label, rng.integers(0, session.next_id + 3))
    return pixels, label


def random_outlines(session, rng):
    """Return two rectangles, one of them perhaps under a known id."""
    height, width = session.labels.shape
    out = []
    for _ in range(2):
        y, x = int(rng.integers(0, height - 8)), int(rng.integers(0, width - 8))
        box = Box(y, y + int(rng.integers(1, 8)), x, x + int(rng.integers(1, 8)))
        id_ = int(rng.integers(1, session.next_id + 2)) if rng.random() < 0.5 else None
        out.append(Outline(box, np.ones(box.shape, bool), str(rng.choice(["red", "new"])), id_))
    return out


def random_drag(session, ids, rng):
    """Drag some centres in a few steps, of which some may be refused."""
    drag = session.drag(ids)
    for _ in range(3):
        with suppress(NucSegError):
            drag.to(*rng.uniform(-8, 8, 2))
    drag.cancel() if rng.random() < 0.3 else drag.end()
