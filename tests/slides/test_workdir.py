"""What an earlier run has left in the working folder of a slide."""

from __future__ import annotations

from napari_nucseg.slides.workdir import WorkFolder, tiles_kept


def test_tiles_of_an_earlier_run_are_counted_those_of_other_settings_apart(tmp_path):
    stem = "a[1] slide"
    assert tiles_kept(tmp_path / "none", stem) == 0
    with WorkFolder(tmp_path, stem) as work:
        assert tiles_kept(tmp_path, stem) == 0
        for settings, count in (("one", 2), ("other", 3)):
            for k in range(count):
                store = work.tiles(settings)
                store.write(store.path((0, k)), b"tile")
            store.describe({"settings": settings})  # is no tile
    assert tiles_kept(tmp_path, stem) == 3
    assert tiles_kept(tmp_path, "a") == 0
    with WorkFolder(tmp_path, stem) as work:
        work.finish()
    assert tiles_kept(tmp_path, stem) == 0
