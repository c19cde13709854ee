"""Orientations form the group of the square, and turn distance maps as the image was turned."""

import numpy as np
import pytest
import torch

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.core.targets import make_targets
from napari_nucseg.errors import NucSegError
from train.orient import ALL, Orientation, orientations

LAYOUTS = [
    MapLayout((0, 90), 2),
    MapLayout((0, 45, 90, 135), 2),
    MapLayout((90, 0), 1),
    MapLayout((45, 135), 1),
]


def discs(size=96):
    """Labels of nuclei symmetric about a centre between pixels, so that every orientation has alike targets."""
    rows, cols = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.int32)
    for k, (row, col, radius) in enumerate(((20.5, 30.5, 9), (60.5, 25.5, 14), (50.5, 70.5, 11)), 1):
        labels[(rows - row) ** 2 + (cols - col) ** 2 < radius**2] = k
    return labels


def test_eight_different_orientations_and_their_ways_back():
    image = torch.arange(12).view(1, 1, 3, 4)
    seen = set()
    for o in ALL:
        turned = o.turn(image)
        assert turned.shape[2:] == ((4, 3) if o.transpose else (3, 4))
        assert torch.equal(o.undo(turned), image)
        assert np.array_equal(o.turn_array(image[0, 0].numpy()), turned[0, 0].numpy())
        seen.add((turned.shape, tuple(turned.flatten().tolist())))
    assert len(seen) == 8
    assert torch.equal(ALL[0].turn(image), image)
    colour = np.arange(24).reshape(2, 4, 3)
    assert ALL[7].turn_array(colour)[0, 0].tolist() == colour[-1, -1].tolist()


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda lay: str(lay.angles))
def test_maps_come_back(layout):
    maps = torch.randn(2, layout.channels, 5, 7)
    assert len(orientations(layout)) == 8
    for o in ALL:
        assert torch.equal(o.undo_maps(o.turn_maps(maps, layout), layout), maps)
        assert torch.equal(o.turn_maps(o.undo_maps(maps, layout), layout), maps)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda lay: str(lay.angles))
@pytest.mark.parametrize("number", range(8))
def test_turned_distance_targets_are_those_of_the_turned_labels(layout, number):
    """Up to the origin of the published targets: a pixel before the centroid, which a flip makes a pixel behind."""
    labels, o = discs(), ALL[number]

    def target(labels):
        distance = torch.from_numpy(make_targets(labels, None, layout).distance)
        stack = torch.zeros(1, layout.channels, *labels.shape)
        stack[0, layout.distance] = distance
        return stack

    turned, wanted = o.turn_maps(target(labels), layout), target(np.ascontiguousarray(o.turn_array(labels)))
    inside = torch.from_numpy(np.ascontiguousarray(o.turn_array(labels)) > 0)
    gap = (turned - wanted)[0, layout.distance][:, inside].abs()
    assert gap.max() < 0.35  # a wrong sign or channel differs by up to 2
    assert gap.mean() < 0.15
    right = torch.corrcoef(
        torch.stack([turned[0, layout.distance].flatten(), wanted[0, layout.distance].flatten()])
    )
    assert right[0, 1] > 0.97


def test_angles_that_do_not_close_have_fewer_orientations():
    assert orientations(MapLayout((0,))) == tuple(o for o in ALL if not o.transpose)
    diagonal = orientations(MapLayout((45,)))
    assert len(diagonal) == 4
    assert Orientation(transpose=True) in diagonal
    assert len(orientations(MapLayout((0, 45)))) == 2  # as it is, and turned by 180 degrees
    with pytest.raises(NucSegError, match="45"):
        Orientation(flip_rows=True).turn_maps(torch.zeros(1, 12, 4, 4), MapLayout((0, 45)))
