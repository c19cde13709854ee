import pytest

from napari_nucseg.core.maps import MapLayout
from napari_nucseg.errors import NucSegError


def test_channels_are_disjoint_and_complete():
    layout = MapLayout(angles=(0, 45, 90, 135), n_classes=3)
    parts = [layout.foreground, layout.distance, layout.centre, layout.boundary, layout.type]
    taken = [c for part in parts for c in range(part.start, part.stop)]
    assert taken == list(range(layout.channels))
    assert len(layout.names()) == layout.channels
    assert layout.names()[layout.centre.start] == "centre"
    assert layout.names()[layout.type.start] == "type_background"


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"angles": ()}, "at least one"),
        ({"angles": (0, 0)}, "distinct"),
        ({"angles": (30,)}, "30"),
        ({"n_classes": 0}, "0"),
    ],
)
def test_impossible_layouts_are_refused(kwargs, says):
    with pytest.raises(NucSegError, match=says):
        MapLayout(**kwargs)
