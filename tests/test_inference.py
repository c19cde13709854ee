"""The pipeline from image to labels and table, with a small deterministic network in place of the student."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_nucseg as nn
from napari_nucseg import inference
from napari_nucseg.core.decode import DecodeConfig, compress, decode
from napari_nucseg.core.metrics import panoptic_quality
from napari_nucseg.core.tiling import Box
from napari_nucseg.core.tissue import TissueMask
from napari_nucseg.inference import Region, collect, make_plan, predict_window, run, run_tiles
from tests.fakes import CLASSES, FakeRuntime, fake_card


def segment(image, mpp=0.25, region=None, card=None, **kwargs):
    plan = make_plan(image, FakeRuntime(), card or fake_card(), mpp=mpp, region=region, **kwargs)
    result = collect(run(plan), plan)
    return result.labels, result.nuclei


def same_partition(a, b):
    """Whether two label maps are equal up to renumbering."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == pairs.shape[1] == len(np.unique(pairs[1]))


@pytest.fixture(scope="module")
def big(synthetic):
    """700 x 900 pixels of nuclei, so that several tiles are needed."""
    return np.tile(synthetic.image, (2, 2, 1))[:700, :900]


def test_labels_and_table_agree(synthetic):
    labels, nuclei = segment(synthetic.image)
    assert panoptic_quality(synthetic.labels, labels).dq > 0.3  # the fake network is crude
    assert labels.dtype == np.uint32
    assert nuclei["id"].dtype == np.uint32
    np.testing.assert_array_equal(np.unique(labels[labels > 0]), np.sort(nuclei["id"]))
    rows, cols = (np.floor(nuclei[c] + 0.5).astype(int) for c in ("centre_y", "centre_x"))
    np.testing.assert_array_equal(labels[rows, cols], nuclei["id"])
    counts = np.bincount(labels.ravel())[nuclei["id"]]
    np.testing.assert_allclose(nuclei["area_um2"], counts * 0.0625)
    assert set(nuclei["class"]) <= set(CLASSES)
    probabilities = nuclei[[f"prob_{c}" for c in CLASSES]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (np.array(CLASSES)[probabilities.argmax(1)] == nuclei["class"]).all()
    assert list(nuclei.columns) == [
        "id", "centre_y", "centre_x", "class", "score", *(f"prob_{c}" for c in CLASSES),
        "area_um2", "perimeter_um", "eccentricity", "solidity", "mean_haematoxylin",
    ]  # fmt: skip


@pytest.mark.parametrize(("tile", "block"), [(64, 300), (100, 9000), (256, 512), (320, 9000), (512, 300)])
def test_tiles_and_blocks_of_any_size_give_what_the_whole_gives(big, monkeypatch, tile, block):
    whole, whole_table = segment(big)
    monkeypatch.setattr(inference, "BLOCK", block)
    tiled, table = segment(big, tile=tile)
    plan = make_plan(big, FakeRuntime(), fake_card(), mpp=0.25, tile=tile)
    assert len(plan.tiles) > 1
    assert (len(plan.blocks) > 1) == (block < 700)
    assert same_partition(whole, tiled)
    columns = [c for c in table.columns if c not in ("id", "class")]
    key = ["centre_y", "centre_x"]
    a, b = (t.sort_values(key)[columns].to_numpy(float) for t in (whole_table, table))
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_region_gives_the_nuclei_of_the_whole_that_are_centred_in_it(big):
    labels, nuclei = segment(big, tile=256)
    box = Box(100, 350, 420, 780)
    part, found = segment(big, region=Region(box), tile=200)
    wanted = nuclei[nuclei["centre_y"].between(99.5, 349.4) & nuclei["centre_x"].between(419.5, 779.4)]
    assert len(found) == len(wanted) > 20
    assert same_partition(np.where(np.isin(labels, wanted["id"]), labels, 0), part)
    triangle = np.array([[100.0, 420.0], [350.0, 420.0], [350.0, 780.0]])
    corner = Region.from_polygons([triangle], big.shape[:2])
    _, third = segment(big, region=corner)
    assert 0 < len(third) < len(found)
    assert set(zip(third["centre_y"], third["centre_x"], strict=True)) <= set(
        zip(found["centre_y"], found["centre_x"], strict=True)
    )


def test_a_region_off_the_image_is_refused_and_one_across_its_border_is_cut(synthetic):
    with pytest.raises(nn.NucSegError, match="outside the image"):
        segment(synthetic.image, region=Region(nn.Box(5000, 6000, 0, 10)))
    _, whole = segment(synthetic.image)
    _, across = segment(synthetic.image, region=Region(nn.Box(-100, 5000, -7, 600)))
    assert len(across) == len(whole)


def test_the_mpp_decides_the_scale(synthetic):
    """The same pixels at half the resolution stated are nuclei twice as large, four times in area."""
    fine = segment(synthetic.image, mpp=0.25)[1]
    plan = make_plan(synthetic.image, FakeRuntime(), fake_card(), mpp=0.5)
    assert plan.image.shape == (1024, 1024)
    coarse_labels, coarse = segment(synthetic.image, mpp=0.5)
    assert coarse_labels.shape == synthetic.labels.shape
    assert coarse["centre_y"].between(-0.5, 511.5).all()
    ids = np.unique(coarse_labels[coarse_labels > 0])
    np.testing.assert_array_equal(ids, np.sort(coarse["id"]))
    areas = np.bincount(coarse_labels.ravel())[coarse["id"]]
    np.testing.assert_allclose(coarse["area_um2"], areas * 0.25)
    assert len(fine) > 0


def test_an_image_of_unknown_resolution_is_refused(synthetic):
    with pytest.raises(nn.NucSegError, match="--mpp"):
        make_plan(synthetic.image, FakeRuntime(), fake_card())


def test_closing_the_generator_stops_the_network(big):
    runtime = FakeRuntime()
    plan = make_plan(big, runtime, fake_card(), mpp=0.25, tile=128)
    tiles = run(plan)
    first = next(tiles)
    assert (first.done, first.total) == (1, len(plan.tiles))
    tiles.close()
    assert runtime.windows < plan.window_count


def test_ids_count_up_and_the_run_is_deterministic(big):
    first, table = segment(big, tile=256)
    second, again = segment(big, tile=256)
    np.testing.assert_array_equal(first, second)
    assert table.equals(again)
    assert table["id"].tolist() == list(range(1, len(table) + 1))


@pytest.mark.parametrize("shape", [(17, 23), (33, 400), (64, 64)])
def test_small_images_and_images_without_nuclei(shape):
    labels, nuclei = segment(np.full((*shape, 3), 240, np.uint8))
    assert labels.shape == shape
    assert labels.max() == 0
    assert len(nuclei) == 0
    assert "class" in nuclei.columns


def test_an_error_in_the_network_reaches_the_caller(big):
    class Broken(FakeRuntime):
        def __call__(self, rgb):
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        list(run(make_plan(big, Broken(), fake_card(), mpp=0.25)))


def test_an_error_while_reading_reaches_the_caller(big):
    class Vanishing(type(nn.inference.as_source(big, 0.25))):
        def read(self, *args):
            raise nn.NucSegError("the file vanished")

    with pytest.raises(nn.NucSegError, match="vanished"):
        list(run(make_plan(Vanishing([big]), FakeRuntime(), fake_card(), mpp=0.25)))


def test_nuclei_too_small_for_a_coarse_level_0_are_left_out_of_labels_and_table_alike():
    """At 4 um per pixel a network pixel of 0.25 um falls between the pixels of level 0."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    config = DecodeConfig(spacing=1, support=1, centre=0.05, max_cost=8)
    plan = make_plan(noise, FakeRuntime(), fake_card(), mpp=4.0, config=config)
    fields = predict_window(plan.image.read(plan.grid.owned((0, 0))), plan.runtime, plan.card)
    labels, nuclei = segment(noise, mpp=4.0, config=config)
    found = len(decode(fields, config).centres)
    assert set(nuclei["id"]) == set(np.unique(labels)) - {0}
    assert 0 < len(nuclei) < found
    assert (nuclei["area_um2"] >= 16).all()


def test_any_tiles_of_a_block_come_out_as_in_the_whole_run(big):
    """What a run that was interrupted, or that leaves glass out, still has to do: tiles here and there."""
    plan = make_plan(big, FakeRuntime(), fake_card(), mpp=0.25, tile=128)
    (block,) = plan.blocks
    everything = {tile.index: tile for tile in run_tiles(plan, block)}
    rng = np.random.default_rng(0)
    for share in (0.1, 0.4, 0.8):
        some = [index for index in block if rng.random() < share]
        for tile in run_tiles(plan, some):
            known = everything[tile.index]
            assert tile.box == known.box
            np.testing.assert_array_equal(tile.labels, known.labels)
            assert tile.nuclei.equals(known.nuclei)
            some.remove(tile.index)
        assert not some


def test_every_nucleus_of_a_tile_is_whole_and_none_is_in_two(big):
    plan = make_plan(big, FakeRuntime(), fake_card(), mpp=0.25, tile=128)
    canvas, areas = np.zeros(big.shape[:2], np.uint32), 0
    for tile in run_tiles(plan, plan.tiles):
        inside = tile.labels > 0
        assert not (canvas[tile.box.slices][inside]).any()
        labels, nuclei = tile.numbered(7)
        assert nuclei["id"].tolist() == list(range(7, 7 + len(nuclei)))
        np.testing.assert_array_equal(labels > 0, inside)
        canvas[tile.box.slices][inside] = 1
        areas += inside.sum()
    assert areas == canvas.sum() > 10_000


def test_of_tissue_only_nuclei_centred_in_it_are_kept_whatever_the_tiles(big):
    mask = np.zeros((7, 9), bool)
    mask[2:4, 3:6] = True
    tissue = TissueMask(mask, big.shape[:2], (100.0, 100.0))
    whole, table = segment(big)
    tiled = [segment(big, tissue=tissue, tile=tile) for tile in (100, 256, 2000)]
    wanted = table[tissue.holds(table[["centre_y", "centre_x"]].to_numpy())]
    assert 5 < len(wanted) < len(table)
    for labels, nuclei in tiled:
        assert len(nuclei) == len(wanted)
        assert same_partition(np.where(np.isin(whole, wanted["id"]), whole, 0), labels)
    few = make_plan(big, FakeRuntime(), fake_card(), mpp=0.25, tile=100, tissue=tissue)
    assert 0 < len(few.tiles) < 20


@settings(deadline=None)
@given(st.integers(16, 300), st.integers(16, 90), st.floats(0.3, 1.2), st.integers(64, 200), st.data())
def test_no_tile_is_left_out_that_may_own_a_nucleus_in_tissue(height, width, mpp, tile, data):
    """Also where level 0 is coarser than the model, and a tile's last pixel lies in one that is the next tile's."""
    image = np.zeros((height, width, 3), np.uint8)
    whole = make_plan(image, FakeRuntime(), fake_card(), mpp=mpp, tile=tile)
    index = data.draw(st.sampled_from(whole.tiles))
    owned = whole.grid.owned(index)
    corner = data.draw(st.sampled_from([(owned.y0, owned.x0), (owned.y1 - 1, owned.x1 - 1)]))
    mask = np.zeros((height, width), bool)
    row, col = np.floor(whole.image.scale.to_level0(np.array([corner])) + 0.5).astype(int)[0]
    mask[row, col] = True
    tissue = TissueMask(mask, mask.shape, (1.0, 1.0))
    plan = make_plan(image, FakeRuntime(), fake_card(), mpp=mpp, tile=tile, tissue=tissue)
    assert index in plan.tiles


def test_where_there_is_no_tissue_there_are_no_nuclei(synthetic):
    tissue = TissueMask(np.zeros((4, 4), bool), synthetic.image.shape[:2], (128.0, 128.0))
    plan = make_plan(synthetic.image, FakeRuntime(), fake_card(), mpp=0.25, tissue=tissue)
    result = collect(run(plan), plan)
    assert (len(plan.tiles), len(result.nuclei), result.labels.max()) == (0, 0, 0)
    full = segment(synthetic.image)[1]
    assert list(result.nuclei.columns) == list(full.columns)
    kinds = result.nuclei.dtypes == full.dtypes
    assert kinds.drop("class").all()


@pytest.mark.parametrize("side", [544, 541])
def test_the_network_is_laid_out_for_the_shape_of_most_windows(big, side):
    """Also where the image ends between two strides, and windows at its edge are mirrored up to the next."""

    class Laid(FakeRuntime):
        lanes, shapes = 2, ()

        def expect(self, shape):
            self.shapes = (*self.shapes, shape)

        def fields(self, rgb, part):
            return compress(self(rgb), fake_card().layout).crop(*part.slices)

    runtime = Laid()
    tall = np.tile(big, (2, 1, 1))[:1100, :side]
    plan = make_plan(tall, runtime, fake_card(), mpp=0.25, tile=200)
    few = make_plan(tall, runtime, fake_card(), mpp=0.25)
    result = collect(run(plan), plan)
    whole = collect(run(few), few)
    assert runtime.shapes == (plan.grid.window_shape, None)
    assert same_partition(whole.labels, result.labels)


def test_a_tile_too_small_is_refused(synthetic):
    with pytest.raises(nn.NucSegError, match="tile of 8 pixels"):
        make_plan(synthetic.image, FakeRuntime(), fake_card(), mpp=0.25, tile=8)
