import numpy as np
import pytest
import tifffile

from napari_nucseg.errors import NucSegError
from train.readers import detect, open_source
from train.readers.aperio import CROSSING, DEGENERATE, NO_OUTLINE, OUTSIDE, TOO_SMALL, read_pair
from train.readers.canvas import HIDDEN, OVERLAPPING

SQUARE = [(10, 10), (20, 10), (20, 20), (10, 20)]


def xml(*regions, mpp=' MicronsPerPixel="0.252000"', attribute="Description"):
    """A file as ImageScope writes it; regions are corners, or (corners, attributes)."""
    text = [f'<Annotations{mpp}>\n<Annotation Id="1" Name="" Type="4">\n<Attributes>']
    text.append(f'<Attribute Name="{attribute}" Id="0" Value=""/></Attributes>\n<Regions>')
    text.append('<RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region"/></RegionAttributeHeaders>')
    for number, region in enumerate(regions, 1):
        corners, extra = region if isinstance(region, tuple) else (region, 'Type="0" NegativeROA="0"')
        text.append(f'<Region Id="{number}" {extra}><Attributes/><Vertices>')
        text += [f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners]
        text.append("</Vertices></Region>")
    return "\n".join([*text, "</Regions><Plots/></Annotation></Annotations>"])


@pytest.fixture
def pair(tmp_path):
    """Kumar's folders with one image of 60 x 80 pixels."""
    for name in ("Tissue Images", "Annotations"):
        (tmp_path / name).mkdir()
    tifffile.imwrite(tmp_path / "Tissue Images/TCGA-AA-0001-01Z.tif", np.full((60, 80, 3), 200, np.uint8))
    (tmp_path / "Annotations/TCGA-AA-0001-01Z.xml").write_text(xml(SQUARE))
    return tmp_path


def read(root, text):
    path = root / "Annotations/TCGA-AA-0001-01Z.xml"
    path.write_text(text)
    return read_pair(path, root / "Tissue Images/TCGA-AA-0001-01Z.tif")


def test_a_square_covers_exactly_its_pixels(pair):
    assert detect(pair) == "aperio"
    source = open_source(pair)
    assert source.names == ["TCGA-AA-0001-01Z"]
    raw = source.read(source.entries[0])
    expected = np.zeros((60, 80), np.int32)
    expected[10:20, 10:20] = 1
    assert (raw.labels == expected).all()
    assert raw.mpp == 0.252
    assert raw.types is None


def test_overlaps_repeated_corners_and_degenerate_regions(pair):
    repeated = [(15, 15), (15, 15), (25, 15), (25, 25), (25, 25), (15, 25), (15, 15)]
    bow = [(40, 40), (50, 50), (50, 40), (40, 50)]
    raw = read(
        pair,
        xml(
            SQUARE,
            repeated,
            SQUARE,  # a copy
            [(1, 1), (5, 5)],
            [(1, 1), (1, 1), (5, 5), (1, 1)],
            [(30.1, 30.1), (30.3, 30.1), (30.3, 30.3)],
            [(-50, -50), (-40, -50), (-40, -40)],
            [(70, 50), (90, 50), (90, 70), (70, 70)],  # reaches beyond the corner
            bow,
            ([(1, 1), (9, 1), (9, 9)], 'Type="2"'),
            ([(11, 11), (19, 11), (19, 19)], 'Type="0" NegativeROA="1"'),
        ),
    )
    assert np.bincount(raw.labels.ravel())[1:].tolist() == [100, 75, 100, (raw.labels == 4).sum()]
    assert (raw.labels[15:20, 15:20] == 1).all()  # the first keeps what both claim
    assert dict(raw.notes) == {
        NO_OUTLINE: 2, DEGENERATE: 2, OUTSIDE: 1, TOO_SMALL: 1, CROSSING: 1, HIDDEN: 1, OVERLAPPING: 1,
    }  # fmt: skip


def test_the_order_of_the_file_decides_overlaps(pair):
    other = [(15, 15), (25, 15), (25, 25), (15, 25)]
    first, second = read(pair, xml(SQUARE, other)).labels, read(pair, xml(other, SQUARE)).labels
    assert first[17, 17] == 1 == second[17, 17]
    assert first[12, 12] == 1
    assert second[12, 12] == 2


def test_classes_of_layers_and_an_unknown_resolution(pair):
    raw = read(pair, xml(SQUARE, mpp="", attribute="Epithelial"))
    assert raw.classes == ("Epithelial",)
    assert (raw.types[raw.labels > 0] == 1).all()
    assert raw.mpp is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (xml(SQUARE)[:-30], "damaged or no XML"),
        ("<kml></kml>", "begins with <kml>"),
        (xml([(500, 500), (510, 500), (510, 510)]), "of another image"),
    ],
)
def test_bad_files_are_named_in_a_sentence(pair, text, said):
    with pytest.raises(NucSegError, match=said) as caught:
        read(pair, text)
    assert "TCGA-AA-0001-01Z.xml" in str(caught.value)


def test_partners_that_are_missing_are_named(pair):
    (pair / "Annotations/lost.xml").write_text(xml(SQUARE))
    tifffile.imwrite(pair / "Tissue Images/alone.tif", np.zeros((60, 80, 3), np.uint8))
    for dropping in ("Annotations/._TCGA-AA-0001-01Z.xml", "Tissue Images/._TCGA-AA-0001-01Z.tif"):
        (pair / dropping).write_bytes(b"<Annotations> of a file manager")
    source = open_source(pair)
    assert source.names == ["TCGA-AA-0001-01Z"]
    assert "lost.xml' has no image" in source.problems[0]
    assert "alone.tif" in source.remarks[0]


def test_an_image_cut_short_is_named(pair):
    image = pair / "Tissue Images/TCGA-AA-0001-01Z.tif"
    image.write_bytes(image.read_bytes()[:2000])
    source = open_source(pair)
    with pytest.raises(NucSegError, match=r"TCGA-AA-0001-01Z\.tif is truncated"):
        source.read(source.entries[0])


def test_the_published_pair_has_every_region_with_its_stated_area(shared):
    from xml.etree import ElementTree

    folder = shared / "data/raw/monuseg"
    source = open_source(folder)
    raw = source.read(source.entries[0])
    xml_path = next(folder.glob("*.xml"))
    regions = list(ElementTree.parse(xml_path).getroot().iter("Region"))
    assert raw.labels.max() == len(regions) == 441
    assert raw.labels.shape == raw.image.shape[:2] == (1000, 1000)
    assert raw.mpp == 0.252
    stated = np.array([float(r.get("Area")) for r in regions])
    painted = np.bincount(raw.labels.ravel())[1:]
    assert np.median(np.abs(painted - stated) / stated) < 0.01
    assert (painted <= stated * 1.05 + 5).all()  # overlaps only take away
    # nuclei are dark in red light: a shift by two pixels in any direction fits worse
    red, inside = raw.image[9:-9, 9:-9, 0].ravel().astype(float), raw.labels > 0
    shifts = ((0, 0), (0, 2), (0, -2), (2, 0), (-2, 0))
    fit = [np.corrcoef(red, np.roll(inside, s, (0, 1))[9:-9, 9:-9].ravel())[0, 1] for s in shifts]
    assert int(np.argmin(fit)) == 0
