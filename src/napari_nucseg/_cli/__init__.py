"""The work behind the commands of `napari_nucseg.cli`, which alone prints."""
