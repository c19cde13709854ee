"""The maps kept in blocks are those that were put in, or known to be missing."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucseg.core.decode import Fields
from napari_nucseg.core.field_cache import BLOCK, FieldCache
from napari_nucseg.core.tiling import Box

SHAPE = (BLOCK + 90, 2 * BLOCK + 30)


def some_fields(shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    fields = Fields.empty(shape, 2)
    for part in (fields.foreground, fields.border, fields.centre, fields.type):
        part[:] = rng.integers(0, 256, part.shape)
    return fields


def boxes():
    def one(values):
        y0, y1, x0, x1 = values
        return Box(min(y0, y1), max(y0, y1) + 1, min(x0, x1), max(x0, x1) + 1)

    rows, cols = st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[1] - 1)
    return st.tuples(rows, rows, cols, cols).map(one)


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(boxes(), max_size=6), wanted=boxes())
def test_what_comes_out_is_what_went_in(parts, wanted):
    whole, cache = some_fields(), FieldCache(SHAPE, 2)
    filled = np.zeros(SHAPE, bool)
    for box in parts:
        cache.put(box, whole.crop(*box.slices))
        filled[box.slices] = True
    gap, got = cache.missing(wanted), cache.gather(wanted)
    assert (gap is None) == (got is not None)
    if got is not None:
        np.testing.assert_array_equal(got.type, whole.type[:, *wanted.slices])
        np.testing.assert_array_equal(got.centre, whole.centre[wanted.slices])
        np.testing.assert_array_equal(got.border, whole.border[:, *wanted.slices])
        assert filled[wanted.slices].all()
    else:
        assert not filled[gap.slices].all()
        assert gap.cut(wanted) is not None
        cache.put(gap, whole.crop(*gap.slices))
        assert cache.missing(wanted) is None


def test_the_longest_unused_blocks_are_forgotten():
    shape = (BLOCK, 8 * BLOCK)
    cache = FieldCache(shape, 2, max_bytes=1)  # room for four
    whole = some_fields(shape)
    cache.put(Box(0, BLOCK, 0, 4 * BLOCK), whole.crop(slice(0, BLOCK), slice(0, 4 * BLOCK)))
    assert cache.gather(Box(0, 9, 0, 9)) is not None  # used again
    later = Box(0, BLOCK, 4 * BLOCK, 5 * BLOCK)
    cache.put(later, whole.crop(*later.slices))
    assert cache.missing(Box(0, 9, 0, 9)) is None
    assert cache.missing(later) is None
    assert cache.missing(Box(0, 9, BLOCK, BLOCK + 1)) == Box(0, BLOCK, BLOCK, 2 * BLOCK)
