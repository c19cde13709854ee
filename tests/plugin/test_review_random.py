"""Mouse, keys and brush in any order, maps that are lost at any time: all views of a review agree."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from tests.plugin.hand import CTRL, PLAIN, SHIFT
from tests.session.boards import assert_sound, state_of

STEPS, LOOK_EVERY = 20, 10
KEYS = ("a", "x", "u", "m", "n", "p", "1", "3", "c", Qt.Key.Key_Delete, Qt.Key.Key_Escape)


class Monkey:
    """A user who does anything, near nuclei most of the time."""

    def __init__(self, desk, rng):
        self.desk, self.rng = desk, rng

    def spot(self, spread=14):
        """Go to a place near some nucleus; return it with the nucleus."""
        session = self.desk.session
        id_ = int(self.rng.choice(session.records["id"][session.live]))
        pixel = np.clip(np.array(self.desk.centre(id_)) + self.rng.normal(0, spread, 2), 1, 510)
        self.desk.hand.see(pixel, zoom=float(self.rng.choice([8, 20])))
        return tuple(pixel), id_

    def click(self):
        pixel, _ = self.spot()
        self.desk.activate(self.desk.points, "add")
        self.desk.hand.click(pixel)

    def select(self):
        _, id_ = self.spot()
        self.desk.activate(self.desk.points, "select")
        self.desk.hand.click(self.desk.centre(id_), SHIFT if self.rng.random() < 0.4 else PLAIN)

    def drag(self):
        _, id_ = self.spot(2)
        start = np.array(self.desk.centre(id_))
        self.desk.activate(self.desk.points, "select")
        self.desk.hand.drag(start, *(start + self.rng.normal(0, 7, (2, 2)).clip(-15, 15)))

    def box(self):
        pixel, _ = self.spot()
        self.desk.activate(self.desk.points, "select")
        self.desk.hand.drag(np.array(pixel) - 14, np.array(pixel) + 14)

    def press(self):
        if self.rng.random() < 0.7:
            self.select()
        else:
            self.desk.viewer.layers.selection.active = self.desk.labels
        self.desk.hand.key(KEYS[self.rng.integers(len(KEYS))])

    def stroke(self):
        pixel, id_ = self.spot(4)
        self.desk.activate(
            self.desk.labels, str(self.rng.choice(["paint", "erase", "fill"], p=[0.6, 0.3, 0.1]))
        )
        self.desk.labels.brush_size = int(self.rng.integers(1, 9))
        self.desk.labels.selected_label = int(self.rng.choice([0, id_, self.desk.session.next_id]))
        self.desk.hand.drag(pixel, np.array(pixel) + self.rng.normal(0, 6, 2).clip(-12, 12))

    def write(self):
        (y, x), id_ = self.spot(4)
        rows, cols = np.mgrid[int(y) : int(y) + 5, int(x) : int(x) + 5]
        value = int(self.rng.choice([0, id_, self.desk.session.next_id]))
        self.desk.labels.data_setitem((rows.ravel().clip(0, 511), cols.ravel().clip(0, 511)), value)

    def step_back(self):
        self.desk.viewer.layers.selection.active = self.desk.points
        self.desk.hand.key("z", CTRL if self.rng.random() < 0.6 else CTRL | SHIFT)

    def lose_maps(self):
        self.desk.session.fields._blocks.clear()


@pytest.mark.parametrize("seed", [4, 11])
def test_after_any_sequence_all_agree_and_undo_leads_back(desk, seed):
    monkey, session, edits = Monkey(desk, np.random.default_rng(seed)), desk.session, desk.review.edits
    before, names = state_of(session), []
    deeds = {
        monkey.click: 5, monkey.select: 2, monkey.press: 7, monkey.drag: 4, monkey.box: 1, monkey.stroke: 4,
        monkey.write: 2, monkey.step_back: 3, monkey.lose_maps: 2,
    }  # fmt: skip
    weights = np.array(list(deeds.values())) / sum(deeds.values())
    for step in range(1, STEPS + 1):
        deed = monkey.rng.choice(np.array(list(deeds), object), p=weights)
        deed()
        names.append(session.can_undo)
        if step % LOOK_EVERY == 0:
            desk.panel.until(lambda: not edits.waiting)
            assert_sound(session)
            desk.agree()
    assert len(set(names)) > 3
    while session.undo():
        pass
    assert state_of(session) == before
    desk.agree()
