"""A review under way in a real viewer, and a hand on it."""

from __future__ import annotations

import numpy as np

from tests.plugin.hand import Hand


class Desk:
    """A review under way, and a hand on it."""

    def __init__(self, panel):
        self.panel, self.viewer = panel, panel.viewer.__wrapped__
        self.review = panel.widget.results.review
        self.labels, self.points, self.session = self.review.labels, self.review.points, self.review.session
        self.hand = Hand(panel.viewer, self.labels)

    def agree(self):
        """Points, labels and table say the same."""
        table = self.session.table()
        shown, data = self.points.features, self.points.data
        if len(shown) and shown["state"].iloc[-1] == "rejected":  # that the queue has led back to
            place = self.review.actions.current
            assert data[-1].tolist() == list(self.centre(place))
            assert not self.review.is_live(place)
            shown, data = shown[:-1], data[:-1]
        np.testing.assert_array_equal(shown["id"], table["id"])
        np.testing.assert_array_equal(data, table[["centre_y", "centre_x"]])
        np.testing.assert_array_equal(shown["class"], table["class"])
        np.testing.assert_array_equal(shown["state"], table["state"])
        assert self.labels.data is self.session.labels
        np.testing.assert_array_equal(np.unique(self.labels.data)[1:], table["id"])
        assert self.session.check() is None
        assert not self.labels._undo_history

    def centre(self, id_):
        record = self.session.record(id_)
        return float(record["y"]), float(record["x"])

    def nuclei(self, count=1, apart=60):
        """Ids of the largest nuclei away from the border and from one another."""
        chosen = []
        for record in np.sort(self.session.records, order="area")[::-1]:
            y, x = record["y"], record["x"]
            inside = 70 < y < 440 and 70 < x < 440
            if inside and all(np.hypot(y - b, x - a) > apart for b, a in map(self.centre, chosen)):
                chosen.append(int(record["id"]))
            if len(chosen) == count:
                return chosen
        raise AssertionError

    def empty(self):
        """A pixel far from all nuclei."""
        from scipy.ndimage import distance_transform_edt

        free = distance_transform_edt(self.labels.data == 0)
        free[:60], free[-60:], free[:, :60], free[:, -60:] = 0, 0, 0, 0
        return tuple(float(k) for k in np.unravel_index(free.argmax(), free.shape))

    def activate(self, layer, mode):
        self.viewer.layers.selection.active = layer
        layer.mode = mode
        self.hand.wait()

    def seen(self, pixel):
        """Bring a pixel to the middle of the canvas and return its colour on the screen."""
        self.hand.see(pixel)
        picture = self.viewer.screenshot(flash=False)
        y, x = (k // 2 for k in picture.shape[:2])
        return picture[y - 1 : y + 2, x - 1 : x + 2, :3].reshape(-1, 3).mean(0)
